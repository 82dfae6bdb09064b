//! What all contexts of a process share.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::context::Limits;

/// Limits for contexts, and whether the main script has failed.
#[derive(Debug, Default)]
pub struct Settings {
    /// What a context may use, unless it was created with other limits.
    pub limits: Limits,
    failed: AtomicBool,
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
