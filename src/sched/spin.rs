//! Waiting without sleep, for contexts on different workers that answer each other: putting a
//! worker to sleep and waking it costs more than such an answer takes.
//!
//! A worker spins only right after it has run a context that no other may run, only while another
//! worker is awake, and only as long as that has paid of late. So a process that has become idle
//! does nothing after some microseconds.

use std::sync::OnceLock;

use crate::rt;

/// The longest wait, in nanoseconds: what going to sleep and being woken cost.
const SPIN_MAX: u64 = 20_000;

/// Waits shorter than this are not worth beginning.
const SPIN_MIN: u64 = 2_000;

/// A sleep that ended so soon was not worth it, waking included.
const SHORT_SLEEP: u64 = 3 * SPIN_MAX;

/// Looks for work between two looks at the clock.
const LOOKS: usize = 16;

/// How long a worker waits without sleep.
#[derive(Debug, Default)]
pub(super) struct Spin {
    /// Nanoseconds that the next wait may take.
    limit: u64,
    /// The worker has run something that only it may run since it last waited.
    is_due: bool,
    /// When it went to sleep.
    rested: Option<u64>,
    /// There is one core only, or none at all, in a simulation.
    is_alone: bool,
}

impl Spin {
    pub(super) fn new() -> Spin {
        static CORES: OnceLock<usize> = OnceLock::new();
        let find = || std::thread::available_parallelism().map_or(1, usize::from);
        Spin {
            is_alone: *CORES.get_or_init(find) < 2 || rt::is_simulated(),
            limit: SPIN_MAX,
            ..Spin::default()
        }
    }

    /// Notes whether there is something to run that only this worker may run.
    #[inline]
    pub(super) fn note(&mut self, has_own: bool) {
        self.is_due |= has_own;
    }

    /// Waits until there is work, which `has_work` says, or it is time to sleep.
    pub(super) fn wait(
        &mut self,
        may_come: impl Fn() -> bool,
        has_work: impl Fn() -> bool,
    ) -> bool {
        if !std::mem::take(&mut self.is_due) || self.is_alone || self.limit < SPIN_MIN {
            return false;
        }
        let end = rt::now() + self.limit;
        while may_come() {
            for _ in 0..LOOKS {
                if has_work() {
                    self.limit = SPIN_MAX;
                    return true;
                }
                std::hint::spin_loop();
            }
            if rt::now() >= end {
                self.limit /= 2;
                break;
            }
        }
        false
    }

    /// Notes that the worker goes to sleep.
    pub(super) fn rest(&mut self) {
        self.rested = (!self.is_alone && self.limit < SPIN_MAX).then(rt::now);
    }

    /// Notes that it is awake, and the time.
    pub(super) fn wake(&mut self, now: u64) {
        if self.rested.take().is_some_and(|rested| now - rested < SHORT_SLEEP) {
            self.limit = SPIN_MAX;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_stops_to_wait_when_that_does_not_pay() {
        let mut spin = Spin { limit: SPIN_MAX, ..Spin::default() };
        assert!(!spin.wait(|| true, || true), "nothing was run here");
        let mut waits = 0;
        while spin.limit >= SPIN_MIN {
            spin.note(true);
            assert!(!spin.wait(|| true, || false));
            waits += 1;
        }
        assert_eq!(waits, 4);
        spin.note(true);
        assert!(!spin.wait(|| true, || true), "not tried any more");
        spin.rest();
        spin.wake(rt::now() + SHORT_SLEEP + 1);
        assert!(spin.limit < SPIN_MIN);
        spin.rest();
        spin.wake(rt::now());
        spin.note(true);
        assert!(spin.wait(|| true, || true));
        spin.note(true);
        assert!(!spin.wait(|| false, || false), "nobody is awake");
        assert_eq!(spin.limit, SPIN_MAX);
    }
}
