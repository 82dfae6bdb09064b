//! The system: sockets, readiness, threads, signals, standard output. The async runtime is named
//! here alone.
//!
//! # Examples
//! ```
//! use node_lua::os::{Signal, thread};
//!
//! assert_eq!((Signal::Term.name(), Signal::Term.exit_status()), ("TERM", Some(143)));
//! assert!(thread::has_stack());
//! ```

#![allow(unsafe_code, reason = "so is the system")]

pub mod chance;
pub(crate) mod clock;
pub mod current;
pub mod descriptors;
pub(crate) mod epoll;
pub(crate) mod errno;
pub mod exit;
pub mod memory;
pub(crate) mod resolve;
pub(crate) mod runtime;
pub mod signal;
pub(crate) mod socket;
pub mod stdio;
pub mod thread;
pub(crate) mod udp;

pub use chance::fix_addresses;
pub use descriptors::{restore_descriptor_limit, usual_descriptor_limit};
pub use epoll::has_sockets;
pub use runtime::init;
pub use signal::{Signal, on_signal};
pub use socket::{Address, Keepalive, unix_address};
pub use udp::{Arrival, DATAGRAMS_MAX, Departure, Interface, UdpOption};
