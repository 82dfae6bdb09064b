//! Contexts that run after those whose turns are short: unproven ones and suspended ones.
//!
//! Unproven ones have never run, were suspended in their last turn, or are in the first slice of
//! their turn. Of these, contexts that have run before go first. Of the suspended ones, the one
//! goes first that has used the least CPU time (`fair.rs`). Workers take from the two kinds
//! alternately, so that neither waits until all of the other have run.
//!
//! While many threads are stuck these have to wait, but for those that have had more turns than
//! what is stuck: these are not taken for the next of its kind.

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
    /// Of any of these kinds, while some must wait: those that have had more turns.
    tried: Queue,
    /// Which kinds must wait, since too many threads are stuck in turns: 0 none, 1 those in their
    /// first turn, 2 all. Written by the watchdog. Those that are destroyed do not.
    held: AtomicUsize,
    /// How many turns those that are stuck have begun, while some must wait; else 0.
    stuck_turns: AtomicU64,
}

/// Takes the next one, skipping those that `destroy` has queued elsewhere.
fn claim(take: impl FnMut() -> Option<Arc<Context>>) -> Option<Arc<Context>> {
    std::iter::from_fn(take).find(|context| context.claim())
}

fn take(queue: &Queue) -> Option<Arc<Context>> {
    claim(|| std::iter::repeat_with(|| queue.steal()).find(|found| !found.is_retry())?.success())
}

impl Late {
    /// Queues a context whose turn is to begin, and which is noted as queued here.
    pub(super) fn push(&self, context: Arc<Context>) {
        match context.metrics().turns() {
            0 => self.first.push(context),
            turns if self.are_many(turns) => self.tried.push(context),
            _ => self.again.push(context),
        }
    }

    /// Queues one whose turn was cut, likewise.
    pub(super) fn push_cut(&self, context: Arc<Context>) {
        let metrics = context.metrics();
        // What is left of the first slice is given away if it is not worth one of its own.
        if self.are_many(metrics.turns()) {
            self.tried.push(context);
        } else if metrics.turn_cpu() >= TICK - TICK / 8 {
            self.cut.push(context);
        } else if metrics.turns() > 1 {
            self.again.push(context);
        } else {
            self.first.push(context);
        }
    }

    /// Makes contexts in their first turn (1), all (2) or none (0) wait, but for those that have
    /// begun more turns than what is stuck.
    pub(super) fn hold(&self, held: usize, stuck_turns: u64) {
        self.held.store(held, Ordering::Relaxed);
        self.stuck_turns.store(if held > 0 { stuck_turns } else { 0 }, Ordering::Relaxed);
    }

    /// Whether a context with so many turns is to be here, however short they were: some must wait,
    /// and what is stuck has begun one more at least.
    #[inline]
    pub(super) fn is_for_few(&self, turns: u64) -> bool {
        turns < self.stuck_turns.load(Ordering::Relaxed)
    }

    /// Whether some must wait, and these are more turns than what is stuck has begun.
    fn are_many(&self, turns: u64) -> bool {
        (1..turns).contains(&self.stuck_turns.load(Ordering::Relaxed))
    }

    fn held(&self) -> usize {
        self.held.load(Ordering::Relaxed)
    }

    /// Whether there are contexts in their first turn at all.
    fn is_any_first(&self) -> bool {
        !self.first.is_empty()
    }

    /// Whether there is one whose turn is to begin or has just begun, and that may run.
    pub(super) fn has_unproven(&self) -> bool {
        !self.again.is_empty() && self.held() < 2 || self.is_any_first() && self.held() == 0
    }

    /// Whether one has never run, and may.
    pub(super) fn has_new(&self) -> bool {
        self.first.never_run() > 0 && self.held() == 0
    }

    /// Whether there is one that may run.
    pub(super) fn has_any(&self) -> bool {
        self.has_unproven() || !self.cut.is_empty() && self.held() < 2 || !self.tried.is_empty()
    }

    /// How many of these there are.
    pub(super) fn unproven(&self) -> usize {
        match self.held() {
            0 => self.again.len() + self.first.never_run(),
            1 => self.again.len(),
            _ => 0,
        }
    }

    /// Whether some have to wait because of [`Late::hold`].
    pub(super) fn are_held(&self) -> bool {
        let (held, are_others) = (self.held(), !self.again.is_empty() || !self.cut.is_empty());
        held > 0 && self.is_any_first() || held > 1 && are_others
    }

    /// Takes the next one: of those whose turns were cut, if these are to come first.
    pub(super) fn take(&self, cut_first: bool) -> Option<Arc<Context>> {
        let held = self.held();
        let again = || if held < 2 { take(&self.again) } else { None };
        let all_first = || claim(|| self.first.take());
        let unproven = || again().or_else(|| if held == 0 { all_first() } else { None });
        let cut = || if held < 2 { claim(|| self.cut.take()) } else { None };
        let tried = || take(&self.tried);
        match cut_first {
            true => tried().or_else(cut).or_else(unproven),
            false => unproven().or_else(cut).or_else(tried),
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

    fn suspend(context: &Context) {
        context.metrics().cut();
        context.suspend();
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
        let spawn = || scheduler.spawn(None, Default::default(), Box::new(Nothing)).unwrap();
        let (new, cut) = (spawn(), spawn());
        push(&late, &new);
        cut.metrics().add_turn_cpu(TICK);
        suspend(&cut);
        late.push_cut(cut);
        late.hold(2, 1);
        assert!(late.take(false).is_none() && !late.has_any() && late.are_held());
        late.hold(1, 1);
        assert!(late.has_any() && late.unproven() == 0);
        assert!(late.take(false).is_some() && late.take(true).is_none() && late.are_held());
        late.hold(0, 1);
        assert!(late.take(true).is_some() && !late.are_held());
    }

    #[test]
    fn who_has_had_more_turns_than_what_is_stuck_does_not_wait() {
        let scheduler = Scheduler::new(2);
        let late = Late::default();
        let spawn = || scheduler.spawn(None, Default::default(), Box::new(Nothing)).unwrap();
        let (few, many, cut) = (spawn(), spawn(), spawn());
        (0..3).for_each(|_| few.metrics().count_turn());
        (0..4).for_each(|_| [&many, &cut].iter().for_each(|it| it.metrics().count_turn()));
        assert!(!late.is_for_few(0));
        late.hold(2, 3);
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
