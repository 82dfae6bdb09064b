//! The only door to the outside: clock, timers, sockets, lookups of names, tasks, random numbers.
//!
//! What is asked for here goes to the system ([`os`](crate::os)) or, if one is on, to a simulation
//! ([`sim`](crate::sim)): backend.rs and udp.rs decide, call by call. Sockets are polled for
//! readiness directly and read or written without waiting; nothing here blocks but [`block_on`] and
//! [`drive`].
//!
//! # Examples
//! ```
//! use std::time::Duration;
//!
//! use node_lua::rt;
//!
//! let before = rt::now();
//! rt::block_on(rt::sleep(Duration::from_millis(1)));
//! assert!(rt::now() - before >= 1_000_000);
//! ```

mod backend;
mod udp;

pub use backend::{
    Listener, Stream, Timer, block_on, choose, cut_after, drive, is_simulated, now, poll_sockets,
    random_words, remove_socket_file, resolve, secret, sleep, spawn, wait_for_sockets, wall_clock,
    watch_sockets,
};
pub use udp::UdpSocket;
