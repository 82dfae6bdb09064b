//! What is to be looked at again: connections, tasks and bodies that were woken.
//!
//! All of a context's HTTP runs in its turns, on one thread at a time: who is woken is put on a
//! list, and the turn does not end before that is empty.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Wake, Waker};

/// Who is woken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Item {
    /// A connection, by its key.
    Connection(u64),
    /// A task of the connection with this key, by its slot there.
    Task(u64, usize),
    /// Who waits for more of a body, or for room in one, under this token.
    Waiter(u64),
}

/// The list of one context.
#[derive(Debug, Default)]
pub struct Ready(Mutex<Vec<Item>>);

/// Locks what only one thread at a time uses; nobody panics meanwhile.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Ready {
    /// Puts somebody on the list.
    pub fn push(&self, item: Item) {
        lock(&self.0).push(item);
    }

    /// Whether nobody is on it.
    pub fn is_empty(&self) -> bool {
        lock(&self.0).is_empty()
    }

    /// Takes all who are on it, in place of what is in `into`.
    pub fn take(&self, into: &mut Vec<Item>) {
        into.clear();
        std::mem::swap(&mut *lock(&self.0), into);
    }
}

/// Puts one item on a list, once until it is looked at.
#[derive(Debug)]
pub(super) struct Wakes {
    ready: Arc<Ready>,
    item: Item,
    is_listed: AtomicBool,
}

impl Wakes {
    /// Both it and the waker that stands for it.
    pub(super) fn new(ready: &Arc<Ready>, item: Item) -> (Arc<Wakes>, Waker) {
        let ready = Arc::clone(ready);
        let wakes = Arc::new(Wakes { ready, item, is_listed: AtomicBool::new(false) });
        (Arc::clone(&wakes), wakes.into())
    }

    /// To be called before the item is looked at: what happens meanwhile lists it again.
    pub(super) fn begin(&self) {
        // Relaxed: one thread at a time, see above.
        self.is_listed.store(false, Ordering::Relaxed);
    }
}

/// A waker that puts an item on the list, once.
pub fn waker(ready: &Arc<Ready>, item: Item) -> Waker {
    Wakes::new(ready, item).1
}

impl Wake for Wakes {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.is_listed.swap(true, Ordering::Relaxed) {
            self.ready.push(self.item);
        }
    }
}
