//! A thread that notices long turns, and sleeps while no worker runs.
//!
//! A worker notes the beginning and the end of each turn in its [`Watch`]. The watchdog looks every
//! few milliseconds, as long as something runs. A worker that is in the same turn as before is
//! asked to have it cut if anybody waits; the context then waits with others of its kind for its
//! next slice. Where a turn cannot be cut, in a C function or a finaliser, the worker is given up:
//! what waits in its slot is made reachable, and a new one takes its place; the stuck one retires
//! when its turn has ended, or can be cut at last. If the context in a turn is to end, or has used
//! up the CPU time it may use, the program is interrupted.
//!
//! While all workers that are awake are in long turns nobody looks at the sockets: so the watchdog
//! waits for these instead of sleeping, and has somebody look.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use super::context::Context;
use super::scheduler::{Remote, Scheduler};
use super::supply::{GivenUp, Record, Stuck, Supply};
use super::trim::Trimmer;
use super::watch::{Watch, kicked};
use crate::os::{stdio, thread};
use crate::rt;
use crate::sync::atomic::{AtomicBool, Ordering, fence};

/// Time between two looks, and what a long turn gets of a worker before others of its kind do.
pub(super) const TICK: Duration = Duration::from_millis(4);

/// The same while others wait that are not known to take long, and while some have never run.
pub(super) const HURRY: Duration = Duration::from_millis(1);
const HURRY_NEW: Duration = Duration::from_micros(250);

/// A turn is not cut on demand before it has had so much of a slice.
const SLICE_MIN: Duration = Duration::from_micros(100);

/// Time until a thread is kicked again that was kicked where nothing could be asked of it …
const EARLY: Duration = Duration::from_micros(200);

/// … this many times between two looks.
const EARLY_KICKS: u32 = 4;

/// Time that a turn has to be cut in before its worker is given up …
const STUCK: Duration = Duration::from_millis(7);

/// … if it has used so much CPU time of it, or waits in a system call: on a machine that others
/// keep busy its thread may not have run at all.
const STUCK_CPU: Duration = Duration::from_millis(2);
const STUCK_LATEST: Duration = Duration::from_millis(250);

/// Looks between two times that what long turns have printed is written.
const OUTPUT_TICKS: u32 = 16;

/// Looks after which a turn that nobody waits for is cut all the same: if it cannot be, its worker
/// is to be known as stuck before it is needed.
const TRIAL_TICKS: u32 = 8;

/// Glances, one each [`HURRY`], after a worker was given up: its kind comes in crowds, and whoever
/// waits behind one waits for each generation of workers to be given up.
const GLANCES: u32 = 8;

/// CPU time after which a turn that cannot be cut lets all others go first: it is taken for one
/// that does not end, not for a C function that takes a while, however long that is on a busy
/// machine …
const COMPUTING: Duration = Duration::from_millis(500);

/// … or a tick, if more than this many for each worker are stuck: all together they would get most
/// of the machine. Who starts a process, and holds a lock for that, needs less.
const CROWD: usize = 4;

/// Looks that see a context being closed before its finalisers are interrupted: one second.
const CLOSING_TICKS: u32 = 250;

/// Looks that see nothing run before the watchdog goes to sleep.
const QUIET_TICKS: u32 = 3;

/// Of those that have been stuck for this many looks, and use no CPU time, only some are looked at:
/// each at one look in this many.
const LONG_TICKS: u32 = 250;
const LONG_PERIOD: u32 = 8;

/// Whether the watchdog sleeps, and its thread.
#[derive(Debug)]
pub(super) struct Alarm {
    is_asleep: AtomicBool,
    watchdog: OnceLock<std::thread::Thread>,
}

impl Alarm {
    pub(super) fn new() -> Alarm {
        Alarm { is_asleep: AtomicBool::new(false), watchdog: OnceLock::new() }
    }

    /// Wakes the watchdog if it sleeps: a worker that has left the list of those that wait is about
    /// to run turns. True if it slept.
    #[inline]
    pub(super) fn ring(&self) -> bool {
        // Pairs with the fence in `arm`: either this sees that the watchdog sleeps, or that one
        // sees that a worker has left the list.
        fence(Ordering::SeqCst);
        self.is_asleep.load(Ordering::Relaxed) && self.wake()
    }

    #[cold]
    fn wake(&self) -> bool {
        let is_first = self.is_asleep.swap(false, Ordering::Relaxed);
        if let (true, Some(watchdog)) = (is_first, self.watchdog.get()) {
            watchdog.unpark();
        }
        is_first
    }

    /// Whether the watchdog may sleep until it rings, which is so if all workers wait. However
    /// long one that does not is kept from running, it will not ring again.
    pub(super) fn arm(&self, all_wait: impl FnOnce() -> bool) -> bool {
        self.is_asleep.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        let may_sleep = all_wait();
        if !may_sleep {
            self.is_asleep.store(false, Ordering::Relaxed);
        }
        may_sleep
    }

    fn sleep(&self) {
        while self.is_asleep.load(Ordering::Relaxed) {
            std::thread::park();
        }
    }
}

/// What the watchdog remembers of a worker between two looks.
#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    turn: u64,
    /// Looks that have seen it in this turn, after the first.
    ticks: u32,
    /// The thread has used CPU time since the look before.
    is_busy: bool,
    /// What it has used since the first look.
    used: Duration,
    /// It was given up, and lets others go first.
    has_yielded: bool,
    /// Of its context.
    record: Option<Record>,
}

/// What a look finds out about all workers.
#[derive(Debug, Default)]
struct Found {
    /// Contexts are queued that workers may run.
    somebody_waits: bool,
    /// One has run since the last look.
    has_run: bool,
    /// How many were given up now, and are in long turns without being stuck.
    given_up: GivenUp,
    long: usize,
    stuck: Stuck,
}

struct Watchdog {
    scheduler: Arc<Scheduler>,
    seen: Vec<Seen>,
    /// What was stuck at the last look, or glance.
    stuck: Stuck,
    supply: Supply,
    /// Glances that are left, and the turn in which the last one has seen each worker.
    glances: u32,
    glanced: Vec<u64>,
    /// All workers that are awake are in long turns.
    is_alone: bool,
    trimmer: Trimmer,
}

impl Watchdog {
    fn run(&mut self) {
        let mut quiet = 0;
        while !self.scheduler.is_done() {
            self.wait();
            quiet = if self.look() { 0 } else { quiet + 1 };
            if quiet == 0 {
                self.trimmer.note();
            }
            let all_wait = || self.scheduler.idle.count() >= self.scheduler.running();
            if quiet >= QUIET_TICKS && self.scheduler.alarm.arm(all_wait) {
                self.trimmer.rest();
                self.scheduler.alarm.sleep();
                quiet = 0;
            }
        }
    }

    /// Waits until it is time for the next look. Meanwhile sees to what cannot wait as long.
    fn wait(&mut self) {
        let scheduler = &Arc::clone(&self.scheduler);
        let watches = || scheduler.remotes().map(|remote| &*remote.watch);
        let end = rt::now() + TICK.as_nanos() as u64;
        let mut early_kicks = EARLY_KICKS;
        loop {
            let left = Duration::from_nanos(end.saturating_sub(rt::now()));
            if left.is_zero() {
                return;
            }
            let is_early = early_kicks > 0 && watches().any(Watch::is_early);
            let pause = match () {
                () if is_early => EARLY,
                () if self.glances > 0 => HURRY,
                () if !scheduler.are_long_in_the_way() => TICK,
                () if scheduler.late.has_new() => HURRY_NEW,
                () => HURRY,
            };
            if !self.is_alone {
                std::thread::sleep(pause.min(left));
            } else if rt::wait_for_sockets(pause.min(left)) {
                scheduler.wake_one();
                // It needs a moment to look.
                std::thread::sleep(SLICE_MIN);
            }
            if self.glances > 0 {
                self.glance();
            }
            if is_early {
                early_kicks -= 1;
                watches().for_each(Watch::kick_early);
            }
            if pause < TICK && !is_early && scheduler.are_long_in_the_way() {
                scheduler.cut_long(pause);
            }
        }
    }

    /// Gives up the workers that wait in system calls since the last glance, if others wait.
    fn glance(&mut self) {
        let scheduler = Arc::clone(&self.scheduler);
        self.glances -= 1;
        let somebody_waits = scheduler.has_waiting();
        self.glanced.resize(scheduler.remotes().count(), 0);
        let mut asleep = 0;
        for (index, (remote, seen)) in scheduler.remotes().zip(&mut self.glanced).enumerate() {
            let turn = remote.watch.turn();
            let before = std::mem::replace(seen, turn);
            if turn % 2 == 1
                && turn == before
                && somebody_waits
                && scheduler.give_up_sleeper(index, remote)
            {
                asleep += 1;
                let context = scheduler.context_in(&remote.watch);
                self.stuck.add(context.map(|context| Record::of(&context)));
            }
        }
        self.provide(GivenUp { asleep, busy: 0 });
    }

    fn provide(&mut self, given_up: GivenUp) {
        self.supply.provide(&self.scheduler, self.stuck, given_up);
        if given_up.asleep > 0 {
            self.glances = GLANCES;
        }
    }

    /// Looks at every worker; false if none has run since the last look.
    fn look(&mut self) -> bool {
        let scheduler = Arc::clone(&self.scheduler);
        let remotes = scheduler.remotes();
        let mut seen = std::mem::take(&mut self.seen);
        seen.resize(remotes.clone().count(), Seen::default());
        let mut found = Found { somebody_waits: scheduler.has_waiting(), ..Found::default() };
        for (index, (remote, seen)) in remotes.zip(&mut seen).enumerate() {
            if scheduler.is_same_turn(&remote.watch, seen, &mut found) {
                self.look_at_long(index, remote, seen, &mut found);
            }
        }
        self.seen = seen;
        let Found { has_run, given_up, stuck, long, .. } = found;
        self.stuck = stuck;
        self.supply.tick();
        self.provide(given_up);
        self.relax();
        self.is_alone = long > 0 && long + scheduler.idle.count() >= scheduler.running();
        has_run || scheduler.late.are_held() || scheduler.affinity.waiting().next().is_some()
    }

    /// Looks at a worker that is in the same turn as at the last look: has that cut, or the worker
    /// given up.
    fn look_at_long(&self, index: usize, remote: &Remote, seen: &mut Seen, found: &mut Found) {
        let (scheduler, watch) = (&self.scheduler, &remote.watch);
        seen.ticks = seen.ticks.saturating_add(1);
        let is_due = seen.ticks.wrapping_add(index as u32).is_multiple_of(LONG_PERIOD);
        if seen.ticks > LONG_TICKS && !seen.is_busy && watch.is_retired() && !is_due {
            found.stuck.add(seen.record);
            return;
        }
        scheduler.on_long_turn(watch, seen);
        // One that was given up never runs another context.
        let is_crowd = self.stuck.count > CROWD * scheduler.workers();
        let most = if is_crowd { TICK } else { COMPUTING };
        let takes_too_much = seen.is_busy && seen.used >= most;
        if takes_too_much && !seen.has_yielded && watch.is_retired() {
            watch.yield_to_others();
            seen.has_yielded = true;
        }
        if watch.long_since().is_none() {
            let since = rt::now().saturating_sub(TICK.as_nanos() as u64);
            watch.begin_long(since, &scheduler.long);
        }
        if (seen.ticks - 1).is_multiple_of(OUTPUT_TICKS) {
            stdio::nudge();
        }
        // One that was given up may have come to where it can be cut at last.
        let is_wanted = match watch.is_retired() {
            true => seen.is_busy,
            false => {
                found.somebody_waits
                    || watch.slot.is_full()
                    || watch.asked_since().is_some()
                    || seen.ticks.is_multiple_of(TRIAL_TICKS)
            }
        };
        if is_wanted && !watch.is_cancelled(seen.turn) {
            watch.cut(seen.turn);
        }
        let is_given_up = scheduler.give_up(index, remote)
            || found.somebody_waits && scheduler.give_up_sleeper(index, remote);
        match is_given_up {
            true if watch.is_asleep() => found.given_up.asleep += 1,
            true => found.given_up.busy += 1,
            false => {}
        }
        match watch.is_retired() {
            true => found.stuck.add(seen.record),
            false => found.long += 1,
        }
    }

    /// Wakes who may have had to wait.
    fn relax(&self) {
        let scheduler = &self.scheduler;
        if scheduler.late.has_any() && scheduler.idle.may_have() {
            scheduler.wake_one();
        }
        // What only one worker may run may have had to wait for the worker.
        for (_, holder) in scheduler.affinity.waiting() {
            match holder {
                Some(holder) => scheduler.call(holder),
                // Whoever wakes takes it over.
                None => scheduler.wake_one(),
            }
        }
    }
}

impl Scheduler {
    /// Starts the watchdog.
    ///
    /// # Errors
    /// If its thread cannot be started.
    pub fn start_watchdog(self: &Arc<Self>) -> std::io::Result<()> {
        thread::on_kick(kicked);
        let mut watchdog = Watchdog {
            scheduler: Arc::clone(self),
            seen: Vec::new(),
            stuck: Stuck::default(),
            supply: Supply::default(),
            glances: 0,
            glanced: Vec::new(),
            is_alone: false,
            trimmer: Trimmer::default(),
        };
        let started = std::thread::Builder::new()
            .name("watchdog".to_owned())
            .spawn(move || watchdog.run())?;
        let _ = self.alarm.watchdog.set(started.thread().clone());
        Ok(())
    }

    /// Has a worker that is in a long turn cut it, for somebody who waits and finds no idle one.
    #[cold]
    pub(super) fn demand(&self) {
        let fresh = rt::now().saturating_sub(SLICE_MIN.as_nanos() as u64);
        for watch in self.remotes().map(|remote| &remote.watch) {
            // One is on its way, or is cut now; where it cannot be cut, another one is.
            let is_asked = watch.asked_since().is_some_and(|asked| asked > fresh);
            if is_asked && watch.long_turn().is_some() || watch.cut_after(SLICE_MIN) {
                return;
            }
        }
    }

    /// Has all turns cut, however short.
    pub(super) fn cut_all(&self) {
        for watch in self.remotes().map(|remote| &remote.watch) {
            let turn = watch.turn();
            if turn % 2 == 1 && !watch.is_retired() {
                watch.cut(turn);
            }
        }
    }

    /// Has all long turns cut that have used so much CPU time of their slices.
    fn cut_long(&self, used: Duration) {
        for remote in self.remotes() {
            remote.watch.cut_after(used);
        }
    }

    /// Whether workers are in long turns while others wait that are not known to take long.
    fn are_long_in_the_way(&self) -> bool {
        self.long.load(Ordering::Relaxed) > 0 && (self.has_ready() || self.late.has_unproven())
    }

    /// Whether anything is queued that workers may run.
    fn has_waiting(&self) -> bool {
        self.has_ready() || self.late.has_any() || self.affinity.waiting().next().is_some()
    }

    /// Whether a worker is in the turn that it was in at the last look; notes which one it is in.
    fn is_same_turn(&self, watch: &Watch, seen: &mut Seen, found: &mut Found) -> bool {
        // Whether or not the turn has ended since the worker was given up.
        if let Some(context) = watch.slot.collect() {
            found.has_run = true;
            self.share(context);
        }
        let turn = watch.turn();
        let runs = turn % 2 == 1;
        found.has_run |= runs || turn != seen.turn;
        if turn == seen.turn && runs {
            return true;
        }
        *seen = Seen { turn, ..Seen::default() };
        if runs && !watch.is_charging() {
            watch.begin_charging();
        }
        if runs && watch.is_retired() {
            // It was given up within a glance.
            seen.record = self.context_in(watch).map(|context| Record::of(&context));
            found.stuck.add(seen.record);
        } else {
            found.long += usize::from(runs && watch.long_since().is_some());
        }
        false
    }

    /// Whose turn it is.
    fn context_in(&self, watch: &Watch) -> Option<Arc<Context>> {
        self.registry().get(watch.context()?)
    }

    /// Reacts to a turn that has lasted for more than a tick.
    fn on_long_turn(&self, watch: &Watch, seen: &mut Seen) {
        let Some(context) = self.context_in(watch) else { return };
        let used = watch.charge(context.metrics(), false);
        seen.record = Some(Record::of(&context));
        seen.is_busy = !used.is_zero();
        seen.used += used;
        context.check_turn_limit();
        // One that is being closed has its finalisers left, which have some more time.
        let is_cancelled = match context.is_closed() {
            true => seen.ticks >= CLOSING_TICKS,
            false => context.end_requested().is_some() || watch.is_cancelled(seen.turn),
        };
        if is_cancelled {
            watch.interrupt(seen.turn);
        }
    }

    /// Gives up a worker whose turn should have been cut; false if it was before, or is not due.
    fn give_up(&self, index: usize, remote: &Remote) -> bool {
        let (now, watch) = (rt::now(), &remote.watch);
        let Some(since) = watch.asked_since() else { return false };
        let time = Duration::from_nanos(now.saturating_sub(since));
        let is_due = time >= STUCK && !watch.is_retired();
        let has_run = || watch.used_since_asked() >= STUCK_CPU || watch.is_asleep();
        let is_new = is_due && (has_run() || time >= STUCK_LATEST) && watch.give_up();
        if is_new {
            self.affinity.vacate(index);
        }
        is_new
    }

    /// Gives up a worker that waits in a system call; false if it does not, or was given up before.
    fn give_up_sleeper(&self, index: usize, remote: &Remote) -> bool {
        let is_new =
            !remote.watch.is_retired() && remote.watch.is_asleep() && remote.watch.give_up();
        if is_new {
            self.affinity.vacate(index);
        }
        is_new
    }
}
