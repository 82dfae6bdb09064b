//! Limits how much is logged for a context, and counts the rest.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use crate::rt;
use crate::sync::lock;

/// Nanoseconds for which a throttle counts.
const WINDOW: u64 = 10_000_000_000;

/// Nanoseconds between two warnings of the same kind.
const SELDOM: u64 = 60_000_000_000;

/// What was left out, and of whom.
#[derive(Debug)]
struct Excess {
    count: AtomicU64,
    context: String,
    what: &'static str,
}

impl Excess {
    fn tell(&self) {
        // Relaxed: a number, nothing else.
        let count = self.count.swap(0, Ordering::Relaxed);
        if count > 0 {
            log::error!(
                target: super::SCRIPT,
                "{}: {count} more {} in the last {} s were not logged",
                self.context,
                self.what,
                WINDOW / 1_000_000_000
            );
        }
    }
}

/// Those that may have left something out: the process may end before they tell.
static EXCESSES: Mutex<Vec<Weak<Excess>>> = Mutex::new(Vec::new());

/// Tells of all that was left out.
pub(super) fn tell_all() {
    let all = std::mem::take(&mut *lock(&EXCESSES));
    all.iter().filter_map(Weak::upgrade).for_each(|excess| excess.tell());
}

/// Counts what is logged for one context.
#[derive(Debug)]
pub struct Throttle {
    what: &'static str,
    entries_max: u32,
    bytes_max: usize,
    /// When the first entry of those counted was logged.
    began: u64,
    entries: u32,
    bytes: usize,
    excess: Option<Arc<Excess>>,
}

impl Throttle {
    /// In 10 s this many entries, and bytes, of what is called `what`.
    pub fn new(what: &'static str, entries_max: u32, bytes_max: usize) -> Throttle {
        Throttle { what, entries_max, bytes_max, began: 0, entries: 0, bytes: 0, excess: None }
    }

    /// Whether one more may be logged. If not it is counted: the log tells how many there were,
    /// once the 10 s are over.
    pub fn admits(&mut self, bytes: usize, context: &dyn std::fmt::Display) -> bool {
        let now = rt::now();
        if self.entries == 0 || now >= self.began + WINDOW {
            self.tell();
            (self.began, self.entries, self.bytes) = (now, 0, 0);
        }
        if self.entries < self.entries_max && (self.entries == 0 || self.bytes < self.bytes_max) {
            self.entries += 1;
            self.bytes += bytes;
            return true;
        }
        let excess = self.excess.get_or_insert_with(|| {
            let (count, what) = (AtomicU64::new(0), self.what);
            let excess = Arc::new(Excess { count, context: context.to_string(), what });
            let mut all = lock(&EXCESSES);
            all.retain(|other| other.strong_count() > 0);
            all.push(Arc::downgrade(&excess));
            excess
        });
        if excess.count.fetch_add(1, Ordering::Relaxed) == 0 {
            let excess = Arc::clone(excess);
            let left = Duration::from_nanos(self.began + WINDOW - now);
            rt::spawn(async move {
                rt::sleep(left).await;
                excess.tell();
            });
        }
        false
    }

    fn tell(&self) {
        if let Some(excess) = &self.excess {
            excess.tell();
        }
    }
}

impl Drop for Throttle {
    fn drop(&mut self) {
        self.tell();
    }
}

/// A warning that is logged once a minute at most, however often there is reason for it.
#[derive(Debug, Default)]
pub struct Seldom(AtomicU64);

impl Seldom {
    /// One that has not been given.
    pub const fn new() -> Seldom {
        Seldom(AtomicU64::new(0))
    }

    /// True the first time, and then once a minute at most: the caller logs it.
    pub fn is_due(&self) -> bool {
        // Relaxed: of two that come at once one wins, whichever.
        let (now, before) = (rt::now().max(1), self.0.load(Ordering::Relaxed));
        let is_due = before == 0 || now >= before + SELDOM;
        let order = Ordering::Relaxed;
        is_due && self.0.compare_exchange(before, now, order, order).is_ok()
    }
}
