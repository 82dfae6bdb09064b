//! The threads that there are for workers: who takes the place of a stuck one, and who has to wait
//! when few are left.
//!
//! Any context may get stuck, in a C function that waits for ever perhaps, and keeps its thread
//! then. While there are threads enough one takes its place, and some more, since the next may get
//! stuck too. When there are many stuck, or the system refuses one, what is left is for contexts of
//! which that is not to be expected: those that have had more turns than what is stuck, and those
//! that are older, as creators are. Some threads have been kept ready for these. The last is for
//! the main script: nobody else runs on it, however they have behaved, so that there is always one
//! who can do something about it.

use std::sync::Arc;

use super::context::Context;
use super::late::{Bar, Held};
use super::scheduler::Scheduler;
use crate::logging::Seldom;

/// New workers for each one that is given up in a system call, if as many contexts wait: they may
/// get stuck next.
const GROWTH: usize = 3;

/// Looks after which a thread that could not be started is tried again: a second.
const RETRY_TICKS: u32 = 250;

/// Turns that may be stuck before contexts that have never run wait until one of those ends, and
/// before those do that have run; see [`super::late`]. From the first on who has had fewer turns
/// than one of the stuck is among these, however short they were.
const STUCK_MAX: usize = 1024;
const STUCK_LONG: usize = STUCK_MAX + STUCK_MAX / 2;

/// Workers that may be started beside those the process was started with. What is above
/// [`STUCK_LONG`] is for contexts that may run all the same.
pub(super) const EXTRA_MAX: usize = 2 * STUCK_MAX;

/// Threads are kept ready for a part of what is stuck: one for so many, at least one for each
/// worker, and at most so many.
const STUCK_PER_PARKED: usize = 4;
const PARKED_MAX: usize = EXTRA_MAX - STUCK_LONG;

/// What a context that is stuck, or may get so, has to show.
#[derive(Clone, Copy, Debug)]
pub(super) struct Record {
    /// Turns that it has begun.
    turns: u64,
    /// How many contexts had been created before.
    birth: u64,
}

impl Record {
    pub(super) fn of(context: &Context) -> Record {
        Record { turns: context.metrics().turns(), birth: context.birth() }
    }
}

/// What is stuck.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stuck {
    pub(super) count: usize,
    /// The most turns, and the least birth.
    most: Record,
}

impl Default for Stuck {
    fn default() -> Stuck {
        Stuck { count: 0, most: Record { turns: 0, birth: u64::MAX } }
    }
}

impl Stuck {
    /// Counts one more, of whose context this is known.
    pub(super) fn add(&mut self, record: Option<Record>) {
        self.count += 1;
        if let Some(Record { turns, birth }) = record {
            self.most.turns = self.most.turns.max(turns);
            self.most.birth = self.most.birth.min(birth);
        }
    }
}

/// Workers that were given up: how many wait in system calls, and how many compute.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct GivenUp {
    pub(super) asleep: usize,
    pub(super) busy: usize,
}

/// What the watchdog remembers of this between two looks.
#[derive(Debug, Default)]
pub(super) struct Supply {
    held: Held,
    /// The system has refused a thread, and given none since.
    is_short: bool,
    /// Looks until it is asked again.
    retry: u32,
}

impl Supply {
    /// Counts a look.
    pub(super) fn tick(&mut self) {
        self.retry = self.retry.saturating_sub(1);
    }

    /// So many are stuck, of which these were given up just now. What may get stuck next is held
    /// back before they are replaced: at the next look it might have all threads that there are.
    pub(super) fn provide(&mut self, scheduler: &Arc<Scheduler>, stuck: Stuck, given_up: GivenUp) {
        scheduler.note_given_up(given_up.asleep + given_up.busy);
        let wanted = (stuck.count / STUCK_PER_PARKED).min(PARKED_MAX).max(scheduler.workers());
        let wanted = wanted.min(scheduler.room());
        scheduler.parked.want(wanted);
        if stuck.count == 0 && scheduler.parked.count() >= wanted {
            (self.is_short, self.retry) = (false, 0);
        }
        self.hold(scheduler, stuck);
        for _ in 0..growth(scheduler, stuck, given_up.asleep) {
            if !self.start(|| scheduler.start_extra(false)) {
                break;
            }
        }
        // One more than there should be tells that the system starts some again.
        while (self.is_short || scheduler.parked.count() < wanted)
            && self.start(|| scheduler.park().map(|()| true))
        {}
        if self.is_short {
            self.hold(scheduler, stuck);
        }
        let target = self.left(scheduler).saturating_sub(1).clamp(1, scheduler.workers());
        scheduler.set_target(target);
        while scheduler.running() < target
            && (self.start(|| scheduler.start_extra(false))
                || scheduler.start_extra(true).is_ok_and(|is_new| is_new))
        {}
    }

    /// Starts a thread, unless one was refused just now; false if that is not possible.
    fn start(&mut self, start: impl FnOnce() -> std::io::Result<bool>) -> bool {
        static REFUSALS: Seldom = Seldom::new();
        if self.retry > 0 {
            return false;
        }
        let started = start().inspect(|&is_new| self.is_short &= !is_new);
        started.unwrap_or_else(|error| {
            if REFUSALS.is_due() {
                log::warn!("the system starts no more threads for workers: {error}");
            }
            (self.retry, self.is_short) = (RETRY_TICKS, true);
            false
        })
    }

    /// Workers that are not stuck, and those that can be started.
    fn left(&self, scheduler: &Scheduler) -> usize {
        let new = if self.is_short { scheduler.parked.count() } else { usize::MAX };
        scheduler.running() + scheduler.room().min(new)
    }

    /// Has those wait who have to.
    fn hold(&mut self, scheduler: &Scheduler, stuck: Stuck) {
        let held = match () {
            () if stuck.count == 0 || scheduler.is_closing() => Held::Nobody,
            () if self.left(scheduler) <= 1 => Held::Others,
            () if self.is_short || stuck.count >= STUCK_LONG => Held::Most,
            () if stuck.count >= STUCK_MAX => Held::New,
            () => Held::Nobody,
        };
        let bar = Bar { held, turns: stuck.most.turns, birth: stuck.most.birth };
        scheduler.late.hold(bar);
        scheduler.affinity.hold(bar);
        if held > self.held {
            warn(held, stuck);
        }
        self.held = held;
    }
}

/// How many workers to start for those that were given up just now and wait in system calls. For
/// those that compute there are as many as before, and no more: beside so many threads as compute
/// already others would get less of a CPU, and be given up for that.
fn growth(scheduler: &Scheduler, stuck: Stuck, asleep: usize) -> usize {
    // All of them may get stuck next: what is left beyond STUCK_MAX is used one by one.
    let room = (STUCK_MAX + scheduler.workers()).saturating_sub(stuck.count + scheduler.running());
    let waiting = scheduler.late.unproven() + scheduler.ready();
    asleep.max((asleep * GROWTH).min(waiting)).min(room)
}

/// Says who has to wait from now on.
#[cold]
fn warn(held: Held, stuck: Stuck) {
    static WARNED: [Seldom; 3] = [Seldom::new(), Seldom::new(), Seldom::new()];
    if held == Held::Nobody || !WARNED[held as usize - 1].is_due() {
        return;
    }
    let (count, turns) = (stuck.count, stuck.most.turns);
    let who = match held {
        Held::Nobody | Held::New => "contexts that have never run wait".to_owned(),
        Held::Most => format!(
            "contexts that were created after one of those, and have had fewer than {turns} \
             turns, as those had, or take long, wait"
        ),
        Held::Others => "all contexts but the main script's wait".to_owned(),
    };
    log::warn!(
        "{count} turns are stuck in C functions or system calls: {who} until some of them end"
    );
}
