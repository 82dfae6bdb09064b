//! Memory for the small objects of one state: a slot of 128 KiB, cut up by size.
//!
//! Most contexts never hold more than a slot, so that creating one takes a single allocation, and
//! its objects lie side by side without heads between them. What is freed is kept by size and used
//! again; what is large, or no longer fits, is for the C allocator. Slots of states that have ended
//! serve the next ones.
//!
//! Not for threads: an arena belongs to the state that it serves.

use std::ptr::NonNull;
use std::sync::{Mutex, PoisonError};

use super::fixed_heap;
use crate::rt;

/// Bytes of a slot: what a small context needs.
const SLOT_BYTES: usize = 128 * 1024;
/// Slots that are mapped at once.
const REGION_SLOTS: usize = 64;
/// Slots that keep their memory while nobody uses them.
const WARM_MAX: usize = 128;

/// Blocks are as long as a multiple of this, and aligned to it: LuaJIT asks for no more, and most
/// of its objects are small.
const GRAIN: usize = 8;
/// Sizes up to this are told apart in steps of a grain …
const FINE_MAX: usize = 512;
const FINE_CLASSES: usize = FINE_MAX / GRAIN;
/// … and those above in four steps per doubling, up to this.
const COARSE_MAX: usize = 1024;
const CLASSES: usize = FINE_CLASSES + 4;

/// A block that is free: the next of its size.
struct Free {
    next: Option<NonNull<Free>>,
}

/// The memory of one state.
///
/// # Invariant
/// Every list holds blocks of its size within the slot that nobody else uses; from `used` on the
/// slot is untouched.
#[derive(Debug)]
pub(super) struct Arena {
    /// Null if no memory could be mapped: then nothing fits.
    slot: *mut u8,
    used: usize,
    free: [Option<NonNull<Free>>; CLASSES],
}

/// The class of a size, and what blocks of that class take.
#[inline]
fn class_of(size: usize) -> (usize, usize) {
    if size <= FINE_MAX {
        let steps = size.div_ceil(GRAIN).max(1);
        return (steps - 1, steps * GRAIN);
    }
    // The position of the top bit, and the two bits below it of what is rounded up.
    let top = (size - 1).ilog2();
    let step = 1usize << (top - 2);
    let steps = size.div_ceil(step);
    (FINE_CLASSES + (top as usize - 9) * 4 + (steps - 5), steps * step)
}

impl Arena {
    pub(super) fn new() -> Arena {
        Arena { slot: take_slot(), used: 0, free: [None; CLASSES] }
    }

    /// True if the block is one of this arena.
    #[inline]
    pub(super) fn owns(&self, block: *const u8) -> bool {
        !self.slot.is_null() && block.addr().wrapping_sub(self.slot.addr()) < SLOT_BYTES
    }

    /// A block of at least `size` bytes; null if it is large or there is no room.
    #[inline]
    pub(super) fn allocate(&mut self, size: usize) -> *mut u8 {
        if size > COARSE_MAX {
            return std::ptr::null_mut();
        }
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
    pub(super) unsafe fn release(&mut self, block: *mut u8, size: usize) {
        let (class, _) = class_of(size);
        let block = block.cast::<Free>();
        // SAFETY: blocks have at least a grain, are aligned to it, and this one is nobody's.
        unsafe { block.write(Free { next: self.free[class] }) };
        self.free[class] = NonNull::new(block);
    }

    /// True if a block of the one size has room for the other, and would not waste it.
    #[inline]
    pub(super) fn same_class(one: usize, other: usize) -> bool {
        one <= COARSE_MAX && other <= COARSE_MAX && class_of(one).0 == class_of(other).0
    }
}

impl Drop for Arena {
    fn drop(&mut self) {
        if !self.slot.is_null() {
            give_slot(self.slot);
        }
    }
}

/// Slots that nobody uses, by address: pointers would tie the list to one thread.
struct Slots {
    /// Used last, so that their memory is likely still in the caches.
    warm: Vec<usize>,
    /// Without memory of their own.
    cold: Vec<usize>,
}

static SLOTS: Mutex<Slots> = Mutex::new(Slots { warm: Vec::new(), cold: Vec::new() });

fn take_slot() -> *mut u8 {
    if rt::is_simulated() {
        return fixed_heap::allocate(SLOT_BYTES).cast();
    }
    let mut slots = SLOTS.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(slot) = slots.warm.pop().or_else(|| slots.cold.pop()) {
        return std::ptr::with_exposed_provenance_mut(slot);
    }
    let bytes = REGION_SLOTS * SLOT_BYTES;
    let access = libc::PROT_READ | libc::PROT_WRITE;
    let kind = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
    // SAFETY: new memory at an address that the system chooses.
    let region = unsafe { libc::mmap(std::ptr::null_mut(), bytes, access, kind, -1, 0) };
    if region == libc::MAP_FAILED {
        return std::ptr::null_mut();
    }
    let first = region.expose_provenance();
    slots.cold.extend((1..REGION_SLOTS).rev().map(|slot| first + slot * SLOT_BYTES));
    region.cast()
}

fn give_slot(slot: *mut u8) {
    if rt::is_simulated() {
        return fixed_heap::release(slot.cast(), SLOT_BYTES);
    }
    let address = slot.expose_provenance();
    {
        let mut slots = SLOTS.lock().unwrap_or_else(PoisonError::into_inner);
        if slots.warm.len() < WARM_MAX {
            slots.warm.push(address);
            return;
        }
    }
    // SAFETY: the slot is ours alone, whole pages of anonymous memory.
    unsafe { libc::madvise(slot.cast(), SLOT_BYTES, libc::MADV_DONTNEED) };
    SLOTS.lock().unwrap_or_else(PoisonError::into_inner).cold.push(address);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_hold_their_sizes_and_stay_apart() {
        let (mut last, mut room) = (0, GRAIN);
        for size in 1..=COARSE_MAX {
            let (class, bytes) = class_of(size);
            assert!(bytes >= size && bytes < size + (size / 4).max(GRAIN), "{size}: {bytes}");
            assert!(bytes.is_multiple_of(GRAIN) && class < CLASSES);
            assert_eq!(class != last, bytes != room, "{size}");
            assert!(class == last || class == last + 1);
            (last, room) = (class, bytes);
        }
        assert_eq!(last, CLASSES - 1);
    }

    #[test]
    fn freed_blocks_serve_their_size_again() {
        let mut arena = Arena::new();
        let first = arena.allocate(100);
        assert!(arena.owns(first) && first.is_aligned_to_grain());
        // SAFETY: allocated above with that size.
        unsafe { arena.release(first, 100) };
        assert_ne!(arena.allocate(200), first);
        assert_eq!(arena.allocate(104), first);
    }

    #[test]
    fn a_full_slot_and_large_blocks_are_left_to_others() {
        let mut arena = Arena::new();
        assert!(arena.allocate(COARSE_MAX + 1).is_null());
        let count = std::iter::repeat_with(|| arena.allocate(1000))
            .take_while(|block| !block.is_null())
            .count();
        assert_eq!(count, SLOT_BYTES / COARSE_MAX);
        assert!(arena.allocate(1).is_null() && !arena.owns(std::ptr::null()));
    }

    trait Aligned {
        fn is_aligned_to_grain(&self) -> bool;
    }

    impl Aligned for *mut u8 {
        fn is_aligned_to_grain(&self) -> bool {
            self.addr().is_multiple_of(GRAIN)
        }
    }
}
