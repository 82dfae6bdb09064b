//! How the process ends.

use std::ffi::{c_int, c_void};
use std::time::Duration;

/// Has `function` called with the status when the process exits, however it does so but by a
/// signal.
pub fn at_exit(function: extern "C" fn(c_int)) {
    unsafe extern "C" {
        fn on_exit(function: extern "C" fn(c_int, *mut c_void), of: *mut c_void) -> c_int;
    }
    extern "C" fn call(status: c_int, of: *mut c_void) {
        // SAFETY: what was given below.
        let function: extern "C" fn(c_int) = unsafe { std::mem::transmute(of) };
        function(status);
    }
    // SAFETY: functions that live as long as the process. Should there be no room in the list, it
    // is not called.
    unsafe { on_exit(call, function as *mut c_void) };
}

/// Ends the process at once: what is buffered is lost.
pub fn exit_now(status: i32) -> ! {
    // SAFETY: no requirements.
    unsafe { libc::_exit(status) }
}

/// How long it may take to write what is buffered: whoever reads it may be stuck.
const EXIT_PATIENCE: Duration = Duration::from_millis(400);

/// Ends the process once what is buffered is written, or after a moment.
pub fn exit_soon(status: i32) -> ! {
    let _ = std::thread::Builder::new().spawn(move || {
        std::thread::sleep(EXIT_PATIENCE);
        exit_now(status);
    });
    std::process::exit(status)
}
