//! What a deserializer finds, as Lua values on the stack.
//!
//! The entries of a table wait on the stack until it is known how many there are, so that the table
//! is made once, as large as it will be; of a long one, entries are put in by the hundred.

use std::ffi::c_int;
use std::fmt;

use mlua::ffi::{self, lua_State};
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};

use super::keys::{Keys, WORTH_BYTES};
use super::late::Late;
use super::marks::{Mark, push_mark};
use super::templates::Templates;
use super::walk::EXACT_MAX;
use crate::vm::charge::Rest;
use crate::vm::int64::{Integer, push_integer};
use crate::vm::layout::{NIL, Slot, TABLE, Table, boolean, number, reference};
use crate::vm::stack::{Stack, slots};
use crate::vm::texts::text;

/// Slots that must be free beside what waits: for one value, and what makes it.
const SLOTS: c_int = 16;

/// Slots of entries that wait, of one table.
const WAITING_MAX: c_int = 256;

/// Slots in use from which on nothing waits.
const USED_MAX: c_int = 2000;

/// All that one call may have.
const STACK_MAX: c_int = 8000;

unsafe extern "C-unwind" {
    /// LuaJIT's: makes the list as long. May raise; runs no finalisers.
    fn lj_tab_reasize(state: *mut lua_State, table: *mut Table, len: u32);
}

/// How values are built.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ReadRules {
    /// Most levels of tables.
    pub(crate) depth_max: u32,
    /// Whole numbers beyond 2^53 become 64-bit integers, where they fit.
    pub(crate) is_exact: bool,
    /// Which lists get the mark of one.
    pub(crate) marks: Marked,
    /// Where on the stack is what stands for null; 0: `json.null`.
    pub(crate) null: c_int,
    /// Entries that are null are left out.
    pub(crate) drops_null: bool,
    /// What has pushed a buffer with these bytes, for bytes that are no text; `None`: strings.
    pub(crate) push_bytes: Option<fn(Stack<'_>, &[u8])>,
}

/// Lists that are marked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(not(feature = "json"), expect(dead_code, reason = "JSON has options for these"))]
pub(crate) enum Marked {
    None,
    Empty,
    All,
}

/// What builds a value in a state.
pub(crate) struct Builder<'a> {
    lua: Stack<'a>,
    rules: ReadRules,
    depth: u32,
    left: u32,
    document: &'a [u8],
    keys: Keys<'a>,
    templates: Templates,
}

struct Value<'b, 'a>(&'b mut Builder<'a>);

/// Pushes one key of a table.
struct Key<'b, 'a>(&'b mut Builder<'a>);

/// The entries of one table: on the stack from `base` on, behind the table once there is one.
struct Waiting<'a> {
    base: c_int,
    waits: c_int,
    waits_max: c_int,
    stored: c_int,
    has_table: bool,
    /// Number keys of a map of many: their values are just below the table.
    late: Option<Box<Late<'a>>>,
}

impl<'a> Builder<'a> {
    /// For a document. Slots of the stack may be in use below what is pushed.
    pub(crate) fn new(lua: Stack<'a>, rules: ReadRules, document: &'a [u8]) -> Builder<'a> {
        let is_worth = document.len() >= WORTH_BYTES;
        let (keys, templates) = (Keys::new(lua, document), Templates::new(lua, is_worth));
        Builder { lua, rules, depth: 0, left: 0, document, keys, templates }
    }

    /// Pushes what the deserializer finds. Finalisers may run.
    ///
    /// # Errors
    /// The stack may hold a part of it then.
    pub(crate) fn push<'de, D: Deserializer<'de>>(&mut self, from: D) -> Result<(), D::Error> {
        let rest = Rest::new(self.lua);
        let pushed = Value(self).deserialize(from);
        rest.end(self.document.len());
        pushed
    }

    fn enter<E: Error>(&mut self) -> Result<Waiting<'a>, E> {
        self.depth += 1;
        if self.depth > self.rules.depth_max {
            let max = self.rules.depth_max;
            return Err(E::custom(format_args!("nested deeper than {max} levels (max_depth)")));
        }
        let base = slots::count(self.lua) + 1;
        let waits_max = if base > USED_MAX { 0 } else { WAITING_MAX };
        if base + waits_max + SLOTS > STACK_MAX {
            return Err(E::custom("nested too deep for the Lua stack"));
        }
        Ok(Waiting { base, waits: 0, waits_max, stored: 0, has_table: false, late: None })
    }

    #[inline]
    fn push_text(&self, bytes: &[u8]) {
        slots::push(self.lua, text(self.lua, bytes, self.document));
    }

    fn push_null(&mut self) {
        match self.rules.null {
            _ if self.rules.drops_null => slots::push(self.lua, NIL),
            0 => self.lua.push_address(std::ptr::null_mut()),
            index => self.lua.push_copy(index),
        }
    }

    #[cold]
    fn push_large(&mut self, integer: Integer, nearest: f64) {
        if !self.rules.is_exact {
            return slots::push(self.lua, number(nearest));
        }
        push_integer(self.lua, integer);
    }

    fn push_bytes(&mut self, bytes: &[u8]) {
        match self.rules.push_bytes {
            Some(push) => push(self.lua, bytes),
            None => self.lua.push_text(bytes),
        }
    }

    #[inline]
    fn tick(&mut self) {
        self.lua.tick(&mut self.left);
    }
}

impl<'a> Waiting<'a> {
    /// Has a table made of what waits.
    fn make(&mut self, lua: Stack<'a>, from: impl FnOnce(&[Slot]) -> *mut Table) {
        // SAFETY: this many values wait on the stack, which stays as it is, as does what they lead
        // to: the collector does not run until the table is there too.
        let waiting = unsafe { &slots::slots(lua, self.base)[..self.waits as usize] };
        let table = from(waiting);
        slots::cut(lua, self.base - 1);
        slots::push(lua, reference(TABLE, table.cast()));
        self.has_table = true;
        self.stored += self.waits;
        self.waits = 0;
    }

    /// Puts elements that wait into the list.
    fn store_list(&mut self, lua: Stack<'a>, room: usize) {
        if !self.has_table {
            return self.make(lua, |slots| {
                // SAFETY: a running state. The collector has not seen the table, whose array part
                // has a slot more than there is to be room for, unless that is nothing.
                unsafe {
                    let table = Table::make(lua.raw(), room.max(slots.len()), 0);
                    let list = (*table).array.wrapping_add(1);
                    list.copy_from_nonoverlapping(slots.as_ptr(), slots.len());
                    table
                }
            });
        }
        let table = lua.address(self.base).cast::<Table>().cast_mut();
        let first = self.stored as usize + 1;
        let end = first + self.waits as usize;
        // SAFETY: a table, and what waits above it; the collector does not run before this is done.
        unsafe {
            let len = (*table).array_len as usize;
            if end > len {
                lj_tab_reasize(lua.raw(), table, end.max(2 * len) as u32);
            }
            // A new object in it has the collector look at it again, whatever it has seen.
            lua.push_table(0, 0);
            lua.set_entry(self.base, first as i64);
            let waiting = &slots::slots(lua, self.base + 1)[..end - first];
            (*table).array.add(first).copy_from_nonoverlapping(waiting.as_ptr(), waiting.len());
        }
        self.stored_all(lua);
    }

    /// Takes away what waited above the table.
    fn stored_all(&mut self, lua: Stack<'_>) {
        lua.set_top(self.base);
        self.stored += self.waits;
        self.waits = 0;
    }

    /// Puts pairs that wait into the table.
    fn store_map(&mut self, lua: Stack<'a>, templates: &mut Templates) {
        if !self.has_table {
            return self.make(lua, |pairs| templates.make(lua, pairs));
        }
        for index in (1..self.waits).step_by(2) {
            if lua.kind(self.base + index) == ffi::LUA_TNUMBER {
                self.put_off(lua, index);
                continue;
            }
            lua.push_copy(self.base + index);
            lua.push_copy(self.base + index + 1);
            lua.raw_set(self.base);
        }
        self.stored_all(lua);
    }

    /// Has a number key and its value wait until the map is whole.
    fn put_off(&mut self, lua: Stack<'a>, index: c_int) {
        let late = self.late.get_or_insert_with(|| {
            lua.push_table(0, 0);
            lua.insert(self.base);
            self.base += 1;
            Box::new(Late::new(lua))
        });
        late.add(lua, self.base + index, self.base - 1);
    }
}

impl<'de> DeserializeSeed<'de> for Value<'_, '_> {
    type Value = ();

    #[inline(always)]
    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<(), D::Error> {
        from.deserialize_bytes(self)
    }
}

impl<'de> Visitor<'de> for Value<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    #[inline]
    fn visit_bool<E>(self, value: bool) -> Result<(), E> {
        slots::push(self.0.lua, boolean(value));
        Ok(())
    }

    #[inline]
    fn visit_i64<E>(self, value: i64) -> Result<(), E> {
        match value.unsigned_abs() <= EXACT_MAX as u64 {
            true => slots::push(self.0.lua, number(value as f64)),
            false => self.0.push_large(Integer::Signed(value), value as f64),
        }
        Ok(())
    }

    #[inline]
    fn visit_u64<E: Error>(self, value: u64) -> Result<(), E> {
        match i64::try_from(value) {
            Ok(value) => return self.visit_i64(value),
            Err(_) => self.0.push_large(Integer::Unsigned(value), value as f64),
        }
        Ok(())
    }

    #[inline]
    fn visit_f64<E>(self, value: f64) -> Result<(), E> {
        slots::push(self.0.lua, number(value));
        Ok(())
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<(), E> {
        self.visit_bytes(value.as_bytes())
    }

    fn visit_borrowed_bytes<E>(self, value: &'de [u8]) -> Result<(), E> {
        self.0.push_bytes(value);
        Ok(())
    }

    #[inline(always)]
    fn visit_bytes<E>(self, value: &[u8]) -> Result<(), E> {
        self.0.push_text(value);
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        self.0.push_null();
        Ok(())
    }

    #[inline(never)]
    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        let builder = self.0;
        let mut waiting = builder.enter()?;
        let lua = builder.lua;
        // What is said of a length may be a lie.
        let hint = list.size_hint().unwrap_or(0);
        while list.next_element_seed(Value(builder))?.is_some() {
            builder.tick();
            waiting.waits += 1;
            if waiting.waits >= waiting.waits_max {
                waiting.store_list(lua, hint.min(4 * WAITING_MAX as usize));
            }
        }
        if waiting.waits > 0 || !waiting.has_table {
            waiting.store_list(lua, 0);
        }
        let is_marked = match builder.rules.marks {
            Marked::None => false,
            Marked::Empty => waiting.stored == 0,
            Marked::All => true,
        };
        if is_marked {
            push_mark(lua, Mark::Array);
            lua.set_metatable(-2);
        }
        builder.depth -= 1;
        Ok(())
    }

    #[inline(never)]
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let builder = self.0;
        let mut waiting = builder.enter()?;
        let lua = builder.lua;
        while map.next_key_seed(Key(builder))?.is_some() {
            map.next_value_seed(Value(builder))?;
            builder.tick();
            waiting.waits += 2;
            if waiting.waits >= waiting.waits_max {
                waiting.store_map(lua, &mut builder.templates);
            }
        }
        if waiting.waits > 0 || !waiting.has_table {
            waiting.store_map(lua, &mut builder.templates);
        }
        if let Some(late) = waiting.late {
            late.finish(lua, waiting.stored as usize / 2);
        }
        builder.depth -= 1;
        Ok(())
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, from: D) -> Result<(), D::Error> {
        from.deserialize_any(Extension(self.0))
    }
}

/// Pushes a value of an application's own type.
struct Extension<'b, 'a>(&'b mut Builder<'a>);

/// The number of its type.
struct Kind;

/// Pushes its bytes.
struct Data<'a>(Stack<'a>);

impl<'de> Visitor<'de> for Extension<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an extension")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut parts: A) -> Result<(), A::Error> {
        let lua = self.0.lua;
        lua.push_table(0, 2);
        let kind = parts.next_element_seed(Kind)?.unwrap_or(0);
        lua.push_number(f64::from(kind));
        lua.set_field(-2, c"type");
        parts.next_element_seed(Data(lua))?;
        lua.set_field(-2, c"data");
        push_mark(lua, Mark::Extension);
        lua.set_metatable(-2);
        Ok(())
    }
}

impl<'de> DeserializeSeed<'de> for Kind {
    type Value = i8;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<i8, D::Error> {
        from.deserialize_any(self)
    }
}

impl Visitor<'_> for Kind {
    type Value = i8;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the type of an extension")
    }

    fn visit_i8<E>(self, value: i8) -> Result<i8, E> {
        Ok(value)
    }
}

impl<'de> DeserializeSeed<'de> for Data<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<(), D::Error> {
        from.deserialize_any(self)
    }
}

impl Visitor<'_> for Data<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the bytes of an extension")
    }

    fn visit_bytes<E>(self, value: &[u8]) -> Result<(), E> {
        self.0.push_text(value);
        Ok(())
    }
}

impl<'de> DeserializeSeed<'de> for Key<'_, '_> {
    type Value = ();

    #[inline(always)]
    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<(), D::Error> {
        from.deserialize_bytes(self)
    }
}

impl Visitor<'_> for Key<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key that is a string, number or boolean")
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<(), E> {
        self.visit_bytes(value.as_bytes())
    }

    #[inline(always)]
    fn visit_bytes<E>(self, value: &[u8]) -> Result<(), E> {
        self.0.keys.push(self.0.lua, value);
        Ok(())
    }

    fn visit_bool<E>(self, value: bool) -> Result<(), E> {
        slots::push(self.0.lua, boolean(value));
        Ok(())
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<(), E> {
        self.visit_f64(value as f64)
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<(), E> {
        self.visit_f64(value as f64)
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<(), E> {
        if value.is_nan() {
            return Err(E::custom("a key is not a number (NaN)"));
        }
        slots::push(self.0.lua, number(value));
        Ok(())
    }
}
