//! Standard output: what all contexts print, and C code too, in the one stream of the C library.
//!
//! Into a pipe or file the stream collects what it is given; a turn that ends has it written
//! (`Program::turn`), and so has whatever blocks the thread for long: reading (reading.rs), child
//! processes (children.rs), the watchdog where nothing else does (late.rs). On a terminal each line
//! is written at once, as ever. Who writes several pieces that belong together holds a [`Lock`].
//!
//! What `print` and its like do with it: src/vm/stdio.rs.
//!
//! The linker has LuaJIT call our functions instead of the C library's (build.rs); our own calls
//! reach the library under its other names.

mod broken_pipe;
#[cfg(target_env = "gnu")]
mod children;
#[cfg(target_env = "gnu")]
mod files;
pub mod fork;
pub(crate) mod input;
mod late;
#[cfg(target_env = "gnu")]
mod reading;
#[cfg(target_env = "gnu")]
mod shortage;
mod start;

#[cfg(target_env = "gnu")]
pub use files::{FILE_BYTES, on_file};
pub use input::{read_line, unbuffer_input};
pub use late::nudge;
#[cfg(target_env = "gnu")]
pub use reading::on_read;
#[cfg(target_env = "gnu")]
pub use shortage::on_shortage;

use std::cell::Cell;
use std::ffi::{c_int, c_void};
use std::io::Error;
use std::marker::PhantomData;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, Ordering};

use crate::os;

/// Bytes that are collected: what a pipe takes as a whole (`PIPE_BUF`), so that whatever else
/// writes to it comes in between calls. A call that would exceed it has what is there written
/// before.
const BUFFER_BYTES: usize = 4096;

/// For the rest of a call whose first piece has found room.
const REST_BYTES: usize = 4096;

pub(crate) use libc::FILE;

unsafe extern "C" {
    static stdout: *mut FILE;
    static stderr: *mut FILE;
    fn flockfile(stream: *mut FILE);
    fn ftrylockfile(stream: *mut FILE) -> c_int;
    fn funlockfile(stream: *mut FILE);
    fn fwrite_unlocked(from: *const c_void, size: usize, count: usize, to: *mut FILE) -> usize;
    fn fflush_unlocked(stream: *mut FILE) -> c_int;
    fn __fpending(stream: *mut FILE) -> usize;
}

thread_local! {
    /// This thread has written something, and not yet had it written to the end.
    static HAS_WRITTEN: Cell<bool> = const { Cell::new(false) };
}

/// How often output was lost where no call could report it at once.
static LOSSES: AtomicU32 = AtomicU32::new(0);
/// The `errno` of the last such loss.
static REASON: AtomicI32 = AtomicI32::new(0);
/// Some loss was reported by no result.
static IS_UNTOLD: AtomicBool = AtomicBool::new(false);
/// The loss has been logged.
static IS_LOGGED: AtomicBool = AtomicBool::new(false);

/// Prepares standard output. Call once, before any thread exists and anything is written.
pub fn init() {
    // SAFETY: the C library's own stream, before anything is written to it; the buffer stays.
    unsafe {
        if libc::isatty(libc::STDOUT_FILENO) == 0 {
            // The library heeds the size only of a buffer that it is given.
            let buffer = Box::leak(Box::new([0; BUFFER_BYTES + REST_BYTES]));
            libc::setvbuf(stdout, buffer.as_mut_ptr(), libc::_IOFBF, buffer.len());
        }
    }
    broken_pipe::init();
    #[cfg(target_env = "gnu")]
    children::init();
    fork::init();
    os::exit::at_exit(at_exit);
}

/// The stream.
pub(crate) fn stream() -> *mut FILE {
    // SAFETY: set before `main`, and not by us.
    unsafe { stdout }
}

/// Bytes that wait to be written. A hint while other threads write; what this thread has written
/// is in it.
#[inline]
pub fn pending() -> usize {
    // SAFETY: reads two pointers of a stream that lives as long as the process.
    unsafe { __fpending(stream()) }
}

/// The right to write, of one thread at a time; it may be taken again while it is held.
#[derive(Debug)]
pub struct Lock {
    /// There is room for what its holder writes first.
    has_room: Cell<bool>,
    _thread: PhantomData<*const ()>,
}

impl Lock {
    fn new() -> Lock {
        Lock { has_room: Cell::new(false), _thread: PhantomData }
    }

    /// Waits for it.
    #[inline]
    pub fn take() -> Lock {
        HAS_WRITTEN.set(true);
        // SAFETY: a stream that lives as long as the process.
        unsafe { flockfile(stream()) };
        Lock::new()
    }

    /// Takes it if nobody else has it.
    fn try_take() -> Option<Lock> {
        // SAFETY: the stream is open as long as the process runs; the lock is given back by `Lock`.
        (unsafe { ftrylockfile(stream()) } == 0).then(Lock::new)
    }

    /// Before the first bytes of a call, these: has what was collected written if they do not fit,
    /// so that it ends with the call before. False, with the reason in `errno`, if some is lost.
    #[inline]
    pub fn make_room(&self, bytes: usize) -> bool {
        if self.has_room.replace(true) {
            return true;
        }
        let pending = pending();
        pending == 0 || pending + bytes <= BUFFER_BYTES || self.flush()
    }

    /// Writes bytes; false, with the reason in `errno`, if some of what was collected is lost.
    #[inline]
    pub fn write(&self, bytes: &[u8]) -> bool {
        let has_room = self.make_room(bytes.len());
        // SAFETY: the stream is locked, pointer and length are those of a slice.
        let written = unsafe { fwrite_unlocked(bytes.as_ptr().cast(), 1, bytes.len(), stream()) };
        written == bytes.len() && has_room
    }

    /// Has the system take what was collected; false, with the reason in `errno`, if it is lost.
    pub fn flush(&self) -> bool {
        // SAFETY: the stream is locked.
        unsafe { fflush_unlocked(stream()) == 0 }
    }
}

impl Drop for Lock {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: this thread holds it.
        unsafe { funlockfile(stream()) };
    }
}

/// Whether standard error is the same pipe, file or terminal.
fn is_shared() -> bool {
    let identity = |fd| {
        // SAFETY: all zero is a valid record, which is filled.
        unsafe {
            let mut found: libc::stat = std::mem::zeroed();
            (libc::fstat(fd, &raw mut found) == 0).then_some((found.st_dev, found.st_ino))
        }
    };
    let output = identity(libc::STDOUT_FILENO);
    output.is_some() && output == identity(libc::STDERR_FILENO)
}

/// The right to write to standard error, of one thread at a time; it may be taken again while it is
/// held. Where that is the same as standard output, nobody prints meanwhile.
#[derive(Debug)]
pub struct ErrorLock {
    _shared: Option<Lock>,
    _thread: PhantomData<*const ()>,
}

impl ErrorLock {
    /// Writes bytes at once; returns how many are written, and why not all in `errno`.
    pub fn write(&self, bytes: &[u8]) -> usize {
        // SAFETY: the stream is locked, pointer and length are those of a slice.
        unsafe { fwrite_unlocked(bytes.as_ptr().cast(), 1, bytes.len(), stderr) }
    }
}

impl Drop for ErrorLock {
    fn drop(&mut self) {
        // SAFETY: this thread holds it.
        unsafe { funlockfile(stderr) };
    }
}

/// Called before standard error is written: what was printed so far, which may have been written up
/// to the middle of a line, comes first where that is the same; and nothing else is printed there
/// until the lock is let go.
pub fn precede_error() -> ErrorLock {
    let shared = is_shared().then(Lock::take);
    if let Some(lock) = &shared
        && pending() > 0
        && !lock.flush()
    {
        note_loss();
    }
    // SAFETY: a stream that lives as long as the process.
    unsafe { flockfile(stderr) };
    ErrorLock { _shared: shared, _thread: PhantomData }
}

/// Has the system take what was collected. What is lost is noted. Who has written waits for the
/// reader; others must not: there may be none for long.
#[inline]
pub fn flush() {
    let has_written = HAS_WRITTEN.replace(false);
    if pending() == 0 {
        return;
    }
    if has_written { flush_all() } else { flush_for_others() }
}

/// What this thread has written may wait until the stream is full.
pub fn leave() {
    HAS_WRITTEN.set(false);
}

/// Has the system take what was collected, however long that takes.
#[cold]
fn flush_all() {
    if !Lock::take().flush() {
        note_loss();
    }
    HAS_WRITTEN.set(false);
}

/// The same for what others have written, C code of this thread among them, as far as that does
/// not wait. Who holds the lock writes, and flushes then.
#[cold]
fn flush_for_others() {
    let Some(lock) = Lock::try_take() else { return };
    if has_room() {
        if !lock.flush() {
            note_loss();
        }
    } else {
        drop(lock);
        nudge();
    }
}

/// Whether the system takes what was collected at once.
fn has_room() -> bool {
    let mut output = libc::pollfd { fd: libc::STDOUT_FILENO, events: libc::POLLOUT, revents: 0 };
    // SAFETY: one record; does not wait. All zero is a valid record, which is filled.
    unsafe {
        if libc::poll(&raw mut output, 1, 0) <= 0 {
            return false;
        }
        let mut found: libc::stat = std::mem::zeroed();
        // What a pipe takes at once when it takes anything.
        pending() <= BUFFER_BYTES
            || libc::fstat(libc::STDOUT_FILENO, &raw mut found) == 0
                && found.st_mode & libc::S_IFMT == libc::S_IFREG
    }
}

/// Notes that output was lost, for the reason in `errno`: `fflush` is to tell of it.
#[cold]
pub fn note_loss() {
    let error = Error::last_os_error();
    let reason = error.raw_os_error().unwrap_or(libc::EIO);
    REASON.store(reason, Ordering::Relaxed);
    // Release: pairs with the load in `loss_after`.
    LOSSES.fetch_add(1, Ordering::Release);
    // A reader that has gone, or never was, has not lost anything that it wanted.
    if !is_unwanted(Some(reason)) {
        IS_UNTOLD.store(true, Ordering::Relaxed);
    }
    if !IS_LOGGED.swap(true, Ordering::Relaxed) {
        log::warn!("standard output: {error}; what was printed is lost");
    }
}

/// Whether output was lost because nobody reads it, or standard output is closed.
fn is_unwanted(reason: Option<c_int>) -> bool {
    matches!(reason, Some(libc::EPIPE | libc::EBADF))
}

/// How often output was lost.
pub fn losses() -> u32 {
    LOSSES.load(Ordering::Relaxed)
}

/// Whether output was lost after the first `told` times, of which `told` then tells; and why, as in
/// `errno`.
#[inline]
pub fn loss_after(told: &Cell<u32>) -> Option<c_int> {
    // Acquire: pairs with `note_loss`.
    let losses = LOSSES.load(Ordering::Acquire);
    if told.replace(losses) == losses {
        return None;
    }
    IS_UNTOLD.store(false, Ordering::Relaxed);
    Some(REASON.load(Ordering::Relaxed))
}

/// Writes what is left, at the end of the process; false if output was lost and no script was told.
pub fn finish() -> bool {
    if pending() > 0 {
        flush_all();
    }
    !IS_UNTOLD.load(Ordering::Relaxed)
}

/// Writes what is left, whoever ends the process. Other threads may print no more: the C library
/// is going to look at the stream without its lock.
extern "C" fn at_exit() {
    let lock = Lock::take();
    let error = if lock.flush() { None } else { Some(Error::last_os_error()) };
    let is_wanted = |error: &Error| !is_unwanted(error.raw_os_error());
    if let Some(error) = error.filter(is_wanted) {
        // The log may have ended.
        let _ = std::io::Write::write_fmt(
            &mut std::io::stderr(),
            format_args!("node-lua: standard output: {error}\n"),
        );
    }
    std::mem::forget(lock);
}
