//! Where the content of a userdata begins in its block.

use crate::buf::NlBuffer;

/// Bytes of a userdata before its content.
pub(crate) const HEAD_BYTES: usize = 48;

/// The buffer in a userdata that a [`Maker`] has made of this block.
#[inline]
pub(crate) fn content_of(block: *mut u8) -> *mut NlBuffer {
    block.wrapping_add(HEAD_BYTES).cast()
}
