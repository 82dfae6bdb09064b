//! How many descriptors the process may have open.

use std::ffi::c_int;
use std::sync::OnceLock;

/// What limited descriptors before that was raised.
static DESCRIPTORS: OnceLock<libc::rlimit> = OnceLock::new();

/// Allows as many open descriptors as the system lets the process have. A server is not meant to
/// end at 1,024 connections; the soft limit is that low for programs that use `select`.
pub(super) fn raise_descriptor_limit() {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: a place for the result.
    if unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) } != 0 {
        return;
    }
    let raised = libc::rlimit { rlim_cur: limit.rlim_max, ..limit };
    if limit.rlim_cur >= limit.rlim_max {
        return;
    }
    // SAFETY: a filled structure. Where it is refused everything stays as it was.
    if unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const raised) } == 0 {
        let _ = DESCRIPTORS.set(limit);
    }
}

/// How many descriptors the process could have open when it was started, if that has been raised:
/// its children are to find the same.
pub fn usual_descriptor_limit() -> Option<u64> {
    DESCRIPTORS.get().map(|limit| limit.rlim_cur)
}

/// Gives the calling process that limit: a child, once C code has divided this one.
/// Async-signal-safe.
pub fn restore_descriptor_limit() {
    if let Some(limit) = DESCRIPTORS.get() {
        // SAFETY: a filled structure.
        unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, limit) };
    }
}

/// How many descriptors the process may have open.
pub fn descriptors_max() -> u64 {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: a place for the result.
    unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) };
    limit.rlim_cur
}

/// The lowest number that a new descriptor would have, or the most there are: less than before once
/// some were closed.
pub(crate) fn lowest_free() -> c_int {
    // SAFETY: makes a descriptor, and closes it.
    unsafe {
        let file = libc::fcntl(libc::STDOUT_FILENO, libc::F_DUPFD_CLOEXEC, 0);
        if file < 0 {
            return c_int::MAX;
        }
        libc::close(file);
        file
    }
}
