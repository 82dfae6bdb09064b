//! Waiting for the other end of a standard stream, whether or not the descriptor blocks. A context
//! that is to end stops waiting: its thread is kicked, which interrupts the system call.

use std::ffi::c_int;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FileType, OFlags, fcntl_getfl, fstat};
use rustix::io::Errno;

/// Tells whether the context that this thread runs is to end.
static ENDS: OnceLock<fn() -> bool> = OnceLock::new();

/// Sets what tells whether the context that a thread runs is to end.
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

/// Whether the context that this thread runs is to end.
fn ends() -> bool {
    ENDS.get().is_some_and(|ends| ends())
}

/// How long to wait at a time for another thread, which may be waiting for a reader: for ever,
/// unless the context is to end; once more and briefly if the process ends by a signal.
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

/// Calls `look` again and again until it finds something; `None` if the context is to end first.
pub(super) fn look_again<R>(mut look: impl FnMut() -> Option<R>) -> Option<R> {
    const STEPS: u32 = 20;
    let mut steps = std::iter::from_fn(until_end()).flat_map(|_| 0..STEPS);
    steps.find_map(|_| {
        std::thread::sleep(HURRY / STEPS);
        look()
    })
}

/// Whether the descriptor was opened for what is waited for: nothing ever comes out of the writing
/// end of a pipe, and reading from it fails at once.
fn is_open_for(fd: BorrowedFd<'_>, events: PollFlags) -> bool {
    let other = if events == PollFlags::IN { OFlags::WRONLY } else { OFlags::RDONLY };
    fcntl_getfl(fd).is_ok_and(|flags| flags & OFlags::RWMODE != other)
}

fn poll_for(fd: BorrowedFd<'_>, events: PollFlags, time: Option<Duration>) -> Result<usize, Errno> {
    let time = time.map(|time| Timespec::try_from(time).expect("a short time"));
    poll(&mut [PollFd::from_borrowed_fd(fd, events)], time.as_ref())
}

/// Whether reading or writing, as in `events`, does not block.
pub(super) fn is_ready(fd: BorrowedFd<'_>, events: PollFlags) -> bool {
    match poll_for(fd, events, Some(Duration::ZERO)) {
        Ok(0) => !is_open_for(fd, events),
        // What is not in the nature of the descriptor is told by its use.
        found => found != Err(Errno::INTR),
    }
}

/// Waits until a descriptor is ready; false if the context is to end first.
pub(super) fn wait(fd: BorrowedFd<'_>, events: PollFlags) -> bool {
    if is_ready(fd, events) {
        return true;
    }
    loop {
        let is_hurried = is_hurried();
        if ends() {
            return false;
        }
        match poll_for(fd, events, is_hurried.then_some(HURRY)) {
            Ok(0) if is_hurried => return false,
            Ok(0) | Err(Errno::INTR) => {}
            _ => return true,
        }
    }
}

/// Whether it is a regular file, which never blocks.
pub(crate) fn is_file(descriptor: impl AsFd) -> bool {
    file_type(descriptor) == Some(FileType::RegularFile)
}

fn file_type(descriptor: impl AsFd) -> Option<FileType> {
    fstat(descriptor).ok().map(|found| FileType::from_raw_mode(found.st_mode))
}

/// What a pipe takes at once when it takes anything.
const PIPE_BYTES: usize = 4096;

/// The most bytes of one write: what a pipe takes as a whole, or all where the other end is no
/// pipe; `None` for a file, which need not be waited for.
fn piece(fd: BorrowedFd<'_>) -> Option<usize> {
    match file_type(fd) {
        Some(FileType::RegularFile) => None,
        Some(FileType::Fifo) => Some(PIPE_BYTES),
        _ => Some(usize::MAX),
    }
}

/// Writes bytes, however long that takes. Returns how many were written, and if not all, why, as in
/// `errno`: EINTR if the context is to end.
pub(super) fn write(fd: BorrowedFd<'_>, bytes: &[u8]) -> (usize, Option<c_int>) {
    let (mut rest, piece) = (bytes, piece(fd));
    while !rest.is_empty() {
        let part = &rest[..rest.len().min(piece.unwrap_or(usize::MAX))];
        if piece.is_some() && !wait(fd, PollFlags::OUT) {
            return (bytes.len() - rest.len(), Some(libc::EINTR));
        }
        match rustix::io::write(fd, part) {
            Ok(0) => return (bytes.len() - rest.len(), Some(libc::EIO)),
            Ok(gone) => {
                WRITTEN.fetch_add(gone as u64, Ordering::Relaxed);
                rest = &rest[gone..];
            }
            Err(Errno::INTR | Errno::AGAIN) => {}
            Err(error) => return (bytes.len() - rest.len(), Some(error.raw_os_error())),
        }
    }
    (bytes.len(), None)
}
