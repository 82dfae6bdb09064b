//! SIGPIPE: a script whose reader is gone ends as any program does, while a process with sockets
//! lives on, and is told of the failure by the write.
//!
//! The signal has a handler, since a program that is executed starts with the default action for
//! what has one: ignoring the signal, as Rust's runtime does, is inherited by children however they
//! are made.

use std::ffi::c_int;

use super::start;
use crate::os::epoll;

/// Ends the process by the signal, unless it is to live on.
extern "C" fn on_broken_pipe(signal: c_int) {
    if epoll::has_sockets() || start::ignores_broken_pipes() {
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
