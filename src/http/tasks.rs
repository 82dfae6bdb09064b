//! The tasks that hyper spawns for a connection of HTTP/2: one for each stream.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Waker};

use hyper::rt::Executor;

use super::ready::{Item, ItemWaker, Ready};
use crate::sync::lock;

type Task = Pin<Box<dyn Future<Output = ()> + Send>>;

/// The tasks of one connection; they end with it.
#[derive(Clone)]
pub(super) struct Tasks(Arc<Inner>);

struct Inner {
    ready: Arc<Ready>,
    key: u64,
    slots: Mutex<Slots>,
}

#[derive(Default)]
struct Slots {
    all: Vec<Slot>,
    free: Vec<usize>,
}

struct Slot {
    task: Option<Task>,
    wakes: Arc<ItemWaker>,
    waker: Waker,
}

impl Tasks {
    /// No tasks yet, for the connection with this key.
    pub(super) fn new(ready: &Arc<Ready>, key: u64) -> Tasks {
        Tasks(Arc::new(Inner { ready: Arc::clone(ready), key, slots: Mutex::default() }))
    }

    /// Polls the task in a slot.
    pub(super) fn run(&self, slot: usize) {
        let taken = lock(&self.0.slots).all.get_mut(slot).and_then(|slot| {
            slot.wakes.rearm();
            Some((slot.task.take()?, slot.waker.clone()))
        });
        let Some((mut task, waker)) = taken else { return };
        let is_over = task.as_mut().poll(&mut Context::from_waker(&waker)).is_ready();
        let mut slots = lock(&self.0.slots);
        match is_over {
            true => slots.free.push(slot),
            false => slots.all[slot].task = Some(task),
        }
    }

    /// Polls all tasks once.
    pub(super) fn run_all(&self) {
        let count = lock(&self.0.slots).all.len();
        (0..count).for_each(|slot| self.run(slot));
    }

    /// Drops all tasks.
    pub(super) fn clear(&self) {
        let gone = std::mem::take(&mut *lock(&self.0.slots));
        drop(gone);
    }
}

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for Tasks {
    fn execute(&self, future: F) {
        let mut slots = lock(&self.0.slots);
        let free = slots.free.pop();
        let at = free.unwrap_or(slots.all.len());
        if free.is_none() {
            let (wakes, waker) = ItemWaker::new(&self.0.ready, Item::Task(self.0.key, at));
            slots.all.push(Slot { task: None, wakes, waker });
        }
        slots.all[at].task = Some(Box::pin(future));
        // Polled after the script has run: mostly the response is there then.
        slots.all[at].waker.wake_by_ref();
    }
}
