//! The load generator: framed echo clients that verify every byte they get back.
//!
//! Each connection sends `depth` frames in one write and, when all have come back, the next ones.
//! The frames of a connection are built once; a batch that comes back is compared with what was
//! sent by `memcmp`. A batch is one latency sample: from its write to its last byte.
//!
//! It does not connect to other machines and knows no protocol but length heads.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::fd::AsRawFd;
use std::sync::Barrier;
use std::sync::atomic::{AtomicU8, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::histogram::Histogram;
use crate::random::Random;
use crate::sys::{self, EDGE_IN_OUT, Epoll};

/// Up to this many bytes the kernel may hold a batch back until it is whole.
const LOW_WATER_MAX: usize = 32 * 1024;
const READ_SIZE: usize = 256 * 1024;
/// Different batches together take no more than this, so that they stay in the cache.
const VARIANTS_BYTES: usize = 256 * 1024;

const WARM_UP: u8 = 0;
const MEASURE: u8 = 1;
const STOP: u8 = 2;

/// What to send.
#[derive(Clone, Debug)]
pub struct Load {
    /// Port on 127.0.0.1.
    pub port: u16,
    /// Generator threads; the connections are spread over them.
    pub threads: usize,
    /// Connections over all threads.
    pub connections: usize,
    /// Bytes of a frame's body.
    pub size: usize,
    /// Frames of one connection under way at once.
    pub depth: usize,
    /// Bytes of a frame's head: 1, 2 or 4.
    pub head_bytes: usize,
    /// Heads with the most significant byte first.
    pub big_endian: bool,
    /// Time before anything is counted.
    pub warm_up: Duration,
    /// Time that counts.
    pub measure: Duration,
}

/// What came back.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Echoed frames.
    pub messages: u64,
    /// Length of the measured time.
    pub seconds: f64,
    /// CPU time of the generator's threads in it.
    pub generator_cpu: f64,
    /// The part of it spent outside the kernel.
    pub generator_user: f64,
    /// Latency of batches, in nanoseconds.
    pub latency: Histogram,
    /// Bytes compared since the start, warm-up included.
    pub verified: u64,
}

struct Connection {
    stream: TcpStream,
    /// Index of the batch this connection sends.
    variant: usize,
    /// Bytes of the batch written, and read back.
    sent: usize,
    received: usize,
    sent_at: u64,
    /// Bytes that must be there before the kernel tells; 0 where that was not asked for.
    low_water: usize,
}

struct Shared<'a> {
    load: &'a Load,
    variants: Vec<Vec<u8>>,
    phase: AtomicU8,
    ready: Barrier,
}

struct ThreadOutcome {
    messages: u64,
    cpu: Duration,
    user: Duration,
    latency: Histogram,
    verified: u64,
}

/// Runs the load; `at_edge` is called when the measured time begins and when it ends.
///
/// # Errors
///
/// When a connection fails or ends, when a byte comes back wrong, or when nothing comes back.
pub fn run(load: &Load, mut at_edge: impl FnMut()) -> Result<Outcome, String> {
    check_load(load)?;
    let threads = load.threads.clamp(1, load.connections);
    let shared = Shared {
        load,
        variants: batches(load),
        phase: AtomicU8::new(WARM_UP),
        ready: Barrier::new(threads + 1),
    };
    thread::scope(|scope| {
        let clients: Vec<_> = (0..threads)
            .map(|i| {
                let shared = &shared;
                let share = (load.connections + threads - 1 - i) / threads;
                scope.spawn(move || run_thread(shared, i, share))
            })
            .collect();
        shared.ready.wait();
        thread::sleep(load.warm_up);
        at_edge();
        shared.phase.store(MEASURE, Ordering::Relaxed);
        let start = Instant::now();
        thread::sleep(load.measure);
        shared.phase.store(STOP, Ordering::Relaxed);
        let seconds = start.elapsed().as_secs_f64();
        at_edge();
        let mut outcome = Outcome {
            messages: 0,
            seconds,
            generator_cpu: 0.0,
            generator_user: 0.0,
            latency: Histogram::new(),
            verified: 0,
        };
        for client in clients {
            let part = client.join().map_err(|_| "a generator thread panicked")??;
            outcome.messages += part.messages;
            outcome.generator_cpu += part.cpu.as_secs_f64();
            outcome.generator_user += part.user.as_secs_f64();
            outcome.latency.merge(&part.latency);
            outcome.verified += part.verified;
        }
        if outcome.messages == 0 {
            return Err("no frame came back in the measured time".into());
        }
        Ok(outcome)
    })
}

fn check_load(load: &Load) -> Result<(), String> {
    let largest = match load.head_bytes {
        1 => u64::from(u8::MAX),
        2 => u64::from(u16::MAX),
        4 => i32::MAX as u64,
        other => return Err(format!("a head of {other} bytes; it must be 1, 2 or 4")),
    };
    if load.size as u64 > largest {
        return Err(format!("{} bytes do not fit a head of {}", load.size, load.head_bytes));
    }
    if load.connections == 0 || load.depth == 0 {
        return Err("connections and depth must be at least 1".into());
    }
    Ok(())
}

/// Appends one frame's head to `out`.
pub fn push_head(out: &mut Vec<u8>, size: usize, head_bytes: usize, big_endian: bool) {
    let bytes = (size as u32).to_le_bytes();
    let head = &bytes[..head_bytes];
    if big_endian {
        out.extend(head.iter().rev());
    } else {
        out.extend(head);
    }
}

/// Batches of `depth` frames with different random bodies.
fn batches(load: &Load) -> Vec<Vec<u8>> {
    let length = (load.head_bytes + load.size) * load.depth;
    let count = (VARIANTS_BYTES / length).clamp(2, load.connections.max(2));
    let mut random = Random::new(length as u64);
    (0..count)
        .map(|_| {
            let mut batch = Vec::with_capacity(length);
            for _ in 0..load.depth {
                push_head(&mut batch, load.size, load.head_bytes, load.big_endian);
                batch.extend((0..load.size).map(|_| random.next() as u8));
            }
            batch
        })
        .collect()
}

fn run_thread(shared: &Shared<'_>, index: usize, share: usize) -> Result<ThreadOutcome, String> {
    let opened = open(shared, index, share);
    // Everybody passes the barrier, or the others would wait for ever.
    shared.ready.wait();
    let (epoll, mut connections) = opened.map_err(|e| format!("cannot connect: {e}"))?;
    let mut client = Client {
        shared,
        buffer: vec![0; READ_SIZE],
        latency: Histogram::new(),
        batches: 0,
        verified: 0,
        measuring: false,
    };
    for connection in &mut connections {
        connection.sent_at = sys::now_ns();
        client.send(connection).map_err(|e| e.to_string())?;
    }
    let mut list = sys::events(512);
    let (mut cpu, mut user) = (Duration::ZERO, Duration::ZERO);
    let mut quiet_since = Instant::now();
    loop {
        match shared.phase.load(Ordering::Relaxed) {
            WARM_UP => {}
            MEASURE if !client.measuring => {
                client.measuring = true;
                client.batches = 0;
                cpu = sys::thread_cpu();
                user = sys::thread_user();
            }
            MEASURE => {}
            _ => break,
        }
        let n = epoll.wait(&mut list, 50).map_err(|e| e.to_string())?;
        if n > 0 {
            quiet_since = Instant::now();
        } else if quiet_since.elapsed() > Duration::from_secs(10) {
            return Err("the server has been silent for 10 s".into());
        }
        for event in &list[..n] {
            let index = event.u64 as usize;
            let connection = &mut connections[index];
            client
                .serve(connection, event.events)
                .map_err(|e| format!("connection {index}: {e}"))?;
        }
    }
    let (cpu, user) = (sys::thread_cpu() - cpu, sys::thread_user() - user);
    let messages = client.batches * shared.load.depth as u64;
    Ok(ThreadOutcome { messages, cpu, user, latency: client.latency, verified: client.verified })
}

fn open(shared: &Shared<'_>, index: usize, share: usize) -> io::Result<(Epoll, Vec<Connection>)> {
    let epoll = Epoll::new()?;
    let length = shared.variants[0].len();
    let mut connections = Vec::with_capacity(share);
    for i in 0..share {
        let stream = connect(shared.load.port)?;
        if length <= LOW_WATER_MAX {
            sys::set_receive_low_water(&stream, length)?;
        }
        stream.set_nonblocking(true)?;
        epoll.add(stream.as_raw_fd(), EDGE_IN_OUT, i as u64)?;
        connections.push(Connection {
            stream,
            variant: (index + i * shared.load.threads) % shared.variants.len(),
            sent: 0,
            received: 0,
            sent_at: 0,
            low_water: if length <= LOW_WATER_MAX { length } else { 0 },
        });
    }
    Ok((epoll, connections))
}

/// Connects to `port` on this machine, without Nagle's delay.
///
/// # Errors
///
/// When nobody listens there.
pub fn connect(port: u16) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

struct Client<'a> {
    shared: &'a Shared<'a>,
    buffer: Vec<u8>,
    latency: Histogram,
    batches: u64,
    verified: u64,
    measuring: bool,
}

impl Client<'_> {
    /// Writes what is left of the batch.
    fn send(&mut self, c: &mut Connection) -> io::Result<()> {
        let batch = &self.shared.variants[c.variant];
        while c.sent < batch.len() {
            match c.stream.write(&batch[c.sent..]) {
                Ok(n) => c.sent += n,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    /// Reads what is there, compares it, and sends the next batch when this one is back.
    fn serve(&mut self, c: &mut Connection, events: u32) -> io::Result<()> {
        let length = self.shared.variants[c.variant].len();
        if c.sent < length {
            self.send(c)?;
        }
        // Room for writing is no reason to read a part of what is to come as a whole.
        if events & !(libc::EPOLLOUT as u32) == 0 {
            return Ok(());
        }
        loop {
            // Asked for one byte more than may come, a read is short unless bytes are surplus: no
            // second read to learn that the socket is empty.
            let room = (length - c.received + 1).min(READ_SIZE);
            let n = match c.stream.read(&mut self.buffer[..room]) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(n) => n,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    return set_low_water(c, length - c.received);
                }
                Err(e) => return Err(e),
            };
            self.verify(c, n)?;
            if c.received == length {
                let now = sys::now_ns();
                if self.measuring {
                    self.latency.record(now - c.sent_at);
                    self.batches += 1;
                }
                c.sent_at = now;
                c.sent = 0;
                c.received = 0;
                set_low_water(c, length)?;
                return self.send(c);
            }
            if n < room {
                return set_low_water(c, length - c.received);
            }
        }
    }

    fn verify(&mut self, c: &mut Connection, n: usize) -> io::Result<()> {
        let batch = &self.shared.variants[c.variant];
        if c.received + n > c.sent {
            return Err(io::Error::other("more bytes came back than were sent"));
        }
        let expected = &batch[c.received..c.received + n];
        if self.buffer[..n] != *expected {
            let wrong = expected.iter().zip(&self.buffer).position(|(a, b)| a != b);
            let at = c.received + wrong.unwrap_or(0);
            return Err(io::Error::other(format!("byte {at} of the batch came back wrong")));
        }
        c.received += n;
        self.verified += n as u64;
        Ok(())
    }
}

/// Has the kernel wait for so many bytes: all that are missing from the batch.
fn set_low_water(c: &mut Connection, bytes: usize) -> io::Result<()> {
    if c.low_water != 0 && c.low_water != bytes {
        sys::set_receive_low_water(&c.stream, bytes)?;
        c.low_water = bytes;
    }
    Ok(())
}
