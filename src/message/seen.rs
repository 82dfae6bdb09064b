//! The numbers of the tables of one message, found by identity while it is written.
//!
//! Messages have few tables as a rule: those are searched one by one, and only many are hashed.
//! Knows addresses, not what is there.

/// Tables that are searched one by one.
const LISTED_MAX: usize = 12;
/// Memory kept from one message to the next, in tables.
const KEPT_MAX: usize = 1024;
/// A hash slot without a table.
const EMPTY: u32 = u32::MAX;

/// The tables met so far.
///
/// # Examples
/// ```
/// use node_lua::message::Seen;
///
/// let mut tables = Seen::default();
/// assert_eq!(tables.find_or_add(0x1000), None);
/// assert_eq!(tables.find_or_add(0x2000), None);
/// assert_eq!(tables.find_or_add(0x1000), Some(0));
/// ```
///
/// # Invariant
/// `slots` is empty, or its length is a power of two at least twice that of `identities`, all of
/// whose indices are in it.
#[derive(Debug, Default)]
pub struct Seen {
    identities: Vec<usize>,
    slots: Vec<u32>,
}

impl Seen {
    /// Forgets all tables.
    #[inline]
    pub fn clear(&mut self) {
        self.identities.clear();
        if !self.slots.is_empty() {
            self.slots.clear();
            self.identities.shrink_to(KEPT_MAX);
            self.slots.shrink_to(4 * KEPT_MAX);
        }
    }

    /// Bytes that are taken before one more can be added, if any are.
    #[inline]
    pub fn grows_by(&self) -> Option<usize> {
        let count = self.identities.len();
        let grows = count >= LISTED_MAX && self.slots.len() < 2 * (count + 1);
        grows.then(|| {
            let slots = Seen::slots_for(count);
            let taken = (slots - self.slots.len()) * size_of::<u32>();
            taken + (slots / 2 - count) * size_of::<usize>()
        })
    }

    fn slots_for(count: usize) -> usize {
        (4 * (count + 1)).next_power_of_two()
    }

    /// The number of a table met before; otherwise gives it the next one.
    #[inline]
    pub fn find_or_add(&mut self, identity: usize) -> Option<u32> {
        if self.identities.len() < LISTED_MAX {
            let found = self.identities.iter().position(|other| *other == identity);
            if found.is_none() {
                self.identities.push(identity);
            }
            return found.map(|number| number as u32);
        }
        self.find_or_add_hashed(identity)
    }

    fn find_or_add_hashed(&mut self, identity: usize) -> Option<u32> {
        if self.slots.len() < 2 * (self.identities.len() + 1) {
            self.grow();
        }
        let mut slot = self.first_slot(identity);
        while self.slots[slot] != EMPTY {
            let number = self.slots[slot];
            if self.identities[number as usize] == identity {
                return Some(number);
            }
            slot = (slot + 1) & (self.slots.len() - 1);
        }
        self.slots[slot] = self.identities.len() as u32;
        self.identities.push(identity);
        None
    }

    fn grow(&mut self) {
        let len = Seen::slots_for(self.identities.len());
        self.identities.reserve_exact(len / 2 - self.identities.len());
        self.slots.clear();
        self.slots.reserve_exact(len);
        self.slots.resize(len, EMPTY);
        for number in 0..self.identities.len() {
            let mut slot = self.first_slot(self.identities[number]);
            while self.slots[slot] != EMPTY {
                slot = (slot + 1) & (len - 1);
            }
            self.slots[slot] = number as u32;
        }
    }

    fn first_slot(&self, identity: usize) -> usize {
        // Fibonacci hashing: the top bits of the product depend on all bits of the address.
        let hash = (identity as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (hash >> (64 - self.slots.len().trailing_zeros())) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_keep_their_numbers_however_many_there_are() {
        let mut tables = Seen::default();
        for count in [1, LISTED_MAX, LISTED_MAX + 1, 10_000, 5] {
            tables.clear();
            for number in 0..count {
                assert_eq!(tables.find_or_add(number * 64), None);
                assert_eq!(tables.find_or_add(0), Some(0));
            }
            for number in 0..count {
                assert_eq!(tables.find_or_add(number * 64), Some(number as u32));
            }
        }
        assert!(tables.slots.capacity() <= 4 * KEPT_MAX);
    }
}
