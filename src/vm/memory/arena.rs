//! Memory for the first small objects of one state: a slot of 128 KiB, cut up by size.
//!
//! Most contexts never hold more than a slot, so that creating one takes a single allocation, and
//! its objects lie side by side without heads between them. What is freed is kept by size and used
//! again; what no longer fits goes to [`Pages`](super::pages::Pages).
//!
//! Not for threads: an arena belongs to the state that it serves.

use std::ops::Range;

use super::free::FreeList;
use super::pages::{CLASSES, FINE_MAX, class_bytes, class_of};
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
    free: [FreeList; CLASSES],
    /// What is being cut up, as offsets in the slot; nothing once the state has settled.
    piece: Range<usize>,
    /// Whether anything was freed that is worth to be cut up.
    has_pieces: bool,
    /// Once the state has settled what is untouched; until then there may be as much as one wants.
    room: usize,
}

/// What is smaller is not cut up.
const PIECE_MIN: usize = 256;

impl Arena {
    pub(crate) fn new() -> Arena {
        Arena {
            slot: take_slot(),
            used: 0,
            free: [FreeList::EMPTY; CLASSES],
            piece: 0..0,
            has_pieces: false,
            room: usize::MAX,
        }
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
        if let Some(block) = self.free[class].pop() {
            return block;
        }
        if bytes > self.room {
            return std::ptr::null_mut();
        }
        self.cut(class, bytes)
    }

    /// The same where none of its size is free.
    fn cut(&mut self, class: usize, bytes: usize) -> *mut u8 {
        if bytes <= self.piece.len() || self.has_pieces && self.find_piece(class) {
            let block = self.slot.wrapping_add(self.piece.start);
            self.piece.start += bytes;
            return block;
        }
        if self.slot.is_null() || bytes > SLOT_BYTES - self.used {
            return std::ptr::null_mut();
        }
        let block = self.slot.wrapping_add(self.used);
        self.used += bytes;
        if self.is_settled() {
            self.room = SLOT_BYTES - self.used;
        }
        block
    }

    /// Looks for something of this size, or larger, to cut up instead of what is being cut up.
    #[cold]
    fn find_piece(&mut self, class: usize) -> bool {
        let smallest = class_of(PIECE_MIN).0;
        let mut classes = class.max(smallest)..CLASSES;
        let Some(found) = classes.find(|&class| !self.free[class].is_empty()) else {
            self.has_pieces = class > smallest;
            return false;
        };
        self.leave_piece();
        if let Some(block) = self.free[found].pop() {
            let start = block.addr() - self.slot.addr();
            self.piece = start..start + class_bytes(found);
        }
        true
    }

    /// What is left of what was being cut up serves its own size.
    fn leave_piece(&mut self) {
        let mut rest = std::mem::take(&mut self.piece);
        while !rest.is_empty() {
            // Up to this each multiple of the grain has a class.
            let bytes = rest.len().min(FINE_MAX);
            let block = self.slot.wrapping_add(rest.start);
            // SAFETY: it lies in the slot, is nobody's, and as long as its class says.
            unsafe { self.free[class_of(bytes).0].push(block) };
            rest.start += bytes;
        }
    }

    /// From now on what is freed serves its own size alone.
    pub(crate) fn settle(&mut self) {
        self.leave_piece();
        self.has_pieces = false;
        self.room = if self.slot.is_null() { 0 } else { SLOT_BYTES - self.used };
    }

    fn is_settled(&self) -> bool {
        self.room != usize::MAX
    }

    /// Takes a block of `size` bytes back.
    ///
    /// # Safety
    /// It must be owned, have been allocated with a size of the same class, and not be used again.
    #[inline]
    pub(crate) unsafe fn release(&mut self, block: *mut u8, size: usize) {
        let (class, _) = class_of(size);
        self.has_pieces |= size >= PIECE_MIN && !self.is_settled();
        // SAFETY: the caller's block, which has at least a grain, and is aligned to it.
        unsafe { self.free[class].push(block) };
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

    fn release(arena: &mut Arena, block: *mut u8, size: usize) {
        // SAFETY: the tests have allocated it with that size, and do not use it again.
        unsafe { arena.release(block, size) };
    }

    #[test]
    fn freed_blocks_serve_their_size_again() {
        let mut arena = Arena::new();
        let first = arena.allocate(100);
        assert!(arena.owns(first));
        release(&mut arena, first, 100);
        assert_ne!(arena.allocate(200), first);
        assert_eq!(arena.allocate(104), first);
    }

    #[test]
    fn what_is_freed_is_cut_up_until_the_state_settles() {
        let mut arena = Arena::new();
        let first = arena.allocate(1000);
        let next = arena.allocate(8);
        release(&mut arena, first, 1000);
        let parts: Vec<_> = (0..4).map(|_| arena.allocate(104)).collect();
        assert_eq!(parts, [0, 104, 208, 312].map(|at| first.wrapping_add(at)));
        // 608 are left: in two parts, of which the second is for what has its size.
        arena.settle();
        assert_eq!(arena.allocate(512), first.wrapping_add(416));
        assert_eq!(arena.allocate(96), first.wrapping_add(928));
        assert_eq!(arena.allocate(104), next.wrapping_add(8));
    }

    #[test]
    fn no_two_blocks_overlap() {
        let mut arena = Arena::new();
        let (mut blocks, mut seed) = (Vec::<(*mut u8, usize)>::new(), 1_usize);
        for step in 0..4000 {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let size = 1 + (seed >> 33) % [48, 300, SMALL_MAX][step % 3];
            if seed >> 60 < 7 && !blocks.is_empty() {
                let (block, size) = blocks.swap_remove((seed >> 20) % blocks.len());
                release(&mut arena, block, size);
                continue;
            }
            let block = arena.allocate(size);
            if block.is_null() {
                arena.settle();
                continue;
            }
            let overlaps = |&(other, bytes): &(*mut u8, usize)| {
                block < other.wrapping_add(bytes) && other < block.wrapping_add(size)
            };
            assert!(arena.owns(block) && arena.owns(block.wrapping_add(size - 1)));
            assert!(!blocks.iter().any(overlaps), "{step}: {size}");
            blocks.push((block, size));
        }
        assert!(arena.is_settled() && blocks.len() > 100);
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
