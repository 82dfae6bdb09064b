//! Contexts that may turn out not to give the worker back: those that have never run, and those
//! whose last turn was too long. They run when nothing else is to be done, or now and then; once
//! some of them have got stuck, on no worker, but on a thread of lower priority, the runner.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crossbeam_deque::{Injector, Steal};

use super::Context;

/// The queue, and who may run what is in it.
#[derive(Debug, Default)]
pub(super) struct Suspects {
    queue: Injector<Arc<Context>>,
    /// Some have got stuck lately. Written by the watchdog.
    is_wary: AtomicBool,
    /// As many turns are stuck as may be, perhaps in system calls: what is here has to wait.
    /// Written by the watchdog.
    is_full: AtomicBool,
    /// A runner is there, and not stuck. Set by the watchdog.
    has_runner: AtomicBool,
}

impl Suspects {
    pub(super) fn push(&self, context: Arc<Context>) {
        self.queue.push(context);
    }

    /// Whether some have got stuck lately.
    pub(super) fn is_wary(&self) -> bool {
        self.is_wary.load(Ordering::Relaxed)
    }

    pub(super) fn set_wary(&self, is_wary: bool) {
        self.is_wary.store(is_wary, Ordering::Relaxed);
    }

    /// Whether suspects have to wait.
    pub(super) fn is_full(&self) -> bool {
        self.is_full.load(Ordering::Relaxed)
    }

    pub(super) fn set_full(&self, is_full: bool) {
        self.is_full.store(is_full, Ordering::Relaxed);
    }

    /// True if there are some, and workers may take them.
    pub(super) fn are_free(&self) -> bool {
        !self.queue.is_empty() && !self.is_wary() && !self.is_full()
    }

    /// How many there are that workers may take.
    pub(super) fn free(&self) -> usize {
        if self.are_free() { self.queue.len() } else { 0 }
    }

    /// True if there are some that no worker may take.
    pub(super) fn are_held(&self) -> bool {
        !self.queue.is_empty() && (self.is_wary() || self.is_full())
    }

    /// True if there are some that a runner may take, and no runner.
    pub(super) fn need_runner(&self) -> bool {
        let may_run = self.is_wary() && !self.is_full() && !self.queue.is_empty();
        may_run && !self.has_runner.load(Ordering::Relaxed)
    }

    pub(super) fn set_runner(&self, has_runner: bool) {
        self.has_runner.store(has_runner, Ordering::Relaxed);
    }

    /// Takes one: for a worker, or for the runner.
    pub(super) fn take(&self, is_runner: bool) -> Option<Arc<Context>> {
        if self.queue.is_empty() || self.is_full() || self.is_wary() && !is_runner {
            return None;
        }
        loop {
            match self.queue.steal() {
                Steal::Success(context) => return Some(context),
                Steal::Empty => return None,
                Steal::Retry => {}
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::super::Scheduler;
    use super::super::behavior::Nothing;
    use super::*;

    #[test]
    fn only_the_runner_takes_them_once_some_got_stuck() {
        let scheduler = Scheduler::new(2);
        let suspects = Suspects::default();
        for _ in 0..3 {
            let context = scheduler.spawn(None, Default::default(), Box::new(Nothing)).unwrap();
            suspects.push(context);
        }
        assert!(suspects.are_free() && !suspects.need_runner());
        assert!(suspects.take(false).is_some(), "nothing is known against them");
        suspects.set_wary(true);
        assert!(!suspects.are_free() && suspects.need_runner());
        assert!(suspects.take(false).is_none());
        suspects.set_runner(true);
        assert!(suspects.are_held() && !suspects.need_runner());
        assert!(suspects.take(true).is_some());
        suspects.set_wary(false);
        assert!(suspects.take(false).is_some());
        assert!(!suspects.are_free() && suspects.take(true).is_none());
    }

    #[test]
    fn nobody_takes_them_while_too_many_are_stuck() {
        let scheduler = Scheduler::new(2);
        let suspects = Suspects::default();
        let context = scheduler.spawn(None, Default::default(), Box::new(Nothing)).unwrap();
        suspects.push(context);
        for is_wary in [false, true] {
            suspects.set_wary(is_wary);
            suspects.set_full(true);
            assert!(suspects.are_held() && !suspects.are_free() && !suspects.need_runner());
            assert!(suspects.take(false).is_none() && suspects.take(true).is_none());
            suspects.set_full(false);
            assert_eq!((suspects.free(), suspects.need_runner()), (usize::from(!is_wary), is_wary));
        }
    }
}
