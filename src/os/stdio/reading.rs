//! Before a script waits for input, what it has printed is written: a prompt, or an answer that
//! whoever writes the input waits for. And a script ends while it reads a line that has no end.
//!
//! The linker puts these functions in the place of those that LuaJIT's `io` library reads with
//! (build.rs).

use std::ffi::{c_char, c_int, c_void};
use std::os::fd::AsFd;
use std::sync::OnceLock;

use rustix::event::PollFlags;

use super::FILE;
use super::stream::Stream;
use super::waits::{self, is_file};
use crate::os::errno::errno;

unsafe extern "C" {
    fn _IO_fgets(to: *mut c_char, size: c_int, from: *mut FILE) -> *mut c_char;
    fn _IO_fread(to: *mut c_void, size: usize, count: usize, from: *mut FILE) -> usize;
    fn fscanf(from: *mut FILE, format: *const c_char, ...) -> c_int;
}

static LOOK: OnceLock<fn()> = OnceLock::new();

/// Sets what is called before scripts read: it unwinds if theirs is to end.
pub fn on_read(look: fn()) {
    LOOK.get_or_init(|| look);
}

/// Called before something is read from `stream`.
#[inline]
fn prepare(stream: Stream) {
    let look = || {
        if let Some(look) = LOOK.get() {
            look();
        }
    };
    look();
    if stream.is_empty() && stream.is_readable() && !is_file(stream) {
        super::flush();
        if !waits::wait(stream.as_fd(), PollFlags::IN) {
            look();
        }
    }
}

/// Whether the read that comes right before has ended early because the descriptor does not block,
/// and is to go on: whoever reads waits, as for one that blocks.
fn is_early(stream: Stream) -> bool {
    errno() == libc::EAGAIN && stream.take_error()
}

/// # Safety
/// As for `fgets`.
#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn __wrap_fgets(
    to: *mut c_char,
    size: c_int,
    from: *mut FILE,
) -> *mut c_char {
    let mut length = 0;
    loop {
        // SAFETY: the arguments of `fgets`, handed on: an open stream, and room for this many
        // bytes, of which the first have a line's beginning in them, with a zero behind it.
        unsafe {
            let stream = Stream::new(from);
            prepare(stream);
            let rest = to.add(length as usize);
            let found = _IO_fgets(rest, size - length, from);
            // Without an error flag set, which glibc leaves alone then, the line is whole.
            if !is_early(stream) {
                return if found.is_null() && length == 0 { found } else { to };
            }
            if !found.is_null() {
                length += libc::strlen(rest) as c_int;
            }
        }
    }
}

/// # Safety
/// As for `fread`.
#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn __wrap_fread(
    to: *mut c_void,
    size: usize,
    count: usize,
    from: *mut FILE,
) -> usize {
    let mut length = 0;
    loop {
        // SAFETY: the arguments of `fread`, handed on: an open stream, and room for this many
        // bytes.
        unsafe {
            let stream = Stream::new(from);
            prepare(stream);
            // LuaJIT's have a size of one byte.
            length += _IO_fread(to.byte_add(length * size), size, count - length, from);
            if length == count || !is_early(stream) {
                return length;
            }
        }
    }
}

/// # Safety
/// As for `getc`.
#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn __wrap_getc(from: *mut FILE) -> c_int {
    // SAFETY: `getc` is given an open stream.
    let stream = unsafe { Stream::new(from) };
    loop {
        prepare(stream);
        match stream.byte() {
            None if is_early(stream) => {}
            byte => return byte.map_or(libc::EOF, c_int::from),
        }
    }
}

/// LuaJIT reads numbers with it, one at a time: there is one place to write to.
///
/// # Safety
/// As for `fscanf`, with a format that names one value.
#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn __wrap___isoc99_fscanf(
    from: *mut FILE,
    format: *const c_char,
    to: *mut c_void,
) -> c_int {
    // SAFETY: the arguments of `fscanf`, handed on. Where glibc is, a function with a list of
    // arguments takes pointers in the same registers as one without.
    unsafe {
        prepare(Stream::new(from));
        fscanf(from, format, to)
    }
}
