//! `pack`, `unpack` and `packsize`: binary structures by the formats of Lua 5.3's `string.pack`.
//!
//! `pack` walks the format twice: first it checks every value and adds up the size, then it writes
//! into room reserved at once. So nothing is written if a value is wrong. Integers that a number
//! cannot hold exactly are `int64_t` and `uint64_t` cdata.
//!
//! Only the first walk calls into the VM, which may run finalisers, and these may change the
//! buffer: it leaves numbers and strings in the place of the values, for the second to read.

use std::ffi::c_int;

use byteorder::{BigEndian, ByteOrder, LittleEndian};
use mlua::ffi;

use super::format::{FormatError, Item, Options, Step};
use super::methods::push_content;
use super::userdata::{Fault, push_empty, reserve};
use crate::buf::{NlBuffer, ROOM_DEFAULT, SIZE_MAX};
use crate::vm::int64::{Integer, integer_at};
use crate::vm::stack::{Results, Stack};

/// Integers up to here are exact as Lua numbers.
const EXACT_MAX: u128 = 1 << 53;

/// No format that anybody needs has more bytes: each is looked at in a call that nothing ends.
const FORMAT_BYTES_MAX: usize = 1 << 16;

/// An integer as given: its value, whatever its type was.
type Wide = i128;
/// Bytes of an integer that the first walk leaves as a string, least significant first.
const WIDE_BYTES: usize = size_of::<Wide>();

/// `pack(format, ...)`: a new buffer; `pack(buffer, format, ...)`: appends, and returns the buffer
pub(super) fn pack(lua: Stack<'_>) -> Result<c_int, Fault> {
    let first = if lua.kind(1) == ffi::LUA_TUSERDATA { 2 } else { 1 };
    if first == 2 && !lua.check_buffer(1).is_live() {
        return Err(Fault::Released);
    }
    let format = format_at(lua, first);
    let size = measure(lua, first, format);
    let target = if first == 2 {
        reserve(lua, 1, size)?;
        lua.push_copy(1);
        lua.check_buffer(1)
    } else {
        push_empty(lua, size.max(ROOM_DEFAULT))?
    };
    write(lua, first, format, target);
    Ok(1)
}

/// Checks the values behind the format at `first`, and returns how many bytes they take.
fn measure(lua: Stack<'_>, first: c_int, format: &[u8]) -> usize {
    let mut options = Options::new(format);
    let mut size = 0usize;
    let mut index = first;
    while let Some(step) = next(lua, first, &mut options, size) {
        if !matches!(step.item, Item::Pad | Item::Align) {
            index += 1;
        }
        size += step.padding
            + match step.item {
                Item::Signed(bytes) | Item::Unsigned(bytes) => {
                    check_integer(lua, index, step.item);
                    bytes
                }
                Item::Single | Item::Double => {
                    let value = lua.to_number(index);
                    let value = value.unwrap_or_else(|| lua.type_error(index, "number"));
                    lua.replace_by_number(index, value);
                    if step.item == Item::Single { 4 } else { 8 }
                }
                Item::Chars(bytes) => {
                    if check_text(lua, index).len() > bytes {
                        lua.type_error(index, &format!("string of at most {bytes} bytes"));
                    }
                    bytes
                }
                Item::Text(bytes) => {
                    let len = check_text(lua, index).len();
                    if bytes < 8 && len as u128 >= 1 << (8 * bytes) {
                        let most = (1u64 << (8 * bytes)) - 1;
                        lua.type_error(index, &format!("string of at most {most} bytes"));
                    }
                    bytes + len
                }
                Item::Zero => {
                    let text = check_text(lua, index);
                    if text.contains(&0) {
                        lua.type_error(index, "string without zero bytes");
                    }
                    text.len() + 1
                }
                Item::Pad => 1,
                Item::Align => 0,
            };
        if size > SIZE_MAX {
            Fault::TooLarge(size as f64).raise(lua);
        }
    }
    size
}

/// The second walk: nothing in here can fail, or call into the VM other than to read numbers and
/// strings.
fn write(lua: Stack<'_>, first: c_int, format: &[u8], target: &mut NlBuffer) {
    let mut options = Options::new(format);
    let mut index = first;
    let mut size = 0;
    while let Ok(Some(step)) = options.step(size) {
        if !matches!(step.item, Item::Pad | Item::Align) {
            index += 1;
        }
        let before = target.len();
        zeros(target, step.padding);
        match step.item {
            Item::Signed(bytes) | Item::Unsigned(bytes) => {
                integer(target, measured(lua, index), bytes, step.little);
            }
            Item::Single => {
                let value = lua.to_number(index).unwrap_or(0.0) as f32;
                integer(target, Wide::from(value.to_bits()), 4, step.little);
            }
            Item::Double => {
                let value = lua.to_number(index).unwrap_or(0.0);
                integer(target, Wide::from(value.to_bits()), 8, step.little);
            }
            Item::Chars(bytes) => {
                let text = lua.text(index).unwrap_or(&[]);
                target.fill(text);
                zeros(target, bytes - text.len());
            }
            Item::Text(bytes) => {
                let text = lua.text(index).unwrap_or(&[]);
                integer(target, text.len() as Wide, bytes, step.little);
                target.fill(text);
            }
            Item::Zero => {
                target.fill(lua.text(index).unwrap_or(&[]));
                target.fill(&[0]);
            }
            Item::Pad => zeros(target, 1),
            Item::Align => {}
        }
        size += target.len() - before;
    }
}

fn zeros(target: &mut NlBuffer, mut count: usize) {
    while count > 0 {
        let some = count.min(64);
        if target.fill(&[0; 64][..some]) == 0 {
            return;
        }
        count -= some;
    }
}

fn integer(target: &mut NlBuffer, value: Wide, bytes: usize, little: bool) {
    let mut item = [0; WIDE_BYTES];
    match little {
        true => LittleEndian::write_int128(&mut item, value, bytes),
        false => BigEndian::write_int128(&mut item, value, bytes),
    }
    target.fill(&item[..bytes]);
}

/// The string, or the text of the number, at `index`. Raises for anything else.
fn check_text<'a>(lua: Stack<'a>, index: c_int) -> &'a [u8] {
    lua.text(index).unwrap_or_else(|| lua.type_error(index, "string"))
}

/// Raises unless the value at `index` is an integer that fits the item.
fn check_integer(lua: Stack<'_>, index: c_int, item: Item) {
    let is_known = match lua.kind(index) {
        ffi::LUA_TCDATA => integer_at(lua, index).is_some(),
        _ => lua.to_number(index).is_some(),
    };
    if !is_known {
        lua.type_error(index, "number, int64_t or uint64_t");
    }
    let value = to_integer(lua, index).unwrap_or_else(|| lua.type_error(index, "whole number"));
    let (bytes, signed) = match item {
        Item::Signed(bytes) => (bytes, true),
        Item::Unsigned(bytes) => (bytes, false),
        _ => return,
    };
    let bits = (8 * bytes).min(100);
    let (low, high): (Wide, Wide) =
        if signed { (-(1 << (bits - 1)), 1 << (bits - 1)) } else { (0, 1 << bits) };
    if value < low || value >= high {
        lua.type_error(index, &format!("whole number from {low} to {}", high - 1));
    }
    if value.unsigned_abs() <= EXACT_MAX {
        lua.replace_by_number(index, value as f64);
    } else {
        lua.replace_by_text(index, &value.to_le_bytes());
    }
}

/// The integer that the first walk has left at `index`.
fn measured(lua: Stack<'_>, index: c_int) -> Wide {
    if lua.kind(index) == ffi::LUA_TNUMBER {
        return lua.to_number(index).unwrap_or(0.0) as Wide;
    }
    let bytes = lua.text(index).and_then(|text| <[u8; WIDE_BYTES]>::try_from(text).ok());
    Wide::from_le_bytes(bytes.unwrap_or_default())
}

/// The integer at `index`; cdata must have been checked. `None` if it is a fraction or too large.
fn to_integer(lua: Stack<'_>, index: c_int) -> Option<Wide> {
    if lua.kind(index) != ffi::LUA_TCDATA {
        let number = lua.to_number(index)?;
        let fits = number.fract() == 0.0 && number.abs() <= 2f64.powi(64);
        return fits.then_some(number as Wide);
    }
    integer_at(lua, index).map(Integer::value)
}

/// `unpack(buffer, format[, position])`: the values, then the position behind them
pub(super) fn unpack(lua: Stack<'_>) -> Result<c_int, Fault> {
    lua.check_buffer(1);
    let format = format_at(lua, 2);
    let buffer = lua.check_buffer(1);
    if !buffer.is_live() {
        return Err(Fault::Released);
    }
    let mut at = position(lua, 3, buffer.len());
    let mut options = Options::new(format);
    let mut count = 0;
    while let Some(step) = next(lua, 2, &mut options, at) {
        lua.want_room(8, c"too many results");
        // The last value may have run the collector: look at the buffer afresh.
        let buffer = lua.check_buffer(1);
        if !buffer.is_live() {
            return Err(Fault::Released);
        }
        at += step.padding;
        let bytes = item_len(buffer, at, step).unwrap_or_else(|| short(lua, at, buffer.len()));
        let item = &buffer.as_slice()[at..at + bytes];
        at += bytes;
        count += 1;
        match step.item {
            Item::Signed(_) => push_integer(lua, item, step.little, true),
            Item::Unsigned(_) => push_integer(lua, item, step.little, false),
            Item::Single => {
                lua.push_number(f64::from(f32::from_bits(bits(item, step.little) as u32)));
            }
            Item::Double => lua.push_number(f64::from_bits(bits(item, step.little) as u64)),
            Item::Chars(_) => {
                push_content(lua, 1, at - bytes, bytes);
            }
            Item::Text(head) => {
                push_content(lua, 1, at - bytes + head, bytes - head);
            }
            Item::Zero => {
                push_content(lua, 1, at - bytes, bytes - 1);
            }
            Item::Pad | Item::Align => count -= 1,
        }
    }
    Ok(count + (at + 1).give(lua))
}

/// The optional one-based position at `index`, which counts from the end if negative, zero-based.
fn position(lua: Stack<'_>, index: c_int, len: usize) -> usize {
    if lua.is_absent(index) {
        return 0;
    }
    match lua.to_number(index) {
        Some(at) if at < 0.0 && at.fract() == 0.0 && -at <= len as f64 => len - (-at as usize),
        _ => {
            let at = lua.check_whole(index, len + 1);
            if at == 0 {
                lua.argument_error(index, "positions count from 1");
            }
            at.saturating_sub(1)
        }
    }
}

/// How many bytes the item at `at` takes, if they are all there.
fn item_len(buffer: &NlBuffer, at: usize, step: Step) -> Option<usize> {
    let rest = buffer.as_slice().get(at..)?;
    let len = match step.item {
        Item::Signed(bytes) | Item::Unsigned(bytes) | Item::Chars(bytes) => bytes,
        Item::Single => 4,
        Item::Double => 8,
        Item::Text(head) => {
            let len = bits(rest.get(..head)?, step.little);
            if len > SIZE_MAX as u128 {
                return None;
            }
            head + len as usize
        }
        Item::Zero => memchr::memchr(0, rest)? + 1,
        Item::Pad => 1,
        Item::Align => 0,
    };
    (len <= rest.len()).then_some(len)
}

/// Up to 16 bytes as an unsigned number.
fn bits(item: &[u8], little: bool) -> u128 {
    let count = item.len();
    match little {
        true => LittleEndian::read_uint128(item, count),
        false => BigEndian::read_uint128(item, count),
    }
}

/// Pushes an integer of up to 16 bytes: as a number if that is exact, else as cdata.
fn push_integer(lua: Stack<'_>, item: &[u8], little: bool, signed: bool) {
    let unused = 128 - 8 * item.len() as u32;
    let bits = bits(item, little) << unused;
    let value = if signed { (bits as Wide) >> unused } else { (bits >> unused) as Wide };
    // An unsigned one of 16 bytes with the top bit set turns negative here: refused as well.
    if value.unsigned_abs() <= EXACT_MAX && (signed || value >= 0) {
        return lua.push_number(value as f64);
    }
    let fits = if signed { i64::try_from(value).is_ok() } else { u64::try_from(value).is_ok() };
    if !fits {
        lua.fail(&format!("integer of {} bytes does not fit 64 bits", item.len()));
    }
    lua.push_int64(value as u64, signed);
}

/// `packsize(format)`, `packsize(buffer, format)`: bytes that a format without strings of variable
/// length takes
pub(super) fn packsize(lua: Stack<'_>) -> Result<usize, Fault> {
    let first = if lua.kind(1) == ffi::LUA_TUSERDATA { 2 } else { 1 };
    if first == 2 {
        lua.check_buffer(1);
    }
    let mut options = Options::new(format_at(lua, first));
    let mut size = 0usize;
    while let Some(step) = next(lua, first, &mut options, size) {
        size += step.padding
            + match step.item {
                Item::Signed(bytes) | Item::Unsigned(bytes) | Item::Chars(bytes) => bytes,
                Item::Single => 4,
                Item::Double => 8,
                Item::Pad => 1,
                Item::Align => 0,
                Item::Text(_) | Item::Zero => lua.type_error(first, "format without s and z"),
            };
        if size > SIZE_MAX {
            return Err(Fault::TooLarge(size as f64));
        }
    }
    Ok(size)
}

/// The format at `index`; raises if it is none.
fn format_at<'a>(lua: Stack<'a>, index: c_int) -> &'a [u8] {
    match lua.text(index) {
        None => lua.type_error(index, "string"),
        Some(format) if format.len() > FORMAT_BYTES_MAX => {
            lua.type_error(index, &format!("format of at most {FORMAT_BYTES_MAX} bytes"))
        }
        Some(format) => format,
    }
}

/// The next item of the format at `index`. Raises if the format is wrong.
fn next(lua: Stack<'_>, index: c_int, options: &mut Options<'_>, offset: usize) -> Option<Step> {
    let text = match options.step(offset) {
        Ok(step) => return step,
        Err(FormatError::Unknown(option)) => {
            format!("unknown option '{}' in format", char::from(option).escape_default())
        }
        Err(FormatError::Size(size)) => format!("size {size} in format is not in 1 to 16"),
        Err(FormatError::Alignment(size)) => {
            format!("alignment {size} in format is not a power of two")
        }
        Err(FormatError::Count) => format!("count missing in format, or above {SIZE_MAX}"),
        Err(FormatError::AlignTo) => "nothing to align to behind X in format".to_owned(),
    };
    lua.argument_error(index, &text)
}

/// Raises: there are too few bytes.
fn short(lua: Stack<'_>, at: usize, len: usize) -> ! {
    lua.fail(&format!("item at position {} does not fit a buffer of {len} bytes", at + 1))
}
