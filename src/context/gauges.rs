//! What a context may use, and what it has used.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// What a context may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Messages its mailbox holds.
    pub mailbox: usize,
    /// CPU time of one turn.
    pub turn: Option<Duration>,
    /// Bytes of its VM, and those it holds in buffers; 0 for no limit.
    pub memory: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { mailbox: 65_536, turn: None, memory: 0 }
    }
}

/// What a context has used; written by the thread that runs it, and by the watchdog.
#[derive(Debug, Default)]
pub struct Gauges {
    /// Turns begun.
    pub turns: AtomicU64,
    cpu_nanoseconds: AtomicU64,
}

impl Gauges {
    /// The CPU time used.
    pub fn cpu(&self) -> Duration {
        Duration::from_nanos(self.cpu_nanoseconds.load(Ordering::Relaxed))
    }

    /// Adds CPU time.
    pub(super) fn add_cpu(&self, time: Duration) {
        self.cpu_nanoseconds.fetch_add(time.as_nanos() as u64, Ordering::Relaxed);
    }
}
