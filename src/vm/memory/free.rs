//! Blocks that are free, each of which holds where the next one is.

use std::ptr::NonNull;

/// A list of blocks of one size.
///
/// # Invariant
/// Its blocks are nobody's, and each was written by [`FreeList::push`].
#[derive(Clone, Copy, Debug)]
pub(super) struct FreeList(Option<NonNull<Free>>);

struct Free {
    next: FreeList,
}

impl FreeList {
    pub(super) const EMPTY: FreeList = FreeList(None);

    #[inline]
    pub(super) fn is_empty(self) -> bool {
        self.0.is_none()
    }

    /// Takes the block that was put in last.
    #[inline]
    pub(super) fn pop(&mut self) -> Option<*mut u8> {
        let block = self.0?;
        // SAFETY: it is in the list, so it is nobody's, and was written by `push`.
        *self = unsafe { block.as_ref() }.next;
        Some(block.as_ptr().cast())
    }

    /// Puts a block in.
    ///
    /// # Safety
    /// It must be nobody's, as long as a pointer, and aligned to one.
    #[inline]
    pub(super) unsafe fn push(&mut self, block: *mut u8) {
        let block = block.cast::<Free>();
        // SAFETY: the caller's block is long enough, aligned, and not used by anybody else.
        unsafe { block.write(Free { next: *self }) };
        self.0 = NonNull::new(block);
    }

    /// The blocks, which stay.
    pub(super) fn blocks(mut self) -> impl Iterator<Item = *mut u8> {
        std::iter::from_fn(move || self.pop())
    }
}
