//! Which other processes have which names.

use std::sync::Arc;

use super::state::{Effects, Name, State, Who};
use crate::logging::Seldom;
use crate::message::Ending;
use crate::sched::names::NAME_MAX;

/// Names of other processes that are known, at most; what each takes beside its bytes with each
/// process that has it, about; and bytes of all that, at most.
const NAMES_MAX: usize = 1 << 20;
const NAME_BYTES: usize = 64;
const NAMES_BYTES_MAX: usize = 256 << 20;

/// The processes that have a name.
#[derive(Debug, Default)]
pub(super) struct Holders {
    nodes: Vec<u64>,
    /// The index of the one whose turn it is.
    turn: usize,
}

impl State {
    /// Whether another process has a name.
    pub(super) fn is_held(&self, name: &[u8]) -> bool {
        self.holders.contains_key(name)
    }

    pub(super) fn is_held_anywhere(&self, name: &[u8]) -> bool {
        self.is_held(name) || self.names.contains(name)
    }

    /// The next process among those that have a name, in turn.
    pub(super) fn next_holder(&mut self, name: &[u8]) -> Option<u64> {
        let found = self.holders.get_mut(name)?;
        found.turn = found.turn.wrapping_add(1);
        let count = found.nodes.len();
        let from_turn = found.nodes.iter().cycle().skip(found.turn % count).take(count);
        let is_in = |node: &&u64| self.peers.get(node).is_some_and(|peer| !peer.is_unreachable);
        from_turn.clone().find(is_in).or(found.nodes.first()).copied()
    }

    pub(super) fn add_holder(&mut self, node: u64, name: Name) {
        let is_more = self.holders.len() >= NAMES_MAX && !self.holders.contains_key(&name);
        if is_more || name.len() > NAME_MAX || !self.may_keep(&name) {
            return;
        }
        if let Some(peer) = self.peers.get_mut(&node)
            && peer.names.insert(Arc::clone(&name))
        {
            self.names_bytes += cost(&name);
            self.holders.entry(name).or_default().nodes.push(node);
        }
    }

    fn may_keep(&self, name: &[u8]) -> bool {
        static REFUSED: Seldom = Seldom::new();
        let may = self.names_bytes + cost(name) <= NAMES_BYTES_MAX;
        if !may && REFUSED.is_due() {
            log::warn!("cluster: other processes have so many names that not all are known");
        }
        may
    }

    /// A process has told some of its names, all of which follow.
    pub(super) fn add_part(&mut self, node: u64, is_first: bool, names: Vec<&[u8]>) {
        if is_first {
            self.take_parts(node);
        }
        for name in names.into_iter().filter(|name| name.len() <= NAME_MAX) {
            if !self.may_keep(name) {
                return;
            }
            self.names_bytes += cost(name);
            if let Some(peer) = self.peers.get_mut(&node) {
                peer.parts.push(name.into());
            }
        }
    }

    /// Takes the names that a process has told so far.
    pub(super) fn take_parts(&mut self, node: u64) -> Vec<Name> {
        let parts = self.peers.get_mut(&node).map(|peer| std::mem::take(&mut peer.parts));
        let parts = parts.unwrap_or_default();
        self.names_bytes -= parts.iter().map(|name| cost(name)).sum::<usize>();
        parts
    }

    /// A process has a name no more, for this reason.
    pub(super) fn remove_holder(
        &mut self,
        node: u64,
        name: &[u8],
        ending: Ending,
        to: &mut Effects,
    ) {
        let Some(peer) = self.peers.get_mut(&node) else { return };
        if peer.names.remove(name) {
            self.leave(node, name, ending, to);
        }
    }

    /// A process that had a name has it no more; its own list knows that already.
    pub(super) fn leave(&mut self, node: u64, name: &[u8], ending: Ending, to: &mut Effects) {
        self.names_bytes -= cost(name);
        if let Some(found) = self.holders.get_mut(name) {
            found.nodes.retain(|&holder| holder != node);
            if found.nodes.is_empty() {
                self.holders.remove(name);
            }
        }
        self.check_name(name, ending, to);
    }

    /// If nobody anywhere answers under a name any more, tells who watches it.
    pub(super) fn check_name(&mut self, name: &[u8], ending: Ending, to: &mut Effects) {
        if !self.is_held_anywhere(name)
            && let Some(&id) = self.handles.get(&Who::Name(name.into()))
        {
            self.forget_far(id, ending, to);
        }
    }
}

/// About how many bytes a name takes for each process that has it.
fn cost(name: &[u8]) -> usize {
    name.len() + NAME_BYTES
}
