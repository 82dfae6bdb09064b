//! How many descriptors the process may have open, and what is done where there are no more.

use std::ffi::c_int;
use std::io;
use std::os::fd::AsRawFd;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// The limit of descriptors that the process was started with, if it was raised.
static DESCRIPTORS: OnceLock<Rlimit> = OnceLock::new();

/// Allows as many open descriptors as the system lets the process have. A server is not meant to
/// end at 1,024 connections; the soft limit is that low for programs that use `select`.
pub(super) fn raise_descriptor_limit() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, ..limit };
    // Where it is refused everything stays as it was.
    if limit.current != limit.maximum && setrlimit(Resource::Nofile, raised).is_ok() {
        let _ = DESCRIPTORS.set(limit);
    }
}

/// How many descriptors the process could have open when it was started, if that has been raised:
/// its children are to find the same.
pub fn usual_descriptor_limit() -> Option<u64> {
    DESCRIPTORS.get()?.current
}

/// Gives the calling process that limit: a child, once C code has divided this one.
/// Async-signal-safe.
pub fn restore_descriptor_limit() {
    if let Some(limit) = DESCRIPTORS.get() {
        let _ = setrlimit(Resource::Nofile, *limit);
    }
}

/// How many descriptors the process may have open.
pub fn descriptors_max() -> u64 {
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

/// The lowest number that a new descriptor would have, or the most there are: less than before once
/// some were closed.
pub(crate) fn lowest_free() -> c_int {
    rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdout(), 0)
        .map_or(c_int::MAX, |file| file.as_raw_fd())
}

/// Time between two looks for a free one.
const TICK: Duration = Duration::from_millis(1);

/// Waits until a descriptor below this number is free, or `is_over`, or `patience` has passed; true
/// if one is free.
pub(crate) fn await_free(number: c_int, is_over: impl Fn() -> bool, patience: Duration) -> bool {
    let start = Instant::now();
    while lowest_free() >= number && !is_over() && start.elapsed() < patience {
        std::thread::sleep(TICK);
    }
    lowest_free() < number
}

/// Closes descriptors of what nobody refers to any more; false if there was nothing to close.
static RELIEVE: OnceLock<fn() -> bool> = OnceLock::new();

/// Attempts to open something: others may take what was let go.
const ATTEMPTS: usize = 16;

/// Sets what makes room for descriptors. Called on threads that open files for scripts.
pub(crate) fn on_shortage(relieve: fn() -> bool) {
    RELIEVE.get_or_init(|| relieve);
}

/// Opens something; tries again if there was no free descriptor and some could be closed.
pub(crate) fn with_room<R>(mut open: impl FnMut() -> io::Result<R>) -> io::Result<R> {
    for _ in 1..ATTEMPTS {
        let opened = open();
        let error = opened.as_ref().err().and_then(io::Error::raw_os_error);
        let is_shortage = matches!(error, Some(libc::EMFILE | libc::ENFILE));
        if !is_shortage {
            return opened;
        }
        if !RELIEVE.get().is_some_and(|relieve| relieve()) {
            break;
        }
    }
    open()
}
