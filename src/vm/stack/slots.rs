//! The slots of a running coroutine's stack.

use std::ffi::c_int;

use mlua::ffi::lua_State;

use super::super::layout::{INTEGER, Slot, Thread, is_number, tag};
use super::Stack;
use crate::hint::rarely;

unsafe extern "C-unwind" {
    /// LuaJIT's: raises if there is no memory.
    fn lj_state_growstack1(raw: *mut lua_State);
}

/// Those from an index on, which is positive, up to the top.
///
/// # Safety
/// There must be a value at `first`, or below it; nothing may be pushed, popped or allocated
/// meanwhile.
#[inline]
pub(crate) unsafe fn slots<'a>(lua: Stack<'a>, first: c_int) -> &'a [Slot] {
    let len = (count(lua) + 1 - first) as usize;
    // SAFETY: the slots between base and top are in use.
    unsafe { std::slice::from_raw_parts(thread(lua).base.add(first as usize - 1), len) }
}

/// The coroutine that runs, while nothing is called.
#[inline]
fn thread<'a>(lua: Stack<'a>) -> &'a mut Thread {
    // SAFETY: a running state begins like this, and nobody else uses it.
    unsafe { &mut *lua.raw().cast() }
}

/// How many are in use.
#[inline]
pub(crate) fn count(lua: Stack<'_>) -> c_int {
    let Thread { base, top, .. } = *thread(lua);
    ((top.addr() - base.addr()) / size_of::<Slot>()) as c_int
}

#[inline]
pub(crate) fn top(lua: Stack<'_>) -> Slot {
    at(lua, count(lua))
}

/// The slots of the two values on top, which must be there.
#[inline]
pub(crate) fn top_two(lua: Stack<'_>) -> (Slot, Slot) {
    (at(lua, count(lua) - 1), top(lua))
}

/// Takes the value on top, which must be there.
#[inline]
pub(crate) fn pop(lua: Stack<'_>) -> Slot {
    let value = top(lua);
    cut(lua, count(lua) - 1);
    value
}

/// The slot at an index, which is positive.
#[inline]
pub(crate) fn at(lua: Stack<'_>, index: c_int) -> Slot {
    *place(lua, index)
}

/// That slot itself, while nothing is called.
#[inline]
fn place<'a>(lua: Stack<'a>, index: c_int) -> &'a mut Slot {
    debug_assert!((1..=count(lua)).contains(&index));
    // SAFETY: a running state, with a value at that index, as callers see to.
    unsafe { &mut *thread(lua).base.add(index as usize - 1) }
}

/// Pushes a value: one that is no object, or an object of this state's that is alive. May raise if
/// there is no memory for a larger stack.
#[inline]
pub(crate) fn push(lua: Stack<'_>, slot: Slot) {
    let thread = thread(lua);
    // SAFETY: a running state, which has a slot free between two calls, as is seen to here too;
    // callers see to the value.
    unsafe {
        thread.top.write(slot);
        thread.top = thread.top.add(1);
        if rarely(thread.top >= thread.end) {
            lj_state_growstack1(lua.raw());
        }
    }
}

/// Puts a value, as for [`push`], in the place of the one at an index, which is positive.
#[inline]
pub(crate) fn set(lua: Stack<'_>, index: c_int, slot: Slot) {
    *place(lua, index) = slot;
}

/// Takes away what is above an index, which is positive.
#[inline]
pub(crate) fn cut(lua: Stack<'_>, index: c_int) {
    debug_assert!((0..=count(lua)).contains(&index));
    let thread = thread(lua);
    thread.top = thread.base.wrapping_add(index as usize);
}

#[inline]
pub(crate) fn number(slot: Slot) -> Option<f64> {
    match tag(slot) {
        INTEGER => Some(f64::from(slot as i32)),
        _ if is_number(slot) => Some(f64::from_bits(slot)),
        _ => None,
    }
}
