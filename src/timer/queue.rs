//! The pending timers of one context, soonest first.
//!
//! Few timers are all in a heap. If there are more, it holds those that are due soonest; the
//! others wait unsorted in a wheel, and those of its first tick move over when the heap is empty.
//! An index from timer ids to places lets a cancelled timer leave at once and hold no memory.
//! Nothing here reads a clock or calls anything: whoever owns it asks what is due.

use super::heap::Heap;
use super::wheel::Wheel;

/// Bits of an id that are the slot; the rest of 53 is the slot's generation.
const SLOT_BITS: u32 = 26;
const SLOTS_MAX: usize = 1 << SLOT_BITS;
const GENERATION_MAX: u32 = (1 << (53 - SLOT_BITS)) - 1;
/// With fewer slots than this, memory is not worth giving back.
const SLOTS_KEPT: usize = 64;
/// With more timers than this there is a wheel.
const HEAP_ONLY_MAX: usize = 256;

/// Names a timer for as long as the queue lives: ids are never used twice. Positive and below 2^53,
/// so that a Lua number holds it exactly.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TimerId(u64);

impl TimerId {
    fn new(slot: u32, generation: u32) -> TimerId {
        TimerId(u64::from(generation) << SLOT_BITS | u64::from(slot))
    }

    /// The id as scripts see it.
    pub fn get(self) -> u64 {
        self.0
    }

    /// The id a script handed in; what was never an id names no timer.
    pub fn from_raw(raw: u64) -> TimerId {
        TimerId(raw)
    }

    /// A number that no other pending timer has, and as small as there are timers; others may have
    /// it later.
    pub fn slot(self) -> u32 {
        (self.0 & (SLOTS_MAX as u64 - 1)) as u32
    }

    fn generation(self) -> u64 {
        self.0 >> SLOT_BITS
    }
}

/// A pending timer's place in the order.
#[derive(Clone, Copy, Debug)]
pub(super) struct Node {
    /// In the nanoseconds of who has set it.
    pub(super) deadline: u64,
    /// Timers with the same deadline fire in the order in which they were set.
    sequence: u64,
    /// The index of the timer.
    pub(super) slot: u32,
}

impl Node {
    /// What nodes are ordered by. One wide number, because comparing pairs takes a branch that
    /// nothing predicts.
    #[inline]
    pub(super) fn key(&self) -> u128 {
        u128::from(self.deadline) << 64 | u128::from(self.sequence)
    }
}

/// Where a timer is: in the heap, or in a bucket of the wheel, and at which index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    bucket: u16,
    index: u32,
}

impl Place {
    const HEAP: u16 = u16::MAX;
    const NOWHERE: u16 = Place::HEAP - 1;
    /// Of a slot whose timer is over.
    const VACANT: Place = Place { bucket: Place::NOWHERE, index: 0 };
    /// Of one whose timer is due and was taken …
    const TAKEN: Place = Place { bucket: Place::NOWHERE, index: 1 };
    /// … and cancelled since.
    const DROPPED: Place = Place { bucket: Place::NOWHERE, index: 2 };

    #[inline]
    pub(super) fn heap(index: usize) -> Place {
        Place { bucket: Place::HEAP, index: index as u32 }
    }

    #[inline]
    pub(super) fn wheel(bucket: usize, index: usize) -> Place {
        Place { bucket: bucket as u16, index: index as u32 }
    }
}

/// What an id leads to.
#[derive(Clone, Copy, Debug)]
struct Slot {
    token: u64,
    place: Place,
    /// Generation of the present timer, or of the next one if vacant.
    generation: u32,
}

impl Slot {
    fn is_free(&self) -> bool {
        self.place == Place::VACANT && self.generation < GENERATION_MAX
    }
}

#[derive(Debug, Default)]
pub(super) struct Slots(Vec<Slot>);

impl Slots {
    #[inline]
    pub(super) fn set_place(&mut self, slot: u32, place: Place) {
        self.0[slot as usize].place = place;
    }
}

/// Pending timers, soonest first; equal deadlines in order of creation.
///
/// # Examples
/// ```
/// use node_lua::timer::TimerQueue;
///
/// let mut timers = TimerQueue::new();
/// let late = timers.insert(2_000, 7).unwrap();
/// let soon = timers.insert(1_000, 8).unwrap();
/// assert_eq!(timers.peek(), Some(1_000));
/// assert_eq!(timers.take_due(1_500), Some((soon.slot(), 8)));
/// assert_eq!(timers.take_due(1_500), None);
/// timers.release(|_deadline, _token| None);
/// assert_eq!(timers.cancel(late), Some(7));
/// assert_eq!(timers.cancel(late), None);
/// ```
///
/// # Invariant
/// The place of a slot is where its node is; slots without a node are in `taken`, or vacant, and
/// then in `vacant` unless their generations are used up. No node in the wheel is before any in
/// the heap; the heap is empty only if the wheel is, and then there is no wheel.
#[derive(Debug)]
pub struct TimerQueue {
    heap: Heap,
    wheel: Option<Box<Wheel>>,
    len: usize,
    slots: Slots,
    vacant: Vec<u32>,
    /// Slots of those that were taken, and their deadlines.
    taken: Vec<(u32, u64)>,
    sequence: u64,
    /// Generation that new slots start with: above all that dropped slots had.
    generation_min: u32,
    /// Memory is given back when fewer timers than this are pending.
    shrink_below: usize,
}

impl Default for TimerQueue {
    fn default() -> TimerQueue {
        TimerQueue::new()
    }
}

impl TimerQueue {
    /// An empty queue; it allocates with the first timer.
    pub fn new() -> TimerQueue {
        TimerQueue {
            heap: Heap::default(),
            wheel: None,
            len: 0,
            slots: Slots::default(),
            vacant: Vec::new(),
            taken: Vec::new(),
            sequence: 0,
            generation_min: 1,
            shrink_below: 0,
        }
    }

    /// Number of pending timers.
    pub fn len(&self) -> usize {
        self.len
    }

    /// True if nothing is pending.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Adds a timer for `deadline` (nanoseconds since the process started) that carries `token`.
    /// `None` if 2^26 timers are pending already.
    pub fn insert(&mut self, deadline: u64, token: u64) -> Option<TimerId> {
        let slot = match self.vacant.pop() {
            Some(slot) => slot,
            None => self.add_slot()?,
        };
        let state = &mut self.slots.0[slot as usize];
        state.token = token;
        let id = TimerId::new(slot, state.generation);
        let sequence = self.next_sequence();
        self.len += 1;
        self.add(Node { deadline, sequence, slot });
        Some(id)
    }

    /// The soonest deadline, in the nanoseconds of who has set it.
    #[inline]
    pub fn peek(&self) -> Option<u64> {
        self.heap.first().map(|node| node.deadline)
    }

    /// The token of the soonest timer.
    pub fn peek_token(&self) -> Option<u64> {
        self.heap.first().map(|node| self.slots.0[node.slot as usize].token)
    }

    /// Takes the soonest timer out of the order, if its deadline is not after `now`: its slot's
    /// number, and its token. Until [`release`](TimerQueue::release) it counts as pending, and can
    /// be cancelled; its slot serves no other timer.
    pub fn take_due(&mut self, now: u64) -> Option<(u32, u64)> {
        let node = *self.heap.first().filter(|node| node.deadline <= now)?;
        self.heap.remove(0, &mut self.slots);
        self.refill();
        let state = &mut self.slots.0[node.slot as usize];
        state.place = Place::TAKEN;
        self.taken.push((node.slot, node.deadline));
        Some((node.slot, state.token))
    }

    /// Ends those that were taken, but those for which `next`, given deadline and token, has
    /// another deadline: they keep their ids, and count as created now.
    pub fn release(&mut self, mut next: impl FnMut(u64, u64) -> Option<u64>) {
        let mut taken = std::mem::take(&mut self.taken);
        for (slot, deadline) in taken.drain(..) {
            let state = &mut self.slots.0[slot as usize];
            if state.place == Place::DROPPED {
                self.vacate(slot);
            } else if let Some(deadline) = next(deadline, state.token) {
                let sequence = self.next_sequence();
                self.add(Node { deadline, sequence, slot });
            } else {
                self.len -= 1;
                self.vacate(slot);
            }
        }
        self.refill();
        self.taken = taken;
        if self.len < self.shrink_below {
            self.shrink();
        }
    }

    /// True if some were taken and not released.
    pub fn has_taken(&self) -> bool {
        !self.taken.is_empty()
    }

    /// Takes a timer out and returns its token; `None` if it fired or was cancelled before.
    pub fn cancel(&mut self, id: TimerId) -> Option<u64> {
        let token = self.token(id)?;
        let slot = id.slot();
        self.len -= 1;
        if self.slots.0[slot as usize].place == Place::TAKEN {
            self.slots.0[slot as usize].place = Place::DROPPED;
            return Some(token);
        }
        self.take(slot);
        self.refill();
        self.vacate(slot);
        if self.len < self.shrink_below {
            self.shrink();
        }
        Some(token)
    }

    /// The token of a pending timer.
    pub fn token(&self, id: TimerId) -> Option<u64> {
        let slot = self.slots.0.get(id.slot() as usize)?;
        let is_pending = slot.place != Place::VACANT && slot.place != Place::DROPPED;
        let is_current = u64::from(slot.generation) == id.generation() && is_pending;
        is_current.then_some(slot.token)
    }

    fn next_sequence(&mut self) -> u64 {
        self.sequence += 1;
        self.sequence
    }

    fn add_slot(&mut self) -> Option<u32> {
        let slot = self.slots.0.len();
        if slot == SLOTS_MAX {
            return None;
        }
        let generation = self.generation_min;
        self.slots.0.push(Slot { token: 0, place: Place::VACANT, generation });
        self.shrink_below = if slot < SLOTS_KEPT { 0 } else { slot / 4 };
        Some(slot as u32)
    }

    /// Puts a node where it belongs.
    fn add(&mut self, node: Node) {
        if self.wheel.is_none() && self.heap.len() >= HEAP_ONLY_MAX {
            self.open_wheel();
        }
        match &mut self.wheel {
            Some(wheel) if wheel.takes(&node) => wheel.push(node, &mut self.slots),
            _ => self.heap.push(node, &mut self.slots),
        }
    }

    /// Leaves those that are due soonest in the heap.
    fn open_wheel(&mut self) {
        let Some(first) = self.heap.first() else { return };
        let mut wheel = Box::new(Wheel::new(first));
        for node in self.heap.take_all() {
            match wheel.takes(&node) {
                true => wheel.push(node, &mut self.slots),
                false => self.heap.push(node, &mut self.slots),
            }
        }
        self.wheel = Some(wheel);
    }

    /// If the heap is empty, has the wheel fill it.
    #[inline]
    fn refill(&mut self) {
        if self.heap.is_empty() {
            while let Some(wheel) = &mut self.wheel
                && self.heap.is_empty()
            {
                if !wheel.advance(&mut self.heap, &mut self.slots) {
                    self.wheel = None;
                }
            }
        }
    }

    /// Takes the node of a slot out.
    fn take(&mut self, slot: u32) {
        let Place { bucket, index } = self.slots.0[slot as usize].place;
        if bucket == Place::HEAP {
            self.heap.remove(index as usize, &mut self.slots);
        } else if let Some(wheel) = &mut self.wheel {
            wheel.remove(bucket as usize, index as usize, &mut self.slots);
        }
    }

    /// Ends the generation of a slot whose node is out.
    fn vacate(&mut self, slot: u32) {
        let state = &mut self.slots.0[slot as usize];
        state.place = Place::VACANT;
        // A slot whose generations are used up is left vacant for good: no id is used twice.
        if state.generation < GENERATION_MAX {
            state.generation += 1;
            self.vacant.push(slot);
        }
    }

    /// Gives back the vacant slots at the end, and spare capacity. Timers pending in high slots
    /// stay where their ids say; the lowest vacant slots are used next, so that those become free.
    fn shrink(&mut self) {
        while let Some(slot) = self.slots.0.pop_if(|slot| slot.is_free()) {
            self.generation_min = self.generation_min.max(slot.generation);
        }
        let kept = self.slots.0.len();
        self.vacant.clear();
        let slots = self.slots.0.iter().enumerate().rev();
        self.vacant.extend(slots.filter(|(_, slot)| slot.is_free()).map(|(index, _)| index as u32));
        self.slots.0.shrink_to(2 * kept);
        self.vacant.shrink_to(2 * kept);
        if self.len <= HEAP_ONLY_MAX {
            for node in self.wheel.take().into_iter().flat_map(|wheel| wheel.into_nodes()) {
                self.heap.push(node, &mut self.slots);
            }
        } else if let Some(wheel) = &mut self.wheel {
            wheel.shrink();
        }
        self.heap.shrink();
        // Halved, so that the next pass over the slots is far off even if none could be dropped.
        self.shrink_below = if kept < SLOTS_KEPT { 0 } else { self.len / 2 };
    }
}

#[cfg(test)]
#[path = "queue_test.rs"]
mod tests;
