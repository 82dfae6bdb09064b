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
pub(crate) mod input;
mod late;
#[cfg(target_env = "gnu")]
mod reading;
#[cfg(target_env = "gnu")]
mod shortage;

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

/// Bytes that are collected: half of what a pipe holds, so that its reader works meanwhile.
const BUFFER_BYTES: usize = 32 * 1024;

pub(crate) use libc::FILE;

unsafe extern "C" {
    static stdout: *mut FILE;
    fn flockfile(stream: *mut FILE);
    fn ftrylockfile(stream: *mut FILE) -> c_int;
    fn funlockfile(stream: *mut FILE);
    fn fwrite_unlocked(from: *const c_void, size: usize, count: usize, to: *mut FILE) -> usize;
    fn fflush_unlocked(stream: *mut FILE) -> c_int;
    fn __fpending(stream: *mut FILE) -> usize;
}

/// What a pipe takes at once when it takes anything.
const PIPE_PAGE: usize = 4096;

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
    // SAFETY: the C library's own stream, before anything is written to it; a null buffer makes
    // the library allocate one.
    unsafe {
        if libc::isatty(libc::STDOUT_FILENO) == 0 {
            libc::setvbuf(stdout, std::ptr::null_mut(), libc::_IOFBF, BUFFER_BYTES);
        }
    }
    broken_pipe::init();
    #[cfg(target_env = "gnu")]
    children::init();
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
pub struct Lock(PhantomData<*const ()>);

impl Lock {
    /// Waits for it.
    #[inline]
    pub fn take() -> Lock {
        HAS_WRITTEN.set(true);
        // SAFETY: a stream that lives as long as the process.
        unsafe { flockfile(stream()) };
        Lock(PhantomData)
    }

    /// Takes it if nobody else has it.
    fn try_take() -> Option<Lock> {
        // SAFETY: as above.
        (unsafe { ftrylockfile(stream()) } == 0).then(|| Lock(PhantomData))
    }

    /// Writes bytes; false, with the reason in `errno`, if some of what was collected is lost.
    #[inline]
    pub fn write(&self, bytes: &[u8]) -> bool {
        // SAFETY: the stream is locked, pointer and length are those of a slice.
        unsafe { fwrite_unlocked(bytes.as_ptr().cast(), 1, bytes.len(), stream()) == bytes.len() }
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
        pending() <= PIPE_PAGE
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
    // A reader that has gone has not lost anything that it wanted.
    if reason != libc::EPIPE {
        IS_UNTOLD.store(true, Ordering::Relaxed);
    }
    if !IS_LOGGED.swap(true, Ordering::Relaxed) {
        log::warn!("standard output: {error}; what was printed is lost");
    }
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
    if !lock.flush() && Error::last_os_error().raw_os_error() != Some(libc::EPIPE) {
        let error = Error::last_os_error();
        // The log may have ended.
        let _ = std::io::Write::write_fmt(
            &mut std::io::stderr(),
            format_args!("node-lua: standard output: {error}\n"),
        );
    }
    std::mem::forget(lock);
}
