//! Contexts: who runs, and when.
//!
//! A [`Context`] is an address with a bounded mailbox and a [`Behavior`]; the [`Scheduler`] gives
//! it turns. What a behavior does with its turn is not known here: the VM implements the trait, and
//! the tests of this layer use plain Rust.

mod behavior;
mod endings;
mod gauges;
mod idle;
mod ids;
mod mailbox;
#[cfg(all(test, feature = "loom"))]
mod models;
pub mod names;
mod pause;
mod places;
mod registry;
mod scheduler;
mod sentinel;
mod slot;
mod spin;
mod suspects;
pub mod topics;
mod trim;
mod watchdog;
mod worker;

pub use behavior::{Behavior, End, Outcome};
pub use endings::Endings;
pub use gauges::{Gauges, Limits};
pub use mailbox::{Context, Label, ReadyWaker, Refused};
pub use pause::{pause, set_ask_pause};
pub use registry::Registry;
pub use scheduler::Scheduler;
pub use watchdog::{interrupt_soon, set_interrupt};
