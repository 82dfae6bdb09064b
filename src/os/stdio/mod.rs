//! Standard output: what all contexts print, and C code too.
//!
//! Into a pipe or file what is printed is collected (output.rs); a turn that ends has it written
//! (`Program::turn`), and so has whatever blocks the thread for long: reading (reading.rs), child
//! processes (children.rs), the watchdog where nothing else does (late.rs). On a terminal each line
//! is written at once, as ever. Who writes several pieces that belong together holds a [`Lock`].
//!
//! What `print` and its like do with it: src/vm/stdio.rs.
//!
//! The linker has LuaJIT call our functions instead of the C library's (build.rs); our own calls
//! reach the library under its other names.

mod broken_pipe;
mod children;
mod files;
pub mod fork;
pub(crate) mod input;
mod late;
mod output;
mod reading;
mod scanned;
mod shortage;
mod start;
pub(crate) mod stream;
mod turnstile;
mod waits;

pub use files::{FILE_BYTES, on_file};
pub use input::{read_line, unbuffer_input};
pub use late::nudge;
pub use output::{Lock, pending, use_stream};
pub use reading::on_read;
pub(crate) use waits::is_file;
pub use waits::{hurry, on_wait, patience};

use std::cell::Cell;
use std::ffi::c_int;
use std::io::{Error, IsTerminal};
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, Ordering};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::fstat;
use rustix::stdio::{stderr, stdout};

use self::stream::{Locked, Stream};
use crate::os;

/// Bytes that the C library collects, where C code prints.
const STREAM_BYTES: usize = 8192;

pub(crate) use libc::FILE;

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
/// Standard output is a terminal.
static IS_TERMINAL: AtomicBool = AtomicBool::new(false);

/// How long the process waits at its end for a thread that prints, while nothing gets written.
const PATIENCE: Duration = Duration::from_secs(2);

/// Prepares standard output. Call once, before any thread exists and anything is written.
pub fn init() {
    turnstile::init();
    if stdout().is_terminal() {
        IS_TERMINAL.store(true, Ordering::Relaxed);
        output::use_stream();
    } else {
        Stream::output().set_buffer(STREAM_BYTES);
    }
    broken_pipe::init();
    children::init();
    fork::init();
    os::exit::at_exit(at_exit);
}

fn is_terminal() -> bool {
    IS_TERMINAL.load(Ordering::Relaxed)
}

/// Whether standard error is the same pipe, file or terminal.
fn is_shared() -> bool {
    let identity = |fd| fstat(fd).map(|found| (found.st_dev, found.st_ino)).ok();
    let output = identity(stdout());
    output.is_some() && output == identity(stderr())
}

/// The right to write to standard error, of one thread at a time; it may be taken again while it is
/// held. Where that is the same as standard output, nobody prints meanwhile.
#[derive(Debug)]
pub struct ErrorLock {
    /// Nothing if what the thread runs is to end: it writes nothing any more.
    held: Option<Locked>,
    _shared: Option<Lock>,
}

impl ErrorLock {
    /// Writes bytes; returns how many are written, and why not all, if so, as in `errno`.
    pub fn write(&self, bytes: &[u8]) -> (usize, Option<c_int>) {
        match self.held {
            Some(_) => waits::write(stderr(), bytes),
            None => (0, Some(libc::EINTR)),
        }
    }
}

/// Called before standard error is written: what was printed so far, which may have been written up
/// to the middle of a line, comes first where that is the same; and nothing else is printed there
/// until the lock is let go.
pub fn precede_error() -> ErrorLock {
    let shared = is_shared().then(Lock::take).and_then(Result::ok);
    if let Some(lock) = &shared
        && pending() > 0
        && let Some(reason) = lock.flush()
    {
        note_loss(reason);
    }
    ErrorLock { held: Stream::errors().lock(), _shared: shared }
}

/// Writes what was collected, and notes what is lost. A thread that has printed waits for the
/// reader; others must not, since nobody may read for a long time.
#[inline]
pub fn flush() {
    let has_written = HAS_WRITTEN.replace(false);
    if pending() == 0 {
        return;
    }
    if has_written { flush_all() } else { flush_for_others() }
}

/// Lets what this thread has written wait until the stream is full.
pub fn leave() {
    HAS_WRITTEN.set(false);
}

/// Writes what was collected, however long that takes, unless the context that this thread runs is
/// to end.
#[cold]
fn flush_all() {
    let reason = Lock::take().map_or_else(Some, |lock| lock.flush());
    if let Some(reason) = reason {
        note_loss(reason);
    }
    HAS_WRITTEN.set(false);
}

/// Writes what others have printed, C code on this thread among them, as far as that does not
/// block. Whoever holds the lock flushes when it is done.
#[cold]
fn flush_for_others() {
    let Some(lock) = Lock::try_take() else { return };
    if has_room() {
        if let Some(reason) = lock.flush() {
            note_loss(reason);
        }
    } else {
        drop(lock);
        nudge();
    }
}

/// Whether what was collected can be written without blocking.
fn has_room() -> bool {
    let mut output = [PollFd::from_borrowed_fd(stdout(), PollFlags::OUT)];
    let is_ready = poll(&mut output, Some(&Timespec::default())).is_ok_and(|count| count > 0);
    is_ready && (output::has_little() || is_file(stdout()))
}

/// Notes that output was lost, for a reason as in `errno`, which `fflush` will report. After EINTR
/// nothing is lost: another thread writes the rest.
#[cold]
pub fn note_loss(reason: c_int) {
    if reason == libc::EINTR {
        return nudge();
    }
    REASON.store(reason, Ordering::Relaxed);
    // Release: pairs with the load in `loss_after`.
    LOSSES.fetch_add(1, Ordering::Release);
    // A reader that has gone, or never was, has not lost anything that it wanted.
    if !is_unwanted(reason) {
        IS_UNTOLD.store(true, Ordering::Relaxed);
    }
    if !IS_LOGGED.swap(true, Ordering::Relaxed) {
        let error = Error::from_raw_os_error(reason);
        log::warn!("standard output: {error}; what was printed is lost");
    }
}

/// Whether output was lost because nobody reads it, or standard output is closed.
fn is_unwanted(reason: c_int) -> bool {
    matches!(reason, libc::EPIPE | libc::EBADF)
}

/// How often output was lost so far, modulo 2^32.
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
    if waits::is_hurried() {
        let lock = output::take_within(patience(PATIENCE));
        let _ = lock.and_then(|lock| lock.flush());
    } else if pending() > 0 {
        flush_all();
    }
    !IS_UNTOLD.load(Ordering::Relaxed)
}

/// Writes what is left however the process ends, unless another thread is stuck writing. No thread
/// may print after that: the C library is going to look at the stream without its lock.
extern "C" fn at_exit(status: c_int) {
    let Some(lock) = output::take_within(patience(PATIENCE)) else { os::exit::exit_now(status) };
    let reason = lock.flush().filter(|&reason| reason != libc::EINTR && !is_unwanted(reason));
    if let Some(reason) = reason {
        let error = Error::from_raw_os_error(reason);
        // The log may have ended.
        let _ = std::io::Write::write_fmt(
            &mut std::io::stderr(),
            format_args!("node-lua: standard output: {error}\n"),
        );
    }
    std::mem::forget(lock);
}
