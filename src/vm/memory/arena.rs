//! Memory for the first small objects of one state: a slot of 128 KiB, cut up by size.
//!
//! Most contexts never hold more than a slot, so that creating one takes a single allocation, and
//! its objects lie side by side without heads between them. What is freed is kept by size and used
//! again; what no longer fits goes to [`Pages`](super::pages::Pages).
//!
//! Not for threads: an arena belongs to the state that it serves.

use std::ptr::NonNull;

use super::pages::{CLASSES, Free, class_of};
use super::slots::{SLOT_BYTES, give_slot, slot_of, take_slot};

/// The first slot of one state.
///
/// # Invariant
/// Every list holds blocks of its size within the slot that nobody else uses; from `used` on the
/// slot is untouched.
#[derive(Debug)]
pub(crate) struct Arena {
    /// Null if no memory could be mapped: then nothing fits.
    slot: *mut u8,
    used: usize,
    free: [Option<NonNull<Free>>; CLASSES],
}

impl Arena {
    pub(crate) fn new() -> Arena {
        Arena { slot: take_slot(), used: 0, free: [None; CLASSES] }
    }

    /// True if the block, which is not null, is one of this arena.
    #[inline]
    pub(crate) fn owns(&self, block: *mut u8) -> bool {
        slot_of(block) == self.slot
    }

    /// A block of at least `size` bytes, which are at most `SMALL_MAX`; null if there is no room.
    #[inline]
    pub(crate) fn allocate(&mut self, size: usize) -> *mut u8 {
        let (class, bytes) = class_of(size);
        if let Some(block) = self.free[class] {
            // SAFETY: the block is in the list, so it is free, and was written by `release`.
            self.free[class] = unsafe { block.as_ref() }.next;
            return block.as_ptr().cast();
        }
        if self.slot.is_null() || bytes > SLOT_BYTES - self.used {
            return std::ptr::null_mut();
        }
        // SAFETY: `used` and what is taken lie within the slot.
        let block = unsafe { self.slot.add(self.used) };
        self.used += bytes;
        block
    }

    /// Takes a block of `size` bytes back.
    ///
    /// # Safety
    /// It must be owned, have been allocated with a size of the same class, and not be used again.
    #[inline]
    pub(crate) unsafe fn release(&mut self, block: *mut u8, size: usize) {
        let (class, _) = class_of(size);
        let block = block.cast::<Free>();
        // SAFETY: blocks have at least a grain, are aligned to it, and this one is nobody's.
        unsafe { block.write(Free { next: self.free[class] }) };
        self.free[class] = NonNull::new(block);
    }
}

impl Drop for Arena {
    fn drop(&mut self) {
        if !self.slot.is_null() {
            give_slot(self.slot);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::pages::SMALL_MAX;
    use super::*;

    #[test]
    fn freed_blocks_serve_their_size_again() {
        let mut arena = Arena::new();
        let first = arena.allocate(100);
        assert!(arena.owns(first));
        // SAFETY: allocated above with that size.
        unsafe { arena.release(first, 100) };
        assert_ne!(arena.allocate(200), first);
        assert_eq!(arena.allocate(104), first);
    }

    #[test]
    fn a_full_slot_gives_nothing() {
        let mut arena = Arena::new();
        let count = std::iter::repeat_with(|| arena.allocate(1000))
            .take_while(|block| !block.is_null())
            .count();
        assert_eq!(count, SLOT_BYTES / SMALL_MAX);
        assert!(arena.allocate(1).is_null());
    }
}
