//! Tables many of whose keys have the same hash.
//!
//! When a table is full LuaJIT puts every key into a larger one, and looks for it there first. Of
//! keys that all lie in one chain that takes the square of their number: seconds in a single
//! instruction, or call, that nothing interrupts. Anybody can choose numbers that do. So the linker
//! leads the calls that may add a key here (linked.rs): large tables with such a chain, and those
//! without integers, are made larger here before, without looking. Finding a key in its chain still
//! takes as long as the chain is.
//!
//! And tables whose keys come and go: LuaJIT makes room for just those that are there, so that with
//! 512 at a time, or any other power of two, each new key finds the table full. Those are made
//! larger too.

use std::ffi::c_int;
use std::ptr;

use mlua::ffi::{self, lua_State};

use super::layout::{
    self, FALSE, KIND_TABLE, NIL, Node, POINTER, STRING, Slot, TRUE, Table, Text, WHITES,
    is_number, lj_mem_realloc, scrambled, tag,
};
use super::stack::{Stack, slots};
use super::state::Account;

/// Tables with fewer entries are LuaJIT's own affair: it takes some milliseconds at most.
const ENTRIES_MIN: usize = 4096;

/// Tables with fewer are filled anew in no time.
const CROWDED_MIN: usize = 32;

/// LuaJIT's own bound of a table's entries.
const ENTRIES_MAX: usize = 1 << 26;

/// Slots of an array that LuaJIT has in the same block as its table.
const INSIDE_MAX: usize = 16;

/// A longer chain is no chance.
const CHAIN_MAX: usize = 64;

/// What an array grows beside: LuaJIT puts all keys into a new table then too.
const CHAIN_MAX_ARRAY: usize = 1024;

unsafe extern "C-unwind" {
    fn lj_tab_get(raw: *mut lua_State, table: *mut Table, key: *const u64) -> *const u64;
    /// LuaJIT's: raises if memory runs out.
    fn lj_err_mem(raw: *mut lua_State) -> !;
    /// LuaJIT's: a table with room for what is at 0 and so on, and for 2^n keys, n not being 0.
    fn lj_tab_new(raw: *mut lua_State, list: u32, bits: u32) -> *mut Table;
}

/// Memory as the VM's own functions take it, but without a call into it. Raises if there is none.
///
/// # Safety
/// `raw` must be a running state, used by this thread.
#[inline]
pub(super) unsafe fn take(raw: *mut lua_State, bytes: usize) -> *mut u8 {
    // SAFETY: what the allocator of a state is called with is its account.
    unsafe {
        let global = layout::global(raw);
        let block = (*(*global).user.cast::<Account>()).allocate(bytes);
        if block.is_null() {
            lj_err_mem(raw);
        }
        (*global).total += bytes;
        block
    }
}

/// Where in a table of 2^n entries LuaJIT looks for a key.
unsafe fn home(key: u64, mask: u32) -> usize {
    let (low, high) = (key as u32, (key >> 32) as u32);
    let hash = match tag(key) {
        FALSE => 0,
        TRUE => 1,
        // SAFETY: the callers have a key of a live table, or one for it.
        STRING => unsafe { (*((key & POINTER) as *const Text)).id },
        _ if is_number(key) => scrambled(low, high << 1),
        _ => scrambled(low, high),
    };
    (hash & mask) as usize
}

impl Table {
    /// Whether it has this many entries that LuaJIT may take long.
    pub fn is_large(&self) -> bool {
        self.mask as usize >= ENTRIES_MIN - 1
    }

    /// Whether it has so many that keys which come and go may take long.
    #[inline]
    pub fn may_be_crowded(&self) -> bool {
        self.mask as usize >= CROWDED_MIN - 1
    }

    /// Whether no entry is free; which is the next one is known from then on.
    unsafe fn is_full(&mut self) -> bool {
        // SAFETY: between the two pointers are entries.
        unsafe {
            while self.free > self.nodes && (*self.free.sub(1)).key != NIL {
                self.free = self.free.sub(1);
            }
        }
        self.free == self.nodes
    }

    /// A new table, with room for a list of this length, all of it nil, and for this many keys.
    /// Runs no finalisers.
    ///
    /// # Safety
    /// `raw` must be running. May raise. Nothing but the stack or a table keeps it alive.
    #[inline]
    pub(crate) unsafe fn make(raw: *mut lua_State, list: usize, keys: usize) -> *mut Table {
        let slots = if list > 0 { list + 1 } else { 0 };
        let len = Table::nodes_for(keys);
        // SAFETY: memory of the VM's, of a size that its own tables have; all of it is written
        // before anything else is done.
        unsafe {
            if slots > INSIDE_MAX {
                return lj_tab_new(raw, slots as u32, if keys > 0 { len.ilog2() } else { 0 });
            }
            let bytes = size_of::<Table>() + slots * size_of::<Slot>();
            let table = take(raw, bytes).cast::<Table>();
            let array = table.add(1).cast::<Slot>();
            let global = layout::global(raw);
            let nodes = &raw mut (*global).nil_node;
            ((*table).next, (*global).root) = ((*global).root, table as u64);
            ((*table).marked, (*table).kind) = ((*global).white & WHITES, KIND_TABLE);
            ((*table).absent, (*table).inside) = (u8::MAX, slots as u8);
            (*table).array = if slots > 0 { array } else { ptr::null_mut() };
            (*table).metatable = 0;
            ((*table).nodes, (*table).free) = (nodes, nodes);
            ((*table).array_len, (*table).mask) = (slots as u32, 0);
            for slot in 0..slots {
                array.add(slot).write(NIL);
            }
            if keys > 0 {
                let nodes = take(raw, len * size_of::<Node>()).cast::<Node>();
                let end = nodes.add(len);
                let mut node = nodes;
                while node != end {
                    node.write(Node { value: NIL, key: NIL, next: ptr::null_mut() });
                    node = node.add(1);
                }
                ((*table).nodes, (*table).free) = (nodes, end);
                (*table).mask = len as u32 - 1;
            }
            table
        }
    }

    /// A new table with the entries of another, which has some, all of them nil.
    ///
    /// # Safety
    /// As for [`Table::make`]; `other` must be a live table, with a hash part.
    #[inline]
    pub(crate) unsafe fn make_like(raw: *mut lua_State, other: *const Table) -> *mut Table {
        // SAFETY: memory of the VM's, all of which is written before anything else is done. Chains
        // consist of entries of the other's, or are at their end.
        unsafe {
            let table = Table::make(raw, 0, 0);
            let (from, len) = ((*other).nodes, (*other).mask as usize + 1);
            let nodes = take(raw, len * size_of::<Node>()).cast::<Node>();
            let moved = |node: *mut Node| nodes.byte_offset(node.byte_offset_from(from));
            for at in 0..len {
                let Node { key, next, .. } = from.add(at).read();
                let next = if next.is_null() { next } else { moved(next) };
                nodes.add(at).write(Node { value: NIL, key, next });
            }
            ((*table).nodes, (*table).free) = (nodes, moved((*other).free));
            ((*table).mask, (*table).absent) = ((*other).mask, 0);
            table
        }
    }

    /// How many entries a table with this many keys has, if it has any.
    #[inline]
    pub(crate) fn nodes_for(keys: usize) -> usize {
        keys.next_power_of_two().max(2)
    }

    /// The place of a text's value, if the text is there, or if its place is free; then it is there
    /// afterwards. The table must have a hash part, and the value must be written, but nil.
    ///
    /// # Safety
    /// It must be a live table, which the collector has not seen, and the key a live text.
    #[inline]
    pub(crate) unsafe fn text_place(&mut self, key: *const Text) -> Option<*mut Slot> {
        // SAFETY: chains consist of entries, and end.
        unsafe {
            let mut node = self.nodes.add(((*key).id & self.mask) as usize);
            let key = layout::reference(STRING, key.cast());
            if (*node).key == NIL {
                self.absent = 0;
                (*node).key = key;
                return Some(&raw mut (*node).value);
            }
            while (*node).key != key {
                node = (*node).next;
                if node.is_null() {
                    return None;
                }
            }
            Some(&raw mut (*node).value)
        }
    }

    /// Raises if the array of a large table, which LuaJIT is about to make longer, is beside a long
    /// chain.
    ///
    /// # Safety
    /// It must be a table of the state `raw`, which calls `lj_tab_reasize`.
    pub unsafe fn check_chains(&self, raw: *mut lua_State) {
        // SAFETY: a live table; the message is a constant.
        unsafe {
            if self.is_large() && self.has_chain(CHAIN_MAX_ARRAY) {
                ffi::luaL_error(raw, c"too many keys of a table have the same hash".as_ptr());
            }
        }
    }

    /// Whether a chain is longer than `most`.
    unsafe fn has_chain(&self, most: usize) -> bool {
        // SAFETY: chains consist of entries, and end.
        unsafe {
            self.hash().iter().any(|node| {
                let (mut next, mut len) = (node.next, 0);
                while !next.is_null() && len < most {
                    (next, len) = ((*next).next, len + 1);
                }
                len == most
            })
        }
    }

    /// Whether a key is one that may belong into the array, which LuaJIT makes larger then.
    fn has_integers(&self) -> bool {
        self.hash().iter().any(|node| {
            let number = f64::from_bits(node.key);
            is_number(node.key) && node.value != NIL && f64::from(number as i32) == number
        })
    }

    /// Makes room for one more key, which is not in the table, if LuaJIT would take longer.
    ///
    /// # Safety
    /// It must be a table of the state `raw`, which calls `lj_tab_newkey`. May raise.
    pub unsafe fn prepare(&mut self, raw: *mut lua_State, key: u64) {
        // SAFETY: a live table of this state's. Where the key's place is free no room is needed.
        unsafe {
            if !self.is_full() || (*self.nodes.add(home(key, self.mask))).value == NIL {
                return;
            }
            let (entries, live) = (self.mask as usize + 1, self.live());
            if live < entries && live >= entries - entries / 4 {
                self.grow(raw, 2 * entries);
            } else if self.is_large() && (!self.has_integers() || self.has_chain(CHAIN_MAX)) {
                self.grow(raw, (live + 1).next_power_of_two());
            }
        }
    }

    /// Entries that are not nil.
    fn live(&self) -> usize {
        self.hash().iter().filter(|node| node.value != NIL).count()
    }

    /// Puts all entries into new memory, for this many, a power of two. Keys that are at home there
    /// come first, so that none has to move; the others follow theirs in its chain.
    unsafe fn grow(&mut self, raw: *mut lua_State, len: usize) {
        const ENTRY: usize = size_of::<Node>();
        // SAFETY: the callers have a live table. Memory is the VM's, which raises if there is none;
        // all of it is written before it is read.
        unsafe {
            if len > ENTRIES_MAX {
                return;
            }
            let (mask, before) = (len as u32 - 1, self.mask as usize + 1);
            let nodes = lj_mem_realloc(raw, ptr::null_mut(), 0, len * ENTRY).cast::<Node>();
            for index in 0..len {
                nodes.add(index).write(Node { value: NIL, key: NIL, next: ptr::null_mut() });
            }
            let entries = || self.hash().iter().filter(|node| node.value != NIL);
            for node in entries() {
                let own = nodes.add(home(node.key, mask));
                if (*own).key == NIL {
                    ((*own).key, (*own).value) = (node.key, node.value);
                }
            }
            let mut free = nodes.add(len);
            for node in entries() {
                let own = nodes.add(home(node.key, mask));
                if (*own).key != node.key {
                    free = free.sub(1);
                    while (*free).key != NIL {
                        free = free.sub(1);
                    }
                    free.write(Node { value: node.value, key: node.key, next: (*own).next });
                    (*own).next = free;
                }
            }
            lj_mem_realloc(raw, self.nodes.cast(), before * ENTRY, 0);
            (self.nodes, self.mask, self.free) = (nodes, mask, free);
        }
    }

    /// As [`Table::prepare`], for a key that may be there. Who calls this in a loop can be ended.
    ///
    /// # Safety
    /// It must be a table of the state `raw`, which has called a function in C. May raise.
    pub unsafe fn prepare_if_new(&mut self, raw: *mut lua_State, key: u64) {
        // SAFETY: a live table of the state that has called; what has no such key has the same as
        // what has no nil.
        unsafe {
            if self.is_large() {
                Stack::new(raw).look();
            }
            if self.is_full() && lj_tab_get(raw, self, &key) == lj_tab_get(raw, self, &NIL) {
                self.prepare(raw, key);
            }
        }
    }
}

impl Stack<'_> {
    /// Moves what the array of the table at `index` holds from a place on up by one, to `end` in
    /// all; false, with nothing done, if it has no such places.
    pub(crate) fn move_up(self, index: c_int, place: i64, end: i64) -> bool {
        // SAFETY: a table is there, which nobody else looks at meanwhile.
        let table = unsafe { &*layout::object::<Table>(self.raw(), index) };
        let is_inside = 1 <= place && place <= end && end < i64::from(table.array_len);
        if is_inside {
            // SAFETY: places of the array; the collector has seen what is moved, or is to see it.
            unsafe {
                let from = table.array.add(place as usize);
                ptr::copy(from, from.add(1), (end - place) as usize);
            }
        }
        is_inside
    }

    /// Pushes the key and the value of the first entry of the table at `index` from a place on, and
    /// moves that behind it; false, with nothing pushed, if there is none. Scripts may run in
    /// between: whatever they do to the table, its entries as they are then are pushed.
    pub(crate) fn push_entry(self, index: c_int, place: &mut usize) -> bool {
        // SAFETY: a table is there, which nobody changes meanwhile.
        let table = unsafe { &*layout::object::<Table>(self.raw(), index) };
        let (array, hash) = (table.array(), table.hash());
        while *place < array.len() + hash.len() {
            let at = *place;
            *place += 1;
            let (key, value) = match array.get(at) {
                Some(value) => ((at as f64).to_bits(), *value),
                None => (hash[at - array.len()].key, hash[at - array.len()].value),
            };
            if value != NIL {
                slots::push(self, key);
                slots::push(self, value);
                return true;
            }
        }
        false
    }
}
