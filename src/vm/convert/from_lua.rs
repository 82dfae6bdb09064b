//! From the VM into a message.

use std::ffi::c_int;
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use mlua::ffi;

use super::super::int64::{Integer, to_integer};
use super::super::stack::Stack;
use super::{Buffers, Content, LEVELS_PER_CLAIM, Released, STACK_SLOTS, plain};
use crate::buf::Piece;
use crate::message::encode::{DEPTH_MAX, TABLE_BYTES_MAX};
use crate::message::{
    Allowance, Encoded, Making, PIECE_BYTES, Seen, Text, TooLarge, Value, Writer,
};

/// Working memory kept from one message to the next.
const SCRATCH_BYTES_KEPT: usize = 64 * 1024;

/// Working memory of [`to_value`], reused from call to call.
#[derive(Debug)]
pub struct Scratch {
    bytes: Vec<u8>,
    buffers: Vec<Piece>,
    tables: Seen,
    bytes_max: usize,
    making: Making,
}

impl Default for Scratch {
    fn default() -> Scratch {
        Scratch::new(TABLE_BYTES_MAX)
    }
}

impl Scratch {
    /// Memory for tables that take at most `bytes_max` bytes in wire form.
    pub fn new(bytes_max: usize) -> Scratch {
        let (bytes, buffers, tables) = (Vec::new(), Vec::new(), Seen::default());
        Scratch { bytes, buffers, tables, bytes_max, making: Making::default() }
    }

    /// Gives up what an error has left, and memory that is much.
    #[cold]
    fn clear(&mut self) {
        self.buffers.clear();
        drop(self.making.finish());
        if self.bytes.capacity() > SCRATCH_BYTES_KEPT {
            self.bytes = Vec::new();
            self.tables.clear();
        }
    }

    /// The next table takes at most `bytes_max` bytes in wire form, which are of this allowance, if
    /// there is one.
    #[inline]
    pub fn limit(&mut self, bytes_max: usize, allowance: Option<Arc<Allowance>>) {
        self.bytes_max = bytes_max;
        self.making.set_allowance(allowance);
    }
}

/// The memory while it is used. What is much goes afterwards, also if an error ends the writing.
struct InUse<'a>(&'a mut Scratch);

impl Drop for InUse<'_> {
    #[inline]
    fn drop(&mut self) {
        let Scratch { bytes, buffers, making, .. } = &*self.0;
        let is_much = bytes.capacity() > SCRATCH_BYTES_KEPT;
        if is_much || !buffers.is_empty() || making.is_in_use() {
            self.0.clear();
        }
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
#[inline]
pub fn to_value<B: Buffers>(
    lua: Stack<'_>,
    index: c_int,
    scratch: &mut Scratch,
) -> Result<Value, Unsupported> {
    let kind = lua.kind(index);
    match to_small_value(lua, index, kind) {
        Some(value) => Ok(value),
        None => to_large_value::<B>(lua, index, kind, scratch),
    }
}

/// Takes the value at `index`, of this type, out of the VM if it fits a [`Value`] as it is.
#[inline(always)]
pub fn to_small_value(lua: Stack<'_>, index: c_int, kind: c_int) -> Option<Value> {
    Some(match kind {
        ffi::LUA_TNIL => Value::Nil,
        ffi::LUA_TBOOLEAN => Value::Bool(lua.boolean(index)),
        ffi::LUA_TNUMBER => Value::Number(lua.number(index)),
        ffi::LUA_TSTRING => Value::String(Text::inline(string(lua, index))?),
        ffi::LUA_TLIGHTUSERDATA => Value::LightUserdata(lua.light(index)),
        _ => return None,
    })
}

/// Takes the value at `index`, of this type, out of the VM.
///
/// # Errors
/// Those of [`to_value`]; what [`to_small_value`] takes is none that travels.
pub fn to_large_value<B: Buffers>(
    lua: Stack<'_>,
    index: c_int,
    kind: c_int,
    scratch: &mut Scratch,
) -> Result<Value, Unsupported> {
    if kind == ffi::LUA_TSTRING {
        return Ok(Value::String(Text::new(string(lua, index))));
    }
    lua.push_copy(index);
    let result = match kind {
        ffi::LUA_TTABLE => table_to_value::<B>(lua, scratch),
        _ => rare::<B>(lua, kind)
            .map(|rare| match rare {
                Rare::Integer(Integer::Signed(value)) => Value::Int64(value),
                Rare::Integer(Integer::Unsigned(value)) => Value::UInt64(value),
                Rare::Buffer(content) => content.into_value(),
            })
            .map_err(|what| Unsupported::Type { what, path: "value".to_owned() }),
    };
    lua.pop();
    result
}

fn table_to_value<B: Buffers>(lua: Stack<'_>, scratch: &mut Scratch) -> Result<Value, Unsupported> {
    let in_use = InUse(scratch);
    let Scratch { bytes, buffers, tables, bytes_max, making } = &mut *in_use.0;
    let bytes_max = *bytes_max;
    let is_plain = plain::write(lua, Writer::counted(bytes, bytes_max, making), tables);
    if !is_plain {
        tables.clear();
        let writer = Writer::counted(bytes, bytes_max, making);
        let (depth, left, kind) = (0, 0, PhantomData);
        let mut encoder: Encoder<'_, B> =
            Encoder { lua, writer, buffers, tables, depth, left, kind };
        encoder.table().map_err(|failure| failure.into_unsupported())?;
    }
    let buffers = std::mem::take(buffers);
    // Twice as much memory is not used for what is large.
    let encoded = if bytes.len() > SCRATCH_BYTES_KEPT {
        Encoded::from_vec(std::mem::take(bytes), buffers)
    } else {
        Encoded::new(bytes, buffers)
    };
    let value = Value::Table(encoded);
    Ok(match making.is_in_use().then(|| making.finish()).flatten() {
        Some(held) => value.counted(held),
        None => value,
    })
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
    lua: Stack<'a>,
    writer: Writer<'a>,
    buffers: &'a mut Vec<Piece>,
    tables: &'a mut Seen,
    depth: u32,
    /// Entries until the context is looked at.
    left: u32,
    kind: PhantomData<B>,
}

impl<B: Buffers> Encoder<'_, B> {
    /// Writes the table on top of the stack, which stays there.
    fn table(&mut self) -> Result<(), Box<Failure>> {
        let lua = self.lua;
        let identity = lua.address(-1);
        if let Some(bytes) = self.tables.grows_by() {
            self.writer.use_elsewhere(bytes)?;
        }
        if let Some(number) = self.tables.find_or_add(identity as usize) {
            return Ok(self.writer.same_table(number)?);
        }
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err(Box::new(Failure::Whole(Unsupported::Depth)));
        }
        if self.depth.is_multiple_of(LEVELS_PER_CLAIM) && !lua.has_room(STACK_SLOTS) {
            return Err(Box::new(Failure::Whole(Unsupported::Stack)));
        }
        let open = self.writer.open_table()?;
        let (mut positional, mut pairs) = (0, 0);
        let length = lua.length(-1);
        let mut place = 0;
        while lua.push_entry(-1, &mut place) {
            lua.tick(&mut self.left);
            match self.entry(&mut positional, length) {
                Ok(is_pair) => pairs += u32::from(is_pair),
                Err(failure) => {
                    return Err(self.locate(failure));
                }
            }
            lua.set_top(-3);
        }
        self.writer.close_table(open, positional, pairs);
        self.depth -= 1;
        Ok(())
    }

    /// Writes the entry whose key and value are on top. True if it needed its key written.
    #[inline]
    fn entry(&mut self, positional: &mut u32, length: usize) -> Result<bool, Box<Failure>> {
        let lua = self.lua;
        match lua.kind(-2) {
            ffi::LUA_TSTRING => {
                self.writer.string_key(string(lua, -2))?;
                self.value().map(|()| true)
            }
            ffi::LUA_TNUMBER => {
                let key = lua.number(-2);
                let fillable = key <= length as f64;
                let is_pair = self.writer.number_or_position(key, positional, fillable)?;
                self.value().map(|()| is_pair)
            }
            ffi::LUA_TBOOLEAN => {
                self.writer.bool_key(lua.boolean(-2))?;
                self.value().map(|()| true)
            }
            kind => Err(Box::new(Failure::Type(key_name(kind), Vec::new()))),
        }
    }

    /// Writes the value on top.
    #[inline]
    fn value(&mut self) -> Result<(), Box<Failure>> {
        let lua = self.lua;
        match lua.kind(-1) {
            ffi::LUA_TBOOLEAN => self.writer.bool(lua.boolean(-1))?,
            ffi::LUA_TNUMBER => self.writer.number(lua.number(-1))?,
            ffi::LUA_TSTRING => self.writer.string(string(lua, -1))?,
            ffi::LUA_TTABLE => self.table()?,
            ffi::LUA_TLIGHTUSERDATA => {
                self.writer.light_userdata(lua.light(-1))?;
            }
            kind => match rare::<B>(lua, kind) {
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
        Ok(())
    }

    /// Adds the key on the stack to the way to a value that failed, and removes key and value.
    #[cold]
    fn locate(&mut self, mut failure: Box<Failure>) -> Box<Failure> {
        let lua = self.lua;
        if let Failure::Type(_, keys) = &mut *failure {
            keys.push(match lua.kind(-2) {
                ffi::LUA_TSTRING => text_key(string(lua, -2)),
                ffi::LUA_TNUMBER => format!("[{}]", lua.number(-2)),
                ffi::LUA_TBOOLEAN => format!("[{}]", lua.boolean(-2)),
                // The key itself is what does not travel.
                _ => String::new(),
            });
        }
        lua.set_top(-3);
        failure
    }
}

/// The bytes of the string at `index`, for as long as it stays on the stack.
#[inline]
fn string(lua: Stack<'_>, index: c_int) -> &[u8] {
    lua.text(index).unwrap_or_default()
}

/// Values that are not looked for until nothing else fits.
enum Rare {
    Integer(Integer),
    Buffer(Content),
}

#[cold]
fn rare<B: Buffers>(lua: Stack<'_>, kind: c_int) -> Result<Rare, &'static str> {
    match kind {
        ffi::LUA_TUSERDATA => match B::share(lua, -1) {
            Ok(Some(content)) => Ok(Rare::Buffer(content)),
            Ok(None) => Err("userdata"),
            Err(Released) => Err("released buffer"),
        },
        ffi::LUA_TCDATA => to_integer(lua).map(Rare::Integer).ok_or("cdata"),
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
