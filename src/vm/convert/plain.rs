//! Plain tables, read where the VM keeps them.
//!
//! A table of numbers, strings, booleans and more such tables takes half a dozen calls into the VM
//! per entry, most of the time of a message. This reads the same memory without a call. It knows
//! how LuaJIT lays tables out on 64-bit machines, so [`verify`] first compares that with tables
//! whose content is known; without its consent, and for tables that hold anything else, nothing is
//! read here and the calls are made after all.

use std::ffi::{c_int, c_void};
use std::ptr::NonNull;
use std::sync::OnceLock;

use mlua::ffi::{self, lua_State};

use crate::message::encode::DEPTH_MAX;
use crate::message::{Seen, TooLarge, Writer};

/// A value: a double, or a tag in the upper 17 bits over 47 bits of pointer.
type Slot = u64;

const NIL: u64 = u64::MAX;
const TAG_SHIFT: u32 = 47;
const POINTER: u64 = (1 << TAG_SHIFT) - 1;
// Tags, as the upper bits read as a negative number.
const FALSE: i64 = !1;
const TRUE: i64 = !2;
const STRING: i64 = !4;
const TABLE: i64 = !11;
/// The lowest tag of an object: a full userdata.
const OBJECTS: i64 = !12;
/// Of integers, on machines where Lua numbers may be those; below are the tags of doubles.
const INTEGER: i64 = !13;

/// The start of a table object.
#[repr(C)]
pub(super) struct Table {
    header: [u8; 16],
    array: *const Slot,
    collector_list: u64,
    metatable: u64,
    nodes: *const Node,
    array_len: u32,
    nodes_mask: u32,
}

/// An entry of a table's hash part.
#[repr(C)]
struct Node {
    value: Slot,
    key: Slot,
    next: u64,
}

/// The start of a string object; its bytes follow.
#[repr(C)]
struct Str {
    header: [u8; 20],
    len: u32,
}

/// Whether tables look as this file thinks; unset until [`verify`] has looked.
static IS_KNOWN: OnceLock<bool> = OnceLock::new();

/// The table is not plain, too deep or too large.
struct NotPlain;

impl From<TooLarge> for NotPlain {
    fn from(_: TooLarge) -> NotPlain {
        NotPlain
    }
}

/// Finds out, once for the process, whether plain tables can be read here.
///
/// # Safety
/// `state` must be live and on its own thread, with four stack slots free. May unwind.
pub(super) unsafe fn verify(state: *mut lua_State) {
    if IS_KNOWN.get().is_none() {
        // SAFETY: the caller's contract.
        let is_known = unsafe { looks_known(state) };
        IS_KNOWN.get_or_init(|| is_known);
    }
}

/// Compares a table made here with what this file thinks it looks like: first sizes, which lie
/// within the object in any case, and what pointers lead to only then.
unsafe fn looks_known(state: *mut lua_State) -> bool {
    if !cfg!(target_pointer_width = "64") {
        return false;
    }
    // SAFETY: the caller's contract; the table made first stays on the stack while it is read.
    unsafe {
        ffi::lua_createtable(state, 2, 3);
        ffi::lua_pushnumber(state, 2.5);
        ffi::lua_rawseti_(state, -2, 1);
        ffi::lua_pushboolean(state, 1);
        ffi::lua_rawseti_(state, -2, 2);
        ffi::lua_pushlstring_(state, c"key".as_ptr(), 3);
        ffi::lua_createtable(state, 0, 0);
        let inner = ffi::lua_topointer(state, -1) as u64;
        ffi::lua_rawset(state, -3);
        let table = &*ffi::lua_topointer(state, -1).cast::<Table>();
        let mut is_known = table.array_len == 3 && table.nodes_mask == 3;
        if is_known {
            let array = std::slice::from_raw_parts(table.array, 3);
            is_known = array[0] == NIL && array[1] == 2.5f64.to_bits() && tag(array[2]) == TRUE;
            let nodes = std::slice::from_raw_parts(table.nodes, 4);
            let mut entries = nodes.iter().filter(|node| node.value != NIL);
            let entry = entries.next().filter(|_| entries.next().is_none());
            is_known &= entry.is_some_and(|node| {
                let is_pair = tag(node.key) == STRING && tag(node.value) == TABLE;
                is_pair && string(node.key) == b"key" && node.value & POINTER == inner
            });
        }
        ffi::lua_pop(state, 1);
        is_known
    }
}

/// Writes the table on top of the stack if it is plain. False if it is not, or if tables cannot be
/// read here: what was written then is of no use.
///
/// # Safety
/// `state` must be live, on its own thread, with a table on top.
#[inline]
pub(super) unsafe fn write(state: *mut lua_State, writer: Writer<'_>, tables: &mut Seen) -> bool {
    if IS_KNOWN.get() != Some(&true) {
        return false;
    }
    tables.clear();
    // SAFETY: a table is on top.
    let table: *const c_void = unsafe { ffi::lua_topointer(state, -1) };
    let mut plain = Plain { writer, tables, depth: 0 };
    // SAFETY: tables look as described, and this one lives while it is on the stack.
    unsafe { plain.table(table.cast()) }.is_ok()
}

/// The new table on top of the stack, for [`set_number`]; `None` if tables are not known.
///
/// # Safety
/// `state` must be live, on its own thread, with a table on top.
#[inline]
pub(super) unsafe fn on_top(state: *mut lua_State) -> Option<NonNull<Table>> {
    // SAFETY: the caller's contract.
    unsafe { known(state, -1) }
}

/// The same for a table anywhere on the stack.
///
/// # Safety
/// `state` must be live, on its own thread, with a table at `index`.
#[inline]
pub(super) unsafe fn known(state: *mut lua_State, index: c_int) -> Option<NonNull<Table>> {
    if IS_KNOWN.get() != Some(&true) {
        return None;
    }
    // SAFETY: the caller's contract.
    NonNull::new(unsafe { ffi::lua_topointer(state, index) }.cast_mut().cast())
}

/// Puts a number at a position of the array part, which needs no leave of the collector. False,
/// with nothing done, if there is no such place or the number is NaN: only the VM may choose its
/// bits.
///
/// # Safety
/// `table` must be a live table object of the VM that this thread runs, and tables be known.
#[inline]
pub(super) unsafe fn set_number(table: NonNull<Table>, position: u32, value: f64) -> bool {
    // SAFETY: the caller's contract; the part may have moved since the last call.
    let (array, len) = unsafe { ((*table.as_ptr()).array, (*table.as_ptr()).array_len) };
    let fits = position < len && !value.is_nan();
    if fits {
        // SAFETY: the array part has more slots than that.
        unsafe { array.cast_mut().add(position as usize).write(value.to_bits()) };
    }
    fits
}

unsafe extern "C-unwind" {
    /// LuaJIT's: makes room for a key that the table does not have.
    fn lj_tab_newkey(state: *mut lua_State, table: *mut Table, key: *const Slot) -> *mut Slot;
}

/// Whether a number is a key of the table's hash part.
///
/// # Safety
/// `table` must be a live table object of the VM that this thread runs, and tables be known.
pub(super) unsafe fn is_hashed(table: NonNull<Table>, key: f64) -> bool {
    // SAFETY: the caller's contract.
    let array_len = unsafe { (*table.as_ptr()).array_len };
    key.fract() != 0.0 || !(0.0..f64::from(array_len)).contains(&key)
}

/// The place that LuaJIT looks at first for a number key, of as many as the mask allows.
fn place(key: u64, mask: u32) -> u32 {
    let (mut low, mut high) = (key as u32, ((key >> 32) as u32) << 1);
    low ^= high;
    high = high.rotate_left(14);
    low = low.wrapping_sub(high);
    high = high.rotate_left(5);
    high ^= low;
    high.wrapping_sub(low.rotate_left(13)) & mask
}

/// Puts number keys, none of which the table has, into its hash part, with the values at 1 and on
/// in `values`.
///
/// LuaJIT has no secret in its hash of numbers: whoever wants to finds thousands of keys that all
/// go to the same place. Put in one by one, each would be compared with all before it. So those
/// that find their place free go first; then none of the others has to move anything away, and each
/// takes the same time.
///
/// # Safety
/// Both must be live table objects of the VM that this thread runs, the second with as many values
/// in its array part, and tables be known. May unwind.
pub(super) unsafe fn insert_numbers(
    state: *mut lua_State,
    table: NonNull<Table>,
    values: NonNull<Table>,
    keys: &[f64],
) {
    // SAFETY: the caller's contract. The VM has made the table grey when it returns a slot, and
    // does not run before that is written.
    unsafe {
        let mask = (*table.as_ptr()).nodes_mask;
        let mut taken = vec![false; mask as usize + 1];
        let is_first = |key: u64| !std::mem::replace(&mut taken[place(key, mask) as usize], true);
        // One zero is like the other.
        let keys: Vec<u64> = keys.iter().map(|key| (key + 0.0).to_bits()).collect();
        let firsts: Vec<bool> = keys.iter().copied().map(is_first).collect();
        for turn in [true, false] {
            for (index, key) in keys.iter().enumerate() {
                if firsts[index] == turn {
                    let slot = lj_tab_newkey(state, table.as_ptr(), key);
                    slot.write(*(*values.as_ptr()).array.add(index + 1));
                }
            }
        }
    }
}

struct Plain<'a> {
    writer: Writer<'a>,
    tables: &'a mut Seen,
    depth: u32,
}

impl Plain<'_> {
    /// # Safety
    /// `table` must be a live table object, of a VM that is not running.
    unsafe fn table(&mut self, table: *const Table) -> Result<(), NotPlain> {
        if let Some(number) = self.tables.find_or_add(table as usize) {
            return Ok(self.writer.same_table(number)?);
        }
        if self.depth == DEPTH_MAX {
            return Err(NotPlain);
        }
        self.depth += 1;
        let open = self.writer.open_table()?;
        let (mut positional, mut pairs) = (0, 0);
        // SAFETY: the caller's contract.
        let table = unsafe { &*table };
        let mut length = None;
        for index in 0..table.array_len {
            // SAFETY: the array part has so many slots.
            let value = unsafe { table.array.add(index as usize).read() };
            if value != NIL {
                if index == positional + 1 {
                    positional = index;
                } else {
                    let key = f64::from(index);
                    // SAFETY: the caller's contract.
                    let end = *length.get_or_insert_with(|| unsafe { array_length(table) });
                    let fillable = index <= end;
                    let is_pair = self.writer.number_or_position(key, &mut positional, fillable)?;
                    pairs += u32::from(is_pair);
                }
                // SAFETY: what a live table holds is live.
                unsafe { self.value(value)? };
            }
        }
        for index in 0..=table.nodes_mask {
            // SAFETY: the hash part has one node more than its mask says.
            let node = unsafe { &*table.nodes.add(index as usize) };
            if node.value != NIL {
                // SAFETY: as above; keys of entries that are not nil are live too.
                pairs += u32::from(unsafe { self.key(node.key, &mut positional)? });
                // SAFETY: as above.
                unsafe { self.value(node.value)? };
            }
        }
        self.writer.close_table(open, positional, pairs);
        self.depth -= 1;
        Ok(())
    }

    /// Writes a key; false if its value takes a position instead.
    #[inline]
    unsafe fn key(&mut self, key: Slot, positional: &mut u32) -> Result<bool, NotPlain> {
        match tag(key) {
            // SAFETY: the caller says that the string is live.
            STRING => self.writer.string_key(unsafe { string(key) })?,
            FALSE => self.writer.bool_key(false)?,
            TRUE => self.writer.bool_key(true)?,
            _ => {
                let key = number(key).ok_or(NotPlain)?;
                return Ok(self.writer.number_or_position(key, positional, false)?);
            }
        }
        Ok(true)
    }

    #[inline]
    unsafe fn value(&mut self, value: Slot) -> Result<(), NotPlain> {
        match tag(value) {
            // SAFETY: the caller says that the string is live.
            STRING => self.writer.string(unsafe { string(value) })?,
            FALSE => self.writer.bool(false)?,
            TRUE => self.writer.bool(true)?,
            // SAFETY: as above, for the table.
            TABLE => unsafe { self.table((value & POINTER) as *const Table)? },
            _ => self.writer.number(number(value).ok_or(NotPlain)?)?,
        }
        Ok(())
    }
}

#[inline]
/// The length that the VM's `#` finds within the array part.
///
/// # Safety
/// `table` must be a live table object, of a VM that is not running.
unsafe fn array_length(table: &Table) -> u32 {
    // SAFETY: the array part has more slots than `index`.
    let is_nil = |index: u32| unsafe { table.array.add(index as usize).read() } == NIL;
    let (mut low, mut high) = (0, table.array_len.saturating_sub(1));
    if high == 0 || !is_nil(high) {
        return high;
    }
    while high - low > 1 {
        let middle = low + (high - low) / 2;
        if is_nil(middle) { high = middle } else { low = middle }
    }
    low
}

fn tag(slot: Slot) -> i64 {
    slot as i64 >> TAG_SHIFT
}

/// The number a slot holds, if it is one.
#[inline]
fn number(slot: Slot) -> Option<f64> {
    // Tags of objects are the highest negative numbers; those of doubles end below INTEGER.
    match tag(slot) {
        INTEGER => Some(f64::from(slot as c_int)),
        OBJECTS..0 => None,
        _ => Some(f64::from_bits(slot)),
    }
}

/// The bytes of the string a slot refers to.
///
/// # Safety
/// The slot must hold a string that is live for as long as the bytes are used.
#[inline]
unsafe fn string<'a>(slot: Slot) -> &'a [u8] {
    let object = (slot & POINTER) as *const Str;
    // SAFETY: the caller's contract: the slot refers to a string object.
    let len = unsafe { (*object).len } as usize;
    // SAFETY: its bytes follow.
    unsafe { std::slice::from_raw_parts(object.add(1).cast(), len) }
}
