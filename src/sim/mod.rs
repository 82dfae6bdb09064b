//! A simulated outside: virtual time, an in-memory network, tasks, and chance, all from one seed.
//!
//! While a simulation is on, everything that [`crate::rt`] offers is answered from here. A run is
//! then one thread that takes one step after the other: a turn of a context, an event of the
//! network, a timer. Which comes next, and when, follows from the seed alone; time passes a little
//! with each turn, and jumps to the next event when nothing can run.
//!
//! Deliberately not simulated: files, processes, and whatever else a script does by itself.
//!
//! # Examples
//! ```standalone_crate
//! use std::time::Duration;
//!
//! use node_lua::{rt, sim};
//!
//! let on_stall = Box::new(|| ());
//! sim::start(sim::Config { seed: 7, faults: 0.0, cuts: 0.0, on_stall });
//! rt::block_on(rt::sleep(Duration::from_secs(3600)));
//! assert!(rt::now() >= 3600 * 1_000_000_000); // at once
//! ```

mod faults;
mod network;
mod pipe;
mod random;
mod socket;
mod tasks;
#[cfg(test)]
mod tests;
mod udp;
mod world;

pub(super) use socket::{Listener, Stream, remove_file};
pub(super) use tasks::{Timer, block_on, drive, poll, resolve, sleep, spawn};
pub(super) use udp::UdpSocket;
pub(super) use world::{choose, cut_after, now, random_words, secret, wall_clock};

pub use world::{Config, OnStall, Report, is_on, report, start};
