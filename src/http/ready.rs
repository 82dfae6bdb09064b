//! What was woken: connections, tasks, and those who wait for bodies.
//!
//! All of a context's HTTP runs in its turns, on one thread at a time: what is woken is listed, and
//! the turn does not end before the list is empty.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Wake, Waker};

use crate::sync::lock;

/// What can be woken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Item {
    /// A connection, by its key.
    Connection(u64),
    /// A task of the connection with this key, by its slot there.
    Task(u64, usize),
    /// Whoever waits for more of a body, or for room in one, under this token.
    Waiter(u64),
}

/// A queue that only turns use. Whether it is empty costs no lock.
#[derive(Debug)]
pub struct Queue<T> {
    items: Mutex<VecDeque<T>>,
    /// The number of items. Relaxed, since only one thread at a time uses it.
    count: AtomicUsize,
}

/// What was woken in one context.
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

    /// Appends an item.
    pub fn push(&self, item: T) {
        self.change(|items| items.push_back(item));
    }

    /// Removes the first item.
    pub fn pop(&self) -> Option<T> {
        if self.is_empty() { None } else { self.change(VecDeque::pop_front) }
    }

    /// Whether there are no items.
    pub fn is_empty(&self) -> bool {
        self.count.load(Ordering::Relaxed) == 0
    }

    /// Moves all items to `into`, in place of its content.
    pub fn take(&self, into: &mut VecDeque<T>) {
        into.clear();
        self.change(|items| std::mem::swap(items, into));
    }

    /// Drops all items but those that `is_kept` returns true for.
    pub fn retain(&self, is_kept: impl FnMut(&T) -> bool) {
        self.change(|items| items.retain(is_kept));
    }
}

/// The waker of one item, which lists it once until it is polled.
#[derive(Debug)]
pub(super) struct ItemWaker {
    ready: Arc<Ready>,
    item: Item,
    is_listed: AtomicBool,
}

impl ItemWaker {
    /// The item's waker, and the same as a [`Waker`].
    pub(super) fn new(ready: &Arc<Ready>, item: Item) -> (Arc<ItemWaker>, Waker) {
        let ready = Arc::clone(ready);
        let wakes = Arc::new(ItemWaker { ready, item, is_listed: AtomicBool::new(false) });
        (Arc::clone(&wakes), wakes.into())
    }

    /// To be called before the item is polled, so that what happens meanwhile lists it again.
    pub(super) fn rearm(&self) {
        // Relaxed, since only one thread at a time uses it.
        self.is_listed.store(false, Ordering::Relaxed);
    }
}

/// A waker that lists an item, once.
pub fn waker(ready: &Arc<Ready>, item: Item) -> Waker {
    ItemWaker::new(ready, item).1
}

impl Wake for ItemWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.is_listed.swap(true, Ordering::Relaxed) {
            self.ready.push(self.item);
        }
    }
}
