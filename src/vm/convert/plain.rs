//! Plain tables, read where the VM keeps them.
//!
//! A table of numbers, strings, booleans and more such tables takes half a dozen calls into the VM
//! per entry, most of the time of a message. This reads the same memory without a call. For tables
//! that hold anything else nothing is read here, and the calls are made after all.

use std::ffi::c_int;
use std::marker::PhantomData;
use std::ptr::{self, NonNull};

use mlua::ffi::lua_State;

use super::super::charge::is_due;
use super::super::layout::{self, FALSE, Live, NIL, SEEN, STRING, Slot, TABLE, TRUE, Table, tag};
use super::super::stack::{Stack, slots};
use crate::message::encode::DEPTH_MAX;
use crate::message::{Seen, TooLarge, Writer};

/// The table is not plain, too deep or too large.
struct NotPlain;

impl From<TooLarge> for NotPlain {
    fn from(_: TooLarge) -> NotPlain {
        NotPlain
    }
}

/// Writes the table on top of the stack if it is plain. False if it is not: what was written then
/// is of no use.
#[inline]
pub(super) fn write(lua: Stack<'_>, writer: Writer<'_>, tables: &mut Seen) -> bool {
    tables.clear();
    let mut plain = Plain { writer, tables, depth: 0 };
    // The VM does not run meanwhile.
    plain.table(NewTable::at(lua, -1).parts()).is_ok()
}

unsafe extern "C-unwind" {
    /// LuaJIT's: makes room for a key that the table does not have.
    fn lj_tab_newkey(state: *mut lua_State, table: *mut Table, key: *const Slot) -> *mut Slot;
}

/// A table that is being filled: it stays on the stack meanwhile.
#[derive(Clone, Copy)]
pub(crate) struct NewTable<'a>(NonNull<Table>, PhantomData<&'a ()>);

impl<'a> NewTable<'a> {
    /// Pushes one; without a call into the VM, unless it is time for the collector.
    #[inline]
    pub(super) fn push(lua: Stack<'a>, list: usize, keys: usize) -> NewTable<'a> {
        if is_due(lua) {
            lua.push_table(list, keys);
            return NewTable::at(lua, -1);
        }
        // SAFETY: a running state; the table, which is there, is on the stack before anything else
        // is done.
        let table = unsafe { NonNull::new_unchecked(Table::make(lua.raw(), list, keys)) };
        slots::push(lua, layout::reference(TABLE, table.as_ptr().cast()));
        NewTable(table, PhantomData)
    }

    #[inline]
    pub(crate) fn at(lua: Stack<'a>, index: c_int) -> NewTable<'a> {
        let object = NonNull::new(lua.address(index).cast_mut().cast());
        NewTable(object.expect("a table is there"), PhantomData)
    }

    #[inline]
    fn parts(self) -> &'a Table {
        // SAFETY: a live table, as long as it is on the stack; it is looked at anew each time.
        unsafe { self.0.as_ref() }
    }

    /// A position of the array part, if that has it; the collector must be told of objects that are
    /// put there, if it has seen the table.
    #[inline]
    fn place(&mut self, position: u32) -> Option<&mut Slot> {
        let (array, len) = (self.parts().array, self.parts().array_len);
        // SAFETY: the array part has more slots than that, and the table is filled by nobody else.
        (position < len).then(|| unsafe { &mut *array.add(position as usize) })
    }

    /// Puts a number at a position of the array part. False, with nothing done, if there is no such
    /// place.
    #[inline]
    pub(super) fn set_number(mut self, position: u32, value: f64) -> bool {
        self.place(position).map(|place| *place = layout::number(value)).is_some()
    }

    /// Puts what is on top, which goes, at a position. The table is below it. May raise.
    #[inline]
    pub(super) fn set_position(mut self, lua: Stack<'_>, position: u32) {
        let is_seen = self.is_seen();
        match self.place(position) {
            Some(place) if !is_seen => *place = slots::pop(lua),
            _ => lua.set_entry(-2, position.into()),
        }
    }

    /// Puts a value, which is not nil, under a text. False, with nothing done, if there is no place
    /// for it, or the collector must be told.
    #[inline]
    pub(super) fn set_text(self, key: Slot, value: Slot) -> bool {
        if self.is_seen() || self.parts().mask == 0 {
            return false;
        }
        // SAFETY: a live table with a hash part, which the collector is to look at yet, and a live
        // text; the VM does not run meanwhile, and the place is the one that the table has for it.
        unsafe {
            let place = (*self.0.as_ptr()).text_place(layout::referred(key));
            place.map(|place| place.write(value)).is_some()
        }
    }

    /// Puts what is on top under the key below it; both go. The table is below them. May raise.
    #[inline]
    pub(super) fn set_pair(self, lua: Stack<'_>) {
        let (key, value) = slots::top_two(lua);
        if tag(key) != STRING || value == NIL || !self.set_text(key, value) {
            return lua.raw_set(-3);
        }
        slots::cut(lua, slots::count(lua) - 2);
    }

    /// Whether the collector has seen all that is in it: it must be told then of what comes.
    #[inline]
    fn is_seen(self) -> bool {
        self.parts().marked & SEEN != 0
    }

    /// Whether a number is a key of the hash part.
    pub(super) fn is_hashed(self, key: f64) -> bool {
        key.fract() != 0.0 || !(0.0..f64::from(self.parts().array_len)).contains(&key)
    }

    /// Puts number keys, none of which the table has, into its hash part, with the values at 1 and
    /// on in the array part of another one, which has as many. May raise.
    ///
    /// LuaJIT has no secret in its hash of numbers: whoever wants to finds thousands of keys that
    /// all go to the same place. Put in one by one, each would be compared with all before it. So
    /// those that find their place free go first; then none of the others has to move anything
    /// away, and each takes the same time.
    pub(crate) fn insert_numbers(self, lua: Stack<'_>, values: NewTable<'_>, keys: &[f64]) {
        let mask = self.parts().mask;
        let mut taken = vec![false; mask as usize + 1];
        let is_first = |key: u64| !std::mem::replace(&mut taken[place(key, mask) as usize], true);
        // One zero is like the other.
        let keys: Vec<u64> = keys.iter().map(|key| (key + 0.0).to_bits()).collect();
        let firsts: Vec<bool> = keys.iter().copied().map(is_first).collect();
        for turn in [true, false] {
            for (index, key) in keys.iter().enumerate() {
                if firsts[index] == turn {
                    // SAFETY: both are live. The VM has made the table grey when it returns a slot,
                    // and does not run before that is written.
                    unsafe {
                        let slot = lj_tab_newkey(lua.raw(), self.0.as_ptr(), key);
                        slot.write(*values.parts().array.add(index + 1));
                    }
                }
            }
        }
    }
}

/// The place that LuaJIT looks at first for a number key, of as many as the mask allows.
fn place(key: u64, mask: u32) -> u32 {
    layout::scrambled(key as u32, ((key >> 32) as u32) << 1) & mask
}

struct Plain<'a> {
    writer: Writer<'a>,
    tables: &'a mut Seen,
    depth: u32,
}

impl Plain<'_> {
    fn table(&mut self, table: &Table) -> Result<(), NotPlain> {
        if let Some(bytes) = self.tables.grows_by() {
            self.writer.use_elsewhere(bytes)?;
        }
        if let Some(number) = self.tables.find_or_add(ptr::from_ref(table).addr()) {
            return Ok(self.writer.same_table(number)?);
        }
        if self.depth == DEPTH_MAX {
            return Err(NotPlain);
        }
        self.depth += 1;
        let open = self.writer.open_table()?;
        let (mut positional, mut pairs) = (0, 0);
        let mut length = None;
        for (index, value) in (0..).zip(table.values()) {
            if value.slot() != NIL {
                if index == positional + 1 {
                    positional = index;
                } else {
                    let key = f64::from(index);
                    let end = *length.get_or_insert_with(|| array_length(table.array()));
                    let fillable = index <= end;
                    let is_pair = self.writer.number_or_position(key, &mut positional, fillable)?;
                    pairs += u32::from(is_pair);
                }
                self.value(value)?;
            }
        }
        for (key, value) in table.pairs() {
            pairs += u32::from(self.key(key, &mut positional)?);
            self.value(value)?;
        }
        self.writer.close_table(open, positional, pairs);
        self.depth -= 1;
        Ok(())
    }

    /// Writes a key; false if its value takes a position instead.
    #[inline]
    fn key(&mut self, key: Live<'_>, positional: &mut u32) -> Result<bool, NotPlain> {
        if let Some(text) = key.packed() {
            self.writer.packed_key(text)?;
            return Ok(true);
        }
        match tag(key.slot()) {
            STRING => self.writer.string_key(key.text().ok_or(NotPlain)?)?,
            FALSE => self.writer.bool_key(false)?,
            TRUE => self.writer.bool_key(true)?,
            _ => {
                let key = slots::number(key.slot()).ok_or(NotPlain)?;
                return Ok(self.writer.number_or_position(key, positional, false)?);
            }
        }
        Ok(true)
    }

    /// Writes a value; a number without a call.
    #[inline(always)]
    fn value(&mut self, value: Live<'_>) -> Result<(), NotPlain> {
        match layout::double(value.slot()) {
            Some(number) => Ok(self.writer.number(number)?),
            None => self.no_double(value),
        }
    }

    fn no_double(&mut self, value: Live<'_>) -> Result<(), NotPlain> {
        if let Some(text) = value.packed() {
            return Ok(self.writer.packed_string(text)?);
        }
        match tag(value.slot()) {
            STRING => self.writer.string(value.text().ok_or(NotPlain)?)?,
            FALSE => self.writer.bool(false)?,
            TRUE => self.writer.bool(true)?,
            _ => match value.table() {
                Some(table) => self.table(table)?,
                None => self.writer.number(slots::number(value.slot()).ok_or(NotPlain)?)?,
            },
        }
        Ok(())
    }
}

/// The length that the VM's `#` finds within the array part.
fn array_length(array: &[Slot]) -> u32 {
    let is_nil = |index: usize| array[index] == NIL;
    let (mut low, mut high) = (0, array.len().saturating_sub(1));
    if high == 0 || !is_nil(high) {
        return high as u32;
    }
    while high - low > 1 {
        let middle = low + (high - low) / 2;
        if is_nil(middle) { high = middle } else { low = middle }
    }
    low as u32
}
