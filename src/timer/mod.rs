//! Deadlines.

mod heap;
pub mod queue;
mod wheel;

pub use queue::{TimerId, TimerQueue};
