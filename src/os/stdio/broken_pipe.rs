//! SIGPIPE: a script whose reader is gone ends as any program does, while a process with sockets
//! lives on, and is told of the failure by the write.
//!
//! The signal has a handler, since a program that is executed starts with the default action for
//! what has one: ignoring the signal, as Rust's runtime does, is inherited by children however they
//! are made.

use std::ffi::c_int;

use super::start;
use crate::os::{epoll, signal};

/// Ends the process by the signal, unless it is to live on.
extern "C" fn on_broken_pipe(number: c_int) {
    if epoll::has_sockets() || start::ignores_broken_pipes() {
        return;
    }
    // The signal, blocked meanwhile, comes after the handler.
    signal::die_of(number);
}

/// Installs the handler.
pub(super) fn init() {
    signal::handle(libc::SIGPIPE, on_broken_pipe);
}
