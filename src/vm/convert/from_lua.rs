//! From the VM into a message.

use std::ffi::c_int;
use std::fmt;
use std::marker::PhantomData;

use mlua::ffi::{self, lua_State};

use super::int64::{Integer, to_integer};
use super::{Buffers, Content, LEVELS_PER_CLAIM, Released, STACK_SLOTS, plain};
use crate::buf::Piece;
use crate::message::encode::{DEPTH_MAX, TABLE_BYTES_MAX};
use crate::message::{Encoded, PIECE_BYTES, Seen, Text, TooLarge, Value, Writer};

/// Working memory kept from one message to the next.
const SCRATCH_BYTES_KEPT: usize = 64 * 1024;

/// Working memory of [`to_value`], reused from call to call.
#[derive(Debug)]
pub struct Scratch {
    bytes: Vec<u8>,
    buffers: Vec<Piece>,
    tables: Seen,
    bytes_max: usize,
}

impl Default for Scratch {
    fn default() -> Scratch {
        Scratch::new(TABLE_BYTES_MAX)
    }
}

impl Scratch {
    /// Memory for tables that take at most `bytes_max` in wire form.
    pub fn new(bytes_max: usize) -> Scratch {
        Scratch { bytes: Vec::new(), buffers: Vec::new(), tables: Seen::default(), bytes_max }
    }

    /// From now on tables may take at most so many bytes, or what they may anyway if that is less.
    #[inline]
    pub fn set_max(&mut self, bytes: usize) {
        self.bytes_max = bytes.min(TABLE_BYTES_MAX);
    }
}

/// Why a value cannot travel.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Unsupported {
    /// Not a type that travels.
    Type {
        /// What it is, for people.
        what: &'static str,
        /// Where it is, as one would index what is sent: `value.handlers[3]`.
        path: String,
    },
    /// Seen within tables beyond [`DEPTH_MAX`].
    Depth,
    /// More bytes than the scratch memory allows.
    TooLarge(TooLarge),
    /// The Lua stack cannot hold another level.
    Stack,
}

impl fmt::Display for Unsupported {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "transfer data type not supported: ")?;
        match self {
            Unsupported::Type { what, path } => {
                let verb = match *what {
                    "userdata" | "cdata" | "no value" => "is",
                    _ if what.ends_with("as a key") => "has a",
                    _ => "is a",
                };
                write!(f, "{path} {verb} {what}; {}", remedy(what))
            }
            Unsupported::Depth => write!(f, "table nested deeper than {DEPTH_MAX} levels"),
            Unsupported::TooLarge(error) => write!(f, "{error}"),
            Unsupported::Stack => write!(f, "no Lua stack left for nested table"),
        }
    }
}

impl std::error::Error for Unsupported {}

/// What may be sent in place of something that does not travel.
fn remedy(what: &str) -> &'static str {
    match what {
        "function" => {
            "functions stay in their context: send the name of one that the receiver has, or what \
             it is to work on"
        }
        "coroutine" => "coroutines stay in their context: send what it is to work on",
        "userdata" => "only buffers travel: send what it holds; of a socket, what tcp.fd returns",
        "cdata" => "of cdata only 64-bit integers travel: send a number, string or buffer",
        "released buffer" => "it holds nothing any more",
        _ if what.ends_with("as a key") => "keys are strings, numbers and booleans",
        _ => {
            "a message is nil, a boolean, number, string, 64-bit integer, buffer, or a table of \
             these"
        }
    }
}

/// A key that is text, as one would write it behind what it is in.
fn text_key(key: &[u8]) -> String {
    let is_word = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_';
    let is_name = key.iter().all(is_word) && key.first().is_some_and(|b| !b.is_ascii_digit());
    let text = key.escape_ascii();
    if is_name { format!(".{text}") } else { format!("[\"{text}\"]") }
}

/// Takes the value at `index` out of the VM; a copy, except for what buffers hold. The stack stays
/// as it is.
///
/// # Errors
/// The value, or one within it, is of a type that does not travel, or it is too deep or too large.
///
/// # Safety
/// `state` must be live, on its own thread, and have [`STACK_SLOTS`] free; `index` must be valid.
/// May unwind as Lua does, if a hook raises while a cdata is looked at.
#[inline]
pub unsafe fn to_value<B: Buffers>(
    state: *mut lua_State,
    index: c_int,
    scratch: &mut Scratch,
) -> Result<Value, Unsupported> {
    // SAFETY: the caller's contract holds for all calls here.
    unsafe {
        let kind = ffi::lua_type(state, index);
        match to_small_value(state, index, kind) {
            Some(value) => Ok(value),
            None => to_large_value::<B>(state, index, kind, scratch),
        }
    }
}

/// Takes the value at `index`, of this type, out of the VM if it fits a [`Value`] as it is.
///
/// # Safety
/// As for [`to_value`].
#[inline(always)]
pub unsafe fn to_small_value(state: *mut lua_State, index: c_int, kind: c_int) -> Option<Value> {
    // SAFETY: the caller's contract; each call fits the type.
    unsafe {
        Some(match kind {
            ffi::LUA_TNIL => Value::Nil,
            ffi::LUA_TBOOLEAN => Value::Bool(ffi::lua_toboolean(state, index) != 0),
            ffi::LUA_TNUMBER => Value::Number(ffi::lua_tonumber(state, index)),
            ffi::LUA_TSTRING => Value::String(Text::inline(string(state, index))?),
            ffi::LUA_TLIGHTUSERDATA => {
                Value::LightUserdata(ffi::lua_touserdata(state, index) as usize)
            }
            _ => return None,
        })
    }
}

/// Takes the value at `index`, of this type, out of the VM.
///
/// # Errors
/// Those of [`to_value`]; what [`to_small_value`] takes is none that travels.
///
/// # Safety
/// As for [`to_value`].
pub unsafe fn to_large_value<B: Buffers>(
    state: *mut lua_State,
    index: c_int,
    kind: c_int,
    scratch: &mut Scratch,
) -> Result<Value, Unsupported> {
    if kind == ffi::LUA_TSTRING {
        // SAFETY: a string is there.
        return Ok(Value::String(Text::new(unsafe { string(state, index) })));
    }
    // SAFETY: the caller has STACK_SLOTS free. A copy on top makes the index simple.
    unsafe { ffi::lua_pushvalue(state, index) };
    let result = match kind {
        // SAFETY: a table is on top.
        ffi::LUA_TTABLE => unsafe { table_to_value::<B>(state, scratch) },
        // SAFETY: a value of this type is on top.
        _ => unsafe { rare::<B>(state, kind) }
            .map(|rare| match rare {
                Rare::Integer(Integer::Signed(value)) => Value::Int64(value),
                Rare::Integer(Integer::Unsigned(value)) => Value::UInt64(value),
                Rare::Buffer(content) => content.into_value(),
            })
            .map_err(|what| Unsupported::Type { what, path: "value".to_owned() }),
    };
    // SAFETY: removes the copy.
    unsafe { ffi::lua_pop(state, 1) };
    result
}

unsafe fn table_to_value<B: Buffers>(
    state: *mut lua_State,
    scratch: &mut Scratch,
) -> Result<Value, Unsupported> {
    let Scratch { bytes, buffers, tables, bytes_max } = scratch;
    let bytes_max = *bytes_max;
    // An encoding that failed or unwound may have left some.
    buffers.clear();
    // SAFETY: a table is on top, and nothing runs in its VM until this returns.
    let is_plain = unsafe { plain::write(state, Writer::new(bytes, bytes_max), tables) };
    let result = if is_plain {
        Ok(())
    } else {
        tables.clear();
        let writer = Writer::new(bytes, bytes_max);
        let mut encoder: Encoder<'_, B> =
            Encoder { state, writer, buffers, tables, depth: 0, kind: PhantomData };
        // SAFETY: a table is on top, and the caller has STACK_SLOTS free.
        unsafe { encoder.table() }
    };
    let value = match result {
        // Twice as much memory is not used for what is large.
        Ok(()) if bytes.len() > SCRATCH_BYTES_KEPT => {
            let bytes = std::mem::take(bytes);
            Ok(Value::Table(Encoded::from_vec(bytes, std::mem::take(buffers))))
        }
        Ok(()) => Ok(Value::Table(Encoded::new(bytes, std::mem::take(buffers)))),
        Err(failure) => {
            buffers.clear();
            Err(failure.into_unsupported())
        }
    };
    if bytes.capacity() > SCRATCH_BYTES_KEPT {
        bytes.clear();
        bytes.shrink_to(SCRATCH_BYTES_KEPT);
    }
    value
}

/// Why an encoding ended early. Boxed where it is returned, to keep the way of success small.
enum Failure {
    /// A value of a type that does not travel, with the keys that lead to it, innermost first.
    Type(&'static str, Vec<String>),
    Whole(Unsupported),
}

impl Failure {
    fn into_unsupported(self) -> Unsupported {
        match self {
            Failure::Whole(unsupported) => unsupported,
            Failure::Type(what, keys) => {
                let path = std::iter::once("value".to_owned()).chain(keys.into_iter().rev());
                Unsupported::Type { what, path: path.collect() }
            }
        }
    }
}

impl From<TooLarge> for Box<Failure> {
    #[cold]
    fn from(error: TooLarge) -> Box<Failure> {
        Box::new(Failure::Whole(Unsupported::TooLarge(error)))
    }
}

struct Encoder<'a, B> {
    state: *mut lua_State,
    writer: Writer<'a>,
    buffers: &'a mut Vec<Piece>,
    tables: &'a mut Seen,
    depth: u32,
    kind: PhantomData<B>,
}

impl<B: Buffers> Encoder<'_, B> {
    /// Writes the table on top of the stack, which stays there.
    ///
    /// # Safety
    /// A table must be on top, and [`STACK_SLOTS`] free but for what outer levels use.
    unsafe fn table(&mut self) -> Result<(), Box<Failure>> {
        let state = self.state;
        // SAFETY: any value has a pointer or null; a table's is its own.
        let identity = unsafe { ffi::lua_topointer(state, -1) };
        if let Some(number) = self.tables.find_or_add(identity as usize) {
            return Ok(self.writer.same_table(number)?);
        }
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err(Box::new(Failure::Whole(Unsupported::Depth)));
        }
        if self.depth.is_multiple_of(LEVELS_PER_CLAIM) {
            // SAFETY: reports failure without unwinding.
            let claimed = unsafe { ffi::lua_checkstack(state, STACK_SLOTS) };
            if claimed == 0 {
                return Err(Box::new(Failure::Whole(Unsupported::Stack)));
            }
        }
        let open = self.writer.open_table()?;
        let (mut positional, mut pairs) = (0, 0);
        // SAFETY: a table is on top.
        let length = unsafe { ffi::lua_objlen(state, -1) };
        // SAFETY: a slot for the key is free, by the claims above.
        unsafe { ffi::lua_pushnil(state) };
        // SAFETY: the table is below the key; the key came from lua_next, and nobody has changed
        // the table since.
        while unsafe { ffi::lua_next(state, -2) } != 0 {
            // SAFETY: key and value are on top.
            match unsafe { self.entry(&mut positional, length) } {
                Ok(is_pair) => pairs += u32::from(is_pair),
                Err(failure) => {
                    // SAFETY: as above; entries leave the stack as it was, failed ones too.
                    return Err(unsafe { self.locate(failure) });
                }
            }
            // SAFETY: removes the value and keeps the key for lua_next.
            unsafe { ffi::lua_pop(state, 1) };
        }
        self.writer.close_table(open, positional, pairs);
        self.depth -= 1;
        Ok(())
    }

    /// Writes the entry whose key and value are on top. True if it needed its key written.
    #[inline]
    unsafe fn entry(&mut self, positional: &mut u32, length: usize) -> Result<bool, Box<Failure>> {
        let state = self.state;
        // SAFETY: the caller's contract, for all calls here; each fits the type found. A string key
        // is not converted, so lua_next still knows it.
        unsafe {
            match ffi::lua_type(state, -2) {
                ffi::LUA_TSTRING => {
                    self.writer.string_key(string(state, -2))?;
                    self.value().map(|()| true)
                }
                ffi::LUA_TNUMBER => {
                    let key = ffi::lua_tonumber(state, -2);
                    let fillable = key <= length as f64;
                    let is_pair = self.writer.number_or_position(key, positional, fillable)?;
                    self.value().map(|()| is_pair)
                }
                ffi::LUA_TBOOLEAN => {
                    self.writer.bool_key(ffi::lua_toboolean(state, -2) != 0)?;
                    self.value().map(|()| true)
                }
                kind => Err(Box::new(Failure::Type(key_name(kind), Vec::new()))),
            }
        }
    }

    /// Writes the value on top.
    #[inline]
    unsafe fn value(&mut self) -> Result<(), Box<Failure>> {
        let state = self.state;
        // SAFETY: the caller's contract, for all calls here; each fits the type found.
        unsafe {
            match ffi::lua_type(state, -1) {
                ffi::LUA_TBOOLEAN => self.writer.bool(ffi::lua_toboolean(state, -1) != 0)?,
                ffi::LUA_TNUMBER => self.writer.number(ffi::lua_tonumber(state, -1))?,
                ffi::LUA_TSTRING => self.writer.string(string(state, -1))?,
                ffi::LUA_TTABLE => self.table()?,
                ffi::LUA_TLIGHTUSERDATA => {
                    self.writer.light_userdata(ffi::lua_touserdata(state, -1) as usize)?;
                }
                kind => match rare::<B>(state, kind) {
                    Ok(Rare::Integer(Integer::Signed(value))) => self.writer.int64(value)?,
                    Ok(Rare::Integer(Integer::Unsigned(value))) => self.writer.uint64(value)?,
                    Ok(Rare::Buffer(content)) => {
                        let copied = match &content {
                            Content::Small(bytes) => bytes.len(),
                            Content::Shared(_) => 0,
                        };
                        self.writer.set_apart(copied + PIECE_BYTES)?;
                        self.writer.buffer(self.buffers.len() as u32)?;
                        self.buffers.push(content.into_piece());
                    }
                    Err(what) => return Err(Box::new(Failure::Type(what, Vec::new()))),
                },
            }
        }
        Ok(())
    }

    /// Adds the key on the stack to the way to a value that failed, and removes key and value.
    #[cold]
    unsafe fn locate(&mut self, mut failure: Box<Failure>) -> Box<Failure> {
        let state = self.state;
        if let Failure::Type(_, keys) = &mut *failure {
            // SAFETY: a key is below the value on top; it is read as what it is.
            keys.push(unsafe {
                match ffi::lua_type(state, -2) {
                    ffi::LUA_TSTRING => text_key(string(state, -2)),
                    ffi::LUA_TNUMBER => format!("[{}]", ffi::lua_tonumber(state, -2)),
                    ffi::LUA_TBOOLEAN => format!("[{}]", ffi::lua_toboolean(state, -2) != 0),
                    // The key itself is what does not travel.
                    _ => String::new(),
                }
            });
        }
        // SAFETY: key and value are on top.
        unsafe { ffi::lua_pop(state, 2) };
        failure
    }
}

/// The bytes of the string at `index`, for as long as it stays on the stack.
///
/// # Safety
/// There must be a string at `index`, and the bytes must not be used after it may be collected.
#[inline]
unsafe fn string<'a>(state: *mut lua_State, index: c_int) -> &'a [u8] {
    let mut len = 0;
    // SAFETY: the caller's contract: no conversion happens, so nothing is allocated.
    let start = unsafe { ffi::lua_tolstring(state, index, &mut len) };
    // SAFETY: Lua strings do not move, and live while they are on the stack.
    unsafe { std::slice::from_raw_parts(start.cast(), len) }
}

/// Values that are not looked for until nothing else fits.
enum Rare {
    Integer(Integer),
    Buffer(Content),
}

#[cold]
unsafe fn rare<B: Buffers>(state: *mut lua_State, kind: c_int) -> Result<Rare, &'static str> {
    match kind {
        // SAFETY: a userdata is on top.
        ffi::LUA_TUSERDATA => match unsafe { B::share(state, -1) } {
            Ok(Some(content)) => Ok(Rare::Buffer(content)),
            Ok(None) => Err("userdata"),
            Err(Released) => Err("released buffer"),
        },
        // SAFETY: a cdata is on top.
        ffi::LUA_TCDATA => unsafe { to_integer(state) }.map(Rare::Integer).ok_or("cdata"),
        ffi::LUA_TFUNCTION => Err("function"),
        ffi::LUA_TTHREAD => Err("coroutine"),
        ffi::LUA_TNONE => Err("no value"),
        _ => Err("value of unknown type"),
    }
}

fn key_name(kind: c_int) -> &'static str {
    match kind {
        ffi::LUA_TTABLE => "table as a key",
        ffi::LUA_TFUNCTION => "function as a key",
        ffi::LUA_TTHREAD => "coroutine as a key",
        ffi::LUA_TCDATA => "cdata as a key",
        _ => "userdata as a key",
    }
}
