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
mod late;
mod mailbox;
#[cfg(all(test, feature = "loom"))]
mod models;
pub mod names;
mod places;
mod registry;
mod scheduler;
mod slot;
mod spin;
pub mod topics;
mod trim;
mod waker;
mod watch;
mod watchdog;
mod worker;

pub use behavior::{Behavior, End, Outcome};
pub use endings::Endings;
pub use gauges::{Gauges, Limits};
pub use mailbox::{Context, Label, Refused};
pub use registry::Registry;
pub use scheduler::Scheduler;
pub use waker::ReadyWaker;
pub use watch::{interrupt_soon, refuse_cut, set_cut, set_interrupt};
