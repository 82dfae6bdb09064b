//! What all contexts of a process share.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::sched::{Limits, Process};

/// Limits for contexts, and whether the main script has failed.
#[derive(Debug, Default)]
pub struct Settings {
    /// What a context may use, unless it was created with other limits.
    pub limits: Limits,
    /// What is set in the VM of every context but the first, which has it from its command line:
    /// `-j` and `-O`, each with what follows it.
    pub compiler: Vec<(u8, Vec<u8>)>,
    /// `-E`, for C modules and `debug.getregistry` to see.
    pub ignores_environment: bool,
    /// Signals, and the end of the process.
    pub process: Arc<Process>,
    failed: AtomicBool,
}

impl Settings {
    /// Notes that the main script has failed.
    pub fn fail(&self) {
        self.failed.store(true, Ordering::Release);
    }

    /// The exit status of the process.
    pub fn status(&self) -> u8 {
        self.process.status().unwrap_or(u8::from(self.failed.load(Ordering::Acquire)))
    }
}
