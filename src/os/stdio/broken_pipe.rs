//! SIGPIPE: a script whose reader is gone ends as any program does, while a process with sockets
//! lives on, and is told of the failure by the write.
//!
//! The signal has a handler, since a program that is executed starts with the default action for
//! what has one: ignoring the signal, as Rust's runtime does, is inherited by children however they
//! are made.

use std::ffi::c_int;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::os::epoll;

/// The process was started with the signal ignored: whoever did that has writes fail instead.
static WAS_IGNORED: AtomicBool = AtomicBool::new(false);

/// Runs before Rust's runtime, which ignores the signal.
extern "C" fn look() {
    // SAFETY: all zero is a valid sigaction; asks only.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        libc::sigaction(libc::SIGPIPE, std::ptr::null(), &raw mut action);
        WAS_IGNORED.store(action.sa_sigaction == libc::SIG_IGN, Ordering::Relaxed);
    }
}

// SAFETY: the loader calls what is in this section, without arguments that matter here.
#[used]
#[unsafe(link_section = ".init_array")]
static LOOK: extern "C" fn() = look;

/// Ends the process by the signal, unless it is to live on.
extern "C" fn on_broken_pipe(signal: c_int) {
    if epoll::has_sockets() || WAS_IGNORED.load(Ordering::Relaxed) {
        return;
    }
    // SAFETY: both may be called in a handler. The signal, blocked meanwhile, comes after it.
    unsafe {
        libc::signal(signal, libc::SIG_DFL);
        libc::raise(signal);
    }
}

/// Installs the handler.
pub(super) fn init() {
    // SAFETY: all zero is a valid sigaction, which is filled; the handler only does what handlers
    // may do.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = on_broken_pipe as *const () as libc::sighandler_t;
        action.sa_flags = libc::SA_RESTART;
        libc::sigaction(libc::SIGPIPE, &raw const action, std::ptr::null_mut());
    }
}
