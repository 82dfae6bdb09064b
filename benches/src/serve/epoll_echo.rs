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

const READ_SIZE: usize = 256 * 1024;

struct Connection {
    stream: TcpStream,
    /// A frame that is not whole yet: the first `held` bytes of `partial`.
    partial: Vec<u8>,
    held: usize,
    /// Bytes the socket did not take, after the first `taken` of `unsent`.
    unsent: Vec<u8>,
    taken: usize,
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
    let mut output = Vec::with_capacity(READ_SIZE);
    loop {
        let n = epoll.wait(&mut list, -1)?;
        for stream in accepted.try_iter() {
            let fd = stream.as_raw_fd() as usize;
            if connections.len() <= fd {
                connections.resize_with(fd + 1, || None);
            }
            connections[fd] = Some(Connection::new(stream));
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
    fn new(stream: TcpStream) -> Connection {
        let (partial, unsent) = (Vec::new(), Vec::new());
        Connection { stream, partial, held: 0, unsent, taken: 0 }
    }

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
            let frame = frame_length(&self.partial[..self.held], head_bytes).unwrap_or(0);
            let filled = if frame > READ_SIZE / 2 {
                self.read_long(frame, head_bytes, output)?
            } else {
                self.read_many(input, head_bytes, output)?
            };
            if !output.is_empty() {
                let sent = would_block(self.stream.write(output))?.unwrap_or(0);
                if sent < output.len() {
                    std::mem::swap(&mut self.unsent, output);
                    self.taken = sent;
                    if !self.flush()? {
                        return Ok(());
                    }
                }
            }
            if !filled {
                return Ok(());
            }
        }
    }

    /// Reads into the shared buffer, the beginning of a frame before it; whether it got full.
    fn read_many(
        &mut self,
        input: &mut [u8],
        head_bytes: usize,
        output: &mut Vec<u8>,
    ) -> io::Result<bool> {
        let held = self.held;
        input[..held].copy_from_slice(&self.partial[..held]);
        let Some(n) = would_block(self.stream.read(&mut input[held..]))? else { return Ok(false) };
        let end = held + n;
        let used = echo_frames(&input[..end], head_bytes, output);
        self.held = end - used;
        if self.partial.len() < self.held {
            self.partial.resize(self.held, 0);
        }
        self.partial[..self.held].copy_from_slice(&input[used..end]);
        Ok(end == input.len())
    }

    /// Reads the rest of a long frame to its place; whether the frame is whole.
    fn read_long(
        &mut self,
        frame: usize,
        head_bytes: usize,
        output: &mut Vec<u8>,
    ) -> io::Result<bool> {
        if self.partial.len() < frame {
            self.partial.resize(frame, 0);
        }
        let rest = &mut self.partial[self.held..frame];
        let Some(n) = would_block(self.stream.read(rest))? else { return Ok(false) };
        self.held += n;
        if self.held == frame {
            echo_frames(&self.partial[..frame], head_bytes, output);
            self.held = 0;
        }
        Ok(self.held == 0)
    }

    /// Whether everything is out.
    fn flush(&mut self) -> io::Result<bool> {
        while self.taken < self.unsent.len() {
            match would_block(self.stream.write(&self.unsent[self.taken..]))? {
                Some(n) => self.taken += n,
                None => return Ok(false),
            }
        }
        self.unsent.clear();
        self.taken = 0;
        Ok(true)
    }
}

/// `None` instead of the error that asks to wait; the end of the stream is an error.
fn would_block(result: io::Result<usize>) -> io::Result<Option<usize>> {
    match result {
        Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
        Ok(n) => Ok(Some(n)),
        Err(e) if e.kind() == io::ErrorKind::WouldBlock => Ok(None),
        Err(e) => Err(e),
    }
}
