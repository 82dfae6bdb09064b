//! How the last contexts have ended, for those who ask about one a moment too late; and who is told
//! when one ends.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use super::registry::Registry;
use crate::message::{Ending, Id, Ids};
use crate::sync::lock;

/// The most exits that are remembered …
const COUNT_MAX: usize = 1024;

/// … and the most bytes of their texts; the last one is remembered in any case.
const BYTES_MAX: usize = 1 << 20;

#[derive(Debug, Default)]
struct List {
    endings: VecDeque<(Id, Arc<Ending>)>,
    bytes: usize,
}

/// The last endings, oldest first.
#[derive(Debug, Default)]
pub struct Exits {
    list: Mutex<List>,
}

impl Exits {
    pub(super) fn add(&self, id: Id, ending: &Arc<Ending>) {
        let mut list = lock(&self.list);
        list.bytes += ending.held_bytes();
        list.endings.push_back((id, Arc::clone(ending)));
        while list.endings.len() > COUNT_MAX || list.bytes > BYTES_MAX && list.endings.len() > 1 {
            if let Some((_, oldest)) = list.endings.pop_front() {
                list.bytes -= oldest.held_bytes();
            }
        }
    }

    /// How the context with this address has ended, if that is remembered.
    pub fn get(&self, id: Id) -> Option<Arc<Ending>> {
        let list = lock(&self.list);
        let found = list.endings.iter().rev().find(|(known, _)| *known == id);
        found.map(|(_, ending)| Arc::clone(ending))
    }
}

/// Watchers before those that have ended are looked for.
const WATCHERS_SWEEP_MIN: usize = 256;

/// Contexts of this process to tell of the end. Most are asked by one many times in a row.
#[derive(Default)]
pub(super) struct Watchers {
    last: Option<Id>,
    all: Ids,
    /// With as many watchers, those that have ended are forgotten.
    sweep: usize,
}

impl Watchers {
    /// Adds one.
    pub(super) fn insert(&mut self, id: Id, registry: &Registry) {
        if self.last == Some(id) || id.is_far() {
            return;
        }
        self.last = Some(id);
        self.all.insert(id);
        if self.all.len() > self.sweep.max(WATCHERS_SWEEP_MIN) {
            // The registry's lock is only ever taken for moments, and no inbox's within it.
            self.all.retain(|&id| registry.get(id).is_some());
            self.sweep = 2 * self.all.len();
        }
    }

    /// All of them, to be told.
    pub(super) fn take(&mut self) -> Ids {
        std::mem::take(&mut self.all)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_are_remembered_within_a_bound() {
        let endings = Exits::default();
        let add = |number: f64, size: usize| {
            let id = Id::from_number(number).expect("a number of an address");
            let detail = Some(vec![b'x'; size]);
            endings.add(id, &Arc::new(Ending { reason: "error", detail }));
            id
        };
        let ids: Vec<Id> = (1..=COUNT_MAX + 1).map(|number| add(number as f64, 10)).collect();
        assert!(endings.get(ids[0]).is_none() && endings.get(ids[1]).is_some());
        let large = add(5000.0, 2 * BYTES_MAX);
        assert!(endings.get(large).is_some() && endings.get(ids[COUNT_MAX]).is_none());
        let small = add(5001.0, 1);
        assert!(endings.get(large).is_none() && endings.get(small).is_some());
    }
}
