//! The workers that wait for work, and those that were woken to look for some.
//!
//! A worker that finds nothing enters the list, looks again, and sleeps; whoever queues work looks
//! at the list afterwards. So one of the two sees the other. How a worker sleeps and is woken is
//! not known here.

use std::sync::PoisonError;

use crate::sync::atomic::{AtomicUsize, Ordering, fence};
use crate::sync::{Mutex, MutexGuard};

/// Who waits, and who searches.
#[derive(Debug)]
pub(super) struct Idle {
    /// Workers that wait, and how many they are (so that nobody need lock to find none).
    workers: Mutex<Vec<usize>>,
    count: AtomicUsize,
    /// Woken workers that have not found work yet: while there is one, nobody else is woken.
    searching: AtomicUsize,
}

impl Idle {
    pub(super) fn new() -> Idle {
        Idle {
            workers: Mutex::new(Vec::new()),
            count: AtomicUsize::new(0),
            searching: AtomicUsize::new(0),
        }
    }

    fn workers(&self) -> MutexGuard<'_, Vec<usize>> {
        self.workers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a worker seems to wait.
    pub(super) fn may_have(&self) -> bool {
        self.count.load(Ordering::Relaxed) > 0
    }

    /// How many wait.
    pub(super) fn count(&self) -> usize {
        self.count.load(Ordering::SeqCst)
    }

    /// Those that wait.
    pub(super) fn list(&self) -> Vec<usize> {
        self.workers().clone()
    }

    /// Takes a worker that is to be woken off the list, after work was queued; it counts as
    /// searching. None if nobody waits, or somebody searches already.
    pub(super) fn take(&self) -> Option<usize> {
        // Pairs with the fence in `rest`: either we see the idle worker, or it sees what was queued
        // before this call.
        fence(Ordering::SeqCst);
        if self.count.load(Ordering::Relaxed) == 0 || self.searching.load(Ordering::Relaxed) > 0 {
            return None;
        }
        let mut workers = self.workers();
        let woken = workers.pop()?;
        self.count.fetch_sub(1, Ordering::SeqCst);
        self.searching.fetch_add(1, Ordering::SeqCst);
        Some(woken)
    }

    /// Enters a worker that found nothing; whether there is work now. In any case it is on the list
    /// until it, or somebody else, takes it off.
    pub(super) fn rest(&self, worker: usize, has_work: impl FnOnce() -> bool) -> bool {
        self.workers().push(worker);
        self.count.fetch_add(1, Ordering::SeqCst);
        // Pairs with the fence in `take`.
        fence(Ordering::SeqCst);
        has_work()
    }

    /// Takes a worker off the list. False if somebody has woken it, and counts it as searching.
    pub(super) fn leave(&self, worker: usize) -> bool {
        let mut workers = self.workers();
        let position = workers.iter().position(|&other| other == worker);
        if let Some(position) = position {
            workers.swap_remove(position);
            self.count.fetch_sub(1, Ordering::SeqCst);
        }
        position.is_some()
    }

    /// Ends the search of a woken worker; true if it was the last one searching.
    pub(super) fn stop_searching(&self) -> bool {
        self.searching.fetch_sub(1, Ordering::SeqCst) == 1
    }
}
