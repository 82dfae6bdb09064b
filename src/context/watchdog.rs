//! Turns that take too long: noticed by a thread that sleeps while no worker runs.
//!
//! A worker notes the beginning and the end of each turn in its [`Watch`]. The watchdog looks every
//! few milliseconds, as long as something runs. A worker that is in the same turn as before is
//! stuck: what waits in its slot is made reachable, and a new one takes its place; the stuck one
//! retires when its turn ends. If the context in that turn is to end, or has used up the CPU time
//! it may use, the thread is poked, and the behavior interrupted. Of more stuck ones than there are
//! workers some stand still, in turn (pause.rs).

use std::cell::Cell;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use super::Scheduler;
use super::behavior::End;
use super::pause::Hold;
use super::scheduler::Remote;
use super::slot::Slot;
use super::trim::Trimmer;
use crate::message::Id;
use crate::stdio;
use crate::thread::{self, Handle};

/// Looks between two times that what stuck turns have printed is written.
const OUTPUT_TICKS: u32 = 16;

/// Time between two looks.
pub(super) const TICK: Duration = Duration::from_millis(4);

/// Time until a thread is poked again that was poked too early …
const EARLY: Duration = Duration::from_micros(200);

/// … so many times between two looks.
const EARLY_POKES: u32 = 4;

/// Looks that see a worker in the same turn before it counts as stuck.
const STUCK_TICKS: u32 = 2;

/// The same for suspects, once others have got stuck.
const STUCK_TICKS_WARY: u32 = 1;

/// Looks after which contexts that have not run yet are trusted again.
const WARY_TICKS: u32 = 250;

/// Looks between two choices of those among the stuck that go on.
const SLICE_TICKS: u32 = 10;

/// Looks after which a worker that could not be started is tried again.
const RETRY_TICKS: u32 = 250;

/// Looks that see a context being closed before its finalisers are interrupted: one second.
const CLOSING_TICKS: u32 = 250;

/// Looks that see nothing run before the watchdog goes to sleep.
const QUIET_TICKS: u32 = 3;

/// Turns that may be stuck before contexts that may get stuck too, see [`super::suspects`], wait
/// until one of those ends.
const STUCK_MAX: usize = 1024;

/// Workers that may be started beside those the process was started with. What is above
/// [`STUCK_MAX`] is for contexts whose turns have been short so far.
pub(super) const EXTRA_MAX: usize = 2 * STUCK_MAX;

/// Of those that have been stuck for so many looks, and use no CPU time, only some are looked at:
/// each at one look in so many.
const LONG_TICKS: u32 = 250;
const LONG_PERIOD: u32 = 8;

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
    /// The turn to be interrupted. Written by the watchdog, or for it by the thread itself.
    doomed: AtomicU64,
    /// The thread was poked where the behavior could not be asked for anything. Written by the
    /// thread, taken by the watchdog.
    is_early: AtomicBool,
    /// True for a worker that was given up: it retires once its turn is over.
    outcast: AtomicBool,
    /// The turn has used much CPU time already. Written by the watchdog.
    is_slow: AtomicBool,
    /// The turn is that of a context from [`super::suspects`].
    is_suspect: AtomicBool,
    /// The thread runs only such, and is not stuck. It counts as given up from the beginning.
    is_runner: AtomicBool,
    pub(super) hold: Hold,
    /// The thread, while it runs. Whoever pokes it holds the lock, so that it does not end.
    thread: Mutex<Option<Handle>>,
}

thread_local! {
    /// The watch of the worker that this thread is.
    static MINE: Cell<*const Watch> = const { Cell::new(std::ptr::null()) };
}

/// Interrupts the behavior that runs on this thread; false if it must be asked again.
/// Async-signal-safe.
static INTERRUPT: OnceLock<fn() -> bool> = OnceLock::new();

/// Sets how a behavior is interrupted, from inside a signal handler on the thread that runs it;
/// false tells that it cannot be at this moment.
pub fn set_interrupt(interrupt: fn() -> bool) {
    // Set more than once only by tests, to the same function.
    let _ = INTERRUPT.set(interrupt);
}

/// The watch of the worker that this thread is, if it is one.
pub(super) fn current_watch() -> Option<&'static Watch> {
    // SAFETY: set by this thread while it is a worker, which keeps the watch alive: whoever asks
    // runs in a turn of that worker.
    unsafe { MINE.get().as_ref() }
}

/// Has the turn that runs on this thread interrupted by the watchdog, for a behavior that cannot do
/// it from where it is. Nothing happens on a thread that is no worker's.
pub fn interrupt_soon() {
    if let Some(watch) = current_watch() {
        watch.doomed.store(watch.turn.load(Ordering::Relaxed), Ordering::Relaxed);
    }
}

/// The poke handler of workers.
fn poked() {
    let Some(watch) = current_watch() else { return };
    watch.slot.give_up();
    let turn = watch.turn.load(Ordering::Relaxed);
    // A turn that has ended meanwhile is not the one that is to be interrupted.
    if turn.is_multiple_of(2) {
        return;
    }
    let is_done = match INTERRUPT.get() {
        Some(interrupt) if watch.doomed.load(Ordering::Relaxed) == turn => interrupt(),
        _ => watch.hold.ask(),
    };
    if !is_done {
        watch.is_early.store(true, Ordering::Relaxed);
    }
}

impl Watch {
    fn thread(&self) -> MutexGuard<'_, Option<Handle>> {
        self.thread.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// This thread is the worker from now on, or the runner.
    pub(super) fn start(&self, is_runner: bool) {
        MINE.set(self);
        *self.thread() = Some(Handle::current());
        if is_runner {
            self.yield_to_others();
        }
        self.is_runner.store(is_runner, Ordering::Relaxed);
        self.outcast.store(is_runner, Ordering::Relaxed);
        self.is_slow.store(false, Ordering::Relaxed);
    }

    /// This thread is no worker any more.
    pub(super) fn stop(&self) {
        self.hold.set(false);
        *self.thread() = None;
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

    /// True, once, if the watchdog has found that the last turn took much CPU time.
    #[inline]
    pub(super) fn take_slow(&self) -> bool {
        self.is_slow.load(Ordering::Relaxed) && self.is_slow.swap(false, Ordering::Relaxed)
    }

    /// Notes whether the next turn is that of a suspect.
    pub(super) fn set_suspect(&self, is_suspect: bool) {
        self.is_suspect.store(is_suspect, Ordering::Relaxed);
    }

    /// Whether the thread runs suspects only, and is not given up.
    pub(super) fn is_runner(&self) -> bool {
        self.is_runner.load(Ordering::Relaxed)
    }

    /// The same; from then on it is not any more.
    pub(super) fn take_runner(&self) -> bool {
        self.is_runner.swap(false, Ordering::Relaxed)
    }

    /// Whether the watchdog has given this worker up.
    #[inline]
    pub(super) fn is_outcast(&self) -> bool {
        self.outcast.load(Ordering::Relaxed)
    }

    /// Whether a thread runs the worker, and is not given up.
    pub(super) fn is_running(&self) -> bool {
        let thread = self.thread();
        thread.is_some() && !self.is_outcast()
    }

    fn poke(&self) {
        if let Some(thread) = *self.thread() {
            // SAFETY: the thread takes its handle away, under the lock, before it ends.
            unsafe { thread.poke() };
        }
    }

    /// Lets others go first, for good: given up, it never runs another context.
    fn yield_to_others(&self) {
        if let Some(thread) = *self.thread() {
            thread.yield_to_others();
        }
    }

    fn cpu_time(&self) -> Option<Duration> {
        let thread = self.thread();
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
    /// The thread has used CPU time since the look before.
    is_busy: bool,
}

struct Watchdog {
    scheduler: Arc<Scheduler>,
    seen: Vec<Seen>,
    /// Looks until suspects are trusted again.
    wary: u32,
    /// Looks until a worker that could not be started is tried again.
    retry: u32,
    /// Looks until others among the stuck ones go on, and whose turn it is then.
    slice: u32,
    cursor: usize,
    trimmer: Trimmer,
}

/// Starts the watchdog.
///
/// # Errors
/// If its thread cannot be started.
pub(super) fn start(scheduler: &Arc<Scheduler>) -> std::io::Result<()> {
    thread::on_poke(poked);
    let mut watchdog = Watchdog {
        scheduler: Arc::clone(scheduler),
        seen: Vec::new(),
        wary: 0,
        retry: 0,
        slice: 0,
        cursor: 0,
        trimmer: Trimmer::default(),
    };
    let started =
        std::thread::Builder::new().name("watchdog".to_owned()).spawn(move || watchdog.run())?;
    let _ = scheduler.alarm.watchdog.set(started.thread().clone());
    Ok(())
}

impl Watchdog {
    fn run(&mut self) {
        let mut quiet = 0;
        while !self.scheduler.is_done() {
            let early = self.poke_early();
            std::thread::sleep(TICK.saturating_sub(early));
            quiet = if self.look() { 0 } else { quiet + 1 };
            match quiet {
                0 => self.trimmer.note(),
                _ if quiet >= QUIET_TICKS => self.trimmer.rest(),
                _ => {}
            }
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

    /// Pokes those again that were poked too early, until that helps or it is time for the next
    /// look; returns the time it has taken.
    fn poke_early(&self) -> Duration {
        for round in 1..=EARLY_POKES {
            let mut early = self.scheduler.remotes().map(|remote| &*remote.watch);
            if !early.any(|watch| watch.is_early.load(Ordering::Relaxed)) {
                return EARLY * (round - 1);
            }
            std::thread::sleep(EARLY);
            for remote in self.scheduler.remotes() {
                if remote.watch.is_early.swap(false, Ordering::Relaxed) {
                    remote.watch.poke();
                }
            }
        }
        EARLY * EARLY_POKES
    }

    /// Looks at every worker; false if none has run since the last look.
    fn look(&mut self) -> bool {
        let scheduler = Arc::clone(&self.scheduler);
        let remotes = scheduler.remotes();
        self.seen.resize(remotes.clone().count(), Seen::default());
        let (mut has_run, mut given_up, mut stuck) = (false, 0, 0);
        for (index, (remote, seen)) in remotes.zip(&mut self.seen).enumerate() {
            let watch = &remote.watch;
            // Whether or not the turn has ended since the thread was poked.
            if let Some(context) = watch.slot.collect() {
                has_run = true;
                scheduler.share(context);
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
            seen.ticks = seen.ticks.saturating_add(1);
            let is_due = seen.ticks.wrapping_add(index as u32).is_multiple_of(LONG_PERIOD);
            if seen.ticks > LONG_TICKS && !seen.is_busy && watch.is_outcast() && !is_due {
                stuck += 1;
                continue;
            }
            scheduler.on_long_turn(watch, seen);
            let is_suspect = watch.is_suspect.load(Ordering::Relaxed);
            let patience = match is_suspect && scheduler.suspects.is_wary() {
                true => STUCK_TICKS_WARY,
                false => STUCK_TICKS,
            };
            if seen.ticks < patience {
                continue;
            }
            if (seen.ticks - patience).is_multiple_of(OUTPUT_TICKS) {
                stdio::nudge();
            }
            stuck += 1;
            let is_runner = watch.take_runner();
            if is_runner {
                scheduler.suspects.set_runner(false);
            } else if scheduler.give_up(remote) {
                scheduler.places.vacate(index);
                given_up += 1;
            } else {
                continue;
            }
            if is_suspect && seen.charged > Duration::ZERO {
                self.wary = WARY_TICKS;
            }
        }
        if given_up > 0 {
            scheduler.suspects.set_wary(self.wary > 0);
            scheduler.replace(given_up, stuck);
        }
        scheduler.suspects.set_full(stuck >= STUCK_MAX && !scheduler.is_closing());
        self.relax();
        self.share();
        has_run || scheduler.suspects.are_held() || scheduler.places.waiting().next().is_some()
    }

    /// Trusts new contexts again after a while, and starts workers that are missing.
    fn relax(&mut self) {
        let scheduler = &self.scheduler;
        self.wary = self.wary.saturating_sub(1);
        if self.wary == 0 {
            scheduler.suspects.set_wary(false);
        }
        // They may have had to wait until now.
        if scheduler.suspects.are_free() && scheduler.idle.may_have() {
            scheduler.wake_one();
        }
        // What only one worker may run may have had to wait, for the worker or because it is wary.
        for holder in scheduler.places.waiting().filter_map(|(_, holder)| holder) {
            scheduler.call(holder);
        }
        self.retry = self.retry.saturating_sub(1);
        while self.retry == 0 && scheduler.running() < scheduler.workers() && scheduler.can_grow() {
            if !scheduler.start_extra(false) {
                self.retry = RETRY_TICKS;
            }
        }
        if self.retry == 0 && scheduler.suspects.need_runner() && scheduler.can_grow() {
            scheduler.suspects.set_runner(true);
            if !scheduler.start_extra(true) {
                scheduler.suspects.set_runner(false);
                self.retry = RETRY_TICKS;
            }
        }
    }

    /// Lets as many of the stuck ones that use CPU time run as there are workers; the others stand
    /// still meanwhile.
    fn share(&mut self) {
        let scheduler = Arc::clone(&self.scheduler);
        let stuck: Vec<&Watch> = scheduler
            .remotes()
            .zip(&self.seen)
            .map(|(remote, seen)| (&*remote.watch, seen))
            .filter(|(watch, seen)| {
                watch.is_outcast() && seen.turn % 2 == 1 && (seen.is_busy || watch.hold.is_set())
            })
            .map(|(watch, _)| watch)
            .collect();
        self.slice = self.slice.saturating_sub(1);
        let is_due = self.slice == 0;
        if is_due {
            self.slice = SLICE_TICKS;
            self.cursor += scheduler.workers();
        }
        if stuck.len() <= scheduler.workers() {
            stuck
                .iter()
                .filter(|watch| watch.hold.is_set())
                .for_each(|watch| watch.hold.set(false));
            return;
        }
        let mut running = stuck.iter().filter(|watch| !watch.hold.is_set()).count();
        let chosen = |index: usize| {
            (index + stuck.len() - self.cursor % stuck.len()) % stuck.len() < scheduler.workers()
        };
        for (index, watch) in stuck.iter().enumerate() {
            let is_doomed =
                watch.doomed.load(Ordering::Relaxed) == watch.turn.load(Ordering::Relaxed);
            let goes_on = is_doomed
                || match is_due {
                    true => chosen(index),
                    // Newly stuck ones wait for their turn.
                    false => !watch.hold.is_set() && running <= scheduler.workers(),
                };
            if goes_on {
                if watch.hold.is_set() {
                    watch.hold.set(false);
                }
                continue;
            }
            running = running.saturating_sub(usize::from(!watch.hold.is_set()));
            // Asked again if it has not got there, in a C function perhaps.
            let is_new = !watch.hold.is_set();
            watch.hold.set(true);
            if is_new || is_due {
                watch.poke();
            }
        }
    }
}

impl Scheduler {
    /// Reacts to a turn that has lasted for more than a tick.
    fn on_long_turn(&self, watch: &Watch, seen: &mut Seen) {
        let id = Id::from_number(f64::from_bits(watch.context.load(Ordering::Relaxed)));
        let Some(context) = id.and_then(|id| self.registry().get(id)) else { return };
        if let (Some(cpu), Some(before)) = (watch.cpu_time(), seen.cpu) {
            let used = cpu.saturating_sub(before);
            seen.is_busy = used > seen.charged;
            if used >= TICK && !watch.is_slow.swap(true, Ordering::Relaxed) && watch.is_outcast() {
                watch.yield_to_others();
            }
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
            false => {
                context.end_requested().is_some()
                    || watch.doomed.load(Ordering::Relaxed) == seen.turn
            }
        };
        if is_doomed {
            // Relaxed: the signal comes after it.
            watch.doomed.store(seen.turn, Ordering::Relaxed);
            if watch.hold.is_set() {
                watch.hold.set(false);
            }
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
        if watch.is_slow.load(Ordering::Relaxed) {
            watch.yield_to_others();
        }
        true
    }

    /// Starts workers in place of stuck ones.
    fn replace(self: &Arc<Self>, given_up: usize, stuck: usize) {
        let active = self.active.fetch_sub(given_up, Ordering::Relaxed) - given_up;
        let queued: usize = self.remotes().map(|other| other.stealer.len()).sum();
        let waiting = self.injector.len() + queued + self.suspects.free();
        let wanted = given_up.max((given_up * GROWTH).min(waiting));
        // All of them may get stuck next.
        let room = (STUCK_MAX + self.workers()).saturating_sub(stuck + active);
        let missing = self.workers().saturating_sub(active);
        for _ in 0..wanted.min(room).max(missing) {
            if !self.start_extra(false) {
                break;
            }
        }
    }
}
