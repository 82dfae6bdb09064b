//! Timers in a heap with four children per node, ordered by deadline and then by creation.

use std::hint::select_unpredictable;

use super::queue::{Node, Place, Slots};

/// Children per node: two levels of a binary heap in one, and siblings share cache lines.
const ARITY: usize = 4;

/// Index and key of the first of up to [`ARITY`] siblings; without siblings the last key there is.
/// Selected without branches: which child is soonest is chance.
#[inline]
fn soonest(siblings: &[Node]) -> (usize, u128) {
    let sooner = |a: (usize, u128), b: (usize, u128)| {
        (select_unpredictable(b.1 < a.1, b.0, a.0), select_unpredictable(b.1 < a.1, b.1, a.1))
    };
    match siblings {
        [a, b, c, d] => {
            let left = sooner((0, a.key()), (1, b.key()));
            sooner(left, sooner((2, c.key()), (3, d.key())))
        }
        _ => siblings
            .iter()
            .enumerate()
            .fold((0, u128::MAX), |first, (index, node)| sooner(first, (index, node.key()))),
    }
}

/// # Invariant
/// A node is never before its parent, and its slot knows its index.
#[derive(Debug, Default)]
pub(super) struct Heap {
    nodes: Vec<Node>,
}

impl Heap {
    pub(super) fn len(&self) -> usize {
        self.nodes.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    #[inline]
    pub(super) fn first(&self) -> Option<&Node> {
        self.nodes.first()
    }

    /// All, in no order that counts, to be put elsewhere.
    pub(super) fn take_all(&mut self) -> Vec<Node> {
        std::mem::take(&mut self.nodes)
    }

    pub(super) fn shrink(&mut self) {
        self.nodes.shrink_to(2 * self.nodes.len());
    }

    #[cfg(test)]
    pub(super) fn capacity(&self) -> usize {
        self.nodes.capacity()
    }

    pub(super) fn push(&mut self, node: Node, slots: &mut Slots) {
        self.nodes.push(node);
        self.sift_up(self.nodes.len() - 1, slots);
    }

    pub(super) fn remove(&mut self, place: usize, slots: &mut Slots) -> Node {
        let node = self.nodes.swap_remove(place);
        if place < self.nodes.len() && self.sift_up(place, slots) == place {
            self.sift_down(place, slots);
        }
        node
    }

    #[inline]
    fn put(&mut self, place: usize, node: Node, slots: &mut Slots) {
        self.nodes[place] = node;
        slots.set_place(node.slot, Place::heap(place));
    }

    fn sift_up(&mut self, mut place: usize, slots: &mut Slots) -> usize {
        let node = self.nodes[place];
        while place > 0 {
            let parent = (place - 1) / ARITY;
            let above = self.nodes[parent];
            if above.key() < node.key() {
                break;
            }
            self.put(place, above, slots);
            place = parent;
        }
        self.put(place, node, slots);
        place
    }

    fn sift_down(&mut self, mut place: usize, slots: &mut Slots) {
        let node = self.nodes[place];
        loop {
            let first = place * ARITY + 1;
            let Some(children) = self.nodes.get(first..self.nodes.len().min(first + ARITY)) else {
                break;
            };
            let (child, key) = soonest(children);
            if node.key() <= key {
                break;
            }
            let child = first + child;
            self.put(place, self.nodes[child], slots);
            place = child;
        }
        self.put(place, node, slots);
    }
}
