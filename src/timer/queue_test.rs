//! Tests of the queue of timers.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::HashSet;

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

/// Takes all out; their tokens in order.
fn drain(timers: &mut TimerQueue) -> Vec<u64> {
    let tokens = std::iter::from_fn(|| timers.take_due(u64::MAX)).map(|(_, token)| token).collect();
    timers.release(|_, _| None);
    tokens
}

#[test]
fn equal_deadlines_fire_in_order_of_creation() {
    let mut timers = TimerQueue::new();
    for token in 0..1000 {
        timers.insert(5 << 20 | u64::from(token % 3 == 0), token).unwrap();
    }
    let sorted = (0..1000).filter(|token| token % 3 != 0).chain((0..1000).step_by(3));
    assert_eq!(drain(&mut timers), sorted.collect::<Vec<_>>());
}

#[test]
fn timers_are_due_at_their_deadline_and_not_before() {
    let mut timers = TimerQueue::new();
    let id = timers.insert(10, 1).unwrap();
    assert_eq!(timers.take_due(9), None);
    assert_eq!(timers.take_due(10), Some((id.slot(), 1)));
    assert!(timers.has_taken());
    timers.release(|_, _| None);
    assert!(timers.is_empty());
}

#[test]
fn ids_that_are_over_or_never_were_are_ignored() {
    let mut timers = TimerQueue::new();
    let old = timers.insert(10, 1).unwrap();
    assert_eq!(timers.cancel(old), Some(1));
    let new = timers.insert(10, 2).unwrap();
    assert_eq!((timers.cancel(old), timers.token(old)), (None, None));
    for raw in [0, 1, u64::MAX, (1 << 53) - 1, new.get() | 1 << 60] {
        assert_eq!(timers.cancel(TimerId::from_raw(raw)), None);
    }
    assert_eq!(timers.cancel(TimerId::from_raw(new.get())), Some(2));
}

#[test]
fn repeated_timer_keeps_its_id_and_goes_behind_its_equals() {
    let mut timers = TimerQueue::new();
    let moved = timers.insert(1, 1).unwrap();
    timers.insert(5, 2).unwrap();
    assert_eq!(timers.take_due(1), Some((moved.slot(), 1)));
    timers.release(|deadline, _| Some(deadline + 4));
    assert_eq!(timers.token(moved), Some(1));
    assert_eq!(drain(&mut timers), [2, 1]);
}

#[test]
fn slot_of_a_taken_timer_is_not_used_again_before_its_release() {
    let mut timers = TimerQueue::new();
    let taken = timers.insert(1, 1).unwrap();
    timers.take_due(1).unwrap();
    assert_eq!(timers.cancel(taken), Some(1));
    assert_eq!((timers.cancel(taken), timers.len()), (None, 0));
    let other = timers.insert(1, 2).unwrap();
    assert_ne!(other.slot(), taken.slot());
    timers.release(|_, _| panic!("it was cancelled"));
    assert_eq!(timers.insert(1, 3).unwrap().slot(), taken.slot());
}

#[test]
fn memory_is_given_back() {
    let mut timers = TimerQueue::new();
    let insert = |timers: &mut TimerQueue, n: u64| timers.insert(n << 18, n).unwrap();
    let ids: Vec<_> = (0..100_000).map(|n| insert(&mut timers, n)).collect();
    for id in &ids[10..] {
        timers.cancel(*id).unwrap();
    }
    let wheel = timers.wheel.as_ref().map_or(0, |wheel| wheel.capacity());
    let slots = timers.slots.0.capacity() + timers.vacant.capacity();
    let held = timers.heap.capacity() + wheel + slots;
    assert!(held < 1000, "{held} entries held for {} timers", timers.len());
    // Ids of dropped slots stay over when the slots come back.
    for token in 0..100_000 {
        insert(&mut timers, token);
    }
    assert!(ids[10..].iter().all(|id| timers.cancel(*id).is_none()));
    assert!(ids[..10].iter().all(|id| timers.cancel(*id).is_some()));
}

#[test]
fn slot_without_generations_left_is_retired() {
    let mut timers = TimerQueue::new();
    let first = timers.insert(1, 1).unwrap();
    timers.cancel(first);
    timers.slots.0[0].generation = GENERATION_MAX;
    let last = timers.insert(1, 2).unwrap();
    assert!(last.get() < 1 << 53);
    assert_eq!(timers.cancel(last), Some(2));
    let next = timers.insert(1, 3).unwrap();
    assert_eq!(next.slot(), 1);
    assert_eq!(timers.cancel(last), None);
}

#[derive(Clone, Debug)]
enum Step {
    Insert(u64),
    Cancel(usize),
    Take(u64),
    /// Repeats those whose token is even after this many nanoseconds.
    Release(u64),
}

/// Few that are often equal, those of neighbouring ticks, and any.
fn any_time() -> impl Strategy<Value = u64> {
    prop_oneof![
        0u64..50,
        (0u64..200).prop_map(|tick| tick << 19),
        (any::<u64>(), 0u32..64).prop_map(|(time, shift)| time >> shift),
    ]
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => any_time().prop_map(Step::Insert),
        2 => any::<usize>().prop_map(Step::Cancel),
        4 => any_time().prop_map(Step::Take),
        2 => any_time().prop_map(Step::Release),
    ]
}

/// The same as a sorted list of (deadline, order of creation, id, token).
#[derive(Default)]
struct Model {
    list: Vec<(u64, usize, TimerId, u64)>,
    taken: Vec<(u64, TimerId, u64)>,
    count: usize,
}

impl Model {
    fn insert(&mut self, deadline: u64, id: TimerId, token: u64) {
        self.count += 1;
        let at = self.list.partition_point(|other| (other.0, other.1) < (deadline, self.count));
        self.list.insert(at, (deadline, self.count, id, token));
    }

    fn cancel(&mut self, id: TimerId) -> Option<u64> {
        if let Some(at) = self.list.iter().position(|entry| entry.2 == id) {
            return Some(self.list.remove(at).3);
        }
        let at = self.taken.iter().position(|entry| entry.1 == id)?;
        Some(self.taken.remove(at).2)
    }

    fn take(&mut self, now: u64) -> Option<(u32, u64)> {
        let (deadline, _, id, token) = *self.list.first().filter(|entry| entry.0 <= now)?;
        self.list.remove(0);
        self.taken.push((deadline, id, token));
        Some((id.slot(), token))
    }

    fn release(&mut self, next: impl Fn(u64, u64) -> Option<u64>) {
        for (deadline, id, token) in std::mem::take(&mut self.taken) {
            if let Some(deadline) = next(deadline, token) {
                self.insert(deadline, id, token);
            }
        }
    }
}

fn compare(first: Vec<u64>, steps: Vec<Step>) -> Result<(), TestCaseError> {
    let (mut timers, mut model, mut ids) = (TimerQueue::new(), Model::default(), Vec::new());
    let mut seen = HashSet::new();
    let steps = first.into_iter().map(Step::Insert).chain(steps);
    for (order, step) in steps.enumerate() {
        match step {
            Step::Insert(deadline) => {
                let id = timers.insert(deadline, order as u64).unwrap();
                prop_assert!(seen.insert(id), "an id was used twice");
                ids.push(id);
                model.insert(deadline, id, order as u64);
            }
            Step::Cancel(n) if !ids.is_empty() => {
                let id = ids[n % ids.len()];
                prop_assert_eq!(timers.cancel(id), model.cancel(id));
            }
            Step::Take(now) => prop_assert_eq!(timers.take_due(now), model.take(now)),
            Step::Release(after) => {
                let next = |deadline: u64, token: u64| {
                    token.is_multiple_of(2).then_some(deadline.saturating_add(after))
                };
                timers.release(next);
                model.release(next);
            }
            Step::Cancel(_) => {}
        }
        prop_assert_eq!(timers.len(), model.list.len() + model.taken.len());
        prop_assert_eq!(timers.peek(), model.list.first().map(|entry| entry.0));
    }
    let rest = std::iter::from_fn(|| timers.take_due(u64::MAX)).collect::<Vec<_>>();
    prop_assert_eq!(rest, std::iter::from_fn(|| model.take(u64::MAX)).collect::<Vec<_>>());
    Ok(())
}

proptest! {
    #[test]
    fn behaves_like_a_sorted_list(steps in vec(any_step(), 0..400)) {
        compare(Vec::new(), steps)?;
    }

    #[test]
    fn many_behave_like_a_sorted_list(
        first in vec(any_time(), HEAP_ONLY_MAX..3 * HEAP_ONLY_MAX),
        steps in vec(any_step(), 0..400),
    ) {
        compare(first, steps)?;
    }
}
