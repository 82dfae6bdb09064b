//! The workers that wait for work, and those that were woken to look for some.
//!
//! A worker that finds no work enters the list, looks for work again, and sleeps; whoever queues
//! work looks at the list afterwards. So one of them sees the other. How a worker sleeps and is
//! woken is not this module's business.

use std::sync::PoisonError;

use crate::sync::atomic::{AtomicUsize, Ordering, fence};
use crate::sync::{Mutex, MutexGuard};

/// The idle workers, and how many of the woken ones search.
#[derive(Debug)]
pub(super) struct Idle {
    lists: Mutex<Lists>,
    /// The length of the list, so that nobody need lock to find it empty.
    count: AtomicUsize,
    /// Woken workers that have not found work yet: while there is one, nobody else is woken.
    searching: AtomicUsize,
}

#[derive(Debug, Default)]
struct Lists {
    waiting: Vec<usize>,
    /// Workers woken for contexts bound to them, and not awake yet: these do not count as
    /// searching.
    called: Vec<usize>,
}

/// Takes a worker off a list; false if it is not there.
fn remove(list: &mut Vec<usize>, worker: usize) -> bool {
    let position = list.iter().position(|&other| other == worker);
    position.map(|position| list.swap_remove(position)).is_some()
}

impl Idle {
    pub(super) fn new() -> Idle {
        Idle {
            lists: Mutex::new(Lists::default()),
            count: AtomicUsize::new(0),
            searching: AtomicUsize::new(0),
        }
    }

    fn lists(&self) -> MutexGuard<'_, Lists> {
        self.lists.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a worker seems to wait.
    pub(super) fn may_have(&self) -> bool {
        self.count.load(Ordering::Relaxed) > 0
    }

    /// How many wait.
    pub(super) fn count(&self) -> usize {
        self.count.load(Ordering::SeqCst)
    }

    /// Whether a woken worker is looking for work.
    pub(super) fn is_searched(&self) -> bool {
        self.searching.load(Ordering::Relaxed) > 0
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
        let mut lists = self.lists();
        let woken = lists.waiting.pop()?;
        self.count.fetch_sub(1, Ordering::SeqCst);
        self.searching.fetch_add(1, Ordering::SeqCst);
        Some(woken)
    }

    /// Takes this very worker off the list if it waits: it is to be woken, after something was
    /// queued that only it may run. False if it is awake.
    pub(super) fn call(&self, worker: usize) -> bool {
        // Pairs with the fence in `rest`, as in `take`.
        fence(Ordering::SeqCst);
        if self.count.load(Ordering::Relaxed) == 0 {
            return false;
        }
        let mut lists = self.lists();
        let waits = remove(&mut lists.waiting, worker);
        if waits {
            self.count.fetch_sub(1, Ordering::SeqCst);
            lists.called.push(worker);
        }
        waits
    }

    /// Enters a worker that found nothing; whether there is work now. In any case it is on the list
    /// until it, or somebody else, takes it off.
    pub(super) fn rest(&self, worker: usize, has_work: impl FnOnce() -> bool) -> bool {
        self.lists().waiting.push(worker);
        self.count.fetch_add(1, Ordering::SeqCst);
        // Pairs with the fence in `take`.
        fence(Ordering::SeqCst);
        has_work()
    }

    /// Takes a worker off the list. False if somebody has woken it and counts it as searching.
    pub(super) fn leave(&self, worker: usize) -> bool {
        let mut lists = self.lists();
        if remove(&mut lists.waiting, worker) {
            self.count.fetch_sub(1, Ordering::SeqCst);
            return true;
        }
        remove(&mut lists.called, worker)
    }

    /// Ends the search of a woken worker; true if it was the last one searching.
    pub(super) fn stop_searching(&self) -> bool {
        self.searching.fetch_sub(1, Ordering::SeqCst) == 1
    }
}
