//! Contexts: who runs, and when.
//!
//! A [`Context`] is an address with a bounded mailbox and a [`Program`]; the [`Scheduler`] gives
//! it turns. What a program does with its turn is not known here: the VM implements the trait, and
//! the tests of this layer use plain Rust.

mod affinity;
mod cluster;
mod context;
mod exits;
mod fair;
mod idle;
mod label;
mod late;
mod local;
mod metrics;
#[cfg(all(test, feature = "loom"))]
mod models;
pub mod names;
mod newcomers;
mod parked;
pub(crate) mod process;
mod program;
mod registry;
mod scheduler;
mod slot;
mod spin;
mod supply;
mod together;
pub mod topics;
mod trim;
mod waker;
mod watch;
mod watchdog;
mod worker;

pub use cluster::Cluster;
pub use context::{Context, Refused};
pub use exits::Exits;
pub use label::Label;
pub use metrics::{Limits, Metrics};
pub use process::Process;
pub(crate) use process::{is_statement_broken, set_statement};
pub use program::{End, Outcome, Program};
pub use registry::Registry;
pub use scheduler::Scheduler;
pub use together::run_together;
pub use waker::ReadyWaker;
pub use watch::{interrupt_soon, is_interrupted, refuse_cut, set_cut, set_interrupt};
