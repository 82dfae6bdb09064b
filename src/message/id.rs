//! The address of a context.

use std::fmt;

/// Bits of an address that name the slot in the registry; the rest is the slot's generation.
const INDEX_BITS: u32 = 24;

/// Addresses stay below 2^53, so that a Lua number holds them exactly.
const GENERATION_MAX: u64 = (1 << (53 - INDEX_BITS)) - 1;

/// An address that is safe to send and to keep: a slot that is used again gets a new generation.
///
/// Never 0, which in the script API means "any context".
///
/// # Examples
/// ```
/// use node_lua::message::Id;
///
/// let id = Id::new(5, 1); // the second context in slot 5
/// assert_eq!(Id::from_number(id.to_number()), Some(id));
/// assert_ne!(id, Id::new(5, 2));
/// assert_eq!(Id::from_number(0.0), None);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Id(u64);

impl Id {
    /// More contexts than this cannot live at once: the slot of this number is for [`Id::far`].
    pub const INDEX_MAX: usize = (1 << INDEX_BITS) - 2;

    /// The address of a slot in its `generation`-th use. Generations wrap after 2^29 uses.
    pub fn new(index: usize, generation: u64) -> Id {
        debug_assert!(index <= Id::INDEX_MAX);
        Id((generation & GENERATION_MAX) << INDEX_BITS | (index as u64 + 1))
    }

    /// The address that a script's number stands for, if it can be one.
    pub fn from_number(number: f64) -> Option<Id> {
        // Of signed integers the processor makes numbers with one instruction.
        let value = number as i64;
        let exact = value as f64 == number && (0..1 << 53).contains(&value);
        let value = value as u64;
        (exact && value & ((1 << INDEX_BITS) - 1) != 0).then_some(Id(value))
    }

    /// The number that stands for it in scripts.
    pub fn to_number(self) -> f64 {
        self.0 as i64 as f64
    }

    /// The number, as an integer.
    pub fn to_bits(self) -> u64 {
        self.0
    }

    /// What stands for someone beyond this process, by number.
    pub fn far(number: u64) -> Id {
        Id((number & GENERATION_MAX) << INDEX_BITS | (Id::INDEX_MAX as u64 + 1))
    }

    /// Whether it is one of those.
    #[inline]
    pub fn is_far(self) -> bool {
        self.index() == Id::INDEX_MAX
    }

    /// The slot.
    pub fn index(self) -> usize {
        (self.0 & ((1 << INDEX_BITS) - 1)) as usize - 1
    }
}

impl fmt::Debug for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_round_trip_and_stay_exact() {
        for (index, generation) in [(0, 0), (5, 1), (Id::INDEX_MAX, GENERATION_MAX)] {
            let id = Id::new(index, generation);
            assert_eq!(Id::from_number(id.to_number()), Some(id));
            assert_eq!(id.index(), index);
        }
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for number in [0.0, -1.0, 0.5, f64::NAN, f64::INFINITY, 9e15 * 2.0, (1u64 << 24) as f64] {
            assert_eq!(Id::from_number(number), None, "{number}");
        }
    }
}
