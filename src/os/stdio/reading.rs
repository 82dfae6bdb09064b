//! Before a script waits for input, what it has printed is written: a prompt, or an answer that
//! whoever writes the input waits for. And a script ends while it reads what does not come, or goes
//! on without an end.
//!
//! The linker puts these functions in the place of those that LuaJIT's `io` library reads with
//! (build.rs). They take what is in the stream's buffer, and have the C library fill that only
//! where this does not wait: the C library's own wait could not be ended.

use std::ffi::{CString, c_char, c_int, c_void};
use std::os::fd::AsFd;
use std::sync::OnceLock;

use rustix::event::PollFlags;

use super::scanned::Number;
use super::stream::Stream;
use super::waits::{self, is_file};
use crate::os::errno::{errno, set_errno};

unsafe extern "C" {
    fn _IO_fread(to: *mut c_void, size: usize, count: usize, from: Stream) -> usize;
}

static LOOK: OnceLock<fn()> = OnceLock::new();

/// Sets what is called before scripts read: it unwinds if theirs is to end.
pub fn on_read(look: fn()) {
    LOOK.get_or_init(|| look);
}

/// Called before something is read from `stream`, whose lock this thread does not have.
#[inline]
fn prepare(stream: Stream) {
    if let Some(look) = LOOK.get() {
        look();
    }
    if stream.is_empty() && may_wait(stream) {
        super::flush();
        waits::wait(stream.as_fd(), PollFlags::IN);
    }
}

/// Whether the stream is one that others write to, from which something can be read.
fn may_wait(stream: Stream) -> bool {
    stream.is_readable() && !is_file(stream)
}

/// Whether the read that comes right before has ended early because the descriptor does not block,
/// and is to go on: whoever reads waits, as for one that blocks.
fn is_early(stream: Stream) -> bool {
    errno() == libc::EAGAIN && stream.take_error()
}

/// Gives `take` what is in the buffer, again and again: it returns how much it has taken, and
/// whether it wants more. False at the end of what can be read, or if that fails.
///
/// What several contexts read at a time is not torn: who has taken something keeps the lock.
fn read(stream: Stream, mut take: impl FnMut(&[u8]) -> (usize, bool)) -> bool {
    let mut has_begun = false;
    loop {
        prepare(stream);
        // If not, the next look ends the script.
        let Some(lock) = stream.lock() else { continue };
        loop {
            if !stream.is_empty() {
                let (count, wants_more) = lock.take(&mut take);
                has_begun |= count > 0;
                if !wants_more {
                    return true;
                }
                continue;
            }
            let is_ready = !may_wait(stream)
                || waits::is_ready(stream.as_fd(), PollFlags::IN)
                || has_begun && waits::wait(stream.as_fd(), PollFlags::IN);
            if !is_ready {
                break;
            }
            if !stream.fill() && !is_early(stream) {
                return false;
            }
        }
    }
}

/// # Safety
/// As for `fgets`.
#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn __wrap_fgets(
    to: *mut c_char,
    size: c_int,
    from: Stream,
) -> *mut c_char {
    // SAFETY: `fgets` is given room for this many bytes, the last of which is for a zero.
    let line = unsafe { std::slice::from_raw_parts_mut(to.cast::<u8>(), size as usize) };
    let mut length = 0;
    read(from, |found| {
        let room = &mut line[length..size as usize - 1];
        let end = memchr::memchr(b'\n', found).map_or(found.len(), |at| at + 1);
        let count = end.min(room.len());
        room[..count].copy_from_slice(&found[..count]);
        length += count;
        (count, count < room.len() && found[count - 1] != b'\n')
    });
    if length == 0 || from.has_failed() {
        return std::ptr::null_mut();
    }
    line[length] = 0;
    to
}

/// # Safety
/// As for `fread`, with a size of one byte, as LuaJIT calls it.
#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn __wrap_fread(
    to: *mut c_void,
    size: usize,
    count: usize,
    from: Stream,
) -> usize {
    debug_assert_eq!(size, 1);
    if count == 0 {
        return 0;
    }
    if is_file(from) {
        prepare(from);
        // SAFETY: the arguments, handed on.
        return unsafe { _IO_fread(to, size, count, from) };
    }
    // SAFETY: `fread` is given room for this many bytes.
    let room = unsafe { std::slice::from_raw_parts_mut(to.cast::<u8>(), count) };
    let mut length = 0;
    read(from, |found| {
        let part = found.len().min(count - length);
        room[length..length + part].copy_from_slice(&found[..part]);
        length += part;
        (part, length < count)
    });
    length
}

/// # Safety
/// As for `getc`.
#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn __wrap_getc(from: Stream) -> c_int {
    let mut byte = libc::EOF;
    read(from, |found| {
        byte = found[0].into();
        (1, false)
    });
    byte
}

/// LuaJIT reads numbers with it, one at a time: there is one place to write to.
///
/// # Safety
/// As for `fscanf`, with a format that names one number.
#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn __wrap___isoc99_fscanf(
    from: Stream,
    format: *const c_char,
    to: *mut c_void,
) -> c_int {
    if !from.is_readable() {
        return libc::EOF;
    }
    let mut number = Number::default();
    read(from, |found| {
        let count = found.iter().take_while(|&&byte| number.takes(byte)).count();
        (count, count == found.len())
    });
    let reason = errno();
    let text = CString::new(number.text()).expect("a number has no zero byte");
    // SAFETY: both are terminated; the rest is handed on.
    let found = unsafe { libc::sscanf(text.as_ptr(), format, to) };
    set_errno(reason);
    found
}
