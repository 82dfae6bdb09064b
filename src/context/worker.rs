//! One worker: a future that gives turns to contexts, looks at the sockets in between, and lets the
//! reactor have a turn now and then.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::atomic::{Ordering, fence};
use std::sync::{Arc, PoisonError};
use std::task::{Context as TaskContext, Poll, Waker};

use crossbeam_deque::{Steal, Worker as Deque};

use super::behavior::{End, Outcome};
use super::{Context, Scheduler};
use crate::error::Code;

/// Work, in messages' worth, between two looks at the sockets: some 50 to 200 µs.
const COST_BETWEEN_LOOKS: usize = 512;

/// Nanoseconds between two turns of the reactor, which fires timers.
const REACTOR_PERIOD: u64 = 500_000;

/// Turns in a row that may go to the slot while others wait in the queue.
const SLOT_STREAK_MAX: usize = 16;

/// What a turn costs at least, in messages' worth.
const TURN_COST: usize = 1;

/// The part of a worker that wakers reach on their own thread.
struct Local {
    scheduler: *const Scheduler,
    index: usize,
    deque: Deque<Arc<Context>>,
    next: RefCell<Option<Arc<Context>>>,
    in_turn: Cell<bool>,
    /// The worker itself looks at the sockets, and at its queue afterwards.
    is_looking: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

impl Local {
    fn enqueue(&self, scheduler: &Scheduler, context: Option<Arc<Context>>) {
        if self.in_turn.get() {
            if let Some(displaced) = self.next.replace(context) {
                self.deque.push(displaced);
                scheduler.wake_one();
            }
        } else if let Some(context) = context {
            self.deque.push(context);
            if !self.is_looking.get() {
                // The reactor runs on this thread, inside `block_on`: look at the queue afterwards.
                self.wake();
            }
        }
    }

    fn wake(&self) {
        if let Some(waker) = self.waker.borrow().as_ref() {
            waker.wake_by_ref();
        }
    }
}

thread_local! {
    static LOCAL: RefCell<Option<std::rc::Rc<Local>>> = const { RefCell::new(None) };
}

/// A worker; ready once the last context has ended.
pub(super) struct Worker {
    scheduler: Arc<Scheduler>,
    deque: Cell<Option<Deque<Arc<Context>>>>,
    index: usize,
    idle: bool,
    slot_streak: usize,
    /// When the reactor had its last turn.
    reacted: u64,
    /// Since it left the idle state, the worker has given turns.
    was_useful: bool,
}

impl Worker {
    pub(super) fn new(
        scheduler: Arc<Scheduler>,
        index: usize,
        deque: Deque<Arc<Context>>,
    ) -> Worker {
        Worker {
            scheduler,
            deque: Cell::new(Some(deque)),
            index,
            idle: false,
            slot_streak: 0,
            reacted: 0,
            was_useful: true,
        }
    }

    pub(super) fn current_index() -> Option<usize> {
        LOCAL.with_borrow(|local| local.as_ref().map(|local| local.index))
    }

    /// Queues a context on this thread's worker; gives it back if this thread is none of
    /// `scheduler`'s.
    pub(super) fn enqueue_local(
        scheduler: &Scheduler,
        context: Arc<Context>,
    ) -> Option<Arc<Context>> {
        // A waker may fire while the thread-local is being torn down: then this is no worker.
        let mut context = Some(context);
        let _ = LOCAL.try_with(|local| {
            if let Some(local) = local.borrow().as_ref()
                && std::ptr::eq(local.scheduler, scheduler)
            {
                local.enqueue(scheduler, context.take());
            }
        });
        context
    }

    /// Wakes the worker that this thread is, to look at the sockets; false if it is none of
    /// `scheduler`'s.
    pub(super) fn wake_local(scheduler: &Scheduler) -> bool {
        let local = LOCAL.try_with(|local| local.borrow().clone()).ok().flatten();
        let local = local.filter(|local| std::ptr::eq(local.scheduler, scheduler));
        local.inspect(|local| local.wake()).is_some()
    }

    /// Publishes the worker to wakers on its thread, at its first poll there.
    fn local(&self) -> std::rc::Rc<Local> {
        LOCAL.with_borrow_mut(|slot| {
            if let Some(deque) = self.deque.take() {
                *slot = Some(std::rc::Rc::new(Local {
                    scheduler: Arc::as_ptr(&self.scheduler),
                    index: self.index,
                    deque,
                    next: RefCell::new(None),
                    in_turn: Cell::new(false),
                    is_looking: Cell::new(false),
                    waker: RefCell::new(None),
                }));
            }
            slot.clone().expect("a worker is polled on one thread only")
        })
    }

    fn register(&self, local: &Local, cx: &TaskContext<'_>) {
        let mut mine = local.waker.borrow_mut();
        if mine.as_ref().is_none_or(|waker| !waker.will_wake(cx.waker())) {
            *mine = Some(cx.waker().clone());
            let remote = &self.scheduler.remotes[self.index];
            *remote.waker.lock().unwrap_or_else(PoisonError::into_inner) = Some(cx.waker().clone());
        }
    }

    /// The next context to run: the slot, the own queue, the common queue, the others' queues.
    fn next(&mut self, local: &Local) -> Option<Arc<Context>> {
        let queued = !local.deque.is_empty();
        if let Some(context) = local.next.borrow_mut().take() {
            if !queued || self.slot_streak < SLOT_STREAK_MAX {
                self.slot_streak += 1;
                return Some(context);
            }
            local.deque.push(context);
        }
        self.slot_streak = 0;
        local.deque.pop().or_else(|| self.steal(local))
    }

    fn steal(&self, local: &Local) -> Option<Arc<Context>> {
        loop {
            let others = &self.scheduler.remotes;
            let found = self.scheduler.injector.steal_batch_and_pop(&local.deque).or_else(|| {
                let start = self.index + 1;
                (start..start + others.len() - 1)
                    .map(|index| &others[index % others.len()].stealer)
                    .map(|stealer| stealer.steal_batch_and_pop(&local.deque))
                    .collect()
            });
            match found {
                Steal::Success(context) => return Some(context),
                Steal::Empty => return None,
                Steal::Retry => {}
            }
        }
    }

    fn has_work(&self, local: &Local) -> bool {
        local.next.borrow().is_some()
            || !self.scheduler.injector.is_empty()
            || self.scheduler.remotes.iter().any(|remote| !remote.stealer.is_empty())
    }

    /// Gives one turn; returns its cost.
    fn run(&self, local: &Local, context: &Arc<Context>) -> usize {
        if let Some(end) = context.end_requested() {
            self.finish(local, context, &end);
            return TURN_COST;
        }
        let mut behavior = context.behavior.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(program) = behavior.as_mut() else {
            return TURN_COST;
        };
        local.in_turn.set(true);
        let result = catch_unwind(AssertUnwindSafe(|| program.turn(context)));
        local.in_turn.set(false);
        drop(behavior);
        let (outcome, cost) = result.unwrap_or_else(|_| {
            log::error!("context {}: the runtime failed in its turn; it ends", context.id());
            (Outcome::Ended, TURN_COST)
        });
        match outcome {
            Outcome::Ended => self.finish(local, context, &End::Normal),
            Outcome::Idle if context.rest() => {}
            Outcome::Idle | Outcome::More => local.deque.push(Arc::clone(context)),
        }
        cost.max(TURN_COST)
    }

    fn finish(&self, local: &Local, context: &Arc<Context>, reason: &End) {
        local.in_turn.set(true);
        let result = catch_unwind(AssertUnwindSafe(|| self.scheduler.finish(context, reason)));
        local.in_turn.set(false);
        if result.is_err() {
            log::error!("context {}: {}", context.id(), Code::IO.text());
        }
    }

    /// Looks at the sockets; true if there was anything.
    fn look(&mut self, local: &Local) -> bool {
        self.scheduler.sentinel.note_look(self.index);
        local.is_looking.set(true);
        let found = crate::rt::poll_sockets();
        local.is_looking.set(false);
        found
    }

    /// True if the reactor is due for a turn: it gets one between two polls of this future.
    fn must_yield(&mut self, cx: &TaskContext<'_>) -> bool {
        let is_due = crate::rt::now() >= self.reacted + REACTOR_PERIOD;
        if is_due {
            cx.waker().wake_by_ref();
        }
        is_due
    }

    /// Leaves the idle state, however it was woken; true if it counts as searching.
    fn leave_idle(&mut self) -> bool {
        if !std::mem::take(&mut self.idle) {
            return false;
        }
        self.was_useful = false;
        let woken = !self.scheduler.remove_idle(self.index);
        self.scheduler.start_sentinel();
        woken
    }

    /// Goes idle; false if work appeared meanwhile.
    fn rest(&mut self, local: &Local) -> bool {
        self.scheduler.add_idle(self.index);
        self.idle = true;
        // Pairs with the fence in `Scheduler::wake_one`.
        fence(Ordering::SeqCst);
        if self.has_work(local) || self.scheduler.is_done() {
            return false;
        }
        // While others are awake they look at the sockets. Whoever found something of its own to do
        // may be needed again soon; if not, the next event ends its watch without another.
        let watches = self.was_useful || self.scheduler.must_watch();
        if watches && self.scheduler.watch_sockets().is_ready() {
            return false;
        }
        self.scheduler.start_sentinel();
        true
    }
}

impl Future for Worker {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<()> {
        let this = &mut *self;
        let local = this.local();
        this.register(&local, cx);
        let mut searching = this.leave_idle();
        this.reacted = crate::rt::now();
        let mut cost = 0;
        loop {
            let Some(context) = this.next(&local) else {
                if this.look(&local) {
                    if this.must_yield(cx) {
                        break;
                    }
                    continue;
                }
                if std::mem::take(&mut searching) {
                    this.scheduler.stop_searching();
                }
                if this.scheduler.is_done() {
                    LOCAL.with_borrow_mut(|local| local.take());
                    return Poll::Ready(());
                }
                if this.rest(&local) {
                    return Poll::Pending;
                }
                searching = this.leave_idle();
                continue;
            };
            if std::mem::take(&mut searching) {
                this.scheduler.stop_searching();
            }
            // A look without a fence: what it misses now it sees before the next turn.
            if this.scheduler.may_have_idle() && !local.deque.is_empty() {
                this.scheduler.wake_one();
            }
            this.was_useful = true;
            cost += this.run(&local, &context);
            if cost >= COST_BETWEEN_LOOKS {
                cost = 0;
                this.look(&local);
                if this.must_yield(cx) {
                    break;
                }
            }
        }
        if searching {
            this.scheduler.stop_searching();
        }
        Poll::Pending
    }
}
