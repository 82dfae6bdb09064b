//! The other side of the datagram echo: sockets that each keep some datagrams under way.

use std::io;
use std::net::UdpSocket;
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use crate::sys::{self, Epoll};

/// After so long without an answer a socket asks again: datagrams may be lost.
const PATIENCE: Duration = Duration::from_millis(100);

/// What to ask for, and for how long.
#[derive(Clone, Debug)]
pub struct Asking {
    /// Of the server.
    pub port: u16,
    /// Sockets that ask.
    pub sockets: usize,
    /// Bytes of a datagram.
    pub size: usize,
    /// Datagrams of each socket that are under way.
    pub depth: usize,
    /// Time before, and time that is measured.
    pub warm_up: Duration,
    /// See there.
    pub measure: Duration,
}

/// What came of it in the measured time.
#[derive(Clone, Copy, Debug, Default)]
pub struct Answered {
    /// Datagrams that came back.
    pub datagrams: u64,
    /// How often a socket had to ask again.
    pub again: u64,
    /// Seconds.
    pub seconds: f64,
    /// CPU seconds of this thread.
    pub generator_cpu: f64,
}

struct Asker {
    socket: UdpSocket,
    heard: Instant,
}

/// Asks; calls `at_edge` when the measured time begins and ends.
///
/// # Errors
///
/// Those of the sockets; that nothing was answered.
pub fn run(asking: &Asking, mut at_edge: impl FnMut()) -> io::Result<Answered> {
    let epoll = Epoll::new()?;
    let mut events = sys::events(asking.sockets.max(16));
    let body = vec![b'x'; asking.size];
    let mut space = vec![0; 65536];
    let mut askers = Vec::new();
    for token in 0..asking.sockets {
        let socket = UdpSocket::bind("127.0.0.1:0")?;
        socket.connect(("127.0.0.1", asking.port))?;
        socket.set_nonblocking(true)?;
        epoll.add(socket.as_raw_fd(), libc::EPOLLIN as u32, token as u64)?;
        for _ in 0..asking.depth {
            socket.send(&body)?;
        }
        askers.push(Asker { socket, heard: Instant::now() });
    }
    let mut answered = Answered::default();
    let start = Instant::now();
    let (mut begun, mut looked) = (None, start);
    loop {
        let count = epoll.wait(&mut events, 20)?;
        let now = Instant::now();
        for event in &events[..count] {
            let asker = &mut askers[event.u64 as usize];
            asker.heard = now;
            // No more than are under way, so that others get their turn.
            for _ in 0..asking.depth {
                match asker.socket.recv(&mut space) {
                    Ok(_) => {}
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    Err(error) => return Err(error),
                }
                answered.datagrams += 1;
                asker.socket.send(&body)?;
            }
        }
        if now - looked > PATIENCE {
            looked = now;
            for asker in askers.iter_mut().filter(|asker| now - asker.heard > PATIENCE) {
                answered.again += 1;
                asker.heard = now;
                for _ in 0..asking.depth {
                    asker.socket.send(&body)?;
                }
            }
        }
        match begun {
            None if now - start >= asking.warm_up => {
                at_edge();
                answered = Answered::default();
                begun = Some((Instant::now(), sys::thread_cpu()));
            }
            Some((since, cpu)) if now - since >= asking.measure => {
                at_edge();
                answered.seconds = since.elapsed().as_secs_f64();
                answered.generator_cpu = (sys::thread_cpu() - cpu).as_secs_f64();
                if answered.datagrams == 0 {
                    return Err(io::Error::other("nothing was answered"));
                }
                return Ok(answered);
            }
            _ => {}
        }
    }
}
