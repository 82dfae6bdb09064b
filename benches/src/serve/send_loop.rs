//! The limit of a broadcast: one thread, one `send` for each frame and client, or, batched, one
//! for all frames of an order.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::os::fd::AsRawFd;

use crate::serve::{frame_length, say_ready};
use crate::sys::{self, EDGE_IN_OUT, Epoll};

/// Accepts clients; a frame with the decimal number `n` from any of them sends the 1 KiB frame
/// `n` times to each client.
///
/// # Errors
///
/// When the port is taken or a client fails.
pub fn run(port: u16, batch: bool) -> io::Result<()> {
    let listener = sys::listen(port)?;
    listener.set_nonblocking(true)?;
    let epoll = Epoll::new()?;
    epoll.add(listener.as_raw_fd(), (EDGE_IN_OUT) & !(libc::EPOLLET as u32), u64::MAX)?;
    say_ready();
    let mut frame = 1024u16.to_le_bytes().to_vec();
    frame.resize(2 + 1024, b'x');
    let mut frames = Vec::new();
    let mut clients: Vec<TcpStream> = Vec::new();
    let mut list = sys::events(64);
    loop {
        let n = epoll.wait(&mut list, -1)?;
        for event in &list[..n] {
            if event.u64 == u64::MAX {
                let (stream, _) = listener.accept()?;
                stream.set_nodelay(true)?;
                epoll.add(stream.as_raw_fd(), libc::EPOLLIN as u32, clients.len() as u64)?;
                clients.push(stream);
                continue;
            }
            let Some(order) = read_order(&clients[event.u64 as usize])? else { return Ok(()) };
            let (turns, burst) = if batch { (1, order) } else { (order, 1) };
            frames.clear();
            frames.extend((0..burst).flat_map(|_| &frame));
            for _ in 0..turns {
                for mut client in &clients {
                    client.write_all(&frames)?;
                }
            }
        }
    }
}

fn read_order(mut client: &TcpStream) -> io::Result<Option<usize>> {
    let mut input = [0; 64];
    let n = client.read(&mut input)?;
    if n == 0 {
        return Ok(None);
    }
    let mut total = 0;
    let mut rest = &input[..n];
    while let Some(length) = frame_length(rest, 2) {
        let body = rest.get(2..length).unwrap_or_default();
        total += std::str::from_utf8(body).ok().and_then(|s| s.parse().ok()).unwrap_or(0);
        rest = rest.get(length..).unwrap_or_default();
    }
    Ok(Some(total))
}
