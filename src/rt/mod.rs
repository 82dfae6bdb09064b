//! The only door to the outside: clock, timers, sockets, name look-ups, tasks, random numbers.
//!
//! Everything async-std or its reactor (async-io) provides is named in this folder and nowhere
//! else, so that replacing the runtime edits one place. Sockets are polled for readiness directly
//! and read or written without waiting; nothing here blocks but [`block_on`] and [`drive`].
//!
//! What is offered goes to the system (runtime.rs, epoll.rs, socket.rs) or, if one is on, to a
//! simulation (simulation/): backend.rs decides, call by call.

mod backend;

pub use backend::{
    Listener, Stream, Timer, block_on, choose, cut_after, drive, is_simulated, now, poll_sockets,
    random_words, remove_socket_file, resolve, secret, sleep, spawn, wait_for_sockets, wall_clock,
    watch_sockets,
};
