//! Contexts that only one worker may run: a queue for each index, which nobody steals from.
//!
//! An index belongs to the worker that has it from the beginning. The watchdog takes it away from
//! one that is stuck, and the next worker that has none takes it over, with what is queued. That
//! may be one that was given up meanwhile: as it goes it leaves the index to others.
//!
//! Whoever queues looks for the holder afterwards, and a holder looks at the queue after it has
//! become that: one of the two sees the other. Each context is queued at most once, so there are
//! never more entries than contexts.

use std::sync::Arc;

use crossbeam_deque::{Injector, Steal};

use super::context::Context;
use super::late::{Bar, Late};
use crate::sync::atomic::{AtomicBool, AtomicUsize, Ordering, fence};

/// Nobody holds the index.
const VACANT: usize = usize::MAX;

#[derive(Debug)]
struct Place {
    proven: Injector<Arc<Context>>,
    /// Those that may take long.
    late: Late,
    holder: AtomicUsize,
}

/// One queue for each worker the process is meant to run.
#[derive(Debug)]
pub(super) struct Affinity {
    affinity: Box<[Place]>,
    /// A context was bound to a worker: before that nobody looks at the queues.
    are_used: AtomicBool,
}

fn take(queue: &Injector<Arc<Context>>) -> Option<Arc<Context>> {
    loop {
        match queue.steal() {
            Steal::Success(context) => return Some(context),
            Steal::Empty => return None,
            Steal::Retry => {}
        }
    }
}

impl Affinity {
    pub(super) fn new(count: usize) -> Affinity {
        let place = |holder| Place {
            proven: Injector::new(),
            late: Late::default(),
            holder: AtomicUsize::new(holder),
        };
        Affinity { affinity: (0..count).map(place).collect(), are_used: AtomicBool::new(false) }
    }

    /// Whether there may be contexts here.
    #[inline]
    pub(super) fn are_used(&self) -> bool {
        // Relaxed: `push` has a fence after the store, and who goes to sleep one before the load.
        self.are_used.load(Ordering::Relaxed)
    }

    /// Queues a context of this index; returns who must be awake for it, unless that is to come.
    pub(super) fn push(&self, index: usize, context: Arc<Context>) -> Option<usize> {
        if !self.are_used() {
            self.are_used.store(true, Ordering::Relaxed);
        }
        let place = &self.affinity[index];
        match context.is_prompt() {
            true => place.proven.push(context),
            false => place.late.push(context),
        }
        self.holder(index)
    }

    /// Queues one that must wait, to end too.
    pub(super) fn push_late(&self, index: usize, context: Arc<Context>) {
        self.affinity[index].late.push(context);
    }

    /// Queues one whose turn was cut, likewise.
    pub(super) fn push_cut(&self, index: usize, context: Arc<Context>) -> Option<usize> {
        self.affinity[index].late.push_cut(context);
        self.holder(index)
    }

    /// Who holds the index now, for one that has queued something.
    fn holder(&self, index: usize) -> Option<usize> {
        // Pairs with the fence in `adopt`.
        fence(Ordering::SeqCst);
        let holder = self.affinity[index].holder.load(Ordering::Relaxed);
        (holder != VACANT).then_some(holder)
    }

    /// Takes a context whose last turn has ended in good time.
    #[inline]
    pub(super) fn take(&self, index: usize) -> Option<Arc<Context>> {
        self.has_proven(index).then(|| take(&self.affinity[index].proven)).flatten()
    }

    /// Takes one of the others, see [`Late::take`].
    pub(super) fn take_late(&self, index: usize, cut_first: bool) -> Option<Arc<Context>> {
        self.has_late(index).then(|| self.affinity[index].late.take(cut_first)).flatten()
    }

    #[inline]
    pub(super) fn has_proven(&self, index: usize) -> bool {
        self.are_used() && !self.affinity[index].proven.is_empty()
    }

    pub(super) fn has_late(&self, index: usize) -> bool {
        self.are_used() && self.affinity[index].late.has_any()
    }

    /// Has the others of all indices wait, see [`Late::hold`].
    pub(super) fn hold(&self, bar: Bar) {
        self.affinity.iter().for_each(|place| place.late.hold(bar));
    }

    /// The indices with something queued, and who holds them.
    pub(super) fn waiting(&self) -> impl Iterator<Item = (usize, Option<usize>)> {
        (0..self.affinity.len())
            .filter(|&index| self.has_proven(index) || self.has_late(index))
            .map(|index| (index, self.holder(index)))
    }

    /// The index that a worker holds.
    pub(super) fn held_by(&self, worker: usize) -> Option<usize> {
        self.affinity.iter().position(|place| place.holder.load(Ordering::Relaxed) == worker)
    }

    /// Takes the index away from a worker that is stuck, or goes, if it has one.
    pub(super) fn vacate(&self, worker: usize) {
        for Place { holder, .. } in &self.affinity {
            let order = Ordering::Relaxed;
            // Who goes gives it up by itself, at the same time perhaps.
            let _ = holder.compare_exchange(worker, VACANT, order, order);
        }
    }

    /// Gives an index that nobody holds to a worker that has none.
    pub(super) fn adopt(&self, worker: usize) -> Option<usize> {
        let index = self.affinity.iter().position(|place| {
            let (order, holder) = (Ordering::Relaxed, &place.holder);
            holder.compare_exchange(VACANT, worker, order, order).is_ok()
        });
        // Pairs with the fence in `holder`.
        fence(Ordering::SeqCst);
        index
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::super::program::Nothing;
    use super::super::scheduler::Scheduler;
    use super::*;

    #[test]
    fn an_index_and_its_queue_go_from_a_stuck_worker_to_the_next() {
        let scheduler = Scheduler::new(1);
        let affinity = Affinity::new(2);
        let context = scheduler.spawn(None, Default::default(), Box::new(Nothing)).unwrap();
        assert!(!affinity.are_used() && affinity.adopt(7).is_none());
        assert_eq!(affinity.push(1, Arc::clone(&context)), Some(1));
        assert_eq!(affinity.waiting().collect::<Vec<_>>(), [(1, Some(1))]);
        affinity.vacate(1);
        affinity.vacate(5);
        context.metrics().prove(true);
        assert_eq!(affinity.push(1, Arc::clone(&context)), None);
        assert_eq!((affinity.adopt(7), affinity.adopt(8)), (Some(1), None));
        assert_eq!(affinity.waiting().collect::<Vec<_>>(), [(1, Some(7))]);
        assert!(affinity.take(0).is_none() && affinity.take_late(0, false).is_none());
        assert!(affinity.take(1).is_some() && affinity.take(1).is_none());
        assert!(affinity.take_late(1, true).is_some() && affinity.take_late(1, true).is_none());
    }
}
