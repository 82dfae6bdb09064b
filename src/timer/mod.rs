//! Deadlines.

pub mod heap;

pub use heap::{TimerHeap, TimerId};
