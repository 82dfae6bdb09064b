//! Locks and atomics of the structures that threads share: those of the standard library, or, with
//! the feature `loom`, those of loom, which tries every interleaving of the models in
//! `src/sched/models.rs`. With that feature nothing else runs.

#[cfg(not(feature = "loom"))]
pub(crate) use std::sync::{Mutex, MutexGuard, atomic};

#[cfg(feature = "loom")]
pub(crate) use loom::sync::{Mutex, MutexGuard, atomic};
