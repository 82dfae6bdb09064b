//! The limit: a framed echo server by hand over edge-triggered epoll, one loop per worker.
//!
//! Like a real server it decodes the frames it reads and writes each again with a head of its
//! own; the frames of one read leave in one write.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use crate::serve::{echo_frames, frame_length, say_ready};
use crate::sys::{self, EDGE_IN_OUT, Epoll};

const READ_SIZE: usize = 64 * 1024;

struct Connection {
    stream: TcpStream,
    /// A frame that is not whole yet.
    partial: Vec<u8>,
    /// Bytes the socket did not take.
    unsent: Vec<u8>,
}

/// Serves for ever.
///
/// # Errors
///
/// When the port is taken or the process runs out of descriptors.
pub fn run(port: u16, workers: usize, head_bytes: usize) -> io::Result<()> {
    let listener = sys::listen(port)?;
    let mut loops = Vec::new();
    for _ in 0..workers.max(1) {
        let epoll = Arc::new(Epoll::new()?);
        let (hand_over, accepted) = channel();
        let own = Arc::clone(&epoll);
        thread::spawn(move || work(&own, &accepted, head_bytes));
        loops.push((epoll, hand_over));
    }
    say_ready();
    let mut next = 0;
    loop {
        let (stream, _) = listener.accept()?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        let (epoll, hand_over) = &loops[next % loops.len()];
        next += 1;
        register(epoll, hand_over, stream)?;
    }
}

/// The stream is sent before it is watched, so that a worker finds it when its event comes.
fn register(epoll: &Epoll, hand_over: &Sender<TcpStream>, stream: TcpStream) -> io::Result<()> {
    let fd = stream.as_raw_fd();
    if hand_over.send(stream).is_err() {
        return Err(io::Error::other("a worker ended"));
    }
    epoll.add(fd, EDGE_IN_OUT, fd as u64)
}

fn work(epoll: &Epoll, accepted: &Receiver<TcpStream>, head_bytes: usize) -> io::Result<()> {
    let mut connections: Vec<Option<Connection>> = Vec::new();
    let mut list = sys::events(1024);
    let mut input = vec![0; READ_SIZE];
    let mut output = Vec::with_capacity(READ_SIZE * 2);
    loop {
        let n = epoll.wait(&mut list, -1)?;
        for stream in accepted.try_iter() {
            let fd = stream.as_raw_fd() as usize;
            if connections.len() <= fd {
                connections.resize_with(fd + 1, || None);
            }
            let connection = Connection { stream, partial: Vec::new(), unsent: Vec::new() };
            connections[fd] = Some(connection);
        }
        for event in &list[..n] {
            let Some(slot) = connections.get_mut(event.u64 as usize) else { continue };
            let Some(connection) = slot else { continue };
            if connection.serve(&mut input, &mut output, head_bytes).is_err() {
                *slot = None;
            }
        }
    }
}

impl Connection {
    fn serve(
        &mut self,
        input: &mut [u8],
        output: &mut Vec<u8>,
        head_bytes: usize,
    ) -> io::Result<()> {
        if !self.flush()? {
            return Ok(());
        }
        loop {
            output.clear();
            let whole_read = if self.partial.is_empty() {
                let Some(n) = would_block(self.stream.read(input))? else { return Ok(()) };
                let used = echo_frames(&input[..n], head_bytes, output);
                self.partial.extend_from_slice(&input[used..n]);
                n == input.len()
            } else {
                let held = self.partial.len();
                let need = frame_length(&self.partial, head_bytes).unwrap_or(0);
                let room = need.saturating_sub(held).max(READ_SIZE);
                self.partial.resize(held + room, 0);
                let read = would_block(self.stream.read(&mut self.partial[held..]));
                let n = read.as_ref().ok().copied().flatten().unwrap_or(0);
                self.partial.truncate(held + n);
                if read?.is_none() {
                    return Ok(());
                }
                let used = echo_frames(&self.partial, head_bytes, output);
                self.partial.drain(..used);
                n == room
            };
            let sent = would_block((&self.stream).write_nonempty(output))?.unwrap_or(0);
            if sent < output.len() {
                self.unsent.extend_from_slice(&output[sent..]);
                if !self.flush()? {
                    return Ok(());
                }
            }
            if !whole_read {
                return Ok(());
            }
        }
    }

    /// Whether everything is out.
    fn flush(&mut self) -> io::Result<bool> {
        while !self.unsent.is_empty() {
            match would_block(self.stream.write(&self.unsent))? {
                Some(n) => drop(self.unsent.drain(..n)),
                None => return Ok(false),
            }
        }
        Ok(true)
    }
}

trait WriteNonempty {
    fn write_nonempty(self, bytes: &[u8]) -> io::Result<usize>;
}

impl WriteNonempty for &TcpStream {
    fn write_nonempty(mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.is_empty() { Ok(0) } else { self.write(bytes) }
    }
}

/// `None` instead of the error that asks to wait; the end of the stream is an error.
fn would_block(result: io::Result<usize>) -> io::Result<Option<usize>> {
    match result {
        Ok(n) => Ok(Some(n)),
        Err(e) if e.kind() == io::ErrorKind::WouldBlock => Ok(None),
        Err(e) => Err(e),
    }
}
