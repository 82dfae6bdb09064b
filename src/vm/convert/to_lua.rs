//! From a message into the VM.

use std::ffi::c_int;
use std::fmt;
use std::marker::PhantomData;

use super::super::charge::is_due;
use super::super::int64::{Integer, push_integer};
use super::super::layout::{NIL, boolean, number};
use super::super::stack::{Stack, slots};
use super::super::texts::text;
use super::plain::NewTable;
use super::{Buffers, LEVELS_PER_CLAIM, STACK_SLOTS};
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
#[inline]
pub fn push_value<B: Buffers>(lua: Stack<'_>, value: &Value) -> Result<(), Refused> {
    match value {
        Value::Nil => slots::push(lua, NIL),
        Value::Bool(value) => slots::push(lua, boolean(*value)),
        Value::Number(value) => slots::push(lua, number(*value)),
        Value::Int64(value) => push_integer(lua, Integer::Signed(*value)),
        Value::UInt64(value) => push_integer(lua, Integer::Unsigned(*value)),
        Value::LightUserdata(address) => {
            lua.push_address(std::ptr::without_provenance_mut(*address));
        }
        Value::String(text) => push_short(lua, text.as_bytes(), text.as_bytes()),
        Value::SmallBuffer(content) => B::push_copy(lua, content),
        Value::Buffer(content) => B::push(lua, content),
        Value::Counted(inner) => return push_value::<B>(lua, &inner.0),
        Value::TooMuch => lua.push_nil(),
        Value::Table(encoded) => {
            return push_encoded::<B>(lua, encoded.bytes(), encoded.buffers());
        }
    }
    Ok(())
}

/// Pushes the value that `bytes` are the wire form of.
pub(super) fn push_encoded<B: Buffers>(
    lua: Stack<'_>,
    bytes: &[u8],
    buffers: &[Piece],
) -> Result<(), Refused> {
    let mut reader = Reader::new(bytes)?;
    let first = reader.tag()?;
    let top = lua.top();
    let mut remembered = 0;
    if reader.is_graph() {
        lua.push_table(0, 0);
        remembered = top + 1;
    }
    let mut decoder: Decoder<'_, B> =
        Decoder { lua, bytes, reader, buffers, remembered, depth: 0, kind: PhantomData };
    let result = decoder.value(first);
    if result.is_err() {
        lua.set_top(top);
    } else if remembered != 0 {
        lua.remove(remembered);
    }
    result
}

/// Pushes a text, which is likely short and a part of `from`; without a call into the VM, unless it
/// is time for the collector.
#[inline]
fn push_short(lua: Stack<'_>, bytes: &[u8], from: &[u8]) {
    if is_due(lua) {
        return lua.push_text(bytes);
    }
    slots::push(lua, text(lua, bytes, from));
}

struct Decoder<'a, B> {
    lua: Stack<'a>,
    /// All that is read.
    bytes: &'a [u8],
    reader: Reader<'a>,
    buffers: &'a [Piece],
    /// Place on the stack of the table that holds all tables by number, or 0.
    remembered: c_int,
    depth: u32,
    kind: PhantomData<B>,
}

impl<'a, B: Buffers> Decoder<'a, B> {
    /// Pushes the value that `tag` starts.
    #[inline(always)]
    fn value(&mut self, tag: Tag) -> Result<(), Refused> {
        let lua = self.lua;
        match tag {
            Tag::Number => slots::push(lua, number(self.reader.number()?)),
            Tag::ShortString => push_short(lua, self.reader.short_string()?, self.bytes),
            Tag::False => slots::push(lua, boolean(false)),
            Tag::True => slots::push(lua, boolean(true)),
            Tag::Table => self.table()?,
            _ => self.rare(tag)?,
        }
        Ok(())
    }

    fn table(&mut self) -> Result<(), Refused> {
        let lua = self.lua;
        let (positional, pairs) = self.reader.enter()?;
        self.depth += 1;
        let table = self.new_table(positional, pairs)?;
        let mut position = 0;
        // Number keys of a large table, whose values wait in a table of their own.
        let mut late = Vec::new();
        for _ in 0..u64::from(positional) + u64::from(pairs) {
            match self.reader.tag()? {
                Tag::Number => {
                    let value = self.reader.number()?;
                    position += 1;
                    if !table.set_number(position, value) {
                        lua.push_number(value);
                        lua.set_entry(-2, position.into());
                    }
                }
                Tag::ShortStringKey => self.text_pair(table)?,
                Tag::NumberKey if pairs >= LATE_PAIRS_MIN => {
                    let key = self.reader.number_key()?;
                    match table.is_hashed(key) {
                        true => self.put_off(&mut late, key, pairs)?,
                        false => {
                            lua.push_number(key);
                            self.rest_of_pair(table)?;
                        }
                    }
                }
                key @ (Tag::NumberKey | Tag::LongStringKey | Tag::FalseKey | Tag::TrueKey) => {
                    self.rare_key(key)?;
                    self.rest_of_pair(table)?;
                }
                // A position that stays as it is: its key may have come before.
                Tag::Nil => position += 1,
                value => {
                    self.value(value)?;
                    position += 1;
                    table.set_position(lua, position);
                }
            }
        }
        // All that follows counts on it that as many are keys as were announced.
        if position != positional {
            return Err(Malformed::Key.into());
        }
        if !late.is_empty() {
            table.insert_numbers(lua, NewTable::at(lua, -2), &late);
            lua.remove(-2);
        }
        self.reader.leave();
        self.depth -= 1;
        Ok(())
    }

    /// Reads a key that is a short text, with its value, into the table on top. Most are put there
    /// without being on the stack: the collector does not work in between.
    #[inline(always)]
    fn text_pair(&mut self, table: NewTable<'a>) -> Result<(), Refused> {
        let lua = self.lua;
        let key = self.reader.short_string()?;
        if is_due(lua) {
            lua.push_text(key);
            return self.rest_of_pair(table);
        }
        let key = text(lua, key, self.bytes);
        let value = match self.reader.tag()? {
            Tag::Number => number(self.reader.number()?),
            Tag::ShortString => text(lua, self.reader.short_string()?, self.bytes),
            tag => {
                slots::push(lua, key);
                self.value(tag)?;
                table.set_pair(lua);
                return Ok(());
            }
        };
        if !table.set_text(key, value) {
            slots::push(lua, key);
            slots::push(lua, value);
            lua.raw_set(-3);
        }
        Ok(())
    }

    /// Reads the value of the key on top, which goes, into the table below.
    #[inline(never)]
    fn rest_of_pair(&mut self, table: NewTable<'a>) -> Result<(), Refused> {
        let tag = self.reader.tag()?;
        self.value(tag)?;
        table.set_pair(self.lua);
        Ok(())
    }

    /// Pushes a key that is no short text.
    #[inline(never)]
    fn rare_key(&mut self, tag: Tag) -> Result<(), Refused> {
        let lua = self.lua;
        match tag {
            Tag::NumberKey => lua.push_number(self.reader.number_key()?),
            Tag::LongStringKey => lua.push_text(self.reader.long_string()?),
            _ => lua.push_boolean(tag == Tag::TrueKey),
        }
        Ok(())
    }

    /// Reads the value of a number key of the table on top, and keeps both for later.
    fn put_off(&mut self, late: &mut Vec<f64>, key: f64, pairs: u32) -> Result<(), Refused> {
        let lua = self.lua;
        if late.is_empty() {
            if !lua.has_room(STACK_SLOTS) {
                return Err(Refused::Stack);
            }
            lua.push_table(pairs as usize + 1, 0);
            lua.insert(-2);
        }
        let tag = self.reader.tag()?;
        self.value(tag)?;
        late.push(key);
        lua.set_entry(-3, late.len() as i64);
        Ok(())
    }

    #[inline]
    fn new_table(&mut self, positional: u32, pairs: u32) -> Result<NewTable<'a>, Refused> {
        let lua = self.lua;
        if self.depth.is_multiple_of(LEVELS_PER_CLAIM) && !lua.has_room(STACK_SLOTS) {
            return Err(Refused::Stack);
        }
        let table = NewTable::push(lua, positional as usize, pairs as usize);
        if self.remembered != 0 {
            lua.push_copy(-1);
            lua.set_entry(self.remembered, self.reader.tables() as i64);
        }
        Ok(table)
    }

    #[cold]
    fn rare(&mut self, tag: Tag) -> Result<(), Refused> {
        let lua = self.lua;
        match tag {
            Tag::Nil => lua.push_nil(),
            Tag::LongString => lua.push_text(self.reader.long_string()?),
            Tag::Int64 => {
                let value = self.reader.bits()? as i64;
                push_integer(lua, Integer::Signed(value));
            }
            Tag::UInt64 => {
                let value = self.reader.bits()?;
                push_integer(lua, Integer::Unsigned(value));
            }
            Tag::LightUserdata => {
                let address = self.reader.bits()? as usize;
                lua.push_address(std::ptr::without_provenance_mut(address));
            }
            Tag::Buffer => {
                let index = self.reader.index()?;
                let content = self.buffers.get(index as usize);
                B::push(lua, content.ok_or(Malformed::Reference(index))?);
            }
            // The reader lets only numbers of tables through that were started, and only if
            // tables are remembered.
            Tag::SameTable => {
                let number = self.reader.same_table()?;
                lua.entry(self.remembered, i64::from(number) + 1);
            }
            _ => return Err(Refused::Malformed(Malformed::Key)),
        }
        Ok(())
    }
}

/// Tables of at least this many pairs get their number keys last, see [`NewTable::insert_numbers`].
const LATE_PAIRS_MIN: u32 = 512;
