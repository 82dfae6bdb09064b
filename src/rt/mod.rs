//! The only door to the outside: clock, timers, sockets, name look-ups, tasks, random numbers.
//!
//! Everything async-std or its reactor (async-io) provides is named in this folder and nowhere
//! else, so that replacing the runtime, or simulating it, edits one place. Sockets are polled for
//! readiness directly and read or written without waiting; nothing here blocks but [`block_on`]
//! and [`drive`].

mod poller;
mod runtime;
mod socket;

pub use poller::{drive, poll_sockets, watch_sockets};
pub use runtime::{
    Timer, block_on, init, now, random_seed, resolve, sleep, spawn, termination_signals,
};
pub use socket::{Address, Listener, Stream, unix_address};
