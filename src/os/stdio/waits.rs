//! Waiting for who reads or writes at the other end of a standard stream, whether or not the
//! descriptor blocks. Who waits is free to end: the thread is kicked, which ends the wait.

use std::ffi::c_int;
use std::io::Error;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use super::FILE;

/// Whether what this thread runs is to end.
static ENDS: OnceLock<fn() -> bool> = OnceLock::new();

/// Sets what tells whether what the thread runs is to end.
pub fn on_wait(ends: fn() -> bool) {
    ENDS.get_or_init(|| ends);
}

/// The process ends by a signal: nobody waits for long any more.
static IS_HURRIED: AtomicBool = AtomicBool::new(false);

/// How long they wait then while nothing moves.
const HURRY: Duration = Duration::from_millis(100);

/// Has nobody wait for long any more, since the process ends by a signal.
pub fn hurry() {
    IS_HURRIED.store(true, Ordering::Relaxed);
}

pub(super) fn is_hurried() -> bool {
    IS_HURRIED.load(Ordering::Relaxed)
}

/// How long to wait at the end of the process while nothing is written, if that is usually so long.
pub fn patience(usual: Duration) -> Duration {
    if is_hurried() { HURRY } else { usual }
}

/// Counts what was written.
static WRITTEN: AtomicU64 = AtomicU64::new(0);

/// Bytes written to standard streams so far.
pub(super) fn written() -> u64 {
    WRITTEN.load(Ordering::Relaxed)
}

pub(super) fn errno() -> c_int {
    Error::last_os_error().raw_os_error().unwrap_or(libc::EIO)
}

/// Whether what this thread runs is to end.
fn ends() -> bool {
    ENDS.get().is_some_and(|ends| ends())
}

/// How long to wait at a time for another thread, which may wait for a reader: for ever, unless
/// what this thread runs is to end; once more, but not for long, if the process ends by a signal.
pub(super) fn until_end() -> impl FnMut() -> Option<Duration> {
    let mut was_hurried = false;
    move || {
        if was_hurried || ends() {
            return None;
        }
        was_hurried = is_hurried();
        Some(if was_hurried { HURRY } else { Duration::MAX })
    }
}

unsafe extern "C" {
    fn ftrylockfile(stream: *mut FILE) -> c_int;
}

/// Takes a stream's lock, if it is free.
///
/// # Safety
/// An open stream.
pub(super) unsafe fn try_lock(stream: *mut FILE) -> bool {
    // SAFETY: see above.
    unsafe { ftrylockfile(stream) == 0 }
}

/// Takes a stream's lock; false if what the thread runs is to end first: another thread may have it
/// for as long as nobody reads. The C library's own wait for it cannot be ended.
///
/// # Safety
/// As for [`try_lock`].
pub(super) unsafe fn lock(stream: *mut FILE) -> bool {
    const STEPS: u32 = 20;
    // SAFETY: see above.
    let is_taken = || unsafe { try_lock(stream) };
    let is_taken_soon = || {
        std::thread::sleep(HURRY / STEPS);
        is_taken()
    };
    let patience = until_end();
    is_taken() || std::iter::from_fn(patience).any(|_| (0..STEPS).any(|_| is_taken_soon()))
}

/// Waits until a descriptor is ready; false if what the thread runs is to end first.
pub(super) fn wait(fd: c_int, events: i16) -> bool {
    let poll = |time| {
        let mut entry = libc::pollfd { fd, events, revents: 0 };
        // SAFETY: one entry.
        unsafe { libc::poll(&raw mut entry, 1, time) }
    };
    // What is not in the nature of the descriptor is told by its use.
    let mut found = poll(0);
    while found == 0 || found < 0 && errno() == libc::EINTR {
        let is_hurried = is_hurried();
        if ends() {
            return false;
        }
        found = poll(if is_hurried { HURRY.as_millis() as c_int } else { -1 });
        if found == 0 && is_hurried {
            return false;
        }
    }
    true
}

/// What a pipe takes at once when it takes anything.
const PIPE_BYTES: usize = 4096;

/// How many bytes at most are written at once to what does not keep others waiting, or to what
/// keeps the borders of pieces; nothing for a file, which one need not wait for.
fn piece(fd: c_int) -> Option<usize> {
    // SAFETY: all zero is a valid record, which is filled.
    let mode = unsafe {
        let mut found: libc::stat = std::mem::zeroed();
        libc::fstat(fd, &raw mut found);
        found.st_mode & libc::S_IFMT
    };
    match mode {
        libc::S_IFREG => None,
        libc::S_IFIFO => Some(PIPE_BYTES),
        _ => Some(usize::MAX),
    }
}

/// Writes bytes, however long that takes. Returns how many are written, and why not all, if so, as
/// in `errno`: EINTR if what the thread runs is to end.
pub(super) fn write(fd: c_int, bytes: &[u8]) -> (usize, Option<c_int>) {
    let (mut rest, piece) = (bytes, piece(fd));
    while !rest.is_empty() {
        let part = &rest[..rest.len().min(piece.unwrap_or(usize::MAX))];
        if piece.is_some() && !wait(fd, libc::POLLOUT) {
            return (bytes.len() - rest.len(), Some(libc::EINTR));
        }
        // SAFETY: pointer and length of a slice.
        match unsafe { libc::write(fd, part.as_ptr().cast(), part.len()) } {
            gone @ 1.. => {
                WRITTEN.fetch_add(gone as u64, Ordering::Relaxed);
                rest = &rest[gone as usize..];
            }
            0 => return (bytes.len() - rest.len(), Some(libc::EIO)),
            _ => match errno() {
                libc::EINTR | libc::EAGAIN => {}
                error => return (bytes.len() - rest.len(), Some(error)),
            },
        }
    }
    (bytes.len(), None)
}
