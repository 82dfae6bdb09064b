//! Small blocks that a state has freed, kept for its next allocations.
//!
//! The collector frees in long runs what the script then allocates again, mostly in the same few
//! sizes: a list per size turns both into two moves, where the C allocator searches and merges.

use std::cell::Cell;
use std::ffi::c_void;
use std::ptr::{self, NonNull};

use super::fixed_heap;
use crate::rt;

/// Blocks are as long as a multiple of this.
const GRAIN: usize = 16;

/// Longer blocks are left to the C allocator.
const SIZE_MAX: usize = 1664;

/// Bytes that are kept at most; the rest goes back to the C allocator.
const KEPT_MAX: usize = 512 * 1024;

/// A block that is not in use begins with a pointer to the next one of its size.
type Next = Cell<Option<NonNull<c_void>>>;

/// The blocks of one state. Not thread-safe, as the state is not.
#[derive(Debug)]
pub(super) struct Blocks {
    lists: [Next; SIZE_MAX / GRAIN],
    kept: Cell<usize>,
}

/// The list for blocks of `size` bytes, which is not 0.
fn class(size: usize) -> usize {
    (size - 1) / GRAIN
}

fn is_small(size: usize) -> bool {
    size.wrapping_sub(1) < SIZE_MAX
}

/// A block from the C allocator, or from where a simulation has its memory.
fn system_take(size: usize) -> *mut c_void {
    if rt::is_simulated() {
        return fixed_heap::allocate(size);
    }
    // SAFETY: any size may be asked for.
    unsafe { libc::malloc(size) }
}

/// # Safety
/// `block` must come from [`system_take`] with this size, and is not used any more.
unsafe fn system_give(block: *mut c_void, size: usize) {
    if rt::is_simulated() {
        return fixed_heap::release(block, size);
    }
    // SAFETY: the caller's contract.
    unsafe { libc::free(block) };
}

impl Blocks {
    pub(super) const fn new() -> Blocks {
        Blocks { lists: [const { Cell::new(None) }; SIZE_MAX / GRAIN], kept: Cell::new(0) }
    }

    /// A block of at least `size` bytes, not 0; null if there is no memory.
    fn take(&self, size: usize) -> *mut c_void {
        if !is_small(size) {
            return system_take(size);
        }
        let class = class(size);
        let rounded = (class + 1) * GRAIN;
        let Some(block) = self.lists[class].get() else {
            return system_take(rounded);
        };
        // SAFETY: `give` has written it, and nobody has had the block since.
        self.lists[class].set(unsafe { block.cast::<Option<NonNull<c_void>>>().read() });
        self.kept.set(self.kept.get() - rounded);
        block.as_ptr()
    }

    /// # Safety
    /// `block` must come from here with this size, and is not used any more.
    unsafe fn give(&self, block: *mut c_void, size: usize) {
        let mut size = size;
        if let Some(block) = NonNull::new(block)
            && is_small(size)
        {
            let class = class(size);
            size = (class + 1) * GRAIN;
            let kept = self.kept.get() + size;
            if kept <= KEPT_MAX {
                // SAFETY: at least GRAIN bytes, aligned to as many, and nobody else's.
                unsafe { block.cast().write(self.lists[class].get()) };
                self.lists[class].set(Some(block));
                self.kept.set(kept);
                return;
            }
        }
        // SAFETY: it came from there in the beginning, with this size.
        unsafe { system_give(block, size) };
    }

    /// Makes a block of `old` bytes (null: 0) one of `new` bytes; null, and nothing changed, if
    /// there is no memory. With `new` 0 the block is freed.
    ///
    /// # Safety
    /// `block` must be null or come from here with size `old`; it is replaced by the result.
    pub(super) unsafe fn resize(&self, block: *mut c_void, old: usize, new: usize) -> *mut c_void {
        if new == 0 {
            // SAFETY: the caller's contract.
            unsafe { self.give(block, old) };
            return ptr::null_mut();
        }
        if block.is_null() {
            return self.take(new);
        }
        match (is_small(old), is_small(new)) {
            (true, true) if class(old) == class(new) => return block,
            // SAFETY: large blocks are the C allocator's own.
            (false, false) if !rt::is_simulated() => return unsafe { libc::realloc(block, new) },
            _ => {}
        }
        let moved = self.take(new);
        if !moved.is_null() {
            // SAFETY: both are at least this long, and different blocks.
            unsafe { ptr::copy_nonoverlapping(block.cast::<u8>(), moved.cast(), old.min(new)) };
            // SAFETY: the caller's contract.
            unsafe { self.give(block, old) };
        }
        moved
    }
}

impl Drop for Blocks {
    fn drop(&mut self) {
        for (list, class) in self.lists.iter().zip(1..) {
            let mut next = list.take();
            while let Some(block) = next {
                // SAFETY: written by `give`; nobody else has the block.
                next = unsafe { block.cast::<Option<NonNull<c_void>>>().read() };
                // SAFETY: it came from there, with the size of its list.
                unsafe { system_give(block.as_ptr(), class * GRAIN) };
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_freed_block_serves_the_next_of_its_size() {
        let blocks = Blocks::new();
        // SAFETY: sizes as they are; nothing is used after it was freed.
        unsafe {
            let first = blocks.resize(ptr::null_mut(), 0, 40);
            blocks.resize(first, 40, 0);
            assert_eq!(blocks.kept.get(), 48);
            assert_eq!(blocks.resize(ptr::null_mut(), 0, 33), first);
            assert_eq!(blocks.kept.get(), 0);
            blocks.resize(first, 33, 0);
        }
    }

    #[test]
    fn what_is_resized_keeps_its_content() {
        let blocks = Blocks::new();
        let mut block = ptr::null_mut::<c_void>();
        let mut size = 0;
        for new in [1, 16, 17, 500, SIZE_MAX, SIZE_MAX + 1, 9000, 3000, SIZE_MAX, 20, 3] {
            // SAFETY: the block has the size it was made with, and the first byte was written.
            unsafe {
                block = blocks.resize(block, size, new);
                if size == 0 {
                    block.cast::<u8>().write(77);
                }
                assert_eq!(block.cast::<u8>().read(), 77);
            }
            size = new;
        }
        // SAFETY: as above.
        unsafe { blocks.resize(block, size, 0) };
    }
}
