//! A process that C code has forked off this one: of all threads it has only the one that forked.
//! So nothing in it may wait for another thread, for a lock that one may have held least of all.

use std::cell::Cell;
use std::ffi::c_int;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::hint::rarely;
use crate::os::descriptors;
use crate::os::signal::{self, Mask};

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
    static BLOCKED: Cell<Option<Mask>> = const { Cell::new(None) };
}

/// A process that is divided would write twice what is collected; and a signal that comes to the
/// new one before its handlers are gone would be told to this one.
extern "C" fn before() {
    if super::pending() > 0 {
        super::flush_all();
    }
    BLOCKED.set(Some(Mask::all().add()));
}

extern "C" fn unblock() {
    if let Some(before) = BLOCKED.take() {
        before.set();
    }
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
