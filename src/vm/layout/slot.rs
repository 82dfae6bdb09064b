//! Values, as LuaJIT keeps them on the stack and in tables.

use std::ffi::{c_int, c_void};

use mlua::ffi;

/// A value: a double, or a tag in the upper 17 bits over 47 bits of pointer.
pub type Slot = u64;

/// The slot of nil.
pub const NIL: Slot = Slot::MAX;
const TAG_SHIFT: u32 = 47;
/// The bits of a pointer.
pub const POINTER: u64 = (1 << TAG_SHIFT) - 1;

// Tags, as the upper bits read as a negative number.
/// The tag of nil.
const NOTHING: i64 = !0;
/// Of false.
pub const FALSE: i64 = !1;
/// Of true.
pub const TRUE: i64 = !2;
/// Of light userdata.
const ADDRESS: i64 = !3;
/// Of strings.
pub const STRING: i64 = !4;
/// Of functions.
pub const FUNCTION: i64 = !8;
/// Of values of the FFI.
const CDATA: i64 = !10;
/// Of tables.
pub const TABLE: i64 = !11;
/// Of coroutines.
pub(crate) const THREAD: i64 = !6;
/// Of full userdata, the lowest one of an object.
pub const USERDATA: i64 = !12;
/// Of integers, on machines where Lua numbers may be those; below are the tags of doubles.
pub const INTEGER: i64 = !13;

/// The type of a value: one of `LUA_TNIL` and its like.
#[inline]
pub(crate) fn kind(slot: Slot) -> c_int {
    match tag(slot) {
        NOTHING => ffi::LUA_TNIL,
        FALSE | TRUE => ffi::LUA_TBOOLEAN,
        ADDRESS => ffi::LUA_TLIGHTUSERDATA,
        STRING => ffi::LUA_TSTRING,
        THREAD => ffi::LUA_TTHREAD,
        FUNCTION => ffi::LUA_TFUNCTION,
        CDATA => ffi::LUA_TCDATA,
        TABLE => ffi::LUA_TTABLE,
        USERDATA => ffi::LUA_TUSERDATA,
        _ => ffi::LUA_TNUMBER,
    }
}

#[inline]
pub(crate) fn boolean(value: bool) -> Slot {
    !((1 + u64::from(value)) << TAG_SHIFT)
}

/// The slot of a number; of those that are none there is one.
#[inline]
pub(crate) fn number(value: f64) -> Slot {
    if value.is_nan() { 0xfff8 << 48 } else { value.to_bits() }
}

/// The tag of a slot.
#[inline]
pub fn tag(slot: Slot) -> i64 {
    slot as i64 >> TAG_SHIFT
}

/// The object that a slot refers to.
#[inline]
pub(crate) fn referred<T>(slot: Slot) -> *mut T {
    (slot & POINTER) as *mut T
}

/// Whether the tag is that of a number: of objects it is the highest negative numbers.
#[inline]
pub fn is_number(slot: Slot) -> bool {
    !(USERDATA..0).contains(&tag(slot))
}

/// The number in a slot that holds a double.
#[inline]
pub(crate) fn double(slot: Slot) -> Option<f64> {
    (!(INTEGER..0).contains(&tag(slot))).then(|| f64::from_bits(slot))
}

#[inline]
pub(crate) fn reference(tag: i64, object: *const c_void) -> Slot {
    object as u64 | (tag as u64) << TAG_SHIFT
}

/// What LuaJIT makes of the two halves of a key to find its place in a table.
pub fn scrambled(low: u32, high: u32) -> u32 {
    let low = low ^ high;
    let high = high.rotate_left(14);
    let low = low.wrapping_sub(high);
    let high = high.rotate_left(5) ^ low;
    high.wrapping_sub(low.rotate_left(13))
}
