//! What all contexts of a process share.

use std::sync::atomic::{AtomicBool, Ordering};

/// Messages a mailbox holds, unless set otherwise.
const MAILBOX_MAX: usize = 65_536;

/// Limits for contexts, and whether the main script has failed.
#[derive(Debug)]
pub struct Settings {
    /// Messages a mailbox holds.
    pub mailbox_max: usize,
    failed: AtomicBool,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings { mailbox_max: MAILBOX_MAX, failed: AtomicBool::new(false) }
    }
}

impl Settings {
    /// Notes that the main script has failed.
    pub fn fail(&self) {
        self.failed.store(true, Ordering::Release);
    }

    /// Whether the main script has failed.
    pub fn has_failed(&self) -> bool {
        self.failed.load(Ordering::Acquire)
    }
}
