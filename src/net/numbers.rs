//! The numbers under which any context reaches a socket of another one.

use std::hash::BuildHasherDefault;
use std::sync::{Arc, PoisonError, RwLock, Weak};

use crate::message::{ByNumber, Id};
use crate::rt;

/// Bits of a number, without the one that tells the kinds of sockets apart: Lua's `tostring` shows
/// all digits of such numbers.
const BITS: u32 = 45;

/// What a socket's number is made from besides its owner: no session of a query is made from it.
const SOCKET: u64 = 1 << 63;

/// Sockets by number. Who was given none cannot guess one.
pub(super) struct Numbers<T> {
    kind: u64,
    table: RwLock<ByNumber<Weak<T>>>,
}

impl<T> Numbers<T> {
    /// For one kind of sockets, 0 or 1.
    pub(super) const fn new(kind: u64) -> Numbers<T> {
        let table = RwLock::new(ByNumber::with_hasher(BuildHasherDefault::new()));
        Numbers { kind: kind << BITS, table }
    }

    /// Notes what `make` builds for the number that it is given: that of a socket which `owner`
    /// knows as `key`.
    pub(super) fn add(&self, owner: Id, key: u64, make: impl FnOnce(u64) -> Arc<T>) -> Arc<T> {
        let mut table = self.table.write().unwrap_or_else(PoisonError::into_inner);
        let secret = rt::secret((owner.to_bits(), SOCKET | key)) >> (64 - BITS);
        let mut number = self.kind | secret;
        while number == 0 || table.contains_key(&number) {
            number = self.kind | (number + 1) & ((1 << BITS) - 1);
        }
        let made = make(number);
        table.insert(number, Arc::downgrade(&made));
        made
    }

    /// The socket with this number.
    pub(super) fn get(&self, number: u64) -> Option<Arc<T>> {
        // The lock is given back before the reference can be the last one: dropping that takes the
        // lock for writing.
        self.table.read().unwrap_or_else(PoisonError::into_inner).get(&number)?.upgrade()
    }

    /// Forgets one.
    pub(super) fn remove(&self, number: u64) {
        self.table.write().unwrap_or_else(PoisonError::into_inner).remove(&number);
    }
}
