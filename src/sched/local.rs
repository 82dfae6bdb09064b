//! The part of a worker that wakers reach on its own thread: where they queue contexts.

use std::cell::{Cell, RefCell};
use std::sync::Arc;
use std::task::Waker;

use crossbeam_deque::Worker as Deque;

use super::context::Context;
use super::scheduler::Scheduler;
use super::watch::Watch;
use crate::hint::rarely;

/// The part of a worker that wakers reach on their own thread.
pub(super) struct Local {
    pub(super) scheduler: *const Scheduler,
    /// Of the worker, from 0.
    pub(super) index: usize,
    pub(super) deque: Deque<Arc<Context>>,
    /// Holds the slot.
    pub(super) watch: Arc<Watch>,
    /// The index whose contexts this worker alone runs.
    pub(super) place: Cell<Option<usize>>,
    pub(super) in_turn: Cell<bool>,
    /// The turn has been cut before: what becomes ready in it is not to wait for it.
    pub(super) is_long: Cell<bool>,
    /// The worker itself looks at the sockets, and at its queue afterwards.
    pub(super) is_looking: Cell<bool>,
    pub(super) waker: RefCell<Option<Waker>>,
}

impl Local {
    pub(super) fn enqueue(&self, scheduler: &Scheduler, context: Option<Arc<Context>>) {
        let wanted = context.as_ref().and_then(|context| context.worker());
        let is_long = self.in_turn.get() && self.is_long.get();
        if rarely(is_long || self.watch.is_retired())
            || wanted.is_some() && wanted != self.place.get()
        {
            // Another one's; or what is queued here would wait for the end of a turn that takes
            // long.
            if let Some(context) = context {
                scheduler.share(context);
            }
        } else if self.in_turn.get() {
            if let Some(displaced) = self.watch.slot.replace(context) {
                let is_for_all = displaced.worker().is_none();
                self.push(scheduler, displaced);
                if is_for_all {
                    scheduler.wake_one();
                }
            }
        } else if let Some(context) = context {
            self.push(scheduler, context);
            if !self.is_looking.get() {
                // The reactor runs on this thread, inside `block_on`: look at the queue afterwards.
                self.wake();
            }
        }
    }

    /// Queues a context: here, unless it may not give the worker back, or only one may run it.
    pub(super) fn push(&self, scheduler: &Scheduler, context: Arc<Context>) {
        if context.worker().is_some() {
            return scheduler.share(context);
        }
        match context.is_prompt() {
            true => self.deque.push(context),
            false => scheduler.late.push(context),
        }
    }

    pub(super) fn wake(&self) {
        if let Some(waker) = self.waker.borrow().as_ref() {
            waker.wake_by_ref();
        }
    }
}
