//! Standard input, line by line.

unsafe extern "C" {
    static stdin: *mut libc::FILE;
}

/// Has the C library read standard input byte by byte: for [`read_line`], before anything is read.
pub fn unbuffer_input() {
    // SAFETY: the C library's own stream, of which nothing has been read.
    unsafe { libc::setvbuf(stdin, std::ptr::null_mut(), libc::_IONBF, 0) };
}

/// Waits for a line from standard input; without its end, and nothing at the end of the input.
///
/// It is read with the C library's own stream, so that scripts that read it too find what follows;
/// and that stream is locked only once something is there, so that the process can end while this
/// waits.
pub fn read_line() -> Option<Vec<u8>> {
    let mut poll = libc::pollfd { fd: 0, events: libc::POLLIN, revents: 0 };
    let mut line = Vec::new();
    // SAFETY: one entry for `poll`; the C library's own stream, which locks itself.
    unsafe {
        loop {
            libc::poll(&raw mut poll, 1, -1);
            match libc::fgetc(stdin) {
                libc::EOF if line.is_empty() => return None,
                libc::EOF => return Some(line),
                10 => return Some(line),
                byte => line.push(byte as u8),
            }
        }
    }
}
