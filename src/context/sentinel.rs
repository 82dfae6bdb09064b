//! Notices that all workers that are awake are stuck in long turns while others sleep.
//!
//! While a worker is awake it looks at the sockets between turns, and nobody else does: a sleeper
//! woken by every event would only find that the busy worker is about to see to it. If no worker
//! that is awake has looked for a while, the sleepers watch the sockets instead.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::task::{Context as TaskContext, Wake, Waker};

use super::Scheduler;
use crate::rt;

/// Nanoseconds between two checks, of which there are none while all workers sleep.
const PERIOD: u64 = 5_000_000;

/// Counts looks at the sockets, and checks from time to time that they go on.
pub(super) struct Sentinel {
    /// Per worker.
    looks: Vec<AtomicUsize>,
    /// The counts at the last check.
    seen: Mutex<Vec<usize>>,
    timer: Mutex<rt::Timer>,
    waker: Waker,
    is_started: AtomicBool,
    is_alone: AtomicBool,
}

struct Check(Weak<Scheduler>);

impl Wake for Check {
    fn wake(self: Arc<Self>) {
        if let Some(scheduler) = self.0.upgrade() {
            scheduler.sentinel.check(&scheduler);
        }
    }
}

impl Sentinel {
    pub(super) fn new(workers: usize, scheduler: &Weak<Scheduler>) -> Sentinel {
        Sentinel {
            looks: (0..workers).map(|_| AtomicUsize::new(0)).collect(),
            seen: Mutex::new(vec![0; workers]),
            timer: Mutex::default(),
            waker: Arc::new(Check(Weak::clone(scheduler))).into(),
            is_started: AtomicBool::new(false),
            is_alone: AtomicBool::new(false),
        }
    }

    /// Notes that a worker looks at the sockets.
    pub(super) fn note_look(&self, worker: usize) {
        // Relaxed: only this worker writes it; who reads it later is none the worse for it.
        let count = self.looks[worker].load(Ordering::Relaxed);
        self.looks[worker].store(count.wrapping_add(1), Ordering::Relaxed);
    }

    /// True if whoever sleeps must watch the sockets.
    pub(super) fn is_alone(&self) -> bool {
        self.is_alone.load(Ordering::Relaxed)
    }

    /// Checks after a while, unless that is to happen anyway.
    pub(super) fn start(&self) {
        if !self.is_started.load(Ordering::Relaxed) && !self.is_started.swap(true, Ordering::SeqCst)
        {
            self.compare();
            let mut timer = self.timer.lock().unwrap_or_else(PoisonError::into_inner);
            timer.set(rt::now() + PERIOD);
            if timer.poll(&mut TaskContext::from_waker(&self.waker)).is_ready() {
                self.is_started.store(false, Ordering::SeqCst);
            }
        }
    }

    /// Which workers have looked since the last time.
    fn compare(&self) -> Vec<bool> {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let looks = self.looks.iter().map(|looks| looks.load(Ordering::Relaxed));
        seen.iter_mut().zip(looks).map(|(old, new)| std::mem::replace(old, new) != new).collect()
    }

    fn check(&self, scheduler: &Scheduler) {
        self.is_started.store(false, Ordering::SeqCst);
        let looked = self.compare();
        let awake = scheduler.awake_workers();
        let is_alone = !awake.is_empty() && !awake.iter().any(|&worker| looked[worker]);
        self.is_alone.store(is_alone, Ordering::Relaxed);
        if is_alone && scheduler.watch_sockets().is_ready() {
            scheduler.wake_one();
        }
        scheduler.start_sentinel();
    }
}
