//! How the process ends.

use std::time::Duration;

/// Has `function` called when the process exits, however it does so but by a signal.
pub fn at_exit(function: extern "C" fn()) {
    // SAFETY: a function that lives as long as the process. Should there be no room in the list, it
    // is not called.
    unsafe { libc::atexit(function) };
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
