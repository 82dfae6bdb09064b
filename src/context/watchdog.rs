//! Turns that take too long: noticed by a thread that sleeps while no worker runs.
//!
//! A worker notes the beginning and the end of each turn in its [`Watch`]. The watchdog looks every
//! few milliseconds, as long as something runs. A worker that is in the same turn as before is
//! stuck: what waits in its slot is made reachable, and a new one takes its place; the stuck one
//! retires when its turn ends. If the context in that turn is to
//! end, or has used up the CPU time it may use, the thread is poked, and the behavior interrupted.

use std::cell::Cell;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use super::Scheduler;
use super::behavior::End;
use super::scheduler::Remote;
use super::slot::Slot;
use crate::message::Id;
use crate::thread::{self, Handle};

/// Time between two looks.
pub(super) const TICK: Duration = Duration::from_millis(4);

/// Looks that see a worker in the same turn before it counts as stuck.
const STUCK_TICKS: u32 = 2;

/// Looks that see a context being closed before its finalisers are interrupted: one second.
const CLOSING_TICKS: u32 = 250;

/// Looks that see nothing run before the watchdog goes to sleep.
const QUIET_TICKS: u32 = 3;

/// Workers that may be started beside those the process was started with.
pub(super) const EXTRA_MAX: usize = 256;

/// New workers for each stuck one, if as many contexts wait: the next ones may get stuck too.
const GROWTH: usize = 3;

/// What a worker tells of its turns. Written by its thread, with plain stores.
#[derive(Debug, Default)]
pub(super) struct Watch {
    /// Counts beginnings and ends of turns: odd while one runs.
    turn: AtomicU64,
    /// Whose turn it is, or was.
    context: AtomicU64,
    pub(super) slot: Slot,
    /// The turn to be interrupted. Written by the watchdog.
    doomed: AtomicU64,
    /// True for a worker that was given up: it retires once its turn is over.
    outcast: AtomicBool,
    /// The thread, while it runs. Whoever pokes it holds the lock, so that it does not end.
    thread: Mutex<Option<Handle>>,
}

thread_local! {
    /// The watch of the worker that this thread is.
    static MINE: Cell<*const Watch> = const { Cell::new(std::ptr::null()) };
}

/// Interrupts the behavior that runs on this thread; async-signal-safe.
static INTERRUPT: OnceLock<fn()> = OnceLock::new();

/// Sets how a behavior is interrupted, from inside a signal handler on the thread that runs it.
pub fn set_interrupt(interrupt: fn()) {
    // Set more than once only by tests, to the same function.
    let _ = INTERRUPT.set(interrupt);
}

/// The poke handler of workers.
fn poked() {
    let mine = MINE.get();
    // SAFETY: set by this thread while it is a worker, which keeps the watch alive.
    let Some(watch) = (unsafe { mine.as_ref() }) else { return };
    watch.slot.give_up();
    let turn = watch.turn.load(Ordering::Relaxed);
    // A turn that has ended meanwhile is not the one that is to be interrupted.
    if watch.doomed.load(Ordering::Relaxed) == turn
        && turn % 2 == 1
        && let Some(interrupt) = INTERRUPT.get()
    {
        interrupt();
    }
}

impl Watch {
    /// This thread is the worker from now on.
    pub(super) fn start(&self) {
        MINE.set(self);
        *self.thread.lock().unwrap_or_else(PoisonError::into_inner) = Some(Handle::current());
        self.outcast.store(false, Ordering::Relaxed);
    }

    /// This thread is no worker any more.
    pub(super) fn stop(&self) {
        *self.thread.lock().unwrap_or_else(PoisonError::into_inner) = None;
        MINE.set(std::ptr::null());
    }

    /// Notes that a turn begins.
    #[inline]
    pub(super) fn begin(&self, id: Id) {
        self.context.store(id.to_number().to_bits(), Ordering::Relaxed);
        // Release: pairs with the load in `Watchdog::look`, which then sees whose turn it is.
        self.turn.store(self.turn.load(Ordering::Relaxed) + 1, Ordering::Release);
    }

    /// Notes that it has ended.
    #[inline]
    pub(super) fn end(&self) {
        self.turn.store(self.turn.load(Ordering::Relaxed) + 1, Ordering::Release);
    }

    /// Whether the watchdog has given this worker up.
    #[inline]
    pub(super) fn is_outcast(&self) -> bool {
        self.outcast.load(Ordering::Relaxed)
    }

    /// Whether a thread runs the worker, and is not given up.
    pub(super) fn is_running(&self) -> bool {
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner);
        thread.is_some() && !self.is_outcast()
    }

    fn poke(&self) {
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(thread) = *thread {
            // SAFETY: the thread takes its handle away, under the lock, before it ends.
            unsafe { thread.poke() };
        }
    }

    fn cpu_time(&self) -> Option<Duration> {
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner);
        // SAFETY: as above.
        thread.and_then(|thread| unsafe { thread.cpu_time() })
    }
}

/// Whether the watchdog sleeps, and its thread.
#[derive(Debug, Default)]
pub(super) struct Alarm {
    is_asleep: AtomicBool,
    watchdog: OnceLock<std::thread::Thread>,
}

impl Alarm {
    /// Wakes the watchdog if it sleeps: a worker is about to run turns.
    #[inline]
    pub(super) fn ring(&self) {
        // Relaxed: one that is about to fall asleep looks again, one tick later.
        if self.is_asleep.load(Ordering::Relaxed) {
            self.wake();
        }
    }

    #[cold]
    fn wake(&self) {
        if self.is_asleep.swap(false, Ordering::Relaxed)
            && let Some(watchdog) = self.watchdog.get()
        {
            watchdog.unpark();
        }
    }
}

/// What the watchdog remembers of a worker between two looks.
#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    turn: u64,
    /// Looks that have seen it in this turn, after the first.
    ticks: u32,
    /// The thread's CPU time at the first look.
    cpu: Option<Duration>,
    /// What of the turn is on the context's account.
    charged: Duration,
}

struct Watchdog {
    scheduler: Arc<Scheduler>,
    seen: Vec<Seen>,
}

/// Starts the watchdog.
///
/// # Errors
/// If its thread cannot be started.
pub(super) fn start(scheduler: &Arc<Scheduler>) -> std::io::Result<()> {
    thread::on_poke(poked);
    let mut watchdog = Watchdog { scheduler: Arc::clone(scheduler), seen: Vec::new() };
    let started =
        std::thread::Builder::new().name("watchdog".to_owned()).spawn(move || watchdog.run())?;
    let _ = scheduler.alarm.watchdog.set(started.thread().clone());
    Ok(())
}

impl Watchdog {
    fn run(&mut self) {
        let mut quiet = 0;
        while !self.scheduler.is_done() {
            std::thread::sleep(TICK);
            quiet = if self.look() { 0 } else { quiet + 1 };
            let alarm = &self.scheduler.alarm;
            if quiet == QUIET_TICKS - 1 {
                // What has not seen this flag has begun its turn before: the next look finds it.
                alarm.is_asleep.store(true, Ordering::Relaxed);
            } else if quiet >= QUIET_TICKS {
                while alarm.is_asleep.load(Ordering::Relaxed) {
                    std::thread::park();
                }
                quiet = 0;
            } else {
                alarm.is_asleep.store(false, Ordering::Relaxed);
            }
        }
    }

    /// Looks at every worker; false if none has run since the last look.
    fn look(&mut self) -> bool {
        let scheduler = Arc::clone(&self.scheduler);
        let remotes = scheduler.remotes();
        self.seen.resize(remotes.clone().count(), Seen::default());
        let (mut has_run, mut given_up) = (false, 0);
        for (remote, seen) in remotes.zip(&mut self.seen) {
            let watch = &remote.watch;
            // Whether or not the turn has ended since the thread was poked.
            if let Some(context) = watch.slot.collect() {
                has_run = true;
                scheduler.injector.push(context);
                scheduler.wake_one();
            }
            // Acquire: pairs with `Watch::begin`.
            let turn = watch.turn.load(Ordering::Acquire);
            has_run |= turn % 2 == 1 || turn != seen.turn;
            if turn != seen.turn || turn % 2 == 0 {
                *seen = Seen { turn, ..Seen::default() };
                if turn % 2 == 1 {
                    seen.cpu = watch.cpu_time();
                }
                continue;
            }
            seen.ticks += 1;
            self.scheduler.on_long_turn(watch, seen);
            if seen.ticks >= STUCK_TICKS && scheduler.give_up(remote) {
                given_up += 1;
            }
        }
        if given_up > 0 {
            scheduler.replace(given_up);
        }
        has_run
    }
}

impl Scheduler {
    /// Reacts to a turn that has lasted for more than a tick.
    fn on_long_turn(&self, watch: &Watch, seen: &mut Seen) {
        let id = Id::from_number(f64::from_bits(watch.context.load(Ordering::Relaxed)));
        let Some(context) = id.and_then(|id| self.registry().get(id)) else { return };
        if let (Some(cpu), Some(before)) = (watch.cpu_time(), seen.cpu) {
            let used = cpu.saturating_sub(before);
            context.gauges().add_cpu(used.saturating_sub(seen.charged));
            seen.charged = used;
            let limit = context.limits().turn;
            if limit.is_some_and(|limit| used >= limit) {
                context.destroy(End::Time(None));
            }
        }
        // One that is being closed has its finalisers left, which have some more time.
        let is_doomed = match context.is_closed() {
            true => seen.ticks >= CLOSING_TICKS,
            false => context.end_requested().is_some(),
        };
        if is_doomed {
            // Relaxed: the signal comes after it.
            watch.doomed.store(seen.turn, Ordering::Relaxed);
        }
        if is_doomed || watch.slot.is_full() {
            watch.poke();
        }
    }

    /// Gives a stuck worker up; false if it was before.
    fn give_up(&self, remote: &Remote) -> bool {
        let watch = &remote.watch;
        if watch.outcast.swap(true, Ordering::Relaxed) {
            return false;
        }
        // It never runs another context: its thread need not become what it was.
        let thread = watch.thread.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(thread) = *thread {
            thread.yield_to_others();
        }
        true
    }

    /// Starts workers in place of stuck ones.
    fn replace(self: &Arc<Self>, given_up: usize) {
        self.active.fetch_sub(given_up, Ordering::Relaxed);
        let queued: usize = self.remotes().map(|other| other.stealer.len()).sum();
        let waiting = self.injector.len() + queued;
        let wanted = given_up.max((given_up * GROWTH).min(waiting));
        for _ in 0..wanted {
            if !self.start_extra() {
                break;
            }
        }
    }
}
