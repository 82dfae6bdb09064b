//! From a message into the VM.

use std::ffi::c_int;
use std::fmt;
use std::marker::PhantomData;

use mlua::ffi::{self, lua_State};

use super::int64::{Integer, push_integer};
use super::{Buffers, LEVELS_PER_CLAIM, STACK_SLOTS, plain};
use crate::buf::Piece;
use crate::message::{Malformed, Reader, Tag, Value};

/// Why a value cannot be pushed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Refused {
    /// A table whose bytes no writer made.
    Malformed(Malformed),
    /// The Lua stack cannot hold another level.
    Stack,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refused::Malformed(error) => write!(f, "{error}"),
            Refused::Stack => write!(f, "no Lua stack left for nested table"),
        }
    }
}

impl std::error::Error for Refused {}

impl From<Malformed> for Refused {
    fn from(error: Malformed) -> Refused {
        Refused::Malformed(error)
    }
}

/// Pushes a copy of `value`; buffers share their content with it.
///
/// # Errors
/// Nothing is pushed then. Values that [`to_value`](super::from_lua::to_value) made fail only for
/// want of stack.
///
/// # Safety
/// `state` must be live, on its own thread, and have [`STACK_SLOTS`] free. Unwinds as Lua does if
/// memory does not suffice.
#[inline]
pub unsafe fn push_value<B: Buffers>(state: *mut lua_State, value: &Value) -> Result<(), Refused> {
    // SAFETY: the caller's contract, for all calls here.
    unsafe {
        match value {
            Value::Nil => ffi::lua_pushnil(state),
            Value::Bool(value) => ffi::lua_pushboolean(state, c_int::from(*value)),
            Value::Number(value) => ffi::lua_pushnumber(state, *value),
            Value::Int64(value) => push_integer(state, Integer::Signed(*value)),
            Value::UInt64(value) => push_integer(state, Integer::Unsigned(*value)),
            Value::LightUserdata(address) => {
                ffi::lua_pushlightuserdata(state, std::ptr::without_provenance_mut(*address));
            }
            Value::String(text) => push_string(state, text.as_bytes()),
            Value::SmallBuffer(content) => B::push_copy(state, content),
            Value::Buffer(content) => B::push(state, content),
            Value::Counted(inner) => return push_value::<B>(state, &inner.0),
            Value::TooMuch => ffi::lua_pushnil(state),
            Value::Table(encoded) => {
                return push_encoded::<B>(state, encoded.bytes(), encoded.buffers());
            }
        }
    }
    Ok(())
}

#[inline]
unsafe fn push_string(state: *mut lua_State, bytes: &[u8]) {
    // SAFETY: the callers have a slot free; the VM copies the bytes.
    unsafe { ffi::lua_pushlstring_(state, bytes.as_ptr().cast(), bytes.len()) };
}

/// Pushes the value that `bytes` are the wire form of.
///
/// # Safety
/// As for [`push_value`]. The bytes may be any.
pub(super) unsafe fn push_encoded<B: Buffers>(
    state: *mut lua_State,
    bytes: &[u8],
    buffers: &[Piece],
) -> Result<(), Refused> {
    let mut reader = Reader::new(bytes)?;
    let first = reader.tag()?;
    // SAFETY: reading the top changes nothing.
    let top = unsafe { ffi::lua_gettop(state) };
    let mut remembered = 0;
    if reader.is_graph() {
        // SAFETY: the caller has STACK_SLOTS free, and the levels below claim one less.
        unsafe { ffi::lua_createtable(state, 0, 0) };
        remembered = top + 1;
    }
    let mut decoder: Decoder<'_, B> =
        Decoder { state, reader, buffers, remembered, depth: 0, kind: PhantomData };
    // SAFETY: the caller has STACK_SLOTS free.
    let result = unsafe { decoder.value(first) };
    // SAFETY: at least `top` values are there; on success one more, two if tables were remembered.
    unsafe {
        if result.is_err() {
            ffi::lua_settop(state, top);
        } else if remembered != 0 {
            ffi::lua_remove(state, remembered);
        }
    }
    result
}

struct Decoder<'a, B> {
    state: *mut lua_State,
    reader: Reader<'a>,
    buffers: &'a [Piece],
    /// Place on the stack of the table that holds all tables by number, or 0.
    remembered: c_int,
    depth: u32,
    kind: PhantomData<B>,
}

impl<B: Buffers> Decoder<'_, B> {
    /// Pushes the value that `tag` starts.
    ///
    /// # Safety
    /// [`STACK_SLOTS`] must be free but for what outer levels use. May unwind.
    #[inline(always)]
    unsafe fn value(&mut self, tag: Tag) -> Result<(), Refused> {
        let state = self.state;
        // SAFETY: the caller's contract, for all calls here.
        unsafe {
            match tag {
                Tag::Number => ffi::lua_pushnumber(state, self.reader.number()?),
                Tag::ShortString => push_string(state, self.reader.short_string()?),
                Tag::False => ffi::lua_pushboolean(state, 0),
                Tag::True => ffi::lua_pushboolean(state, 1),
                Tag::Table => self.table()?,
                _ => self.rare(tag)?,
            }
        }
        Ok(())
    }

    /// Pushes a table.
    unsafe fn table(&mut self) -> Result<(), Refused> {
        let state = self.state;
        let (positional, pairs) = self.reader.enter()?;
        self.depth += 1;
        // SAFETY: the caller's contract.
        unsafe { self.new_table(positional, pairs)? };
        // SAFETY: the new table is on top, and stays below what is pushed until this returns.
        let table = unsafe { plain::table(state, -1) };
        let mut position = 0;
        let mut is_keyed = false;
        // Number keys of a large table, whose values wait in a table of their own.
        let mut late = Vec::new();
        let mut left = u64::from(positional) + u64::from(pairs);
        while left > 0 {
            let tag = self.reader.tag()?;
            // SAFETY: a slot is free, and a key is pushed only where none waits for its value.
            unsafe {
                match tag {
                    Tag::ShortStringKey if !is_keyed => {
                        push_string(state, self.reader.short_string()?);
                    }
                    Tag::LongStringKey if !is_keyed => {
                        push_string(state, self.reader.long_string()?);
                    }
                    Tag::NumberKey if !is_keyed => {
                        let key = self.reader.number_key()?;
                        let is_late = pairs >= LATE_PAIRS_MIN && plain::is_hashed(table, key);
                        if is_late {
                            self.put_off(&mut late, key, pairs)?;
                            left -= 1;
                            continue;
                        }
                        ffi::lua_pushnumber(state, key);
                    }
                    Tag::FalseKey if !is_keyed => ffi::lua_pushboolean(state, 0),
                    Tag::TrueKey if !is_keyed => ffi::lua_pushboolean(state, 1),
                    Tag::Number if !is_keyed => {
                        let value = self.reader.number()?;
                        position += 1;
                        left -= 1;
                        if !plain::set_number(table, position, value) {
                            ffi::lua_pushnumber(state, value);
                            ffi::lua_rawseti_(state, -2, position as c_int);
                        }
                        continue;
                    }
                    // A position that stays as it is: its key may have come before.
                    Tag::Nil if !is_keyed => {
                        position += 1;
                        left -= 1;
                        continue;
                    }
                    value => {
                        self.value(value)?;
                        left -= 1;
                        if is_keyed {
                            ffi::lua_rawset(state, -3);
                        } else {
                            position += 1;
                            ffi::lua_rawseti_(state, -2, position as c_int);
                        }
                        is_keyed = false;
                        continue;
                    }
                }
            }
            is_keyed = true;
        }
        if !late.is_empty() {
            // SAFETY: the table of values is below this one.
            unsafe {
                plain::insert_numbers(state, table, plain::table(state, -2), &late);
                ffi::lua_remove(state, -2);
            }
        }
        self.reader.leave();
        self.depth -= 1;
        Ok(())
    }

    /// Reads the value of a number key of the table on top, and keeps both for later.
    unsafe fn put_off(&mut self, late: &mut Vec<f64>, key: f64, pairs: u32) -> Result<(), Refused> {
        let state = self.state;
        // SAFETY: a slot is free, and so many more are claimed for the levels above.
        unsafe {
            if late.is_empty() {
                if ffi::lua_checkstack(state, STACK_SLOTS) == 0 {
                    return Err(Refused::Stack);
                }
                ffi::lua_createtable(state, size(pairs).saturating_add(1), 0);
                ffi::lua_insert(state, -2);
            }
            let tag = self.reader.tag()?;
            self.value(tag)?;
            late.push(key);
            ffi::lua_rawseti_(state, -3, late.len() as c_int);
        }
        Ok(())
    }

    #[inline]
    unsafe fn new_table(&mut self, positional: u32, pairs: u32) -> Result<(), Refused> {
        let state = self.state;
        if self.depth.is_multiple_of(LEVELS_PER_CLAIM) {
            // SAFETY: reports failure without unwinding.
            let claimed = unsafe { ffi::lua_checkstack(state, STACK_SLOTS) };
            if claimed == 0 {
                return Err(Refused::Stack);
            }
        }
        // SAFETY: a slot is free. The reader saw as many bytes, so the sizes are honest.
        unsafe { ffi::lua_createtable(state, size(positional), size(pairs)) };
        if self.remembered != 0 {
            // SAFETY: the new table is on top, and `remembered` holds a table.
            unsafe {
                ffi::lua_pushvalue(state, -1);
                ffi::lua_rawseti_(state, self.remembered, self.reader.tables() as c_int);
            }
        }
        Ok(())
    }

    #[cold]
    unsafe fn rare(&mut self, tag: Tag) -> Result<(), Refused> {
        let state = self.state;
        // SAFETY: the caller's contract, for all calls here.
        unsafe {
            match tag {
                Tag::Nil => ffi::lua_pushnil(state),
                Tag::LongString => push_string(state, self.reader.long_string()?),
                Tag::Int64 => {
                    let value = self.reader.bits()? as i64;
                    push_integer(state, Integer::Signed(value));
                }
                Tag::UInt64 => {
                    let value = self.reader.bits()?;
                    push_integer(state, Integer::Unsigned(value));
                }
                Tag::LightUserdata => {
                    let address = self.reader.bits()? as usize;
                    ffi::lua_pushlightuserdata(state, std::ptr::without_provenance_mut(address));
                }
                Tag::Buffer => {
                    let index = self.reader.index()?;
                    let content = self.buffers.get(index as usize);
                    B::push(state, content.ok_or(Malformed::Reference(index))?);
                }
                // The reader lets only numbers of tables through that were started, and only if
                // tables are remembered.
                Tag::SameTable => {
                    let number = self.reader.same_table()?;
                    ffi::lua_rawgeti_(state, self.remembered, number as c_int + 1);
                }
                _ => return Err(Refused::Malformed(Malformed::Key)),
            }
        }
        Ok(())
    }
}

/// Tables of at least so many pairs get their number keys last, see [`plain::insert_numbers`].
const LATE_PAIRS_MIN: u32 = 512;

fn size(count: u32) -> c_int {
    c_int::try_from(count).unwrap_or(c_int::MAX)
}
