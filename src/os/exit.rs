//! How the process ends.

use std::ffi::c_int;
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::Duration;

use super::signal;

// SAFETY: numbers, and functions, which live as long as the process; the first is given the second.
unsafe extern "C" {
    safe fn on_exit(
        call: extern "C" fn(c_int, extern "C" fn(c_int)),
        function: extern "C" fn(c_int),
    ) -> c_int;
    safe fn _exit(status: c_int) -> !;
}

/// Has `function` called with the status when the process exits, however it does so but by a
/// signal. Should the system have no room for it in its list, it is not called.
pub fn at_exit(function: extern "C" fn(c_int)) {
    extern "C" fn call(status: c_int, function: extern "C" fn(c_int)) {
        function(status);
    }
    on_exit(call, function);
}

/// Ends the process at once with this status, of which the system keeps the lowest 8 bits: what is
/// buffered is lost.
pub fn exit_now(status: i32) -> ! {
    _exit(status)
}

/// How long it may take to write what is buffered: whoever reads it may be stuck.
const EXIT_PATIENCE: Duration = Duration::from_millis(400);

/// The status of a process that is being ended.
static STATUS: AtomicI32 = AtomicI32::new(0);

/// Ends the process with this status once what is buffered is written, or after 0.4 s. By an alarm:
/// the system might not start a thread.
pub fn exit_soon(status: i32) -> ! {
    extern "C" fn on_alarm(_signal: c_int) {
        exit_now(STATUS.load(Ordering::Relaxed));
    }
    STATUS.store(status, Ordering::Relaxed);
    signal::handle(libc::SIGALRM, on_alarm);
    signal::let_through(libc::SIGALRM);
    let never = libc::timeval { tv_sec: 0, tv_usec: 0 };
    let soon = libc::timeval { tv_sec: 0, tv_usec: EXIT_PATIENCE.as_micros() as libc::suseconds_t };
    let once = libc::itimerval { it_interval: never, it_value: soon };
    // SAFETY: a value to read, and no place for the one before.
    unsafe { libc::setitimer(libc::ITIMER_REAL, &raw const once, std::ptr::null_mut()) };
    std::process::exit(status)
}
