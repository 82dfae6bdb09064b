//! Sets of addresses of contexts.

use std::collections::HashSet;
use std::hash::{BuildHasherDefault, Hasher};

use crate::message::Id;

/// Addresses, found by a product of their number: nobody can choose them to collide.
pub(super) type Ids = HashSet<Id, BuildHasherDefault<IdHasher>>;

#[derive(Default)]
pub(super) struct IdHasher(u64);

impl Hasher for IdHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    fn write_u64(&mut self, number: u64) {
        // The table looks at the top bits and at the bottom ones.
        self.0 = (self.0 ^ number).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(26);
    }
}
