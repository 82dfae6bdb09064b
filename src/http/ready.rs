//! What is to be looked at again: connections, tasks and bodies that were woken.
//!
//! All of a context's HTTP runs in its turns, on one thread at a time: who is woken is put on a
//! list, and the turn does not end before that is empty.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Wake, Waker};

use crate::sync::lock;

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

/// What is put in and taken out by turns; whether there is something costs no lock.
#[derive(Debug)]
pub struct Queue<T> {
    items: Mutex<VecDeque<T>>,
    /// How many. One thread at a time uses it: see above.
    count: AtomicUsize,
}

/// The list of one context.
pub type Ready = Queue<Item>;

impl<T> Default for Queue<T> {
    fn default() -> Self {
        Queue { items: Mutex::default(), count: AtomicUsize::new(0) }
    }
}

impl<T> Queue<T> {
    fn change<R>(&self, change: impl FnOnce(&mut VecDeque<T>) -> R) -> R {
        let mut items = lock(&self.items);
        let result = change(&mut items);
        self.count.store(items.len(), Ordering::Relaxed);
        result
    }

    /// Puts something in.
    pub fn push(&self, item: T) {
        self.change(|items| items.push_back(item));
    }

    /// Takes the first out.
    pub fn pop(&self) -> Option<T> {
        if self.is_empty() { None } else { self.change(VecDeque::pop_front) }
    }

    /// Whether there is nothing.
    pub fn is_empty(&self) -> bool {
        self.count.load(Ordering::Relaxed) == 0
    }

    /// Takes all out, in place of what is in `into`.
    pub fn take(&self, into: &mut VecDeque<T>) {
        into.clear();
        self.change(|items| std::mem::swap(items, into));
    }

    /// Drops what `is_kept` does not say is to stay.
    pub fn retain(&self, is_kept: impl FnMut(&T) -> bool) {
        self.change(|items| items.retain(is_kept));
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
