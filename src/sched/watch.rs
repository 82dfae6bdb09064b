//! What a worker tells of its turns, and how they are interrupted or cut.
//!
//! Whoever wants that notes which turn he means, and kicks the worker's thread: a signal's handler
//! runs there, between two instructions of whatever the thread does, and asks the program.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock};
use std::time::Duration;

use super::metrics::Metrics;
use super::slot::Slot;
use crate::message::Id;
use crate::os::current::Current;
use crate::os::thread::{Handle, State};
use crate::rt;
use crate::sync::lock;

/// What a worker tells of its turns. Written by its thread, with plain stores, if nothing else is
/// said.
#[derive(Debug, Default)]
pub(super) struct Watch {
    /// Counts beginnings and ends of turns, and of the slices of those that are cut: odd while one
    /// runs.
    turn: AtomicU64,
    /// Whose turn it is, or was.
    context: AtomicU64,
    pub(super) slot: Slot,
    /// The turn to be interrupted. Written by the watchdog, or for it by the thread itself.
    cancelled: AtomicU64,
    /// The turn to be cut, since when, and the thread's CPU time then. Written by anybody.
    asked: AtomicU64,
    asked_at: AtomicU64,
    asked_cpu: AtomicU64,
    /// The thread was kicked where the program could not be asked for anything. Written by the
    /// thread, taken by the watchdog.
    is_early: AtomicBool,
    /// True for a worker that was given up: it retires once its turn is over.
    retired: AtomicBool,
    /// Since when the turn may be cut, in nanoseconds; 0 for one that is short so far. Written by
    /// the watchdog too.
    long_since: AtomicU64,
    /// The thread's CPU time in nanoseconds up to which the turn is accounted for, if it is.
    /// Written by the watchdog too.
    charged: AtomicU64,
    /// The thread lets others go first, for good. Written by the watchdog.
    has_yielded: AtomicBool,
    /// The thread, while it runs. Whoever kicks it holds the lock, so that it does not end.
    thread: Mutex<Option<Thread>>,
}

/// A worker's thread, as others see it.
#[derive(Debug)]
struct Thread {
    handle: Handle,
    state: State,
}

impl Thread {
    fn current() -> Thread {
        let handle = Handle::current();
        Thread { handle, state: State::of(handle) }
    }
}

thread_local! {
    /// The watch of the worker that this thread is.
    static MINE: Current<Watch> = const { Current::new() };
}

/// Asks the program that runs on this thread for something; false if it must be asked again.
/// Async-signal-safe.
type Ask = fn() -> bool;

static INTERRUPT: OnceLock<Ask> = OnceLock::new();
static CUT: OnceLock<Ask> = OnceLock::new();

/// Sets how a program is interrupted, from inside a signal handler on the thread that runs it;
/// false tells that it cannot be at this moment.
pub fn set_interrupt(interrupt: fn() -> bool) {
    // Set more than once only by tests, to the same function; so is the other one.
    let _ = INTERRUPT.set(interrupt);
}

/// Sets how a program is asked to have its turn cut, likewise.
pub fn set_cut(cut: fn() -> bool) {
    let _ = CUT.set(cut);
}

/// Has the turn that runs on this thread interrupted by the watchdog, for a program that cannot do
/// it from where it is. Nothing happens on a thread that is no worker's.
pub fn interrupt_soon() {
    Current::with(&MINE, |watch| {
        if let Some(watch) = watch {
            watch.cancelled.store(watch.turn.load(Ordering::Relaxed), Ordering::Relaxed);
        }
    });
}

/// Whether the turn that runs on this thread is to be interrupted.
pub fn is_interrupted() -> bool {
    Current::with(&MINE, |watch| {
        watch.is_some_and(|watch| {
            let turn = watch.turn.load(Ordering::Relaxed);
            !turn.is_multiple_of(2) && watch.is_cancelled(turn)
        })
    })
}

/// The turn that runs on this thread could not be cut where it was asked for: it is asked again.
pub fn refuse_cut() {
    Current::with(&MINE, |watch| {
        if let Some(watch) = watch {
            watch.is_early.store(true, Ordering::Relaxed);
        }
    });
}

/// The kick handler of workers.
pub(super) fn kicked() {
    Current::with(&MINE, |watch| watch.map(Watch::on_kick));
}

impl Watch {
    fn thread(&self) -> MutexGuard<'_, Option<Thread>> {
        lock(&self.thread)
    }

    /// Kicked on its thread.
    fn on_kick(&self) {
        if self.is_retired() {
            self.slot.give_up();
        }
        let turn = self.turn.load(Ordering::Relaxed);
        // A turn that has ended meanwhile is not the one that is meant.
        if turn.is_multiple_of(2) {
            return;
        }
        let ask = match turn {
            _ if self.cancelled.load(Ordering::Relaxed) == turn => INTERRUPT.get(),
            _ if self.asked.load(Ordering::Relaxed) == turn => CUT.get(),
            _ => None,
        };
        if ask.is_some_and(|ask| !ask()) {
            self.is_early.store(true, Ordering::Relaxed);
        }
    }

    /// Runs `body`, during which this thread is the worker.
    pub(super) fn enter<R>(&self, body: impl FnOnce() -> R) -> R {
        Current::enter(&MINE, self, || {
            *self.thread() = Some(Thread::current());
            self.retired.store(false, Ordering::Relaxed);
            self.has_yielded.store(false, Ordering::Relaxed);
            let result = body();
            *self.thread() = None;
            result
        })
    }

    /// Notes that a turn begins, or goes on.
    #[inline]
    pub(super) fn begin(&self, id: Id) {
        self.context.store(id.to_number().to_bits(), Ordering::Relaxed);
        // Release: pairs with the load in `turn`, after which it is known whose turn it is.
        self.turn.store(self.turn.load(Ordering::Relaxed) + 1, Ordering::Release);
    }

    /// Notes that it has ended, or is cut.
    #[inline]
    pub(super) fn end(&self) {
        self.turn.store(self.turn.load(Ordering::Relaxed) + 1, Ordering::Release);
    }

    /// Beginnings and ends of turns so far: odd while one runs.
    pub(super) fn turn(&self) -> u64 {
        // Acquire: pairs with `begin`.
        self.turn.load(Ordering::Acquire)
    }

    /// Whose turn it is, or was.
    pub(super) fn context(&self) -> Option<Id> {
        Id::from_number(f64::from_bits(self.context.load(Ordering::Relaxed)))
    }

    /// Has the turn count as a long one, which may be cut, since then; `count` is how many there
    /// are.
    pub(super) fn begin_long(&self, since: u64, count: &AtomicUsize) {
        if self.long_since.swap(since.max(1), Ordering::Relaxed) == 0 {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Notes the end of a turn; since when it has counted as a long one, if it has.
    #[inline]
    pub(super) fn end_long(&self, count: &AtomicUsize) -> Option<u64> {
        if self.long_since.load(Ordering::Relaxed) == 0 {
            return None;
        }
        let since = self.long_since.swap(0, Ordering::Relaxed);
        count.fetch_sub(usize::from(since != 0), Ordering::Relaxed);
        Some(since)
    }

    /// Since when the turn counts as a long one, if it does.
    pub(super) fn long_since(&self) -> Option<u64> {
        Some(self.long_since.load(Ordering::Relaxed)).filter(|&since| since != 0)
    }

    /// Takes account of the CPU time of the turn from now on. On the thread itself, or for the
    /// turn of another one.
    pub(super) fn begin_charging(&self) {
        self.charged.store(self.cpu_nanoseconds(), Ordering::Relaxed);
    }

    pub(super) fn is_charging(&self) -> bool {
        self.charged.load(Ordering::Relaxed) != 0
    }

    /// Whether the turn has used so much since it was last charged. CPU time counts: where others
    /// keep the machine busy its thread may not have run.
    pub(super) fn has_used(&self, least: Duration) -> bool {
        let before = self.charged.load(Ordering::Relaxed);
        self.cpu_nanoseconds().saturating_sub(before) >= least.as_nanos() as u64
    }

    /// The CPU time that the turn has used since it was asked to be cut.
    pub(super) fn used_since_asked(&self) -> Duration {
        let before = self.asked_cpu.load(Ordering::Relaxed);
        Duration::from_nanos(self.cpu_nanoseconds().saturating_sub(before))
    }

    /// Charges its context with the CPU time that the turn has used since it was last charged;
    /// returns how much that was. By the watchdog, and at the end of the turn.
    pub(super) fn charge(&self, metrics: &Metrics, is_end: bool) -> Duration {
        let before = self.charged.load(Ordering::Relaxed);
        if before == 0 {
            return Duration::ZERO;
        }
        let now = self.cpu_nanoseconds();
        let next = if is_end { 0 } else { now };
        // Fails if the other of the two has just done it.
        let order = Ordering::Relaxed;
        if self.charged.compare_exchange(before, next, order, order).is_err() {
            if is_end {
                self.charged.store(0, order);
            }
            return Duration::ZERO;
        }
        let used = Duration::from_nanos(now.saturating_sub(before));
        metrics.add_turn_cpu(used);
        used
    }

    /// Whether the watchdog has given this worker up.
    #[inline]
    pub(super) fn is_retired(&self) -> bool {
        self.retired.load(Ordering::Relaxed)
    }

    /// Gives the worker up; false if it was before.
    pub(super) fn give_up(&self) -> bool {
        let is_new = !self.retired.swap(true, Ordering::Relaxed);
        if is_new && (self.slot.is_full() || !self.is_asleep()) {
            // What it has queued is made reachable. The signal ends what a thread waits for in a
            // system call: one that need not be told is left alone.
            self.kick();
        }
        is_new
    }

    /// Has this turn interrupted, now and whenever it is kicked.
    pub(super) fn interrupt(&self, turn: u64) {
        // Relaxed: the signal comes after it.
        self.cancelled.store(turn, Ordering::Relaxed);
        self.kick();
    }

    /// Whether this turn is to be interrupted.
    pub(super) fn is_cancelled(&self, turn: u64) -> bool {
        self.cancelled.load(Ordering::Relaxed) == turn
    }

    /// Has this turn cut, as soon as that is possible. A thread that waits in a system call is left
    /// alone: the signal would end that.
    pub(super) fn cut(&self, turn: u64) {
        if self.asked.swap(turn, Ordering::Relaxed) != turn {
            self.asked_at.store(rt::now(), Ordering::Relaxed);
            self.asked_cpu.store(self.cpu_nanoseconds(), Ordering::Relaxed);
        }
        let thread = self.thread();
        if let Some(thread) = thread.as_ref().filter(|thread| !thread.state.is_asleep()) {
            thread.handle.kick();
        }
    }

    /// The long turn that runs, of a worker that was not given up.
    pub(super) fn long_turn(&self) -> Option<u64> {
        let turn = self.turn();
        (turn % 2 == 1 && self.long_since().is_some() && !self.is_retired()).then_some(turn)
    }

    /// Has it cut, if it has used so much CPU time and was not asked before; false if not.
    pub(super) fn cut_after(&self, used: Duration) -> bool {
        let is_due = |_: &u64| self.asked_since().is_none() && self.has_used(used);
        self.long_turn().filter(is_due).map(|turn| self.cut(turn)).is_some()
    }

    /// Since when the turn that runs has been asked to be cut, if it has.
    pub(super) fn asked_since(&self) -> Option<u64> {
        let is_asked = self.asked.load(Ordering::Relaxed) == self.turn();
        is_asked.then(|| self.asked_at.load(Ordering::Relaxed))
    }

    /// Whether the thread is to be kicked again, which it was where nothing could be asked.
    pub(super) fn is_early(&self) -> bool {
        self.is_early.load(Ordering::Relaxed) && !self.is_retired()
    }

    /// Kicks it again, if so.
    pub(super) fn kick_early(&self) {
        if self.is_early() && self.is_early.swap(false, Ordering::Relaxed) {
            self.kick();
        }
    }

    /// Whether the thread waits in a system call.
    pub(super) fn is_asleep(&self) -> bool {
        self.thread().as_ref().is_some_and(|thread| thread.state.is_asleep())
    }

    fn kick(&self) {
        if let Some(thread) = &*self.thread() {
            thread.handle.kick();
        }
    }

    /// Lets others go first, for good: given up, it never runs another context.
    pub(super) fn yield_to_others(&self) {
        if let Some(thread) = &*self.thread() {
            thread.handle.yield_to_others();
            self.has_yielded.store(true, Ordering::Relaxed);
        }
    }

    /// Whether it does.
    pub(super) fn has_yielded(&self) -> bool {
        self.has_yielded.load(Ordering::Relaxed)
    }

    /// The CPU time that the thread has used.
    fn cpu_nanoseconds(&self) -> u64 {
        self.thread().as_ref().and_then(|it| it.handle.cpu_time()).unwrap_or_default().as_nanos()
            as u64
    }
}
