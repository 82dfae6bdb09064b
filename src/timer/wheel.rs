//! Timers that are not due soon, unsorted, in buckets by the tick of their deadline.
//!
//! A bucket of the lowest level holds one tick, one of the next level the ticks that 64 of those
//! before hold, and so on. A timer goes to the level of the first digit, of six bits, in which its
//! tick differs from the one the wheel has reached; so the soonest ones are in the first bucket of
//! the lowest level that holds any. Each moves down a level or two before it gets to the heap.

use super::heap::Heap;
use super::queue::{Node, Place, Slots};

/// A tick is 2^20 ns, about a millisecond.
const TICK_BITS: u32 = 20;
const DIGIT_BITS: u32 = 6;
const BUCKETS: usize = 1 << DIGIT_BITS;
/// As many digits as any tick has.
const LEVELS: usize = (u64::BITS - TICK_BITS).div_ceil(DIGIT_BITS) as usize;
/// Buckets of one tick are filled again and again: with no more room than this they keep it.
const KEPT: usize = 128;

#[derive(Debug)]
struct Level {
    /// A bit for each bucket that holds any.
    occupied: u64,
    buckets: [Vec<Node>; BUCKETS],
}

/// # Invariant
/// All timers in it have a tick after `reached`, are at the level of the first digit in which that
/// differs, and in the bucket of that digit; their slots know where. A bucket that holds any has
/// its bit in `occupied`.
#[derive(Debug)]
pub(super) struct Wheel {
    reached: u64,
    levels: [Option<Box<Level>>; LEVELS],
}

fn tick(node: &Node) -> u64 {
    node.deadline >> TICK_BITS
}

impl Wheel {
    /// An empty wheel that has reached the tick of `node`.
    pub(super) fn new(node: &Node) -> Wheel {
        Wheel { reached: tick(node), levels: [const { None }; LEVELS] }
    }

    /// Whether a timer belongs here, and not among those that are due soon.
    #[inline]
    pub(super) fn takes(&self, node: &Node) -> bool {
        tick(node) > self.reached
    }

    /// Adds a timer that belongs here.
    pub(super) fn push(&mut self, node: Node, slots: &mut Slots) {
        let tick = tick(&node);
        let digit = (tick ^ self.reached).ilog2() / DIGIT_BITS;
        let index = (tick >> (digit * DIGIT_BITS)) as usize % BUCKETS;
        let level = self.levels[digit as usize].get_or_insert_with(|| {
            Box::new(Level { occupied: 0, buckets: [const { Vec::new() }; BUCKETS] })
        });
        level.occupied |= 1 << index;
        let bucket = &mut level.buckets[index];
        slots.set_place(node.slot, Place::wheel(digit as usize * BUCKETS + index, bucket.len()));
        bucket.push(node);
    }

    /// Takes out the timer that is in a bucket at a place.
    pub(super) fn remove(&mut self, bucket: usize, place: usize, slots: &mut Slots) {
        let Some(level) = &mut self.levels[bucket / BUCKETS] else { return };
        let nodes = &mut level.buckets[bucket % BUCKETS];
        nodes.swap_remove(place);
        if let Some(moved) = nodes.get(place) {
            slots.set_place(moved.slot, Place::wheel(bucket, place));
        }
        if nodes.is_empty() {
            *nodes = Vec::new();
            level.occupied &= !(1 << (bucket % BUCKETS));
        }
    }

    /// Takes out the soonest ones, a bucket of them, and puts those of the first tick into the
    /// heap; false if it is empty.
    pub(super) fn advance(&mut self, heap: &mut Heap, slots: &mut Slots) -> bool {
        let occupied = |level: &Option<Box<Level>>| level.as_ref().is_some_and(|l| l.occupied != 0);
        let Some(digit) = self.levels.iter().position(occupied) else { return false };
        let Some(level) = &mut self.levels[digit] else { return false };
        let index = level.occupied.trailing_zeros() as usize;
        level.occupied &= !(1 << index);
        let mut nodes = std::mem::take(&mut level.buckets[index]);
        let shift = digit as u32 * DIGIT_BITS;
        let above = self.reached >> (shift + DIGIT_BITS) << (shift + DIGIT_BITS);
        self.reached = above | (index as u64) << shift;
        for node in nodes.drain(..) {
            match self.takes(&node) {
                true => self.push(node, slots),
                false => heap.push(node, slots),
            }
        }
        if digit == 0
            && nodes.capacity() <= KEPT
            && let Some(level) = &mut self.levels[0]
        {
            level.buckets[index] = nodes;
        }
        true
    }

    /// All timers, to be put elsewhere.
    pub(super) fn into_nodes(self) -> impl Iterator<Item = Node> {
        self.levels.into_iter().flatten().flat_map(|level| level.buckets).flatten()
    }

    /// Gives spare room back.
    pub(super) fn shrink(&mut self) {
        for level in &mut self.levels {
            let Some(holds) = level else { continue };
            if holds.occupied == 0 {
                *level = None;
                continue;
            }
            for bucket in &mut holds.buckets {
                bucket.shrink_to(2 * bucket.len());
            }
        }
    }

    #[cfg(test)]
    pub(super) fn capacity(&self) -> usize {
        let buckets = self.levels.iter().flatten().flat_map(|level| &level.buckets);
        buckets.map(Vec::capacity).sum()
    }
}
