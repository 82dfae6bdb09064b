//! Which other processes know of which contexts of this one: they may send to these, and are told
//! of their ends.

use std::collections::{BTreeSet, VecDeque};

use crate::message::Id;

/// Stands for all processes among those that know of a context.
pub(super) const EVERYBODY: u64 = 0;

/// How many processes that are gone still count: one that was suspended goes on where it was.
const GONE_MAX: usize = 1024;

/// Contexts, as bits of their handles, and processes that know of them.
#[derive(Debug, Default)]
pub(super) struct Contacts {
    by_context: BTreeSet<(u64, u64)>,
    by_node: BTreeSet<(u64, u64)>,
    /// The last ones of those that are gone.
    gone: VecDeque<u64>,
}

fn of(set: &BTreeSet<(u64, u64)>, first: u64) -> impl Iterator<Item = u64> {
    set.range((first, 0)..=(first, u64::MAX)).map(|(_, second)| *second)
}

impl Contacts {
    /// A process has heard of a context.
    pub(super) fn note(&mut self, context: Id, node: u64) {
        let context = context.to_bits();
        let is_known = self.by_context.contains(&(context, EVERYBODY));
        if !is_known && self.by_context.insert((context, node)) {
            self.by_node.insert((node, context));
        }
    }

    /// Whether a process has heard of a context.
    pub(super) fn knows(&self, node: u64, context: Id) -> bool {
        let context = context.to_bits();
        [node, EVERYBODY].iter().any(|node| self.by_context.contains(&(context, *node)))
    }

    /// A context has ended: the processes that have heard of it.
    pub(super) fn end(&mut self, context: Id) -> Vec<u64> {
        let context = context.to_bits();
        let nodes: Vec<u64> = of(&self.by_context, context).collect();
        for node in &nodes {
            self.by_context.remove(&(context, *node));
            self.by_node.remove(&(*node, context));
        }
        nodes
    }

    /// A process is gone. Of many one after the other not all are remembered: whoever takes a new
    /// number each time would make this grow for ever.
    pub(super) fn lose(&mut self, node: u64, is_there: impl Fn(u64) -> bool) {
        if of(&self.by_node, node).next().is_none() {
            return;
        }
        self.gone.push_back(node);
        if self.gone.len() > GONE_MAX
            && let Some(first) = self.gone.pop_front().filter(|first| !is_there(*first))
        {
            for context in of(&self.by_node, first).collect::<Vec<_>>() {
                self.by_context.remove(&(context, first));
                self.by_node.remove(&(first, context));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processes_that_come_and_go_leave_little() {
        let mut contacts = Contacts::default();
        let [one, other] = [5.0, 6.0].map(|number| Id::from_number(number).unwrap_or(Id::far(1)));
        for node in 1..100_000 {
            contacts.note(one, node);
            contacts.note(other, 1);
            contacts.lose(node, |node| node == 1);
        }
        assert!(contacts.by_context.len() == contacts.by_node.len());
        assert!(contacts.by_context.len() <= GONE_MAX + 2, "{}", contacts.by_context.len());
        // Those that are there, and who has just gone, may send.
        let knows = [1, 99_999, 99_998, 2].map(|node| contacts.knows(node, one));
        assert_eq!(knows, [true, true, true, false]);
        contacts.note(other, EVERYBODY);
        contacts.note(other, 7);
        assert!(contacts.knows(8, other));
        assert_eq!(contacts.end(other), [EVERYBODY, 1]);
        assert_eq!(contacts.end(one).len(), GONE_MAX + 1);
        assert!(contacts.by_node.is_empty() && !contacts.knows(8, other));
    }
}
