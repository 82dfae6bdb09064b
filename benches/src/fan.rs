//! The receivers of a broadcast: many clients that verify every byte of the frames sent to them.
//!
//! An order makes the server send a burst of frames to every client; the next order goes out
//! when the burst before the last has reached everybody, so two are under way at once.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::load::{connect, push_head};
use crate::sys::{self, Epoll};

const FRAME: usize = 2 + 1024;
const READ_SIZE: usize = 64 * 1024;
/// Bursts under way at once.
const WINDOW: u64 = 2;

/// What to receive.
#[derive(Clone, Debug)]
pub struct Fan {
    /// Port on 127.0.0.1.
    pub port: u16,
    /// Threads that the clients are spread over.
    pub threads: usize,
    /// Clients.
    pub clients: usize,
    /// Frames to each client by one order.
    pub burst: usize,
    /// Time before anything is counted.
    pub warm_up: Duration,
    /// Time that counts.
    pub measure: Duration,
}

struct Shared<'a> {
    fan: &'a Fan,
    /// What a client sees, longer than any read by a frame.
    expected: Vec<u8>,
    control: &'a TcpStream,
    bytes: AtomicU64,
    ordered: AtomicU64,
    stop: AtomicBool,
}

/// Receives; `at_edge` is called when the measured time begins and ends. Returns frames received
/// in it, and its length in seconds.
///
/// # Errors
///
/// When a connection fails, a byte is wrong, or nothing comes.
pub fn run(fan: &Fan, mut at_edge: impl FnMut()) -> Result<(f64, f64), String> {
    let text = |e: io::Error| e.to_string();
    let mut streams = Vec::new();
    for _ in 0..fan.clients {
        streams.push(connect(fan.port).map_err(text)?);
    }
    // The server has accepted all of them soon after the last one connected.
    thread::sleep(Duration::from_millis(300));
    let control = streams[0].try_clone().map_err(text)?;
    for stream in &streams {
        stream.set_nonblocking(true).map_err(text)?;
    }
    let mut frame = Vec::new();
    push_head(&mut frame, FRAME - 2, 2, false);
    frame.resize(FRAME, b'x');
    let shared = Shared {
        fan,
        expected: frame.repeat(READ_SIZE / FRAME + 2),
        control: &control,
        bytes: AtomicU64::new(0),
        ordered: AtomicU64::new(0),
        stop: AtomicBool::new(false),
    };
    shared.order_more();
    let threads = fan.threads.clamp(1, fan.clients);
    thread::scope(|scope| {
        let share = fan.clients.div_ceil(threads);
        let parts: Vec<_> = streams
            .chunks(share)
            .map(|part| {
                let shared = &shared;
                scope.spawn(move || shared.receive(part))
            })
            .collect();
        thread::sleep(fan.warm_up);
        at_edge();
        let (before, start) = (shared.bytes.load(Ordering::Relaxed), Instant::now());
        thread::sleep(fan.measure);
        let bytes = shared.bytes.load(Ordering::Relaxed) - before;
        let seconds = start.elapsed().as_secs_f64();
        at_edge();
        shared.stop.store(true, Ordering::Relaxed);
        for part in parts {
            part.join().map_err(|_| "a receiver panicked")?.map_err(text)?;
        }
        if bytes == 0 {
            return Err("nothing came in the measured time".into());
        }
        Ok((bytes as f64 / FRAME as f64, seconds))
    })
}

impl Shared<'_> {
    /// Orders bursts as long as the window has room. Every thread may call this at any time.
    fn order_more(&self) {
        let whole = (self.fan.clients * self.fan.burst * FRAME) as u64;
        loop {
            let ordered = self.ordered.load(Ordering::Relaxed);
            // Relaxed: only the counts matter, not what other threads wrote before them.
            if ordered >= self.bytes.load(Ordering::Relaxed) / whole + WINDOW {
                return;
            }
            let order = Ordering::Relaxed;
            let taken = self.ordered.compare_exchange(ordered, ordered + 1, order, order);
            if taken.is_ok() {
                let count = self.fan.burst.to_string();
                let mut order = Vec::new();
                push_head(&mut order, count.len(), 2, false);
                order.extend(count.as_bytes());
                let mut control = self.control;
                // A connection that failed shows in the receiving thread.
                let _ = control.write_all(&order);
            }
        }
    }

    fn receive(&self, streams: &[TcpStream]) -> io::Result<()> {
        let epoll = Epoll::new()?;
        for (i, stream) in streams.iter().enumerate() {
            epoll.add(stream.as_raw_fd(), libc::EPOLLIN as u32, i as u64)?;
        }
        let mut offsets = vec![0; streams.len()];
        let mut buffer = vec![0; READ_SIZE];
        let mut list = sys::events(256);
        while !self.stop.load(Ordering::Relaxed) {
            let n = epoll.wait(&mut list, 50)?;
            let mut bytes = 0;
            for event in &list[..n] {
                let i = event.u64 as usize;
                let n = (&streams[i]).read(&mut buffer)?;
                if n == 0 {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                let offset: &mut usize = &mut offsets[i];
                if buffer[..n] != self.expected[*offset..*offset + n] {
                    return Err(io::Error::other(format!("client {i} got a wrong byte")));
                }
                *offset = (*offset + n) % FRAME;
                bytes += n as u64;
            }
            if bytes > 0 {
                self.bytes.fetch_add(bytes, Ordering::Relaxed);
                self.order_more();
            }
        }
        Ok(())
    }
}
