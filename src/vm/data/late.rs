//! Number keys of large maps, which are put in last, in the time that others take: whoever writes
//! the bytes finds thousands that LuaJIT puts into one chain, and looks through for each.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::ffi::c_int;

use mlua::ffi;

use super::output::Charged;
use crate::vm::convert::plain::NewTable;
use crate::vm::stack::Stack;

/// LuaJIT's own bound of a list.
const LIST_BITS: usize = 26;

/// Bytes outside of the VM that a key takes, about.
const KEY_BYTES: usize = 48;

/// Keys that wait. Their values are in a table, at 1 and on.
pub(super) struct Late<'a> {
    keys: Vec<f64>,
    places: HashMap<u64, usize>,
    /// Keys that are paid for.
    keys_charged: usize,
    charged: Charged<'a>,
}

impl<'a> Late<'a> {
    pub(super) fn new(lua: Stack<'a>) -> Late<'a> {
        let (keys, places) = (Vec::new(), HashMap::new());
        Late { keys, places, keys_charged: 0, charged: Charged::new(lua) }
    }

    /// Has the key at an index of the stack, a number, wait with the value behind it; `values` is
    /// where the table of values is.
    pub(super) fn add(&mut self, lua: Stack<'_>, key: c_int, values: c_int) {
        // One zero is like the other.
        let number = lua.number(key) + 0.0;
        let place = match self.places.entry(number.to_bits()) {
            Entry::Occupied(known) => *known.get(),
            Entry::Vacant(new) => {
                self.keys.push(number);
                *new.insert(self.keys.len())
            }
        };
        if self.keys.len() > self.keys_charged {
            self.keys_charged = 2 * self.keys.len();
            self.charged.set(self.keys_charged * KEY_BYTES);
        }
        lua.push_copy(key + 1);
        lua.set_entry(values, place as i64);
    }

    /// Puts all into a new table, with what the table on top holds; that lies just above their
    /// values, and all three become the new one. It has room for as many pairs.
    pub(super) fn finish(self, lua: Stack<'_>, pairs: usize) {
        let table = lua.top();
        let (values, new, hashed_values) = (table - 1, table + 1, table + 2);
        let list = list_len(&self.keys, lua, table);
        let is_listed = |key: &f64| key.fract() == 0.0 && 1.0 <= *key && *key <= list as f64;
        let in_list = self.keys.iter().filter(|key| is_listed(key)).count();
        lua.push_table(list, pairs - in_list);
        let mut place = 0;
        while lua.push_entry(table, &mut place) {
            let is_late = lua.kind(-2) == ffi::LUA_TNUMBER
                && self.places.contains_key(&(lua.number(-2) + 0.0).to_bits());
            if is_late { lua.set_top(-3) } else { lua.raw_set(new) }
        }
        lua.push_table(self.keys.len() + 1, 0);
        let mut hashed = Vec::new();
        for (index, key) in self.keys.iter().enumerate() {
            lua.entry(values, index as i64 + 1);
            if lua.kind(-1) == ffi::LUA_TNIL {
                lua.pop();
            } else if is_listed(key) {
                lua.set_entry(new, *key as i64);
            } else {
                hashed.push(*key);
                lua.set_entry(hashed_values, hashed.len() as i64);
            }
        }
        NewTable::at(lua, new).insert_numbers(lua, NewTable::at(lua, hashed_values), &hashed);
        lua.pop();
        lua.replace(values);
        lua.set_top(values);
    }
}

/// As many places as LuaJIT would give the list of a table with these keys, and those that are in
/// the table at an index: the largest power of two more than half of which are in use.
fn list_len(keys: &[f64], lua: Stack<'_>, table: c_int) -> usize {
    let mut counts = [0; LIST_BITS + 1];
    let mut count = |key: f64| {
        if key.fract() == 0.0 && 1.0 <= key && key <= (1 << LIST_BITS) as f64 {
            counts[(key as u32).next_power_of_two().trailing_zeros() as usize] += 1;
        }
    };
    keys.iter().copied().for_each(&mut count);
    let mut place = 0;
    while lua.push_entry(table, &mut place) {
        if lua.kind(-2) == ffi::LUA_TNUMBER {
            count(lua.number(-2));
        }
        lua.set_top(-3);
    }
    let (mut sum, mut best) = (0, 0);
    for (bits, count) in counts.into_iter().enumerate() {
        sum += count;
        if sum > (1 << bits) / 2 {
            best = 1 << bits;
        }
    }
    best
}
