//! The limit of what answers over sockets: each read, whatever it brings, is answered with the same
//! bytes, which are those of a short answer of HTTP. One read and one write, and nothing else.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::os::fd::AsRawFd;

use crate::serve::say_ready;
use crate::sys::{self, EDGE_IN_OUT};

const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\n\
    date: Fri, 27 Nov 2026 05:26:05 GMT\r\ncontent-length: 5\r\n\r\nhello";

/// What the listener's events carry.
const LISTENER: u64 = u64::MAX;

/// Serves for ever, on this thread.
///
/// # Errors
///
/// When the port is taken or the process runs out of descriptors.
pub fn run(port: u16) -> io::Result<()> {
    let listener = sys::listen(port)?;
    listener.set_nonblocking(true)?;
    let epoll = sys::Epoll::new()?;
    epoll.add(listener.as_raw_fd(), EDGE_IN_OUT, LISTENER)?;
    let mut streams: Vec<Option<TcpStream>> = Vec::new();
    let mut list = sys::events(1024);
    let mut input = [0; 8192];
    say_ready();
    loop {
        let n = epoll.wait(&mut list, -1)?;
        for event in &list[..n] {
            if event.u64 == LISTENER {
                while let Ok((stream, _)) = listener.accept() {
                    stream.set_nodelay(true)?;
                    stream.set_nonblocking(true)?;
                    let fd = stream.as_raw_fd();
                    let at = fd as usize;
                    streams.resize_with(streams.len().max(at + 1), || None);
                    streams[at] = Some(stream);
                    epoll.add(fd, EDGE_IN_OUT, fd as u64)?;
                }
                continue;
            }
            let Some(slot) = streams.get_mut(event.u64 as usize) else { continue };
            let Some(stream) = slot else { continue };
            let is_over = match stream.read(&mut input) {
                Ok(0) => true,
                Ok(_) => stream.write(ANSWER).is_err(),
                Err(error) => error.kind() != io::ErrorKind::WouldBlock,
            };
            if is_over {
                *slot = None;
            }
        }
    }
}
