//! The slots of a running coroutine's stack.

use std::ffi::c_int;

use crate::vm::layout::{INTEGER, Slot, Thread, is_number, tag};
use crate::vm::stack::Stack;

/// Those from an index on, which is positive, up to the top.
///
/// # Safety
/// There must be a value at `first`; nothing may be pushed, popped or allocated meanwhile.
#[inline]
pub(super) unsafe fn slots<'a>(lua: Stack<'a>, first: c_int) -> &'a [Slot] {
    let thread = lua.raw().cast::<Thread>();
    // SAFETY: a running state begins like this, and the slots between base and top are in use.
    unsafe {
        let start = (*thread).base.add(first as usize - 1);
        std::slice::from_raw_parts(start, (*thread).top.offset_from(start) as usize)
    }
}

/// The slot on top.
#[inline]
pub(super) fn top(lua: Stack<'_>) -> Slot {
    // SAFETY: a running state, with a value on top, as callers see to; it is copied.
    unsafe { (*lua.raw().cast::<Thread>()).top.sub(1).read() }
}

/// The slot at an index, which is positive.
#[inline]
pub(super) fn at(lua: Stack<'_>, index: c_int) -> Slot {
    // SAFETY: a running state, with a value at that index, as callers see to; it is copied.
    unsafe { (*lua.raw().cast::<Thread>()).base.add(index as usize - 1).read() }
}

/// The number in a slot, if it is one.
#[inline]
pub(super) fn number(slot: Slot) -> Option<f64> {
    match tag(slot) {
        INTEGER => Some(f64::from(slot as i32)),
        _ if is_number(slot) => Some(f64::from_bits(slot)),
        _ => None,
    }
}
