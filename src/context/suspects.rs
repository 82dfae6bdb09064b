//! Contexts that may turn out not to give the worker back: those that have never run, and those
//! whose last turn was too long. They run when nothing else is to be done, or now and then; once
//! some of them have got stuck, never on the last worker that others can count on.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crossbeam_deque::{Injector, Steal};

use super::Context;

/// The queue, and how many workers run what was in it.
#[derive(Debug, Default)]
pub(super) struct Suspects {
    queue: Injector<Arc<Context>>,
    /// Workers in such a turn that are not given up.
    running: AtomicUsize,
    /// Some have got stuck lately. Written by the watchdog.
    is_wary: AtomicBool,
}

impl Suspects {
    pub(super) fn push(&self, context: Arc<Context>) {
        self.queue.push(context);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Whether some have got stuck lately.
    pub(super) fn is_wary(&self) -> bool {
        self.is_wary.load(Ordering::Relaxed)
    }

    pub(super) fn set_wary(&self, is_wary: bool) {
        self.is_wary.store(is_wary, Ordering::Relaxed);
    }

    /// How many may run at a time beside `active` workers, of which `workers` are meant to be.
    fn limit(&self, active: usize, workers: usize, can_grow: bool) -> usize {
        match active.min(workers) {
            _ if !self.is_wary() => usize::MAX,
            0 | 1 => usize::from(can_grow),
            counted => counted - 1,
        }
    }

    /// True if there are some, and a worker may take one.
    pub(super) fn are_free(&self, active: usize, workers: usize, can_grow: bool) -> bool {
        !self.is_empty()
            && self.running.load(Ordering::Relaxed) < self.limit(active, workers, can_grow)
    }

    /// Takes one, if a worker may. Each is given back with [`Suspects::release`].
    pub(super) fn take(
        &self,
        active: usize,
        workers: usize,
        can_grow: bool,
    ) -> Option<Arc<Context>> {
        let limit = self.limit(active, workers, can_grow);
        let more = |running: usize| (running < limit).then(|| running + 1);
        if self.is_empty()
            || self.running.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_err()
        {
            return None;
        }
        loop {
            match self.queue.steal() {
                Steal::Success(context) => return Some(context),
                Steal::Empty => break,
                Steal::Retry => {}
            }
        }
        self.release();
        None
    }

    /// A worker has ended such a turn, or is given up.
    pub(super) fn release(&self) {
        self.running.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::super::{Behavior, End, Outcome, Scheduler};
    use super::*;

    struct Nothing;

    impl Behavior for Nothing {
        fn turn(&mut self, _context: &Arc<Context>) -> (Outcome, usize) {
            (Outcome::Ended, 1)
        }

        fn end(self: Box<Self>, _reason: &End) {}
    }

    #[test]
    fn one_worker_is_kept_free_once_some_got_stuck() {
        let scheduler = Scheduler::new(2);
        let suspects = Suspects::default();
        for _ in 0..4 {
            let context = scheduler.spawn(None, Default::default(), Box::new(Nothing)).unwrap();
            suspects.push(context);
        }
        assert!(suspects.take(2, 2, true).is_some());
        assert!(suspects.take(2, 2, true).is_some(), "nothing is known against them");
        suspects.set_wary(true);
        assert!(!suspects.are_free(2, 2, true));
        suspects.release();
        assert!(suspects.take(2, 2, true).is_none(), "one of two runs one already");
        suspects.release();
        assert!(suspects.take(1, 2, false).is_none(), "the last worker, and no other can come");
        assert!(suspects.take(1, 2, true).is_some());
        suspects.release();
        assert!(suspects.take(9, 2, true).is_some());
        assert!(suspects.take(9, 2, true).is_none(), "replacements are not counted on");
        suspects.release();
        assert!(suspects.is_empty() && suspects.take(2, 2, true).is_none());
        assert_eq!(suspects.running.load(Ordering::Relaxed), 0, "what finds none takes no place");
    }
}
