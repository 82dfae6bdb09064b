//! What the process was started with, before Rust's runtime changes it: that opens `/dev/null` in
//! the place of standard streams that are closed, and ignores SIGPIPE.

use std::ffi::c_int;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::os::signal;

/// SIGPIPE was ignored: whoever did that has writes fail instead.
static IGNORES_BROKEN_PIPES: AtomicBool = AtomicBool::new(false);

/// Runs before Rust's runtime.
extern "C" fn look() {
    IGNORES_BROKEN_PIPES.store(signal::is_ignored(libc::SIGPIPE), Ordering::Relaxed);
    for fd in libc::STDIN_FILENO..=libc::STDERR_FILENO {
        hold_place(fd);
    }
}

/// Puts something in the place of a standard stream that is closed, so that no file or socket gets
/// its number. It can only be used the other way round: who reads or writes the stream is told that
/// it is a bad descriptor, as if it were closed.
fn hold_place(fd: c_int) {
    let mode = if fd == libc::STDIN_FILENO { libc::O_WRONLY } else { libc::O_RDONLY };
    // SAFETY: looks at a number that may be no descriptor, and opens a file by a constant name. It
    // gets the lowest number that is free: those below are taken.
    unsafe {
        if libc::fcntl(fd, libc::F_GETFD) < 0 {
            libc::open(c"/dev/null".as_ptr(), mode);
        }
    }
}

// SAFETY: the loader calls what is in this section, without arguments that matter here.
#[used]
#[unsafe(link_section = ".init_array")]
static LOOK: extern "C" fn() = look;

/// Whether SIGPIPE was ignored.
pub(super) fn ignores_broken_pipes() -> bool {
    IGNORES_BROKEN_PIPES.load(Ordering::Relaxed)
}
