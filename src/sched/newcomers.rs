//! Contexts in the first slice of their first turn: they have never run, or were cut before they
//! had a whole slice.
//!
//! The oldest and the newest are taken in turn: whoever is created behind a crowd runs soon, and
//! nobody waits for ever. Of the old ones those go first that have never run. The newest is still
//! the newest after it was cut: if its first turn is a little longer than slices are beside a
//! crowd, it does not end behind all of these.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use super::context::Context;
use crate::sync::lock;

/// The order in which the old ones go: whether it was cut, and the number of its arrival.
type Place = (bool, u64);

#[derive(Debug, Default)]
pub(super) struct Newcomers {
    order: Mutex<Order>,
    /// How many there are, and how many of them have never run: hints without the lock.
    count: AtomicUsize,
    never_run: AtomicUsize,
}

#[derive(Debug, Default)]
struct Order {
    contexts: BTreeMap<Place, Arc<Context>>,
    /// Where each is, by [`Context::birth`].
    by_age: BTreeMap<u64, Place>,
    never_run: usize,
    arrivals: u64,
    is_newest_next: bool,
}

impl Order {
    fn push(&mut self, context: Arc<Context>) {
        self.arrivals += 1;
        let place = (context.metrics().is_cut(), self.arrivals);
        let before = self.by_age.insert(context.birth(), place);
        before.map(|place| self.remove(place));
        self.never_run += usize::from(!place.0);
        self.contexts.insert(place, context);
    }

    fn remove(&mut self, place: Place) -> Option<Arc<Context>> {
        self.never_run -= usize::from(!place.0);
        self.contexts.remove(&place)
    }

    fn take(&mut self) -> Option<Arc<Context>> {
        let place = if self.is_newest_next {
            self.by_age.pop_last()?.1
        } else {
            let (place, context) = self.contexts.first_key_value()?;
            self.by_age.remove(&context.birth());
            *place
        };
        self.is_newest_next = !self.is_newest_next;
        self.remove(place)
    }
}

impl Newcomers {
    fn with<R>(&self, change: impl FnOnce(&mut Order) -> R) -> R {
        let mut order = lock(&self.order);
        let result = change(&mut order);
        self.count.store(order.contexts.len(), Ordering::SeqCst);
        self.never_run.store(order.never_run, Ordering::SeqCst);
        result
    }

    pub(super) fn push(&self, context: Arc<Context>) {
        self.with(|order| order.push(context));
    }

    /// How many have never run.
    pub(super) fn never_run(&self) -> usize {
        self.never_run.load(Ordering::SeqCst)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.count.load(Ordering::SeqCst) == 0
    }

    /// Takes all of these, wherever they are.
    pub(super) fn remove(&self, is_one: impl Fn(&Context) -> bool) -> Vec<Arc<Context>> {
        self.with(|order| {
            let all = order.contexts.iter();
            let places: Vec<Place> =
                all.filter(|(_, it)| is_one(it)).map(|(place, _)| *place).collect();
            let found = places.into_iter().filter_map(|place| order.remove(place));
            let found: Vec<_> = found.collect();
            found.iter().for_each(|it| {
                order.by_age.remove(&it.birth());
            });
            found
        })
    }

    pub(super) fn take(&self) -> Option<Arc<Context>> {
        if self.is_empty() { None } else { self.with(Order::take) }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::super::program::Nothing;
    use super::super::scheduler::Scheduler;
    use super::*;

    fn cut(newcomers: &Newcomers, context: Arc<Context>) {
        context.metrics().cut();
        newcomers.push(context);
    }

    #[test]
    fn the_newest_and_the_oldest_go_in_turn_and_stay_that_when_they_are_cut() {
        let scheduler = Scheduler::new(1);
        let newcomers = Newcomers::default();
        let spawn = || scheduler.spawn(None, Default::default(), Box::new(Nothing)).unwrap();
        let all: Vec<_> = (0..5).map(|_| spawn()).collect();
        let taken = || {
            let taken = newcomers.take()?;
            let index = all.iter().position(|context| Arc::ptr_eq(context, &taken));
            Some((index.unwrap(), taken))
        };
        all[..4].iter().for_each(|context| newcomers.push(Arc::clone(context)));
        // The oldest goes behind those that have never run, the newest before them.
        for expected in [0, 3, 1, 3, 2, 3] {
            let (index, context) = taken().unwrap();
            assert_eq!(index, expected);
            cut(&newcomers, context);
        }
        assert_eq!(newcomers.never_run(), 0);
        newcomers.push(Arc::clone(&all[4]));
        assert_eq!(newcomers.never_run(), 1);
        let order: Vec<_> = std::iter::from_fn(|| taken().map(|(index, _)| index)).collect();
        // Of those that were cut the one whose turn it is, by arrival.
        assert_eq!(order, [4, 3, 0, 2, 1]);
        assert!(newcomers.is_empty() && newcomers.never_run() == 0);
    }

    #[test]
    fn whoever_comes_again_before_it_was_taken_is_here_once() {
        let scheduler = Scheduler::new(1);
        let newcomers = Newcomers::default();
        let context = scheduler.spawn(None, Default::default(), Box::new(Nothing)).unwrap();
        newcomers.push(Arc::clone(&context));
        cut(&newcomers, context);
        assert_eq!(newcomers.never_run(), 0);
        assert!(newcomers.take().is_some() && newcomers.is_empty());
    }
}
