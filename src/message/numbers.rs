//! Tables of what has a number.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasherDefault, Hasher};

use super::Id;

/// By a number that no script has chosen: of a socket, a session or a context.
pub type ByNumber<V> = HashMap<u64, V, BuildHasherDefault<NumberHasher>>;

/// Addresses of contexts.
pub type Ids = HashSet<Id, BuildHasherDefault<NumberHasher>>;

/// Hashes by a product: as nobody can choose the numbers, none can be made to collide.
#[derive(Debug, Default)]
pub struct NumberHasher(u64);

impl Hasher for NumberHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|&byte| self.write_u64(u64::from(byte)));
    }

    #[inline]
    fn write_u64(&mut self, number: u64) {
        // The table looks at the top bits, and at the bottom ones.
        self.0 = (self.0 ^ number).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(26);
    }
}
