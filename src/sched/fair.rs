//! A queue whose members get equal shares of the CPU: of those that wait, the one goes first that
//! has used the least CPU time.
//!
//! Time counts from the least that anyone in the queue has: whoever comes later is neither owed
//! what others got before, nor made to wait until they have caught up.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use super::context::Context;
use crate::sync::lock;

/// Contexts in the order of the CPU time that they have used.
#[derive(Debug, Default)]
pub(super) struct Fair {
    order: Mutex<Order>,
    /// How many there are; a hint to who does not hold the lock.
    count: AtomicUsize,
}

#[derive(Debug, Default)]
struct Order {
    heap: BinaryHeap<Reverse<Entry>>,
    /// The CPU time, in nanoseconds, of the one that was taken last.
    floor: u64,
    arrivals: u64,
}

#[derive(Debug)]
struct Entry {
    /// CPU time in nanoseconds; of equals, the number of the arrival.
    rank: (u64, u64),
    context: Arc<Context>,
}

impl PartialEq for Entry {
    fn eq(&self, other: &Entry) -> bool {
        self.rank == other.rank
    }
}

impl Eq for Entry {}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Entry) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Entry {
    fn cmp(&self, other: &Entry) -> std::cmp::Ordering {
        self.rank.cmp(&other.rank)
    }
}

impl Fair {
    fn lock(&self) -> MutexGuard<'_, Order> {
        lock(&self.order)
    }

    pub(super) fn push(&self, context: Arc<Context>) {
        let mut order = self.lock();
        order.arrivals += 1;
        let rank = (context.metrics().rank(order.floor), order.arrivals);
        order.heap.push(Reverse(Entry { rank, context }));
        self.count.store(order.heap.len(), Ordering::SeqCst);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.count.load(Ordering::SeqCst) == 0
    }

    pub(super) fn take(&self) -> Option<Arc<Context>> {
        if self.is_empty() {
            return None;
        }
        let mut order = self.lock();
        let taken = order.heap.pop();
        self.count.store(order.heap.len(), Ordering::SeqCst);
        taken.map(|Reverse(Entry { rank, context })| {
            order.floor = rank.0;
            context
        })
    }

    /// Takes all of these, wherever they are.
    pub(super) fn remove(&self, mut is_one: impl FnMut(&Context) -> bool) -> Vec<Arc<Context>> {
        let mut order = self.lock();
        let all = std::mem::take(&mut order.heap).into_iter();
        let (found, others) = all.partition::<Vec<_>, _>(|Reverse(it)| is_one(&it.context));
        order.heap = others.into();
        self.count.store(order.heap.len(), Ordering::SeqCst);
        found.into_iter().map(|Reverse(entry)| entry.context).collect()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::time::Duration;

    use super::super::program::Nothing;
    use super::super::scheduler::Scheduler;
    use super::*;

    /// Contexts whose slices are of different lengths have used about the same after a while, and
    /// one that comes later gets no more than these from then on.
    #[test]
    fn shares_are_equal_whatever_the_slices_are() {
        let scheduler = Scheduler::new(1);
        let spawn = || scheduler.spawn(None, Default::default(), Box::new(Nothing)).unwrap();
        let all: Vec<_> = (0..5).map(|_| spawn()).collect();
        let fair = Fair::default();
        let cpu = |index: usize| all[index].metrics().cpu().as_millis() as u64;
        let run = |rounds: usize| {
            for round in 0..rounds {
                let next = fair.take().unwrap();
                let index = all.iter().position(|context| Arc::ptr_eq(context, &next)).unwrap();
                let slice = 1 + 2 * index as u64 + round as u64 % 3;
                next.metrics().add_turn_cpu(Duration::from_millis(slice));
                fair.push(next);
            }
        };
        all[..4].iter().for_each(|context| fair.push(Arc::clone(context)));
        run(1000);
        let used: Vec<u64> = (0..4).map(cpu).collect();
        assert!(used.iter().max().unwrap() - used.iter().min().unwrap() <= 12, "{used:?}");
        fair.push(Arc::clone(&all[4]));
        run(1000);
        let since: Vec<u64> = (0..4).map(|index| cpu(index) - used[index]).collect();
        let late = cpu(4);
        assert!(since.iter().all(|&time| time.abs_diff(late) <= 24), "{since:?}, {late}");
    }

    /// Whoever could not be cut for long waits a while for that, not until all have caught up.
    #[test]
    fn what_was_used_at_once_is_not_held_against_it_for_ever() {
        let scheduler = Scheduler::new(1);
        let spawn = || scheduler.spawn(None, Default::default(), Box::new(Nothing)).unwrap();
        let (long, other) = (spawn(), spawn());
        let fair = Fair::default();
        long.metrics().add_turn_cpu(Duration::from_secs(3600));
        fair.push(Arc::clone(&long));
        fair.push(Arc::clone(&other));
        let is_long = |context: &Arc<Context>| Arc::ptr_eq(context, &long);
        let taken = std::iter::from_fn(|| {
            let next = fair.take().unwrap();
            next.metrics().add_turn_cpu(Duration::from_millis(4));
            fair.push(Arc::clone(&next));
            Some(next)
        });
        let turns = taken.take(1000).position(|next| is_long(&next));
        assert!(turns.is_some_and(|turns| turns > 10), "{turns:?}");
    }
}
