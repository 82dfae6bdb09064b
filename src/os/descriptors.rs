//! How many descriptors the process may have open.

use std::ffi::c_int;
use std::os::fd::AsRawFd;
use std::sync::OnceLock;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// What limited descriptors before that was raised.
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
