//! Maps that were made: of a list's most have the keys of one before, in the same order. Their
//! entries are in the same places then, and need not be looked for.

use std::ffi::c_int;
use std::ptr;

use mlua::ffi::lua_State;

use crate::vm::layout::{NIL, Node, STRING, Slot, TABLE, Table, Text, reference, referred, tag};
use crate::vm::stack::{Stack, slots};

/// Powers of two: maps that are remembered, and pairs of the largest.
const PLACES: c_int = 8;
const PAIRS_MAX: usize = 16;

unsafe extern "C-unwind" {
    /// LuaJIT's: the place of a key, which is made if there is none. May raise; runs no finalisers.
    fn lj_tab_set(state: *mut lua_State, table: *mut Table, key: *const Slot) -> *mut Slot;
    /// The same for a string.
    fn lj_tab_setstr(state: *mut lua_State, table: *mut Table, key: *const Text) -> *mut Slot;
}

/// They are on the stack, where nobody frees them. A finaliser may find and change them: so nothing
/// is believed of one that is not looked at.
pub(super) struct Templates {
    /// Where the first is; 0 if none is remembered.
    first: c_int,
    /// Of each, which entry is that of each pair.
    entries: [[u8; PAIRS_MAX]; PLACES as usize],
}

impl Templates {
    /// Takes slots of the stack, if it is worth it, which are left there.
    pub(super) fn new(lua: Stack<'_>, is_worth: bool) -> Templates {
        let mut first = 0;
        if is_worth && lua.has_room(PLACES) {
            first = lua.top() + 1;
            lua.set_top(lua.top() + PLACES);
        }
        Templates { first, entries: [[0; PAIRS_MAX]; PLACES as usize] }
    }

    /// A table of pairs, keys and values in turn, which wait on the stack; no key is nil or NaN.
    /// Nothing but the stack or a table keeps it alive. May raise if there is no memory; runs no
    /// finalisers.
    #[inline]
    pub(super) fn make(&mut self, lua: Stack<'_>, pairs: &[Slot]) -> *mut Table {
        let (raw, count) = (lua.raw(), pairs.len() / 2);
        let pairs = || pairs.chunks_exact(2);
        let is_small = self.first > 0 && (1..=PAIRS_MAX).contains(&count);
        let first_key = pairs().next().map_or(NIL, |pair| pair[0]);
        let which = ((first_key >> 5) as usize ^ count) % PLACES as usize;
        let (place, entries) = (self.first + which as c_int, &mut self.entries[which]);
        let known = if is_small { slots::at(lua, place) } else { NIL };
        // SAFETY: live tables and pairs of a running state; the collector has not seen the new
        // table, and does not run meanwhile. Entries are looked for within a table's mask.
        unsafe {
            let known: *const Table =
                if tag(known) == TABLE { referred(known) } else { ptr::null() };
            if !known.is_null() && (*known).mask as usize + 1 == Table::nodes_for(count) {
                let mask = (*known).mask as usize;
                let entry = |entry: &u8| usize::from(*entry) & mask;
                let mut all = pairs().zip(&*entries);
                if all.all(|(pair, at)| (*(*known).nodes.add(entry(at))).key == pair[0]) {
                    let table = Table::make_like(raw, known);
                    for (pair, at) in pairs().zip(&*entries) {
                        (*(*table).nodes.add(entry(at))).value = pair[1];
                    }
                    return table;
                }
            }
            let table = Table::make(raw, 0, count);
            // A null that is left out takes the place of what the same key had before. A place
            // holds until the next key is put in.
            for pair in pairs() {
                let place = match tag(pair[0]) {
                    STRING => match (*table).text_place(referred(pair[0])) {
                        Some(place) => place,
                        None => lj_tab_setstr(raw, table, referred(pair[0])),
                    },
                    _ => lj_tab_set(raw, table, &pair[0]),
                };
                place.write(pair[1]);
            }
            // A key without a value would not keep its text alive.
            if is_small && pairs().all(|pair| tag(pair[0]) == STRING && pair[1] != NIL) {
                for (pair, entry) in pairs().zip(entries) {
                    let place = (*table).text_place(referred(pair[0]));
                    let node = place.map_or((*table).nodes, <*mut Slot>::cast::<Node>);
                    *entry = node.offset_from((*table).nodes) as u8;
                }
                slots::set(lua, place, reference(TABLE, table.cast()));
            }
            table
        }
    }
}
