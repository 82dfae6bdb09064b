//! How the process ends.

use std::ffi::c_int;
use std::time::Duration;

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

/// Ends the process with this status once what is buffered is written, or after 0.4 s.
pub fn exit_soon(status: i32) -> ! {
    let _ = std::thread::Builder::new().spawn(move || {
        std::thread::sleep(EXIT_PATIENCE);
        exit_now(status);
    });
    std::process::exit(status)
}
