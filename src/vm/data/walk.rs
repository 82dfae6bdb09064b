//! A Lua value as something that serializes itself.

use std::cell::{Cell, RefCell};
use std::ffi::c_void;
use std::fmt::{self, Write};
use std::ptr::NonNull;

use serde::ser::{Error, Serialize, SerializeMap, SerializeSeq, Serializer};

use super::marks::{self, Mark};
use super::output::{Charged, Failure};
use super::shape::{Shape, Table, compare, find_twin, shape};
use super::{Fault, cdata};
use crate::vm::int64::Integer;
use crate::vm::layout::{self, FALSE, NIL, POINTER, STRING, Slot, TABLE, TRUE, USERDATA, tag};
use crate::vm::stack::{Stack, slots};
use crate::vm::userdata;

/// Whole numbers beyond are not all exact.
pub(super) const EXACT_MAX: f64 = 9_007_199_254_740_992.0;

// Tags of values that are rarely met.
const LIGHT_USERDATA: i64 = !3;
const COROUTINE: i64 = !6;
const FUNCTION: i64 = !8;
const CDATA: i64 = !10;

/// Which keys a format has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Keys {
    /// Text alone.
    Text,
    /// Numbers and booleans too.
    Any,
}

/// Which lists may have holes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sparse {
    /// Lists of at most this many places.
    pub(crate) safe: u32,
    /// And those of at most this many places for each value; 0: all.
    pub(crate) ratio: u32,
    /// What has more is written as keys and values; else it is refused.
    pub(crate) convert: bool,
}

/// How values are written.
#[derive(Clone, Debug)]
pub(crate) struct WriteRules {
    pub(crate) keys: Keys,
    /// Most levels of tables.
    pub(crate) depth_max: u32,
    /// Keys in the order of their bytes.
    pub(crate) is_sorted: bool,
    /// The format has bytes beside text, which are a `some`; text that is none is written so, else
    /// refused.
    pub(crate) has_bytes: bool,
    /// The format has numbers that are none or infinite.
    pub(crate) has_infinity: bool,
    /// Those are written as null, where the format has none.
    pub(crate) nulls_infinity: bool,
    /// Bytes that are no text are replaced.
    pub(crate) is_lossy: bool,
    /// Text and numbers together are keys; else such a table is refused.
    pub(crate) mixes: bool,
    pub(crate) sparse: Sparse,
    /// Empty tables are lists.
    pub(crate) empty_is_list: bool,
    /// Entries whose values cannot be written are left out.
    pub(crate) skips: bool,
    /// What an option or a mark is called, to say so.
    pub(crate) object: &'static str,
}

/// Why writing has failed, and the keys that lead there, the innermost first.
struct Trail {
    what: String,
    keys: Vec<Slot>,
}

/// What is written, and how far that has got.
pub(crate) struct Source<'a> {
    lua: Stack<'a>,
    rules: &'a WriteRules,
    buffers: Option<NonNull<c_void>>,
    marks: Cell<Option<[u64; 4]>>,
    /// The tables that are being written, each in the one before.
    levels: RefCell<Vec<*const Table>>,
    fault: RefCell<Option<Trail>>,
    /// Bytes that there were not to be had.
    shortage: Cell<usize>,
    left: Cell<u32>,
}

/// A value in it. It lives as long as the one that is written, which is on the stack.
#[derive(Clone, Copy)]
pub(crate) struct Node<'s, 'a>(Slot, &'s Source<'a>);

/// A key of it, which is text.
struct Key<'s, 'a>(Slot, &'s Source<'a>);

struct Text<'s>(&'s str);

impl<'a> Source<'a> {
    pub(crate) fn new(lua: Stack<'a>, rules: &'a WriteRules) -> Source<'a> {
        let buffers = lua.account().buffer_metatable();
        Source {
            lua,
            rules,
            buffers,
            marks: Cell::new(None),
            levels: RefCell::default(),
            fault: RefCell::default(),
            shortage: Cell::new(0),
            left: Cell::new(0),
        }
    }

    /// The value on top of the stack, which is to stay there while it is written. Nothing may run
    /// in the VM meanwhile.
    pub(crate) fn top(&self) -> Node<'_, 'a> {
        self.levels.borrow_mut().clear();
        // SAFETY: a running state with a value on top.
        Node(slots::top(self.lua), self)
    }

    /// Why writing failed, if that was not for the writer's reasons, and where, as one would index
    /// it.
    pub(crate) fn take_fault(&self) -> Option<Fault> {
        let trail = self.fault.take()?;
        let mut place = String::new();
        trail.keys.iter().rev().for_each(|key| push_key(&mut place, *key));
        let place = if place.is_empty() { "value" } else { &place };
        Some(Fault(format!("{place} {}", trail.what)))
    }

    /// Why it failed, if memory ran out.
    pub(crate) fn take_shortage(&self) -> Option<Failure> {
        Some(self.shortage.take()).filter(|bytes| *bytes > 0).map(Failure::Memory)
    }

    #[cold]
    fn fail<E: Error>(&self, what: &str) -> E {
        self.fault.replace(Some(Trail { what: what.to_owned(), keys: Vec::new() }));
        E::custom("")
    }

    /// Hands an error on, which is in what this key has.
    #[cold]
    fn behind<E: Error>(&self, key: Slot, error: E) -> E {
        if let Some(trail) = &mut *self.fault.borrow_mut() {
            trail.keys.push(key);
        }
        error
    }

    /// The same of an error in this key itself.
    #[cold]
    fn behind_key<E: Error>(&self, key: Slot, error: E) -> E {
        if let Some(trail) = &mut *self.fault.borrow_mut() {
            trail.what = trail.what.replacen("is", "has a key that is", 1);
        }
        self.behind(key, error)
    }

    fn mark(&self, metatable: u64) -> Option<Mark> {
        let known = self.marks.get().unwrap_or_else(|| marks::addresses(self.lua));
        self.marks.set(Some(known));
        marks::find(known, metatable)
    }

    #[inline]
    fn text<S: Serializer>(&self, text: &[u8], to: S) -> Result<S::Ok, S::Error> {
        // Whether it is UTF-8 is what the writer looks at.
        match self.rules.is_lossy {
            false => to.serialize_bytes(text).map_err(|error| self.refused(text, error)),
            true => to.collect_str(&Lossy(text)),
        }
    }

    /// Says what is wrong with a text, if it is not the writer that has failed.
    #[cold]
    fn refused<E: Error>(&self, text: &[u8], error: E) -> E {
        let Err(wrong) = std::str::from_utf8(text) else { return error };
        if self.rules.has_bytes {
            return error;
        }
        let (at, byte) = (wrong.valid_up_to(), text[wrong.valid_up_to()]);
        self.fail(&format!(
            "is not valid UTF-8 (byte {} is 0x{byte:02x}); encode binary data first, or see \
             invalid_utf8",
            at + 1
        ))
    }

    #[inline]
    fn number<S: Serializer>(&self, number: f64, to: S) -> Result<S::Ok, S::Error> {
        let whole = number as i64;
        if whole as f64 == number && number.abs() <= EXACT_MAX {
            if whole == 0 && number.is_sign_negative() {
                return to.serialize_f64(number);
            }
            return to.serialize_i64(whole);
        }
        if number.is_finite() || self.rules.has_infinity {
            return to.serialize_f64(number);
        }
        if self.rules.nulls_infinity {
            return to.serialize_unit();
        }
        let what = if number.is_nan() { "not a number (NaN)" } else { "infinite" };
        Err(self.fail(&format!("is {what}, which the format has no way to write")))
    }

    fn table<S: Serializer>(&self, table: *const Table, to: S) -> Result<S::Ok, S::Error> {
        self.enter(table)?;
        // SAFETY: it is reached from the value on the stack, and nothing runs in the VM.
        let table = unsafe { &*table };
        let mark = if table.metatable == 0 { None } else { self.mark(table.metatable) };
        if mark == Some(Mark::Extension) && self.rules.has_bytes {
            return self.extension(table, to);
        }
        let plain = if mark.is_none() { table.plain_shape() } else { None };
        let written = match plain.map_or_else(|| shape(table, mark, self.rules), Ok) {
            Ok(Shape::List(count)) => self.list(table, count, to)?,
            Ok(Shape::Map(count)) => self.map(table, count, to)?,
            Ok(Shape::Mixed(count)) => {
                self.refuse_twins(table)?;
                self.map(table, count, to)?
            }
            Err(why) => return Err(self.fail(&why)),
        };
        self.levels.borrow_mut().pop();
        Ok(written)
    }

    #[inline]
    fn enter<E: Error>(&self, table: *const Table) -> Result<(), E> {
        let mut levels = self.levels.borrow_mut();
        // All of them, so that many are compared at once.
        if levels.iter().fold(false, |is_in, level| is_in | (*level == table)) {
            return Err(self.fail("is a table that contains it (a cycle)"));
        }
        if levels.len() >= self.rules.depth_max as usize {
            let max = self.rules.depth_max;
            return Err(self.fail(&format!("is nested deeper than {max} levels (max_depth)")));
        }
        levels.push(table);
        Ok(())
    }

    /// One more entry.
    #[inline]
    fn tick(&self) {
        let mut left = self.left.get();
        self.lua.tick(&mut left);
        self.left.set(left);
    }

    fn list<S: Serializer>(&self, table: &Table, count: u32, to: S) -> Result<S::Ok, S::Error> {
        let mut list = to.serialize_seq(Some(count as usize))?;
        let mut element = |index: u32, slot: Slot| {
            self.tick();
            if self.is_skipped(slot) {
                return Ok(());
            }
            let written = list.serialize_element(&Node(slot, self));
            written.map_err(|error| self.behind(f64::from(index).to_bits(), error))
        };
        let array = table.array();
        let inside = array.len().min(count as usize + 1).max(1);
        let mut index = 0;
        for slot in array.get(1..inside).unwrap_or_default() {
            index += 1;
            element(index, *slot)?;
        }
        if index < count {
            let mut charged = Charged::new(self.lua);
            let behind = || table.behind(index + 1, count);
            let mut behind = self.sorted(behind, &mut charged)?.into_iter().peekable();
            while index < count {
                index += 1;
                let is_it = |key: Slot| slots::number(key) == Some(f64::from(index));
                let found = behind.next_if(|(key, _)| is_it(*key));
                element(index, found.map_or(NIL, |(_, slot)| slot))?;
            }
        }
        list.end()
    }

    fn map<S: Serializer>(&self, table: &Table, count: u32, to: S) -> Result<S::Ok, S::Error> {
        let mut map = to.serialize_map(Some(count as usize))?;
        if self.rules.is_sorted {
            let mut charged = Charged::new(self.lua);
            for (key, value) in self.sorted(|| table.entries(), &mut charged)? {
                self.entry(key, value, &mut map)?;
            }
            return map.end();
        }
        for (index, slot) in table.array().iter().enumerate() {
            if *slot != NIL {
                self.entry((index as f64).to_bits(), *slot, &mut map)?;
            }
        }
        for node in table.hash() {
            if node.value != NIL {
                self.entry(node.key, node.value, &mut map)?;
            }
        }
        map.end()
    }

    /// Fails if a number and a text are the same key once they are written.
    #[cold]
    fn refuse_twins<E: Error>(&self, table: &Table) -> Result<(), E> {
        let mut charged = Charged::new(self.lua);
        let all = self.sorted(|| table.entries(), &mut charged)?;
        let count = all.partition_point(|(key, _)| slots::number(*key).is_some());
        let (numbers, texts) = all.split_at(count);
        find_twin(numbers, texts).map_or(Ok(()), |twin| {
            let twin = number_text(twin);
            Err(self.fail(&format!("has the keys {twin} and \"{twin}\", which are one as text")))
        })
    }

    /// Entries in the order of their keys, for whose memory is paid.
    #[cold]
    fn sorted<E: Error, I: Iterator<Item = (Slot, Slot)>>(
        &self,
        entries: impl Fn() -> I,
        charged: &mut Charged<'_>,
    ) -> Result<Vec<(Slot, Slot)>, E> {
        let count = entries().count();
        let bytes = count * size_of::<(Slot, Slot)>();
        let mut all = Vec::new();
        if !charged.may_set(bytes) || all.try_reserve_exact(count).is_err() {
            self.shortage.set(bytes);
            return Err(E::custom(""));
        }
        all.extend(entries());
        let mut left = self.left.get();
        all.sort_unstable_by(|(a, _), (b, _)| {
            self.lua.tick(&mut left);
            compare(*a, *b)
        });
        self.left.set(left);
        Ok(all)
    }

    #[inline]
    fn entry<M: SerializeMap>(&self, key: Slot, value: Slot, map: &mut M) -> Result<(), M::Error> {
        self.tick();
        if self.is_skipped(value) {
            return Ok(());
        }
        if tag(key) == STRING {
            map.serialize_key(&Key(key, self)).map_err(|error| self.behind_key(key, error))?;
        } else if self.rules.keys == Keys::Any {
            let written = map.serialize_key(&Node(key, self));
            written.map_err(|error| self.behind_key(key, error))?;
        } else {
            map.serialize_key(&Text(&number_text(slots::number(key).unwrap_or(f64::NAN))))?;
        }
        map.serialize_value(&Node(value, self)).map_err(|error| self.behind(key, error))
    }

    /// Whether an entry is left out because its value cannot be written.
    #[inline]
    fn is_skipped(&self, value: Slot) -> bool {
        self.rules.skips && self.is_unwritable(value)
    }

    #[cold]
    fn is_unwritable(&self, value: Slot) -> bool {
        match tag(value) {
            FUNCTION | COROUTINE => true,
            CDATA => cdata::integer(value).is_none(),
            LIGHT_USERDATA => self.light(value).is_none(),
            USERDATA => self.buffer(value).is_none(),
            _ => false,
        }
    }

    /// Whether an address stands for a list without elements, or for null; `None` for any other.
    fn light(&self, slot: Slot) -> Option<bool> {
        let is_it = |address: *mut c_void| {
            self.lua.push_address(address);
            // SAFETY: a running state with a value on top.
            let found = slots::top(self.lua);
            self.lua.set_top(-2);
            found == slot
        };
        match is_it(std::ptr::null_mut()) {
            true => Some(false),
            false => is_it(empty_array()).then_some(true),
        }
    }

    /// The bytes of a buffer; an error if it is released.
    fn buffer(&self, slot: Slot) -> Option<Result<&[u8], ()>> {
        // SAFETY: the table that is walked refers to the userdata; nobody changes buffers
        // meanwhile.
        let buffer = unsafe { userdata::buffer_in(slot, self.buffers?) }?;
        Some(if buffer.is_live() { Ok(buffer.as_slice()) } else { Err(()) })
    }

    #[cold]
    fn rare<S: Serializer>(&self, slot: Slot, to: S) -> Result<S::Ok, S::Error> {
        match tag(slot) {
            LIGHT_USERDATA => match self.light(slot) {
                Some(true) => to.serialize_seq(Some(0))?.end(),
                Some(false) => to.serialize_unit(),
                None => Err(self.fail("is a light userdata, which cannot be written")),
            },
            USERDATA => match self.buffer(slot) {
                Some(Ok(bytes)) if self.rules.has_bytes => to.serialize_some(&Bytes(bytes)),
                Some(Ok(bytes)) => self.text(bytes, to),
                Some(Err(())) => Err(self.fail("is a released buffer")),
                None => Err(self.fail("is a userdata; of those only buffers can be written")),
            },
            CDATA => match cdata::integer(slot) {
                Some(Integer::Signed(value)) => to.serialize_i64(value),
                Some(Integer::Unsigned(value)) => to.serialize_u64(value),
                None => Err(self.fail(
                    "is a cdata; of those only 64-bit integers can be written: use tonumber or \
                     tostring",
                )),
            },
            FUNCTION => Err(self.fail("is a function, which cannot be written")),
            COROUTINE => Err(self.fail("is a coroutine, which cannot be written")),
            _ => Err(self.fail("cannot be written")),
        }
    }

    /// A table with fields `type` and `data`, as `msgpack.ext` makes them.
    #[cold]
    fn extension<S: Serializer>(&self, table: &Table, to: S) -> Result<S::Ok, S::Error> {
        let field = |name: &[u8]| {
            let is_it = |key: Slot| {
                // SAFETY: the key of an entry: its table, which is alive, refers to the string.
                tag(key) == STRING && unsafe { layout::text(key) } == name
            };
            table.hash().iter().find(|node| node.value != NIL && is_it(node.key))
        };
        let kind = field(b"type").and_then(|node| slots::number(node.value));
        let kind = kind.filter(|kind| kind.fract() == 0.0 && (-128.0..128.0).contains(kind));
        let data = field(b"data").map(|node| node.value).filter(|value| tag(*value) == STRING);
        let (Some(kind), Some(data)) = (kind, data) else {
            return Err(self.fail(
                "is an extension without a type from -128 to 127, or without data (a string)",
            ));
        };
        self.levels.borrow_mut().pop();
        // SAFETY: a string of a table that is alive.
        let data = Bytes(unsafe { layout::text(data) });
        to.serialize_newtype_variant("extension", kind as i8 as u32, "bytes", &data)
    }
}

/// Bytes that are no text.
struct Bytes<'s>(&'s [u8]);

/// Bytes with U+FFFD for what is no text, which take no memory.
struct Lossy<'s>(&'s [u8]);

impl fmt::Display for Lossy<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for chunk in self.0.utf8_chunks() {
            f.write_str(chunk.valid())?;
            if !chunk.invalid().is_empty() {
                f.write_str("\u{fffd}")?;
            }
        }
        Ok(())
    }
}

impl Serialize for Bytes<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_bytes(self.0)
    }
}

impl Serialize for Text<'_> {
    #[inline]
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(self.0)
    }
}

impl Serialize for Key<'_, '_> {
    #[inline]
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        // SAFETY: the key of an entry: its table, which is alive, refers to the string.
        self.1.text(unsafe { layout::text(self.0) }, to)
    }
}

impl Serialize for Node<'_, '_> {
    #[inline]
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let Node(slot, source) = *self;
        match tag(slot) {
            // SAFETY: what the value on the stack leads to is alive, and nothing runs in the VM.
            STRING => source.text(unsafe { layout::text(slot) }, to),
            TABLE => source.table((slot & POINTER) as *const Table, to),
            TRUE => to.serialize_bool(true),
            FALSE => to.serialize_bool(false),
            USERDATA..0 => match slot {
                NIL => to.serialize_unit(),
                _ => source.rare(slot, to),
            },
            _ => source.number(slots::number(slot).unwrap_or(f64::NAN), to),
        }
    }
}

/// The address that stands for a list without elements.
pub(crate) fn empty_array() -> *mut c_void {
    static EMPTY: u8 = 0;
    (&raw const EMPTY).cast_mut().cast()
}

pub(super) fn number_text(number: f64) -> String {
    match number.fract() == 0.0 && number.abs() <= EXACT_MAX {
        true => format!("{}", number as i64),
        false => format!("{number}"),
    }
}

/// Adds a key as one would write it behind what it is in.
fn push_key(place: &mut String, key: Slot) {
    // Writing to a string cannot fail.
    let _ = match tag(key) {
        STRING => {
            // SAFETY: the key of an entry: its table, which is alive, refers to the string.
            let text = unsafe { layout::text(key) };
            let is_word = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_';
            let is_name =
                text.iter().all(is_word) && text.first().is_some_and(|b| !b.is_ascii_digit());
            let shown = String::from_utf8_lossy(&text[..text.len().min(60)]);
            let shown = shown.escape_debug();
            if is_name { write!(place, ".{shown}") } else { write!(place, "[\"{shown}\"]") }
        }
        TRUE => write!(place, "[true]"),
        FALSE => write!(place, "[false]"),
        _ => write!(place, "[{}]", number_text(slots::number(key).unwrap_or(f64::NAN))),
    };
}
