//! Contexts that run after those whose turns are short: unproven ones and suspended ones.
//!
//! Unproven ones have never run, were suspended in their last turn, or are in the first slice of
//! their turn. Of these, contexts that have run before go first. Of the suspended ones, the one
//! goes first that has used the least CPU time (`fair.rs`). Workers take from the two kinds
//! alternately, so that neither waits until all of the other have run.
//!
//! While many threads are stuck these have to wait, but for those that are not taken for the next
//! of its kind: they have had more turns than what is stuck, or are older; see [`super::supply`].

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use crossbeam_deque::Injector;

use super::context::Context;
use super::fair::Fair;
use super::newcomers::Newcomers;
use super::watchdog::TICK;

type Queue = Injector<Arc<Context>>;

/// Queues of them, each in the order of arrival.
#[derive(Debug, Default)]
pub(super) struct Late {
    /// Unproven contexts that have run before.
    again: Queue,
    /// Contexts in the first slice of their first turn.
    first: Newcomers,
    /// Suspended later.
    cut: Fair,
    /// Of any of these kinds, while some must wait: those that need not.
    excused: Queue,
    /// The [`Bar`], written by the watchdog. Beyond [`Held::Most`] nobody has had enough turns.
    held: AtomicUsize,
    turns: AtomicU64,
    birth: AtomicU64,
}

/// Who has to wait, since too many threads are stuck in turns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Held {
    #[default]
    Nobody,
    /// Contexts in their first turn.
    New,
    /// Those, and all whose turns take long, or are no more than what is stuck has begun; but for
    /// those that are older.
    Most,
    /// All but the main script. Those that have run wait even to be ended: their finalisers might
    /// get stuck.
    Others,
}

impl Held {
    const ALL: [Held; 4] = [Held::Nobody, Held::New, Held::Most, Held::Others];
}

/// Who has to wait, and what excuses from that.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Bar {
    pub(super) held: Held,
    /// More turns than what is stuck has begun.
    pub(super) turns: u64,
    /// To have been created before all that is stuck.
    pub(super) birth: u64,
}

/// Takes the next one, skipping those that `destroy` has queued elsewhere.
fn claim(take: impl FnMut() -> Option<Arc<Context>>) -> Option<Arc<Context>> {
    std::iter::from_fn(take).find(|context| context.claim())
}

fn steal(queue: &Queue) -> Option<Arc<Context>> {
    std::iter::repeat_with(|| queue.steal()).find(|found| !found.is_retry())?.success()
}

fn take(queue: &Queue) -> Option<Arc<Context>> {
    claim(|| steal(queue))
}

impl Late {
    /// Queues a context whose turn is to begin, and which is noted as queued here.
    pub(super) fn push(&self, context: Arc<Context>) {
        match context.metrics().turns() {
            _ if self.excuses(&context) => self.excused.push(context),
            0 => self.first.push(context),
            _ => self.again.push(context),
        }
    }

    /// Queues one whose turn was cut, likewise.
    pub(super) fn push_cut(&self, context: Arc<Context>) {
        let metrics = context.metrics();
        // What is left of the first slice is given away if it is not worth one of its own.
        if self.excuses(&context) {
            self.excused.push(context);
        } else if metrics.turn_cpu() >= TICK - TICK / 8 {
            self.cut.push(context);
        } else if metrics.turns() > 1 {
            self.again.push(context);
        } else {
            self.first.push(context);
        }
    }

    /// Sets who has to wait. Of those that wait already, who need not any more is found by others
    /// from now on.
    pub(super) fn hold(&self, bar: Bar) {
        let turns = if bar.held == Held::Others { u64::MAX } else { bar.turns };
        let turns = if bar.held == Held::Nobody { 0 } else { turns };
        let held = self.held.swap(bar.held as usize, Ordering::Relaxed);
        let turns = self.turns.swap(turns, Ordering::Relaxed) != turns;
        let birth = self.birth.swap(bar.birth, Ordering::Relaxed) != bar.birth;
        if bar.held != Held::Nobody && (held != bar.held as usize || turns || birth) {
            self.find_excused();
        }
    }

    #[cold]
    fn find_excused(&self) {
        for _ in 0..self.again.len() {
            let Some(context) = steal(&self.again) else { break };
            match self.excuses(&context) {
                true => self.excused.push(context),
                false => self.again.push(context),
            }
        }
        let is_excused = |context: &Context| self.excuses(context);
        let found = [self.first.remove(is_excused), self.cut.remove(is_excused)];
        found.into_iter().flatten().for_each(|context| self.excused.push(context));
    }

    /// Whether a context with so many turns is to be here, however short they were, unless it is
    /// excused: some must wait, and what is stuck has begun one more at least.
    #[inline]
    pub(super) fn is_for_few(&self, turns: u64) -> bool {
        turns < self.turns.load(Ordering::Relaxed)
    }

    /// Whether some must wait, but not this one.
    pub(super) fn excuses(&self, context: &Context) -> bool {
        let (held, turns) = (self.held(), self.turns.load(Ordering::Relaxed));
        let has_proven = || {
            let is_older = context.birth() < self.birth.load(Ordering::Relaxed);
            is_older || context.metrics().turns() > turns.max(1)
        };
        held > Held::Nobody && (context.is_root() || held < Held::Others && has_proven())
    }

    pub(super) fn held(&self) -> Held {
        Held::ALL[self.held.load(Ordering::Relaxed)]
    }

    /// Whether there are contexts in their first turn at all.
    fn is_any_first(&self) -> bool {
        !self.first.is_empty()
    }

    /// Whether there is one whose turn is to begin or has just begun, and that may run.
    pub(super) fn has_unproven(&self) -> bool {
        !self.again.is_empty() && self.held() < Held::Most
            || self.is_any_first() && self.held() == Held::Nobody
    }

    /// Whether one has never run, and may.
    pub(super) fn has_new(&self) -> bool {
        self.first.never_run() > 0 && self.held() == Held::Nobody
    }

    /// Whether there is one that may run.
    pub(super) fn has_any(&self) -> bool {
        self.has_unproven()
            || !self.cut.is_empty() && self.held() < Held::Most
            || !self.excused.is_empty()
    }

    /// How many of these there are.
    pub(super) fn unproven(&self) -> usize {
        match self.held() {
            Held::Nobody => self.again.len() + self.first.never_run(),
            Held::New => self.again.len(),
            Held::Most | Held::Others => 0,
        }
    }

    /// Whether some have to wait because of [`Late::hold`].
    pub(super) fn are_held(&self) -> bool {
        let (held, are_others) = (self.held(), !self.again.is_empty() || !self.cut.is_empty());
        held > Held::Nobody && self.is_any_first() || held > Held::New && are_others
    }

    /// Takes the next one: of those whose turns were cut, if these are to come first.
    pub(super) fn take(&self, cut_first: bool) -> Option<Arc<Context>> {
        let held = self.held();
        let (may_new, may_again) = (held == Held::Nobody, held < Held::Most);
        let first = || claim(|| self.first.take());
        let again = || may_again.then(|| take(&self.again)).flatten();
        let unproven = || again().or_else(|| may_new.then(first).flatten());
        let cut = || may_again.then(|| claim(|| self.cut.take())).flatten();
        let excused = || claim(|| self.take_excused());
        match cut_first {
            true => excused().or_else(cut).or_else(unproven),
            false => unproven().or_else(cut).or_else(excused),
        }
    }

    /// The next one that was excused, and still is: more may have to wait since.
    fn take_excused(&self) -> Option<Arc<Context>> {
        loop {
            let context = steal(&self.excused)?;
            if self.held() == Held::Nobody || self.excuses(&context) {
                return Some(context);
            }
            self.again.push(context);
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::time::Duration;

    use super::super::program::{End, Nothing};
    use super::super::scheduler::Scheduler;
    use super::*;

    fn child(scheduler: &Arc<Scheduler>) -> Arc<Context> {
        let parent = Some(crate::message::Id::new(0, 0));
        scheduler.spawn(parent, Default::default(), Box::new(Nothing)).unwrap()
    }

    fn suspend(context: &Context) {
        context.metrics().cut();
        context.suspend();
    }

    /// These have to wait, since what is stuck has begun so many turns, and nobody is older.
    fn bar(held: Held, turns: u64) -> Bar {
        Bar { held, turns, birth: 0 }
    }

    fn push(late: &Late, context: &Arc<Context>) {
        assert!(!context.is_prompt());
        late.push(Arc::clone(context));
    }

    #[test]
    fn of_both_kinds_some_go_first() {
        let scheduler = Scheduler::new(2);
        let late = Late::default();
        let spawn = || scheduler.spawn(None, Default::default(), Box::new(Nothing)).unwrap();
        let all: Vec<_> = (0..4).map(|_| spawn()).collect();
        let cut = |context: usize, used| {
            all[context].metrics().add_turn_cpu(Duration::from_millis(used));
            suspend(&all[context]);
            late.push_cut(Arc::clone(&all[context]));
        };
        cut(0, 8);
        cut(1, 5);
        push(&late, &all[2]);
        cut(3, 1);
        let order = [false, true, true, false].map(|cut_first| late.take(cut_first).unwrap().id());
        assert_eq!(order, [2, 1, 0, 3].map(|context: usize| all[context].id()));
        assert!(late.take(false).is_none() && !late.has_any());
    }

    #[test]
    fn what_is_held_waits() {
        let scheduler = Scheduler::new(2);
        let late = Late::default();
        let spawn = || child(&scheduler);
        let (new, cut) = (spawn(), spawn());
        push(&late, &new);
        cut.metrics().add_turn_cpu(TICK);
        suspend(&cut);
        late.push_cut(cut);
        late.hold(bar(Held::Most, 1));
        assert!(late.take(false).is_none() && !late.has_any() && late.are_held());
        late.hold(bar(Held::New, 1));
        assert!(late.has_any() && late.unproven() == 0);
        assert!(late.take(false).is_some() && late.take(true).is_none() && late.are_held());
        late.hold(bar(Held::Nobody, 1));
        assert!(late.take(true).is_some() && !late.are_held());
    }

    #[test]
    fn who_has_had_more_turns_than_what_is_stuck_does_not_wait() {
        let scheduler = Scheduler::new(2);
        let late = Late::default();
        let spawn = || child(&scheduler);
        let (few, many, cut) = (spawn(), spawn(), spawn());
        (0..3).for_each(|_| few.metrics().count_turn());
        (0..4).for_each(|_| [&many, &cut].iter().for_each(|it| it.metrics().count_turn()));
        assert!(!late.is_for_few(0));
        late.hold(bar(Held::Most, 3));
        assert!(late.is_for_few(2) && !late.is_for_few(3));
        push(&late, &few);
        push(&late, &many);
        suspend(&cut);
        late.push_cut(cut);
        for cut_first in [true, false] {
            assert_eq!(late.take(cut_first).unwrap().metrics().turns(), 4);
        }
        assert!(late.take(true).is_none() && late.are_held());
    }

    #[test]
    fn who_is_older_than_what_is_stuck_does_not_wait_nor_the_main_script_ever() {
        let scheduler = Scheduler::new(2);
        let late = Late::default();
        let main = scheduler.spawn(None, Default::default(), Box::new(Nothing)).unwrap();
        let (old, young) = (child(&scheduler), child(&scheduler));
        let stuck = child(&scheduler);
        [&main, &old, &young].iter().for_each(|it| it.metrics().count_turn());
        // They wait already, in either way, when it begins.
        push(&late, &young);
        old.metrics().add_turn_cpu(TICK);
        suspend(&old);
        late.push_cut(Arc::clone(&old));
        let bar = |held, birth| Bar { held, turns: 7, birth };
        late.hold(bar(Held::Most, young.birth()));
        assert_eq!(late.take(false).unwrap().id(), old.id());
        assert!(late.take(false).is_none() && late.are_held());
        assert!(!late.excuses(&stuck) && late.excuses(&main));
        late.hold(bar(Held::Most, stuck.birth()));
        assert!(late.has_any());
        late.hold(bar(Held::Others, stuck.birth()));
        assert!(late.is_for_few(u64::MAX - 1) && !late.excuses(&young) && late.excuses(&main));
        push(&late, &main);
        assert_eq!(late.take(true).unwrap().id(), main.id());
        assert!(late.take(true).is_none(), "more have to wait since");
        late.hold(bar(Held::Nobody, 0));
        assert_eq!(late.take(true).unwrap().id(), young.id());
    }

    #[test]
    fn who_was_ended_meanwhile_is_not_here_any_more() {
        let scheduler = Scheduler::new(2);
        let late = Late::default();
        let context = scheduler.spawn(None, Default::default(), Box::new(Nothing)).unwrap();
        suspend(&context);
        late.push_cut(Arc::clone(&context));
        context.destroy(End::Normal);
        assert!(late.take(false).is_none());
        assert!(!context.claim(), "it is queued as others are");
        assert!(context.is_prompt(), "it would be here for nothing");
    }
}
