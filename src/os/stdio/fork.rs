//! A process that C code has forked off this one: of all threads it has only the one that forked.
//! So nothing in it may wait for another thread, for a lock that one may have held least of all.

use std::cell::Cell;
use std::ffi::c_int;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::hint::rarely;
use crate::os::{descriptors, signal};

// SAFETY: functions, which live as long as the process.
unsafe extern "C" {
    safe fn pthread_atfork(
        before: Option<extern "C" fn()>,
        in_parent: Option<extern "C" fn()>,
        in_child: Option<extern "C" fn()>,
    ) -> c_int;
}

static IS_CHILD: AtomicBool = AtomicBool::new(false);

/// Whether this process was forked off, and has executed no program.
#[inline]
pub fn is_child() -> bool {
    // Relaxed: set before anything else runs in such a process.
    rarely(IS_CHILD.load(Ordering::Relaxed))
}

/// Has forks prepared, and looked after. Call once.
pub(super) fn init() {
    pthread_atfork(Some(before), Some(unblock), Some(in_child));
}

thread_local! {
    /// The signals that this thread blocks, while it forks.
    static BLOCKED: Cell<Option<libc::sigset_t>> = const { Cell::new(None) };
}

/// Has signals wait: one that comes to the new process before its handlers are gone would be told
/// to this one.
fn block() {
    // SAFETY: all zero is a valid set; places for the sets.
    unsafe {
        let (mut all, mut before) = (std::mem::zeroed(), std::mem::zeroed());
        libc::sigfillset(&raw mut all);
        libc::pthread_sigmask(libc::SIG_BLOCK, &raw const all, &raw mut before);
        BLOCKED.set(Some(before));
    }
}

extern "C" fn unblock() {
    if let Some(before) = BLOCKED.take() {
        // SAFETY: the set that was there before.
        unsafe {
            libc::pthread_sigmask(libc::SIG_SETMASK, &raw const before, std::ptr::null_mut())
        };
    }
}

/// A process that is divided would write twice what is collected.
extern "C" fn before() {
    if super::pending() > 0 {
        super::flush_all();
    }
    block();
}

extern "C" fn in_child() {
    IS_CHILD.store(true, Ordering::Relaxed);
    super::output::reset();
    descriptors::restore_descriptor_limit();
    signal::leave_to_system();
    unblock();
}

/// Writes to standard error, whoever held its lock; what cannot be written is lost.
pub fn write_error(mut text: &[u8]) {
    let stderr = std::io::stderr();
    while !text.is_empty() {
        match rustix::io::write(stderr.as_fd(), text) {
            Ok(bytes @ 1..) => text = &text[bytes..],
            Err(rustix::io::Errno::INTR) => {}
            Ok(_) | Err(_) => return,
        }
    }
}
