//! Which contexts answer under which names.
//!
//! A name belongs to one context, or to several that share it. What is addressed to a shared name
//! goes to one of them, to each in its turn. Names end with their contexts.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, RwLock};

use super::cluster::Joined;
use super::context::Context;
use crate::error::Code;
use crate::message::{Ending, Id};
use crate::sync::{read, write};

/// Bytes of a name, and of a topic.
pub const NAME_MAX: usize = 253;

/// Names that one context may have, at most.
pub const NAMES_MAX: usize = 1024;

/// About what a name takes beside its bytes.
const NAME_BYTES: usize = 256;

type Name = Arc<[u8]>;

/// Who answers under a name: never nobody.
#[derive(Debug)]
struct Holders {
    /// In the order in which they came.
    all: Vec<Id>,
    is_shared: bool,
    /// Counts what was sent: whose turn it is.
    turn: AtomicUsize,
}

#[derive(Debug, Default)]
struct Tables {
    holders: HashMap<Name, Holders>,
    by_context: HashMap<Id, Vec<Name>>,
}

/// All names of the process.
#[derive(Debug, Default)]
pub struct Names {
    tables: RwLock<Tables>,
    are_used: AtomicBool,
    pub(super) cluster: Joined,
}

impl Names {
    /// About how many bytes of memory a name takes.
    pub fn cost(name: &[u8]) -> usize {
        NAME_BYTES + name.len()
    }

    /// Whether any context has ever answered under a name.
    pub fn are_used(&self) -> bool {
        // Relaxed: a flag that orders nothing, here and below.
        self.are_used.load(Ordering::Relaxed)
    }

    /// Has a context answer under a name, which several may share if all of them say so.
    ///
    /// # Errors
    /// [`Code::NAME_TAKEN`], [`Code::TOO_MANY_NAMES`]; [`Code::NO_CONTEXT`] if it has ended.
    pub fn register(&self, context: &Context, name: &[u8], is_shared: bool) -> Result<(), Code> {
        let id = context.id();
        let mut tables = write(&self.tables);
        context.note_ties();
        self.are_used.store(true, Ordering::Relaxed);
        // Whoever closes it forgets its names after that. The inbox is locked within.
        if context.is_closed() {
            return Err(Code::NO_CONTEXT);
        }
        let Tables { holders, by_context } = &mut *tables;
        if let Some(found) = holders.get_mut(name) {
            if found.all == [id] {
                found.is_shared = is_shared;
                return Ok(());
            }
            if !(found.is_shared && is_shared) {
                return Err(Code::NAME_TAKEN);
            }
            if found.all.contains(&id) {
                return Ok(());
            }
        }
        let own = by_context.entry(id).or_default();
        if own.len() >= NAMES_MAX {
            return Err(Code::TOO_MANY_NAMES);
        }
        // Relaxed: a figure that the thread which runs the context writes.
        context.metrics().ties_bytes.fetch_add(Names::cost(name), Ordering::Relaxed);
        let name: Name = name.into();
        own.push(Arc::clone(&name));
        if let Some(cluster) = self.cluster.get().filter(|_| !holders.contains_key(&name)) {
            cluster.name_came(&name);
        }
        let nobody = || Holders { all: Vec::new(), is_shared, turn: AtomicUsize::new(0) };
        holders.entry(name).or_insert_with(nobody).all.push(id);
        Ok(())
    }

    /// Has a context answer under a name no more; false if it did not.
    pub fn unregister(&self, id: Id, name: &[u8]) -> bool {
        let mut tables = write(&self.tables);
        let Some(own) = tables.by_context.get_mut(&id) else { return false };
        let Some(at) = own.iter().position(|known| **known == *name) else { return false };
        own.remove(at);
        if own.is_empty() {
            tables.by_context.remove(&id);
        }
        self.leave(&mut tables, id, name, None);
        true
    }

    /// Forgets all names of a context that has ended.
    pub(super) fn forget(&self, id: Id, ending: &Ending) {
        let mut tables = write(&self.tables);
        for name in tables.by_context.remove(&id).unwrap_or_default() {
            self.leave(&mut tables, id, &name, Some(ending));
        }
    }

    fn leave(&self, tables: &mut Tables, id: Id, name: &[u8], ending: Option<&Ending>) {
        let Some(found) = tables.holders.get_mut(name) else { return };
        found.all.retain(|&holder| holder != id);
        if found.all.is_empty() {
            tables.holders.remove(name);
            if let Some(cluster) = self.cluster.get() {
                cluster.name_went(name, ending);
            }
        }
    }

    /// Who has answered under a name for longest.
    pub fn find(&self, name: &[u8]) -> Option<Id> {
        let tables = read(&self.tables);
        tables.holders.get(name)?.all.first().copied()
    }

    /// Those who answer under a name, beginning with the one whose turn it is.
    pub fn next(&self, name: &[u8]) -> Vec<Id> {
        let tables = read(&self.tables);
        let Some(found) = tables.holders.get(name) else { return Vec::new() };
        let mut all = found.all.clone();
        // Relaxed: it orders nothing.
        let turn = found.turn.fetch_add(1, Ordering::Relaxed);
        let count = all.len();
        all.rotate_left(turn % count);
        all
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::super::program::Nothing;
    use super::super::scheduler::Scheduler;
    use super::*;

    const ENDING: Ending = Ending { reason: "normal", detail: None };

    fn contexts(count: usize) -> Vec<Arc<Context>> {
        let scheduler = Scheduler::new(1);
        let spawn = || scheduler.spawn(None, Default::default(), Box::new(Nothing)).unwrap();
        (0..count).map(|_| spawn()).collect()
    }

    #[test]
    fn a_name_is_one_contexts_until_it_leaves() {
        let (names, all) = (Names::default(), contexts(2));
        let (one, other) = (&all[0], &all[1]);
        assert_eq!(names.register(one, b"db", false), Ok(()));
        assert_eq!(names.register(one, b"db", false), Ok(()));
        assert_eq!(names.register(other, b"db", false), Err(Code::NAME_TAKEN));
        assert_eq!(names.register(other, b"db", true), Err(Code::NAME_TAKEN));
        assert_eq!(names.find(b"db"), Some(one.id()));
        assert!(!names.unregister(other.id(), b"db"));
        names.forget(one.id(), &ENDING);
        assert_eq!((names.find(b"db"), names.next(b"db")), (None, Vec::new()));
        assert_eq!(names.register(other, b"db", false), Ok(()));
    }

    #[test]
    fn who_shares_a_name_is_next_in_turn() {
        let (names, all) = (Names::default(), contexts(3));
        for context in &all {
            assert_eq!(names.register(context, b"pool", true), Ok(()));
        }
        let first = |_| names.next(b"pool")[0];
        let turns: Vec<Id> = (0..4).map(first).collect();
        assert_eq!(turns, [all[0].id(), all[1].id(), all[2].id(), all[0].id()]);
        assert_eq!(names.register(&all[0], b"pool", false), Err(Code::NAME_TAKEN));
        names.forget(all[0].id(), &ENDING);
        assert_eq!(names.find(b"pool"), Some(all[1].id()));
        assert_eq!(names.next(b"pool").len(), 2);
    }

    #[test]
    fn names_of_a_context_are_bounded() {
        let (names, all) = (Names::default(), contexts(1));
        for number in 0..NAMES_MAX {
            assert_eq!(names.register(&all[0], format!("n{number}").as_bytes(), false), Ok(()));
        }
        assert_eq!(names.register(&all[0], b"one more", false), Err(Code::TOO_MANY_NAMES));
        assert!(names.unregister(all[0].id(), b"n0"));
        assert_eq!(names.register(&all[0], b"one more", false), Ok(()));
    }
}
