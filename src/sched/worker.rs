//! A worker: a future that runs turns of contexts, polls the sockets in between, and yields to the
//! reactor now and then.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::{Arc, PoisonError};
use std::task::{Context as TaskContext, Poll};
use std::time::Duration;

use crossbeam_deque::{Steal, Worker as Deque};

use super::context::Context;
use super::local::Local;
use super::program::{End, Outcome};
use super::scheduler::Scheduler;
use super::spin::Spin;
use super::watchdog::{HURRY, TICK};
use crate::error::Code;
use crate::hint::{rare, rarely};
use crate::rt;

/// Work between two polls of the sockets, in messages: some 50 to 200 µs.
const COST_BETWEEN_LOOKS: usize = 512;

/// Nanoseconds between two polls of the reactor, which fires timers.
const REACTOR_PERIOD: u64 = 500_000;

/// What spinning costs, in messages.
const SPIN_COST: usize = 4;

/// The most turns in a row that come from the slot while others wait in the queue.
const SLOT_STREAK_MAX: usize = 16;

/// One turn of this many is timed.
const TURNS_PER_SAMPLE: u32 = 64;

/// The least cost of a turn, in messages.
const TURN_COST: usize = 1;

thread_local! {
    static LOCAL: RefCell<Option<Rc<Local>>> = const { RefCell::new(None) };
}

/// A worker; ready once the last context has ended.
pub(super) struct Worker {
    scheduler: Arc<Scheduler>,
    deque: Cell<Option<Deque<Arc<Context>>>>,
    index: usize,
    idle: bool,
    slot_streak: usize,
    /// Contexts bound to this worker go first in the next choice; alternates.
    is_own_first: bool,
    turns: Cell<u32>,
    /// When it last ran a context of [`Late`], and whether that was bound to it.
    was_late: u64,
    was_late_own: bool,
    /// Suspended contexts go first in the next choice among those of [`Late`].
    is_cut_first: bool,
    /// When the reactor was last polled.
    reacted: u64,
    /// It has run a turn since it was last idle.
    was_useful: bool,
    spin: Spin,
    /// It shares its thread with other workers, which take turns.
    pub(super) is_one_of_many: bool,
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
            is_own_first: false,
            turns: Cell::new(0),
            was_late: 0,
            was_late_own: false,
            is_cut_first: false,
            reacted: 0,
            was_useful: true,
            spin: Spin::new(),
            is_one_of_many: false,
        }
    }

    /// Queues a context on this thread's worker; returns it if this thread has no worker of
    /// `scheduler`.
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

    /// Has this thread's worker poll the sockets; false if this thread has no worker of
    /// `scheduler`.
    pub(super) fn wake_local(scheduler: &Scheduler) -> bool {
        let local = LOCAL.try_with(|local| local.borrow().clone()).ok().flatten();
        let local = local.filter(|local| std::ptr::eq(local.scheduler, scheduler));
        local.inspect(|local| local.wake()).is_some()
    }

    /// Replaces what wakers find on this thread, on which several workers may take turns.
    pub(super) fn swap_local(local: &mut Option<Rc<Local>>) {
        LOCAL.with_borrow_mut(|slot| std::mem::swap(slot, local));
    }

    /// Lets wakers on its thread find the worker, at its first poll there.
    fn local(&self) -> Rc<Local> {
        LOCAL.with_borrow_mut(|slot| {
            if let Some(deque) = self.deque.take() {
                rare();
                *slot = Some(Rc::new(Local {
                    scheduler: Arc::as_ptr(&self.scheduler),
                    index: self.index,
                    deque,
                    watch: Arc::clone(&self.scheduler.remote(self.index).watch),
                    place: Cell::new(self.scheduler.affinity.held_by(self.index)),
                    in_turn: Cell::new(false),
                    is_long: Cell::new(false),
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
            let remote = self.scheduler.remote(self.index);
            *remote.waker.lock().unwrap_or_else(PoisonError::into_inner) = Some(cx.waker().clone());
        }
    }

    /// The next context to run: the slot, the own queue, the common queue, the others' queues.
    fn next(&mut self, local: &Local) -> Option<Arc<Context>> {
        if rt::is_simulated() {
            return self.next_simulated(local);
        }
        let own = local.place.get().filter(|_| self.scheduler.affinity.are_used());
        let has_own = own.is_some_and(|place| self.scheduler.affinity.has_proven(place));
        let queued = has_own || !local.deque.is_empty();
        if local.watch.slot.is_full()
            && let Some(context) = local.watch.slot.replace(None)
        {
            let is_proven = context.metrics().is_proven();
            if is_proven && (!queued || self.slot_streak < SLOT_STREAK_MAX) {
                self.slot_streak += 1;
                return Some(context);
            }
            local.push(&self.scheduler, context);
        }
        self.slot_streak = 0;
        let take_own = || own.and_then(|place| self.scheduler.affinity.take(place));
        self.is_own_first = has_own && !self.is_own_first;
        self.spin.note(has_own);
        if self.is_own_first
            && let Some(context) = take_own()
        {
            return Some(context);
        }
        local.deque.pop().or_else(take_own).or_else(|| self.steal(local))
    }

    /// The next context of [`Late`] that may run here. Suspended and unproven ones go first
    /// alternately, so that neither kind waits for all of the other.
    fn next_late(&mut self, local: &Local) -> Option<Arc<Context>> {
        let scheduler = Arc::clone(&self.scheduler);
        self.is_cut_first = !self.is_cut_first;
        let cut_first = self.is_cut_first;
        let own = local.place.get().filter(|&place| scheduler.affinity.has_late(place));
        let take_own = || own.and_then(|place| scheduler.affinity.take_late(place, cut_first));
        let take = || scheduler.late.take(cut_first);
        self.was_late_own = !self.was_late_own;
        match self.was_late_own {
            true => take_own().or_else(take),
            false => take().or_else(take_own),
        }
    }

    /// In a simulation: any context that could run next, by the seed.
    fn next_simulated(&mut self, local: &Local) -> Option<Arc<Context>> {
        loop {
            self.look(local);
            if let Some(context) = local.watch.slot.replace(None) {
                local.deque.push(context);
            }
            if let Some(context) = self.steal(local) {
                local.deque.push(context);
            }
            while let Some(context) = self.next_own(local).or_else(|| self.next_late(local)) {
                local.deque.push(context);
            }
            let count = local.deque.len();
            if count == 0 {
                return None;
            }
            let (index, frozen) = rt::choose(count);
            for _ in 0..index {
                local.deque.push(local.deque.pop()?);
            }
            let context = local.deque.pop()?;
            let Some(frozen) = frozen else { return Some(context) };
            // One whose turn was cut is not to be taken for one that waits among those.
            context.metrics().prove(true);
            let scheduler = Arc::clone(&self.scheduler);
            rt::spawn(async move {
                rt::sleep(frozen).await;
                scheduler.enqueue(context);
            });
        }
    }

    /// Moves some contexts of the common queue here, which would wait until this one is empty.
    fn share_in(&self, local: &Local) {
        let injector = &self.scheduler.injector;
        while !injector.is_empty() && injector.steal_batch(&local.deque).is_retry() {}
    }

    fn steal(&self, local: &Local) -> Option<Arc<Context>> {
        loop {
            let others = self.scheduler.remotes();
            let found = self.scheduler.injector.steal_batch_and_pop(&local.deque).or_else(|| {
                let after = others.clone().skip(self.index + 1);
                after
                    .chain(others.take(self.index))
                    .map(|other| other.stealer.steal_batch_and_pop(&local.deque))
                    .collect()
            });
            match found {
                Steal::Success(context) => return Some(context),
                Steal::Empty => return None,
                Steal::Retry => {}
            }
        }
    }

    /// The next context that is bound to this worker.
    fn next_own(&self, local: &Local) -> Option<Arc<Context>> {
        local.place.get().and_then(|place| self.scheduler.affinity.take(place))
    }

    fn has_work(&self, local: &Local) -> bool {
        let (affinity, own) = (&self.scheduler.affinity, local.place.get());
        own.is_some_and(|place| affinity.has_proven(place))
            || own.is_some_and(|place| affinity.has_late(place))
            || local.watch.slot.is_full()
            || self.scheduler.late.has_any()
            || self.scheduler.has_ready()
    }

    /// Runs one turn, or a slice of one; returns its cost.
    fn run(&self, local: &Local, context: &Arc<Context>) -> usize {
        let metrics = context.metrics();
        let mut held = context.program.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(program) = held.as_mut() else {
            rare();
            return TURN_COST;
        };
        let was_cut = metrics.is_cut();
        if rarely(context.end_requested().is_some()) {
            if was_cut {
                program.explain_end();
            }
            drop(held);
            self.finish(local, context);
            return TURN_COST;
        }
        local.in_turn.set(true);
        local.is_long.set(was_cut);
        let watch = &local.watch;
        if rarely(!metrics.is_proven()) && !rt::is_simulated() {
            watch.begin_charging();
            watch.begin_long(rt::now(), &self.scheduler.long);
        }
        watch.begin(context.id());
        if !was_cut {
            metrics.count_turn();
        }
        let sampled = self.sample();
        let result = catch_unwind(AssertUnwindSafe(|| program.turn(context)));
        watch.end();
        local.in_turn.set(false);
        let time = sampled.map(|began| {
            rare();
            Duration::from_nanos(rt::now() - began)
        });
        let since = watch.end_long(&self.scheduler.long);
        if rarely(watch.is_charging()) {
            watch.charge(metrics, true);
        } else if let Some(time) = time {
            metrics.add_cpu(time * TURNS_PER_SAMPLE);
        }
        drop(held);
        let (outcome, cost) = result.unwrap_or_else(|_| {
            rare();
            log::error!("{}: the runtime failed in its turn; it ends", context.label());
            context.destroy(End::Error(b"the runtime failed".to_vec()));
            (Outcome::Ended, TURN_COST)
        });
        if rarely(outcome == Outcome::Cut) {
            self.suspend(local, context);
            return cost.max(TURN_COST);
        }
        let is_short = since.is_none_or(|since| rt::now() - since < TICK.as_nanos() as u64);
        if rarely(since.is_some() || was_cut) {
            metrics.end_long_turn();
        }
        metrics.prove(is_short && !was_cut);
        match outcome {
            Outcome::Ended => self.finish(local, context),
            Outcome::Idle if context.rest() => {}
            _ => local.push(&self.scheduler, Arc::clone(context)),
        }
        cost.max(TURN_COST)
    }

    /// Queues a context whose turn was cut, for its next slice.
    fn suspend(&self, local: &Local, context: &Arc<Context>) {
        context.metrics().cut();
        context.metrics().prove(false);
        context.check_turn_limit();
        match context.suspend() {
            true => self.scheduler.share_cut(Arc::clone(context)),
            false => drop(self.run(local, context)),
        }
    }

    /// Runs a slice of a context of [`Late`]; returns its cost.
    fn run_late(&mut self, local: &Local, context: &Arc<Context>) -> usize {
        // The others may come.
        if self.scheduler.idle.may_have() && self.scheduler.late.has_any() {
            self.scheduler.wake_one();
        }
        let cost = self.run(local, context);
        self.was_late = rt::now();
        cost
    }

    /// The time, before a turn that is timed.
    #[inline]
    fn sample(&self) -> Option<u64> {
        let turns = self.turns.get().wrapping_add(1);
        self.turns.set(turns);
        rarely(turns.is_multiple_of(TURNS_PER_SAMPLE)).then(rt::now)
    }

    fn finish(&self, local: &Local, context: &Arc<Context>) {
        let reason = context.end_requested().unwrap_or(End::Normal);
        local.in_turn.set(true);
        local.is_long.set(false);
        local.watch.begin(context.id());
        let result = catch_unwind(AssertUnwindSafe(|| self.scheduler.finish(context, &reason)));
        local.watch.end();
        local.watch.end_long(&self.scheduler.long);
        local.in_turn.set(false);
        if result.is_err() {
            log::error!("{}: {}", context.label(), Code::IO.text());
        }
    }

    /// Polls the sockets; true if one was ready.
    fn look(&mut self, local: &Local) -> bool {
        local.is_looking.set(true);
        let found = rt::poll_sockets();
        local.is_looking.set(false);
        found
    }

    /// Whether the reactor is to be polled, which happens between two polls of this future.
    fn must_yield(&mut self, cx: &TaskContext<'_>) -> bool {
        let is_due = self.is_one_of_many || rt::now() >= self.reacted + REACTOR_PERIOD;
        if is_due {
            cx.waker().wake_by_ref();
        }
        is_due
    }

    /// Whether this worker is surplus, and so has to end. It stays if contexts are bound to it.
    fn may_retire(&self, local: &Local) -> bool {
        self.adopt(local);
        local.place.get().is_none() && self.scheduler.may_retire()
    }

    /// Takes over the contexts that are bound to a stuck worker.
    fn adopt(&self, local: &Local) {
        // One that was given up is about to go.
        if local.place.get().is_none() && !local.watch.is_retired() {
            local.place.set(self.scheduler.affinity.adopt(self.index));
        }
    }

    /// Leaves the idle state, however it was woken; true if it counts as searching.
    fn leave_idle(&mut self) -> bool {
        if !std::mem::take(&mut self.idle) {
            return false;
        }
        self.was_useful = false;
        let is_searching = !self.scheduler.idle.leave(self.index);
        self.scheduler.alarm.ring();
        is_searching
    }

    /// Nothing is ready: looks for what else there is to do, and goes idle if there is nothing. How
    /// the worker leaves its loop, if it does.
    #[inline]
    fn on_nothing(
        &mut self,
        local: &Local,
        cx: &mut TaskContext<'_>,
        searching: &mut bool,
        cost: &mut usize,
    ) -> Option<Leave> {
        if !*searching && *cost < COST_BETWEEN_LOOKS && self.spin(local) {
            *cost += SPIN_COST;
            return None;
        }
        *cost = 0;
        if self.look(local) {
            return self.must_yield(cx).then_some(Leave::ForNow);
        }
        if std::mem::take(searching) {
            self.scheduler.idle.stop_searching();
        }
        // There are more workers than there need be while some might get stuck.
        if !self.scheduler.late.has_unproven() && self.may_retire(local) {
            return Some(Leave::ForGood);
        }
        if let Some(context) = self.next_late(local) {
            self.was_useful = true;
            *cost += self.run_late(local, &context);
            return self.must_yield(cx).then_some(Leave::ForNow);
        }
        if self.scheduler.is_done() {
            return Some(Leave::ForGood);
        }
        if self.rest(local) {
            self.spin.rest();
            return Some(Leave::ForNow);
        }
        *searching = self.leave_idle();
        None
    }

    /// Goes idle; false if work appeared meanwhile.
    fn rest(&mut self, local: &Local) -> bool {
        self.idle = true;
        let has_work = || self.has_work(local) || self.scheduler.is_done();
        if self.scheduler.idle.rest(self.index, has_work) {
            return false;
        }
        // While others are awake they look at the sockets. Whoever found something of its own to do
        // may be needed again soon; if not, the next event ends its watch without another.
        let watches = self.was_useful || self.scheduler.must_watch();
        if watches && self.scheduler.watch_sockets().is_ready() {
            return false;
        }
        true
    }

    /// Spins for a while, if contexts bound to this worker have become ready soon of late and
    /// another worker is awake; true if there is something to run.
    fn spin(&mut self, local: &Local) -> bool {
        let scheduler = Arc::clone(&self.scheduler);
        let others = || scheduler.idle.count() + 1 < scheduler.running();
        let mut spin = std::mem::take(&mut self.spin);
        let found = spin.wait(others, || self.has_work(local));
        self.spin = spin;
        found
    }

    /// Retires: what is queued here goes to the others.
    fn retire(&self, local: Rc<Local>) -> Option<Deque<Arc<Context>>> {
        LOCAL.with_borrow_mut(Option::take);
        self.scheduler.affinity.vacate(self.index);
        let local = Rc::into_inner(local)?;
        let queued = std::iter::from_fn(|| local.deque.pop());
        for context in local.watch.slot.replace(None).into_iter().chain(queued) {
            self.scheduler.share(context);
        }
        // It may have been woken for what others have to do now.
        self.scheduler.wake_one();
        // Those that wait may count on this one to look at the sockets.
        if self.scheduler.must_watch() && self.scheduler.watch_sockets().is_ready() {
            self.scheduler.wake_one();
        }
        Some(local.deque)
    }
}

impl Scheduler {
    /// The index of the worker this thread is, if it is one.
    pub fn current_worker() -> Option<usize> {
        let index = |local: &Rc<Local>| local.place.get().unwrap_or(local.index);
        LOCAL.with_borrow(|local| local.as_ref().map(index))
    }
}

/// How a worker leaves its loop.
enum Leave {
    /// Until it is woken, or the reactor was polled.
    ForNow,
    /// It retires.
    ForGood,
}

impl Future for Worker {
    type Output = Option<Deque<Arc<Context>>>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let local = this.local();
        this.adopt(&local);
        this.register(&local, cx);
        let mut searching = this.leave_idle();
        this.reacted = rt::now();
        this.spin.wake(this.reacted);
        let mut cost = 0;
        let leave = loop {
            // It may be found out just after its long turn.
            if rarely(local.watch.is_retired()) {
                break Leave::ForGood;
            }
            let Some(context) = this.next(&local) else {
                match this.on_nothing(&local, cx, &mut searching, &mut cost) {
                    None => continue,
                    Some(leave) => break leave,
                }
            };
            if std::mem::take(&mut searching) {
                this.scheduler.idle.stop_searching();
            }
            if this.scheduler.is_to_be_late(&context) {
                this.scheduler.hold_back(context);
                continue;
            }
            // A look without a fence: what it misses now it sees before the next turn.
            if this.scheduler.idle.may_have() && !local.deque.is_empty() {
                this.scheduler.wake_one();
            }
            this.was_useful = true;
            cost += this.run(&local, &context);
            if rarely(this.is_one_of_many) && this.must_yield(cx) {
                break Leave::ForNow;
            }
            if cost >= COST_BETWEEN_LOOKS {
                cost = 0;
                this.look(&local);
                this.share_in(&local);
                // However much the others have to do.
                let period = if this.scheduler.late.has_unproven() { HURRY } else { TICK };
                if rt::now() - this.was_late >= period.as_nanos() as u64
                    && let Some(context) = this.next_late(&local)
                {
                    this.run_late(&local, &context);
                }
                if this.must_yield(cx) {
                    break Leave::ForNow;
                }
            }
        };
        if searching {
            this.scheduler.idle.stop_searching();
        }
        match leave {
            Leave::ForNow => Poll::Pending,
            Leave::ForGood => Poll::Ready(this.retire(local)),
        }
    }
}
