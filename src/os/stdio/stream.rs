//! The C library's streams.

use std::ffi::{c_char, c_int};
use std::marker::PhantomData;
use std::os::fd::{AsFd, BorrowedFd};

use libc::FILE;

use super::waits;
use crate::os::errno::errno;

/// An open stream.
///
/// # Invariant
/// It stays open as long as this is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub(crate) struct Stream(*mut FILE);

// SAFETY: the streams are set before `main`, and open as long as the process runs; the functions
// take any open stream.
unsafe extern "C" {
    safe static stdin: Stream;
    safe static stdout: Stream;
    safe static stderr: Stream;
    safe fn fileno(stream: Stream) -> c_int;
    safe fn ferror(stream: Stream) -> c_int;
    safe fn clearerr(stream: Stream);
    safe fn fgetc(stream: Stream) -> c_int;
    safe fn ungetc(byte: c_int, stream: Stream) -> c_int;
    safe fn fseeko(stream: Stream, offset: i64, from: c_int) -> c_int;
    safe fn ftello(stream: Stream) -> i64;
    safe fn _IO_fflush(stream: Stream) -> c_int;
    safe fn __fpending(stream: Stream) -> usize;
    safe fn __freadable(stream: Stream) -> c_int;
    safe fn flockfile(stream: Stream);
    safe fn ftrylockfile(stream: Stream) -> c_int;
    fn funlockfile(stream: Stream);
    fn fwrite_unlocked(from: *const u8, size: usize, count: usize, to: Stream) -> usize;
    fn fflush_unlocked(stream: Stream) -> c_int;
    fn __fpurge(stream: Stream);
    fn setvbuf(stream: Stream, buffer: *mut c_char, mode: c_int, size: usize) -> c_int;
}

/// How every stream of glibc begins.
#[repr(C)]
struct Head {
    flags: c_int,
    next: *const u8,
    end: *const u8,
    start: *const u8,
    write_start: *const u8,
}

impl Stream {
    /// # Safety
    /// It must be open, and stay so as long as what is returned is used.
    pub(crate) unsafe fn new(file: *mut FILE) -> Stream {
        Stream(file)
    }

    pub(super) fn input() -> Stream {
        stdin
    }

    pub(crate) fn output() -> Stream {
        stdout
    }

    pub(crate) fn errors() -> Stream {
        stderr
    }

    /// Whether it is this one.
    pub(crate) fn is(self, file: *mut FILE) -> bool {
        self.0 == file
    }

    /// Whether what was read from the descriptor is used up.
    #[inline]
    pub(super) fn is_empty(self) -> bool {
        // SAFETY: an open stream begins with its head.
        let head = unsafe { &*self.0.cast::<Head>() };
        head.next >= head.end
    }

    /// Whether it was opened for reading, whatever its descriptor may do.
    pub(super) fn is_readable(self) -> bool {
        __freadable(self) != 0
    }

    /// Whether reading or writing has failed, which is forgotten then.
    pub(super) fn take_error(self) -> bool {
        let has_failed = self.has_failed();
        if has_failed {
            clearerr(self);
        }
        has_failed
    }

    /// Whether reading or writing has failed.
    pub(super) fn has_failed(self) -> bool {
        ferror(self) != 0
    }

    pub(super) fn byte(self) -> Option<u8> {
        u8::try_from(fgetc(self)).ok()
    }

    /// Reads something into the buffer, which is empty; false at the end, or if that fails.
    pub(super) fn fill(self) -> bool {
        self.byte().is_some_and(|byte| ungetc(byte.into(), self) != libc::EOF)
    }

    pub(crate) fn seek(self, offset: i64, from: c_int) -> c_int {
        fseeko(self, offset, from)
    }

    pub(crate) fn position(self) -> i64 {
        ftello(self)
    }

    pub(crate) fn flush(self) -> c_int {
        _IO_fflush(self)
    }

    /// Has it collect this many bytes, or none. Before it is used.
    pub(super) fn set_buffer(self, bytes: usize) {
        let mode = if bytes > 0 { libc::_IOFBF } else { libc::_IONBF };
        // The library heeds the size only of a buffer that it is given.
        let buffer = Box::leak(vec![0; bytes].into_boxed_slice());
        // SAFETY: an open stream; the buffer stays for good.
        unsafe { setvbuf(self, buffer.as_mut_ptr(), mode, bytes) };
    }

    /// Bytes that wait in it.
    #[inline]
    pub(crate) fn pending(self) -> usize {
        __fpending(self)
    }

    /// Waits for its lock. The C library's own wait for it cannot be ended.
    pub(crate) fn wait_and_lock(self) -> Locked {
        flockfile(self);
        Locked { stream: self, _thread: PhantomData }
    }

    /// Takes its lock, if it is free.
    pub(crate) fn try_lock(self) -> Option<Locked> {
        (ftrylockfile(self) == 0).then(|| Locked { stream: self, _thread: PhantomData })
    }

    /// Takes its lock; `None` if the context is to end first: another thread may hold it for as
    /// long as nobody reads.
    pub(super) fn lock(self) -> Option<Locked> {
        self.try_lock().or_else(|| waits::look_again(|| self.try_lock()))
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the descriptor of a stream is open as long as that is.
        unsafe { BorrowedFd::borrow_raw(fileno(*self)) }
    }
}

/// A stream whose lock this thread holds, until it is dropped. It may be taken again meanwhile.
#[derive(Debug)]
pub(crate) struct Locked {
    stream: Stream,
    _thread: PhantomData<*const ()>,
}

impl Locked {
    /// Writes bytes; returns how many were taken, and if not all, why, as in `errno`.
    pub(crate) fn write(&self, bytes: &[u8]) -> (usize, Option<c_int>) {
        // SAFETY: the stream is locked, pointer and length are those of a slice.
        let written = unsafe { fwrite_unlocked(bytes.as_ptr(), 1, bytes.len(), self.stream) };
        (written, (written < bytes.len()).then(errno))
    }

    /// Calls `take` with what was read from the descriptor and is not used up; the first value that
    /// it returns is how many of these bytes it has taken.
    pub(super) fn take<R>(&self, take: impl FnOnce(&[u8]) -> (usize, R)) -> (usize, R) {
        // SAFETY: the stream is locked, and begins with its head, which says what is in the buffer;
        // its own `getc` takes what is there in this way.
        unsafe {
            let head = self.stream.0.cast::<Head>();
            let length = (*head).end.offset_from_unsigned((*head).next);
            let (count, result) = take(std::slice::from_raw_parts((*head).next, length));
            assert!(count <= length);
            (*head).next = (*head).next.add(count);
            (count, result)
        }
    }

    /// `fflush`; tells why something is lost, if it is.
    pub(super) fn flush(&self) -> Option<c_int> {
        // SAFETY: the stream is locked.
        (unsafe { fflush_unlocked(self.stream) } != 0).then(errno)
    }

    /// Has `body` write what waits, which is then gone from the stream.
    pub(super) fn take_waiting<R>(&self, body: impl FnOnce(&[u8]) -> R) -> Option<R> {
        let length = self.stream.pending();
        if length == 0 {
            return None;
        }
        // SAFETY: the stream is locked; it begins with its head, which says where what waits
        // begins.
        let waiting = unsafe {
            std::slice::from_raw_parts((*self.stream.0.cast::<Head>()).write_start, length)
        };
        let result = body(waiting);
        // SAFETY: the stream is locked, and what waited in it is not used any more.
        unsafe { __fpurge(self.stream) };
        Some(result)
    }
}

impl Drop for Locked {
    fn drop(&mut self) {
        // SAFETY: this thread holds it.
        unsafe { funlockfile(self.stream) };
    }
}
