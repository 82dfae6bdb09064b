//! `pack`, `unpack` and `packsize`: binary structures by the formats of Lua 5.3's `string.pack`.
//!
//! `pack` walks the format twice: first it checks every value and adds up the size, then it writes
//! into room reserved at once. So nothing is written if a value is wrong. Integers that a number
//! cannot hold exactly are `int64_t` and `uint64_t` cdata.
//!
//! Only the first walk calls into the VM, which may run finalisers, and these may change the
//! buffer: it leaves numbers and strings in the place of the values, for the second to read.

use std::ffi::c_int;

use mlua::ffi::{self, lua_State};

use super::call::Call;
use super::format::{FormatError, Item, Options, Step};
use super::methods::push_content;
use super::userdata::{Fault, push_empty, reserve};
use crate::buf::{NlBuffer, ROOM_DEFAULT, SIZE_MAX};

/// Integers up to here are exact as Lua numbers.
const EXACT_MAX: u128 = 1 << 53;

/// An integer as given: its value, whatever its type was.
type Wide = i128;
/// Bytes of an integer that the first walk leaves as a string, least significant first.
const WIDE_BYTES: usize = size_of::<Wide>();

/// `pack(format, ...)`: a new buffer; `pack(buffer, format, ...)`: appends, and returns the buffer
pub(super) unsafe extern "C-unwind" fn pack(state: *mut lua_State) -> c_int {
    // SAFETY: called by Lua.
    let call = unsafe { Call::new(state) };
    let first = if call.kind(1) == ffi::LUA_TUSERDATA { 2 } else { 1 };
    if first == 2 && !call.check_buffer(1).is_live() {
        return Fault::Released.raise(call);
    }
    let Some(format) = call.text(first) else { return call.type_error(first, "string") };
    let size = measure(call, first, format);
    let target = if first == 2 {
        if let Err(fault) = reserve(call, 1, size) {
            return fault.raise(call);
        }
        call.push_value(1);
        call.check_buffer(1)
    } else {
        match push_empty(call, size.max(ROOM_DEFAULT)) {
            Ok(target) => target,
            Err(fault) => return fault.raise(call),
        }
    };
    write(call, first, format, target);
    1
}

/// Checks the values behind the format at `first`, and returns how many bytes they take.
fn measure(call: Call<'_>, first: c_int, format: &[u8]) -> usize {
    let mut options = Options::new(format);
    let mut size = 0usize;
    let mut index = first;
    while let Some(step) = next(call, first, &mut options, size) {
        if !matches!(step.item, Item::Pad | Item::Align) {
            index += 1;
        }
        size += step.padding
            + match step.item {
                Item::Signed(bytes) | Item::Unsigned(bytes) => {
                    check_integer(call, index, step.item);
                    bytes
                }
                Item::Single | Item::Double => {
                    let Some(value) = call.number(index) else {
                        call.type_error(index, "number");
                        return 0;
                    };
                    call.replace_by_number(index, value);
                    if step.item == Item::Single { 4 } else { 8 }
                }
                Item::Chars(bytes) => {
                    if check_text(call, index).len() > bytes {
                        call.type_error(index, &format!("string of at most {bytes} bytes"));
                    }
                    bytes
                }
                Item::Text(bytes) => {
                    let len = check_text(call, index).len();
                    if bytes < 8 && len as u128 >= 1 << (8 * bytes) {
                        let most = (1u64 << (8 * bytes)) - 1;
                        call.type_error(index, &format!("string of at most {most} bytes"));
                    }
                    bytes + len
                }
                Item::Zero => {
                    let text = check_text(call, index);
                    if text.contains(&0) {
                        call.type_error(index, "string without zero bytes");
                    }
                    text.len() + 1
                }
                Item::Pad => 1,
                Item::Align => 0,
            };
        if size > SIZE_MAX {
            Fault::TooLarge(size as f64).raise(call);
        }
    }
    size
}

/// The second walk: nothing in here can fail, or call into the VM other than to read numbers and
/// strings.
fn write(call: Call<'_>, first: c_int, format: &[u8], target: &mut NlBuffer) {
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
                integer(target, measured(call, index), bytes, step.little);
            }
            Item::Single => {
                let value = call.number(index).unwrap_or(0.0) as f32;
                integer(target, Wide::from(value.to_bits()), 4, step.little);
            }
            Item::Double => {
                let value = call.number(index).unwrap_or(0.0);
                integer(target, Wide::from(value.to_bits()), 8, step.little);
            }
            Item::Chars(bytes) => {
                let text = call.text(index).unwrap_or(&[]);
                target.fill(text);
                zeros(target, bytes - text.len());
            }
            Item::Text(bytes) => {
                let text = call.text(index).unwrap_or(&[]);
                integer(target, text.len() as Wide, bytes, step.little);
                target.fill(text);
            }
            Item::Zero => {
                target.fill(call.text(index).unwrap_or(&[]));
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
    if little {
        target.fill(&value.to_le_bytes()[..bytes]);
    } else {
        target.fill(&value.to_be_bytes()[16 - bytes..]);
    }
}

/// The string, or the text of the number, at `index`. Raises for anything else.
fn check_text<'a>(call: Call<'a>, index: c_int) -> &'a [u8] {
    call.text(index).unwrap_or_else(|| {
        call.type_error(index, "string");
        &[]
    })
}

/// Raises unless the value at `index` is an integer that fits the item.
fn check_integer(call: Call<'_>, index: c_int, item: Item) {
    let is_known = match call.kind(index) {
        ffi::LUA_TCDATA => call.int64(index).is_some(),
        _ => call.number(index).is_some(),
    };
    if !is_known {
        call.type_error(index, "number, int64_t or uint64_t");
    }
    let Some(value) = to_integer(call, index) else {
        call.type_error(index, "whole number");
        return;
    };
    let (bytes, signed) = match item {
        Item::Signed(bytes) => (bytes, true),
        Item::Unsigned(bytes) => (bytes, false),
        _ => return,
    };
    let bits = (8 * bytes).min(100);
    let (low, high): (Wide, Wide) =
        if signed { (-(1 << (bits - 1)), 1 << (bits - 1)) } else { (0, 1 << bits) };
    if value < low || value >= high {
        call.type_error(index, &format!("whole number from {low} to {}", high - 1));
    }
    if value.unsigned_abs() <= EXACT_MAX {
        call.replace_by_number(index, value as f64);
    } else {
        call.replace_by_bytes(index, &value.to_le_bytes());
    }
}

/// The integer that the first walk has left at `index`.
fn measured(call: Call<'_>, index: c_int) -> Wide {
    if call.kind(index) == ffi::LUA_TNUMBER {
        return call.number(index).unwrap_or(0.0) as Wide;
    }
    let bytes = call.text(index).and_then(|text| <[u8; WIDE_BYTES]>::try_from(text).ok());
    Wide::from_le_bytes(bytes.unwrap_or_default())
}

/// The integer at `index`; cdata must have been checked. `None` if it is a fraction or too large.
fn to_integer(call: Call<'_>, index: c_int) -> Option<Wide> {
    if call.kind(index) != ffi::LUA_TCDATA {
        let number = call.number(index)?;
        let fits = number.fract() == 0.0 && number.abs() <= 2f64.powi(64);
        return fits.then_some(number as Wide);
    }
    call.int64(index)
}

/// `unpack(buffer, format[, position])`: the values, then the position behind them
pub(super) unsafe extern "C-unwind" fn unpack(state: *mut lua_State) -> c_int {
    // SAFETY: called by Lua.
    let call = unsafe { Call::new(state) };
    call.check_buffer(1);
    let Some(format) = call.text(2) else { return call.type_error(2, "string") };
    let buffer = call.check_buffer(1);
    if !buffer.is_live() {
        return Fault::Released.raise(call);
    }
    let mut at = position(call, 3, buffer.len());
    let mut options = Options::new(format);
    let mut count = 0;
    while let Some(step) = next(call, 2, &mut options, at) {
        // SAFETY: a running state; raises if the stack cannot hold that many values.
        unsafe { ffi::luaL_checkstack_(state, 8, c"too many results".as_ptr()) };
        // The last value may have run the collector: look at the buffer afresh.
        let buffer = call.check_buffer(1);
        if !buffer.is_live() {
            return Fault::Released.raise(call);
        }
        at += step.padding;
        let Some(bytes) = item_len(buffer, at, step) else {
            return short(call, at, buffer.len());
        };
        let item = &buffer.as_slice()[at..at + bytes];
        at += bytes;
        count += 1;
        match step.item {
            Item::Signed(_) => push_integer(call, item, step.little, true),
            Item::Unsigned(_) => push_integer(call, item, step.little, false),
            Item::Single => {
                call.push_number(f64::from(f32::from_bits(bits(item, step.little) as u32)));
            }
            Item::Double => {
                call.push_number(f64::from_bits(bits(item, step.little) as u64));
            }
            Item::Chars(_) => {
                push_content(call, 1, at - bytes, bytes);
            }
            Item::Text(head) => {
                push_content(call, 1, at - bytes + head, bytes - head);
            }
            Item::Zero => {
                push_content(call, 1, at - bytes, bytes - 1);
            }
            Item::Pad | Item::Align => count -= 1,
        }
    }
    call.push_number(at as f64 + 1.0);
    count + 1
}

/// The optional one-based position at `index`, which counts from the end if negative, zero-based.
fn position(call: Call<'_>, index: c_int, len: usize) -> usize {
    if call.is_absent(index) {
        return 0;
    }
    match call.number(index) {
        Some(at) if at < 0.0 && at.fract() == 0.0 && -at <= len as f64 => len - (-at as usize),
        _ => {
            let at = call.check_whole(index, len + 1);
            if at == 0 {
                call.argument_error(index, "positions count from 1");
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
    let join = |bits: u128, byte: &u8| bits << 8 | u128::from(*byte);
    if little { item.iter().rev().fold(0, join) } else { item.iter().fold(0, join) }
}

/// Pushes an integer of up to 16 bytes: as a number if that is exact, else as cdata.
fn push_integer(call: Call<'_>, item: &[u8], little: bool, signed: bool) {
    let unused = 128 - 8 * item.len() as u32;
    let bits = bits(item, little) << unused;
    let value = if signed { (bits as Wide) >> unused } else { (bits >> unused) as Wide };
    // An unsigned one of 16 bytes with the top bit set turns negative here: refused as well.
    if value.unsigned_abs() <= EXACT_MAX && (signed || value >= 0) {
        call.push_number(value as f64);
        return;
    }
    let fits = if signed { i64::try_from(value).is_ok() } else { u64::try_from(value).is_ok() };
    if !fits {
        call.raise(&format!("integer of {} bytes does not fit 64 bits", item.len()));
    }
    call.push_int64(value as u64, signed);
}

/// `packsize(format)`, `packsize(buffer, format)`: bytes that a format without strings of variable
/// length takes
pub(super) unsafe extern "C-unwind" fn packsize(state: *mut lua_State) -> c_int {
    // SAFETY: called by Lua.
    let call = unsafe { Call::new(state) };
    let first = if call.kind(1) == ffi::LUA_TUSERDATA { 2 } else { 1 };
    if first == 2 {
        call.check_buffer(1);
    }
    let Some(format) = call.text(first) else { return call.type_error(first, "string") };
    let mut options = Options::new(format);
    let mut size = 0usize;
    while let Some(step) = next(call, first, &mut options, size) {
        size += step.padding
            + match step.item {
                Item::Signed(bytes) | Item::Unsigned(bytes) | Item::Chars(bytes) => bytes,
                Item::Single => 4,
                Item::Double => 8,
                Item::Pad => 1,
                Item::Align => 0,
                Item::Text(_) | Item::Zero => {
                    call.type_error(first, "format without s and z");
                    0
                }
            };
        if size > SIZE_MAX {
            Fault::TooLarge(size as f64).raise(call);
        }
    }
    call.push_number(size as f64)
}

/// The next item of the format at `index`. Raises if the format is wrong.
fn next(call: Call<'_>, index: c_int, options: &mut Options<'_>, offset: usize) -> Option<Step> {
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
    call.argument_error(index, &text);
    None
}

/// Raises: there are too few bytes.
fn short(call: Call<'_>, at: usize, len: usize) -> c_int {
    call.raise(&format!("item at position {} does not fit a buffer of {len} bytes", at + 1))
}
