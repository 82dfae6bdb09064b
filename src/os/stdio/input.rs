//! Standard input, line by line.

use rustix::event::{PollFd, PollFlags, poll};
use rustix::stdio::stdin;

use super::stream::Stream;

/// Has the C library read standard input byte by byte: for [`read_line`], before anything is read.
pub fn unbuffer_input() {
    Stream::input().set_buffer(0);
}

/// Waits for a line from standard input; without its end, and nothing at the end of the input.
///
/// It is read with the C library's own stream, so that scripts that read it too find what follows;
/// and that stream is locked only once something is there, so that the process can end while this
/// waits.
pub fn read_line() -> Option<Vec<u8>> {
    let mut line = Vec::new();
    loop {
        let _ = poll(&mut [PollFd::from_borrowed_fd(stdin(), PollFlags::IN)], None);
        match Stream::input().byte() {
            None if line.is_empty() => return None,
            None | Some(b'\n') => return Some(line),
            Some(byte) => line.push(byte),
        }
    }
}
