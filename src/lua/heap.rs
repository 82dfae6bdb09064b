//! The memory of one state: small objects in its slots, the rest from the C allocator.

use std::ffi::c_void;
use std::ptr;

use super::arena::Arena;
use super::fixed_heap;
use super::pages::{Kind, Pages, SMALL_MAX, class_of};
use crate::message::Held;
use crate::{memory, rt};

/// The blocks of one state. Not for threads, as the state is not.
#[derive(Debug)]
pub(super) struct Heap {
    arena: Arena,
    /// Most contexts never need them.
    pages: Option<Box<Pages>>,
}

impl Heap {
    pub(super) fn new() -> Heap {
        Heap { arena: Arena::new(), pages: None }
    }

    /// A block of at least `size` bytes, not 0; null if there is no memory.
    #[inline]
    fn take(&mut self, size: usize) -> *mut u8 {
        if size > SMALL_MAX {
            return if self.may_grow(size) { system_take(size) } else { ptr::null_mut() };
        }
        let block = self.arena.allocate(size);
        if block.is_null() { self.take_from_pages(Kind::Plain, size) } else { block }
    }

    /// See [`Pages::may_grow`].
    pub(super) fn may_grow(&mut self, bytes: usize) -> bool {
        self.pages.as_mut().is_none_or(|pages| pages.may_grow(bytes))
    }

    /// See [`Pages::spare`].
    pub(super) fn spare(&mut self, bytes: usize) -> bool {
        self.pages.as_mut().is_some_and(|pages| pages.spare(bytes))
    }

    /// See [`Pages::count_waste`].
    pub(super) fn count_waste(&mut self, held: Held, limit: usize) {
        self.pages.get_or_insert_with(|| Box::new(Pages::new())).count_waste(held, limit);
    }

    #[inline]
    fn take_from_pages(&mut self, kind: Kind, size: usize) -> *mut u8 {
        self.pages.get_or_insert_with(|| Box::new(Pages::new())).allocate(kind, size)
    }

    /// A block for a userdata with a buffer, of at most `SMALL_MAX` bytes; null if there is no
    /// memory.
    #[inline]
    pub(super) fn take_buffer(&mut self, size: usize) -> *mut u8 {
        debug_assert!(size <= SMALL_MAX);
        self.take_from_pages(Kind::Buffer, size)
    }

    /// Whether a block of `size` bytes is a userdata with a buffer.
    ///
    /// # Safety
    /// The block must be one of this heap, with this size.
    #[inline]
    pub(super) unsafe fn is_buffer(&self, block: *mut u8, size: usize) -> bool {
        // SAFETY: what is small and not in the arena is in pages.
        size <= SMALL_MAX
            && !self.arena.owns(block)
            && unsafe { Pages::kind_of(block) } == Kind::Buffer
    }

    /// Takes a block back.
    ///
    /// # Safety
    /// The block must be one of this heap, with this size, and is not used any more.
    #[inline(always)]
    pub(super) unsafe fn give(&mut self, block: *mut u8, size: usize) {
        if size > SMALL_MAX {
            // SAFETY: what is not small came from there.
            unsafe { system_give(block, size) };
        } else if self.arena.owns(block) {
            // SAFETY: the caller's contract.
            unsafe { self.arena.release(block, size) };
        } else if let Some(pages) = &mut self.pages {
            // SAFETY: what is small and not in the arena is in pages.
            unsafe { pages.release(block) };
        }
    }

    /// Makes a block of `old` bytes (null: 0) one of `new` bytes, not 0; null, and nothing changed,
    /// if there is no memory.
    ///
    /// # Safety
    /// `block` must be null or one of this heap with size `old`; it is replaced by the result.
    #[inline]
    pub(super) unsafe fn resize(&mut self, block: *mut u8, old: usize, new: usize) -> *mut u8 {
        if block.is_null() {
            return self.take(new);
        }
        match (old <= SMALL_MAX, new <= SMALL_MAX) {
            (true, true) if class_of(old) == class_of(new) => return block,
            (false, false) if !rt::is_simulated() => {
                if new > old && !self.may_grow(new - old) {
                    return ptr::null_mut();
                }
                // SAFETY: large blocks are the C allocator's own.
                let moved: *mut u8 = unsafe { libc::realloc(block.cast(), new) }.cast();
                if !moved.is_null() {
                    memory::changed(old, new);
                }
                return moved;
            }
            _ => {}
        }
        let moved = self.take(new);
        if !moved.is_null() {
            // SAFETY: both are at least this long, and different blocks.
            unsafe { ptr::copy_nonoverlapping(block, moved, old.min(new)) };
            // SAFETY: the caller's contract.
            unsafe { self.give(block, old) };
        }
        moved
    }
}

/// A block from the C allocator, or from where a simulation has its memory.
fn system_take(size: usize) -> *mut u8 {
    if rt::is_simulated() {
        return fixed_heap::allocate(size).cast();
    }
    memory::changed(0, size);
    // SAFETY: any size may be asked for.
    unsafe { libc::malloc(size) }.cast()
}

/// # Safety
/// `block` must come from [`system_take`] with this size, and is not used any more.
unsafe fn system_give(block: *mut u8, size: usize) {
    let block: *mut c_void = block.cast();
    if rt::is_simulated() {
        return fixed_heap::release(block, size);
    }
    // SAFETY: the caller's contract.
    unsafe { libc::free(block) };
    memory::changed(size, 0);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_resized_keeps_its_content() {
        let mut heap = Heap::new();
        let mut block = ptr::null_mut::<u8>();
        let mut size = 0;
        for new in [1, 16, 17, 500, SMALL_MAX, SMALL_MAX + 1, 9000, 3000, SMALL_MAX, 20, 3] {
            // SAFETY: the block has the size it was made with, and the first byte was written.
            unsafe {
                block = heap.resize(block, size, new);
                if size == 0 {
                    block.write(77);
                }
                assert_eq!(block.read(), 77);
            }
            size = new;
        }
        // SAFETY: as above.
        unsafe { heap.give(block, size) };
    }

    #[test]
    fn what_the_arena_has_no_room_for_is_in_pages() {
        let mut heap = Heap::new();
        let mut blocks = Vec::new();
        for number in 0..1000_u32 {
            let block = heap.take(600);
            // SAFETY: a new block with room for so many bytes.
            unsafe { block.write_bytes(number as u8, 600) };
            blocks.push(block);
        }
        assert!(heap.pages.is_some());
        for (block, number) in blocks.into_iter().zip(0_u32..) {
            // SAFETY: in use until here, with so many bytes.
            unsafe {
                assert_eq!(block.add(599).read(), number as u8);
                assert!(!heap.is_buffer(block, 600));
                heap.give(block, 600);
            }
        }
        let buffer = heap.take_buffer(600);
        // SAFETY: in use.
        assert!(unsafe { heap.is_buffer(buffer, 600) });
    }
}
