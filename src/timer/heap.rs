//! The pending timers of one context, soonest first.
//!
//! A heap with four children per node, ordered by deadline and then by creation, with an index
//! from timer ids to places in it, so that a cancelled timer leaves at once and holds no memory.
//! It neither reads a clock nor calls anything: whoever owns it asks what is due.
//!
//! ```
//! use node_lua::timer::TimerHeap;
//!
//! let mut timers = TimerHeap::new();
//! let late = timers.insert(2_000, 7).unwrap();
//! let soon = timers.insert(1_000, 8).unwrap();
//! assert_eq!(timers.peek(), Some(1_000));
//! assert_eq!(timers.pop_due(1_500), Some((soon, 8)));
//! assert_eq!(timers.cancel(late), Some(7));
//! assert_eq!(timers.cancel(late), None);
//! ```

use std::hint::select_unpredictable;

/// Children per node: two levels of a binary heap in one, and siblings share cache lines.
const ARITY: usize = 4;
/// Bits of an id that are the slot; the rest of 53 is the slot's generation.
const SLOT_BITS: u32 = 26;
const SLOTS_MAX: usize = 1 << SLOT_BITS;
const GENERATION_MAX: u32 = (1 << (53 - SLOT_BITS)) - 1;
/// With fewer slots than this, memory is not worth giving back.
const SLOTS_KEPT: usize = 64;
/// Place of a slot whose timer is over.
const VACANT: u32 = u32::MAX;

/// Names a timer for as long as the heap lives: ids are never used twice. Positive and below 2^53,
/// so that a Lua number holds it exactly.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TimerId(u64);

impl TimerId {
    fn new(slot: usize, generation: u32) -> TimerId {
        TimerId(u64::from(generation) << SLOT_BITS | slot as u64)
    }

    /// The id as scripts see it.
    pub fn get(self) -> u64 {
        self.0
    }

    /// The id a script handed in; what was never an id names no timer.
    pub fn from_raw(raw: u64) -> TimerId {
        TimerId(raw)
    }

    fn slot(self) -> usize {
        (self.0 & (SLOTS_MAX as u64 - 1)) as usize
    }

    fn generation(self) -> u64 {
        self.0 >> SLOT_BITS
    }
}

/// A pending timer's place in the order.
#[derive(Clone, Copy, Debug)]
struct Node {
    deadline: u64,
    sequence: u64,
    slot: u32,
}

impl Node {
    /// What nodes are ordered by. One wide number, because comparing pairs takes a branch that
    /// nothing predicts.
    #[inline]
    fn key(&self) -> u128 {
        u128::from(self.deadline) << 64 | u128::from(self.sequence)
    }
}

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

/// What an id leads to.
#[derive(Clone, Copy, Debug)]
struct Slot {
    token: u64,
    /// Index into the nodes, or [`VACANT`].
    place: u32,
    /// Generation of the present timer, or of the next one if vacant.
    generation: u32,
}

/// Pending timers, soonest first; equal deadlines in order of creation.
///
/// # Invariant
/// `slots[nodes[i].slot].place == i` for every node, and a node is never before its parent. Slots
/// without a node are vacant, and in `vacant` unless their generations are used up.
#[derive(Debug)]
pub struct TimerHeap {
    nodes: Vec<Node>,
    slots: Vec<Slot>,
    vacant: Vec<u32>,
    sequence: u64,
    /// Generation that new slots start with: above all that dropped slots had.
    generation_min: u32,
    /// Memory is given back when fewer timers than this are pending.
    shrink_below: usize,
}

impl Default for TimerHeap {
    fn default() -> TimerHeap {
        TimerHeap::new()
    }
}

impl TimerHeap {
    /// An empty heap; it allocates with the first timer.
    pub fn new() -> TimerHeap {
        TimerHeap {
            nodes: Vec::new(),
            slots: Vec::new(),
            vacant: Vec::new(),
            sequence: 0,
            generation_min: 1,
            shrink_below: 0,
        }
    }

    /// Number of pending timers.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// True if nothing is pending.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// Adds a timer for `deadline` (nanoseconds since the process started) that carries `token`.
    /// `None` if 2^26 timers are pending already.
    pub fn insert(&mut self, deadline: u64, token: u64) -> Option<TimerId> {
        let slot = match self.vacant.pop() {
            Some(slot) => slot as usize,
            None => self.add_slot()?,
        };
        self.slots[slot].token = token;
        let sequence = self.next_sequence();
        self.nodes.push(Node { deadline, sequence, slot: slot as u32 });
        self.sift_up(self.nodes.len() - 1);
        Some(TimerId::new(slot, self.slots[slot].generation))
    }

    /// The soonest deadline.
    pub fn peek(&self) -> Option<u64> {
        self.nodes.first().map(|node| node.deadline)
    }

    /// The soonest timer, left in place, if its deadline is not after `now`. For repeating timers:
    /// [`reschedule`](TimerHeap::reschedule) keeps the id.
    pub fn peek_due(&self, now: u64) -> Option<(TimerId, u64)> {
        let node = self.nodes.first().filter(|node| node.deadline <= now)?;
        let slot = &self.slots[node.slot as usize];
        Some((TimerId::new(node.slot as usize, slot.generation), slot.token))
    }

    /// Takes the soonest timer out if its deadline is not after `now`.
    pub fn pop_due(&mut self, now: u64) -> Option<(TimerId, u64)> {
        let due = self.peek_due(now)?;
        self.remove(0);
        Some(due)
    }

    /// Takes a timer out and returns its token; `None` if it fired or was cancelled before.
    pub fn cancel(&mut self, id: TimerId) -> Option<u64> {
        let place = self.place(id)?;
        let token = self.slots[id.slot()].token;
        self.remove(place);
        Some(token)
    }

    /// The token of a pending timer.
    pub fn token(&self, id: TimerId) -> Option<u64> {
        self.place(id).map(|_| self.slots[id.slot()].token)
    }

    /// Gives a pending timer a new deadline, as if it had been created now; false if it is over.
    pub fn reschedule(&mut self, id: TimerId, deadline: u64) -> bool {
        let Some(place) = self.place(id) else { return false };
        let sequence = self.next_sequence();
        let node = &mut self.nodes[place];
        (node.deadline, node.sequence) = (deadline, sequence);
        self.settle(place);
        true
    }

    fn place(&self, id: TimerId) -> Option<usize> {
        let slot = self.slots.get(id.slot())?;
        let is_current = u64::from(slot.generation) == id.generation() && slot.place != VACANT;
        is_current.then_some(slot.place as usize)
    }

    fn next_sequence(&mut self) -> u64 {
        self.sequence += 1;
        self.sequence
    }

    fn add_slot(&mut self) -> Option<usize> {
        let slot = self.slots.len();
        if slot == SLOTS_MAX {
            return None;
        }
        self.slots.push(Slot { token: 0, place: VACANT, generation: self.generation_min });
        self.shrink_below = if slot < SLOTS_KEPT { 0 } else { slot / 4 };
        Some(slot)
    }

    /// Takes the node at `place` out and ends its slot's generation.
    fn remove(&mut self, place: usize) {
        let slot = self.nodes.swap_remove(place).slot;
        if place < self.nodes.len() {
            self.settle(place);
        }
        let state = &mut self.slots[slot as usize];
        state.place = VACANT;
        // A slot whose generations are used up is left vacant for good: no id is used twice.
        if state.generation < GENERATION_MAX {
            state.generation += 1;
            self.vacant.push(slot);
        }
        if self.nodes.len() < self.shrink_below {
            self.shrink();
        }
    }

    /// Gives back the vacant slots at the end, and spare capacity. Timers pending in high slots
    /// stay where their ids say; the lowest vacant slots are used next, so that those become free.
    fn shrink(&mut self) {
        let is_free = |slot: &Slot| slot.place == VACANT && slot.generation < GENERATION_MAX;
        while let Some(slot) = self.slots.pop_if(|slot| is_free(slot)) {
            self.generation_min = self.generation_min.max(slot.generation);
        }
        let kept = self.slots.len();
        self.vacant.clear();
        let slots = self.slots.iter().enumerate().rev();
        self.vacant.extend(slots.filter(|(_, slot)| is_free(slot)).map(|(index, _)| index as u32));
        self.slots.shrink_to(2 * kept);
        self.vacant.shrink_to(2 * kept);
        self.nodes.shrink_to(2 * self.nodes.len());
        // Halved, so that the next pass over the slots is far off even if none could be dropped.
        let shrink_below = self.nodes.len() / 2;
        self.shrink_below = if kept < SLOTS_KEPT { 0 } else { shrink_below };
    }

    /// Moves the node at `place` to where it belongs.
    fn settle(&mut self, place: usize) {
        if self.sift_up(place) == place {
            self.sift_down(place);
        }
    }

    fn put(&mut self, place: usize, node: Node) {
        self.nodes[place] = node;
        self.slots[node.slot as usize].place = place as u32;
    }

    fn sift_up(&mut self, mut place: usize) -> usize {
        let node = self.nodes[place];
        while place > 0 {
            let parent = (place - 1) / ARITY;
            let above = self.nodes[parent];
            if above.key() < node.key() {
                break;
            }
            self.put(place, above);
            place = parent;
        }
        self.put(place, node);
        place
    }

    fn sift_down(&mut self, mut place: usize) {
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
            self.put(place, self.nodes[child]);
            place = child;
        }
        self.put(place, node);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    fn drain(timers: &mut TimerHeap) -> Vec<u64> {
        std::iter::from_fn(|| timers.pop_due(u64::MAX)).map(|(_, token)| token).collect()
    }

    #[test]
    fn equal_deadlines_fire_in_order_of_creation() {
        let mut timers = TimerHeap::new();
        for token in 0..100 {
            timers.insert(5, token).unwrap();
        }
        assert_eq!(drain(&mut timers), (0..100).collect::<Vec<_>>());
    }

    #[test]
    fn timers_are_due_at_their_deadline_and_not_before() {
        let mut timers = TimerHeap::new();
        let id = timers.insert(10, 1).unwrap();
        assert_eq!(timers.pop_due(9), None);
        assert_eq!(timers.peek_due(10), Some((id, 1)));
        assert_eq!(timers.pop_due(10), Some((id, 1)));
        assert!(timers.is_empty());
    }

    #[test]
    fn ids_that_are_over_or_never_were_are_ignored() {
        let mut timers = TimerHeap::new();
        let old = timers.insert(10, 1).unwrap();
        assert_eq!(timers.cancel(old), Some(1));
        let new = timers.insert(10, 2).unwrap();
        assert_eq!((timers.cancel(old), timers.token(old)), (None, None));
        assert!(!timers.reschedule(old, 5));
        for raw in [0, 1, u64::MAX, (1 << 53) - 1, new.get() | 1 << 60] {
            assert_eq!(timers.cancel(TimerId::from_raw(raw)), None);
        }
        assert_eq!(timers.cancel(TimerId::from_raw(new.get())), Some(2));
    }

    #[test]
    fn rescheduled_timer_keeps_its_id_and_goes_behind_its_equals() {
        let mut timers = TimerHeap::new();
        let moved = timers.insert(1, 1).unwrap();
        timers.insert(5, 2).unwrap();
        assert!(timers.reschedule(moved, 5));
        assert_eq!(timers.token(moved), Some(1));
        assert_eq!(drain(&mut timers), [2, 1]);
    }

    #[test]
    fn memory_is_given_back() {
        let mut timers = TimerHeap::new();
        let ids: Vec<_> = (0..100_000).map(|n| timers.insert(n, n).unwrap()).collect();
        for id in &ids[10..] {
            timers.cancel(*id).unwrap();
        }
        let held = timers.nodes.capacity() + timers.slots.capacity() + timers.vacant.capacity();
        assert!(held < 1000, "{held} entries held for {} timers", timers.len());
        // Ids of dropped slots stay over when the slots come back.
        for token in 0..100_000 {
            timers.insert(token, token).unwrap();
        }
        assert!(ids[10..].iter().all(|id| timers.cancel(*id).is_none()));
        assert!(ids[..10].iter().all(|id| timers.cancel(*id).is_some()));
    }

    #[test]
    fn slot_without_generations_left_is_retired() {
        let mut timers = TimerHeap::new();
        let first = timers.insert(1, 1).unwrap();
        timers.cancel(first);
        timers.slots[0].generation = GENERATION_MAX;
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
        Reschedule(usize, u64),
        Pop(u64),
    }

    fn any_step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (0u64..50).prop_map(Step::Insert),
            2 => any::<usize>().prop_map(Step::Cancel),
            1 => (any::<usize>(), 0u64..50).prop_map(|(n, at)| Step::Reschedule(n, at)),
            2 => (0u64..50).prop_map(Step::Pop),
        ]
    }

    /// The same as a sorted list of (deadline, order of creation, id, token).
    #[derive(Default)]
    struct Model(Vec<(u64, usize, TimerId, u64)>);

    impl Model {
        fn insert(&mut self, entry: (u64, usize, TimerId, u64)) {
            let at = self.0.partition_point(|other| (other.0, other.1) < (entry.0, entry.1));
            self.0.insert(at, entry);
        }

        fn take(&mut self, id: TimerId) -> Option<u64> {
            let at = self.0.iter().position(|entry| entry.2 == id)?;
            Some(self.0.remove(at).3)
        }
    }

    proptest! {
        #[test]
        fn behaves_like_a_sorted_list(steps in vec(any_step(), 0..400)) {
            let (mut timers, mut model) = (TimerHeap::new(), Model::default());
            let mut ids = Vec::new();
            for (order, step) in steps.into_iter().enumerate() {
                match step {
                    Step::Insert(deadline) => {
                        let id = timers.insert(deadline, order as u64).unwrap();
                        prop_assert!(!ids.contains(&id), "an id was used twice");
                        ids.push(id);
                        model.insert((deadline, order, id, order as u64));
                    }
                    Step::Cancel(n) if !ids.is_empty() => {
                        let id = ids[n % ids.len()];
                        prop_assert_eq!(timers.cancel(id), model.take(id));
                    }
                    Step::Reschedule(n, deadline) if !ids.is_empty() => {
                        let id = ids[n % ids.len()];
                        let token = model.take(id);
                        prop_assert_eq!(timers.reschedule(id, deadline), token.is_some());
                        if let Some(token) = token {
                            model.insert((deadline, order, id, token));
                        }
                    }
                    Step::Pop(now) => {
                        let expected = model.0.first().copied().filter(|entry| entry.0 <= now);
                        prop_assert_eq!(timers.pop_due(now), expected.map(|e| (e.2, e.3)));
                        if let Some(entry) = expected {
                            model.take(entry.2);
                        }
                    }
                    _ => {}
                }
                prop_assert_eq!(timers.len(), model.0.len());
                prop_assert_eq!(timers.peek(), model.0.first().map(|entry| entry.0));
            }
        }
    }
}
