//! The library's bytecode, made to look like C code to scripts.
//!
//! Libraries count levels of the stack, for `error`, `setfenv` or `debug.getinfo`, and look at what
//! they find there. In plain LuaJIT `require`, `coroutine.resume` and their like are C functions:
//! their frames have no lines, and errors that blame them no position. A function of ours is Lua,
//! so that what it calls can wait. Of bytecode without debug information the VM says "line 0"; of
//! bytecode whose lines are all negative it says what it says of C code, nothing. So that is what
//! [`disguise`] gives it. `stock.rs` does the rest.

use std::ffi::CStr;

/// The name of all chunks of the library: what the VM tells of C functions.
pub(super) const CHUNK_NAME: &CStr = c"=[C]";

/// The line of functions that stand for a C function of LuaJIT's frame by frame …
pub(super) const STAND_IN: i32 = -1;
/// … and of all others, which are one frame to scripts, however many they take.
pub(super) const LIBRARY: i32 = -2;

/// In the header: that there is no debug information.
const STRIPPED: u8 = 2;

/// A number in LEB128.
fn read(bytes: &[u8], at: &mut usize) -> Option<u32> {
    let mut value = 0;
    for shift in (0..35).step_by(7) {
        let byte = *bytes.get(*at)?;
        *at += 1;
        value |= u32::from(byte & 0x7f).checked_shl(shift)?;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

fn write(bytes: &mut Vec<u8>, mut value: u32) {
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
}

/// Takes a dump, and returns it with other debug information: each instruction is on this line, and
/// nothing has a name. `None` if the dump is not as expected (see LuaJIT's lj_bcdump.h).
pub(super) fn disguise(dump: &[u8], line: i32) -> Option<Vec<u8>> {
    let mut result = dump.get(..4)?.to_vec();
    let mut at = 4;
    let flags = read(dump, &mut at)?;
    let is_stripped = flags & u32::from(STRIPPED) != 0;
    if !is_stripped {
        let name = read(dump, &mut at)? as usize;
        at += name;
    }
    write(&mut result, flags & !u32::from(STRIPPED));
    write(&mut result, CHUNK_NAME.count_bytes() as u32);
    result.extend_from_slice(CHUNK_NAME.to_bytes());
    loop {
        let length = read(dump, &mut at)? as usize;
        if length == 0 {
            result.push(0);
            return (at == dump.len()).then_some(result);
        }
        let prototype = dump.get(at..at + length)?;
        at += length;
        let upvalues = usize::from(*prototype.get(3)?);
        let mut inside = 4;
        let (_objects, _numbers) = (read(prototype, &mut inside)?, read(prototype, &mut inside)?);
        let instructions = read(prototype, &mut inside)? as usize;
        let mut made = prototype.get(..inside)?.to_vec();
        let mut end = prototype.len();
        if !is_stripped {
            let before = read(prototype, &mut inside)? as usize;
            if before > 0 {
                let (_first, _lines) =
                    (read(prototype, &mut inside)?, read(prototype, &mut inside)?);
            }
            end = end.checked_sub(before)?;
        }
        // For each instruction how many lines it is after the first; for each upvalue an empty
        // name; and no variables.
        let debug = instructions + upvalues + 1;
        write(&mut made, debug as u32);
        write(&mut made, line as u32);
        write(&mut made, 0);
        made.extend_from_slice(prototype.get(inside..end)?);
        made.resize(made.len() + debug, 0);
        write(&mut result, made.len() as u32);
        result.extend_from_slice(&made);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_as_they_are_written() {
        for value in [0, 1, 127, 128, 300, 1 << 21, u32::MAX, STAND_IN as u32, LIBRARY as u32] {
            let (mut bytes, mut at) = (Vec::new(), 0);
            write(&mut bytes, value);
            assert_eq!((read(&bytes, &mut at), at), (Some(value), bytes.len()));
            assert_eq!(read(&bytes[..bytes.len() - 1], &mut 0), None);
        }
    }

    #[test]
    fn what_is_no_dump_is_refused() {
        assert_eq!(disguise(b"", LIBRARY), None);
        assert_eq!(disguise(b"\x1bLJ\x02\x02", LIBRARY), None);
        assert_eq!(disguise(b"\x1bLJ\x02\x02\x05\0\0", LIBRARY), None);
        assert!(disguise(b"\x1bLJ\x02\x02\0", LIBRARY).is_some());
        assert_eq!(disguise(b"\x1bLJ\x02\x02\0more", LIBRARY), None);
    }
}
