//! A datagram socket, as its owning context uses it.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll, Waker};

use super::batch::UdpBatch;
use super::shared::SharedUdp;
use super::writer::UdpWriter;
use crate::error::Code;
use crate::os::{Arrival, DATAGRAMS_MAX, Interface, UdpOption};
use crate::rt;
use crate::sched::{Context, ReadyWaker};

/// The least that one call asks the system for: more than there mostly are, so that the answer says
/// whether others are left.
const ASKED_MIN: usize = 4;

/// What [`UdpSocket::receive`] found.
#[derive(Debug, PartialEq, Eq)]
pub enum Received {
    /// This many datagrams, and whether there are no more until the context is woken.
    Some(usize, bool),
    /// Nothing; the context is woken when there is something.
    Nothing,
    /// What has become of a datagram that was sent before.
    Failed(Code),
}

/// A bound socket with its way out.
#[derive(Debug)]
pub struct UdpSocket {
    socket: Arc<rt::UdpSocket>,
    writer: Arc<UdpWriter>,
    read_waker: Waker,
    /// What the owner has written in this turn.
    pub staged: UdpBatch,
    /// True while the socket is on its context's list of those to flush.
    pub is_dirty: bool,
    shared: Option<Arc<SharedUdp>>,
    /// Datagrams to ask for.
    asked: usize,
    received: u64,
}

impl UdpSocket {
    /// Takes a socket; `read_source` and `write_source` wake its context.
    pub fn new(
        socket: rt::UdpSocket,
        context: &Arc<Context>,
        read_source: u64,
        write_source: u64,
    ) -> UdpSocket {
        let socket = Arc::new(socket);
        let writer = UdpWriter::new(Arc::clone(&socket), ReadyWaker::waker(context, write_source));
        UdpSocket {
            socket,
            writer: Arc::new(writer),
            read_waker: ReadyWaker::waker(context, read_source),
            staged: UdpBatch::default(),
            is_dirty: false,
            shared: None,
            asked: ASKED_MIN,
            received: 0,
        }
    }

    /// Receives what is there, as many datagrams as one system call brings.
    pub fn receive(&mut self, arrivals: &mut [Arrival; DATAGRAMS_MAX]) -> Received {
        loop {
            match self.socket.receive(&mut arrivals[..self.asked]) {
                Ok(count) => {
                    self.received += count as u64;
                    // A connected socket's errors come between its datagrams, and end a call.
                    let is_all = count < self.asked && !self.writer.is_connected();
                    self.asked = (2 * count).clamp(ASKED_MIN, DATAGRAMS_MAX);
                    return Received::Some(count, is_all && self.is_waiting());
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if let Some(code) = self.writer.take_refused() {
                        return Received::Failed(code);
                    }
                    if self.is_waiting() {
                        return Received::Nothing;
                    }
                }
                Err(error) => return Received::Failed(Code::from(&error)),
            }
        }
    }

    /// Whether the system has told of nothing since: then the context is woken once it does.
    fn is_waiting(&self) -> bool {
        let cx = &mut TaskContext::from_waker(&self.read_waker);
        matches!(self.socket.poll_read_ready(cx), Poll::Pending)
    }

    /// Has the context woken, for what its turn has no time left for.
    pub fn read_later(&self) {
        self.read_waker.wake_by_ref();
    }

    /// Notes that there may be datagrams.
    pub fn on_ready(&self) {
        self.socket.clear_read_ready();
    }

    /// Sends what is staged, or queues it; see [`UdpWriter::flush`].
    pub fn flush(&mut self, context: &Arc<Context>, notify: impl FnMut(u64, Result<(), Code>)) {
        self.writer.flush(&mut self.staged, context, notify);
    }

    /// The way out.
    pub fn writer(&self) -> &Arc<UdpWriter> {
        &self.writer
    }

    /// The socket as others see it.
    pub fn shared(&mut self, owner: crate::message::Id, key: u64) -> &Arc<SharedUdp> {
        self.shared.get_or_insert_with(|| SharedUdp::new(owner, key, &self.writer))
    }

    /// Lets other contexts write, or stops that.
    pub fn set_shared(&mut self, owner: crate::message::Id, key: u64, on: bool) {
        self.shared(owner, key).set_shared(on);
    }

    /// Has it send to, and receive from, one address alone.
    ///
    /// # Errors
    /// Those of `connect(2)`.
    pub fn connect(&mut self, to: SocketAddr) -> io::Result<()> {
        self.socket.connect(to)?;
        self.writer.set_connected();
        Ok(())
    }

    /// Changes an option.
    ///
    /// # Errors
    /// Those of `setsockopt(2)`.
    pub fn set(&self, option: UdpOption) -> io::Result<()> {
        self.socket.set(option)
    }

    /// Joins a group, or leaves it.
    ///
    /// # Errors
    /// Those of `setsockopt(2)`; that the families differ.
    pub fn join(&self, group: IpAddr, interface: Interface, on: bool) -> io::Result<()> {
        self.socket.join(group, interface, on)
    }

    /// Datagrams received, dropped by the system, sent, and failed.
    pub fn counts(&self) -> [u64; 4] {
        let (sent, failed) = self.writer.counts();
        [self.received, self.socket.dropped(), sent, failed]
    }

    /// Our address, and the peer's.
    pub fn addresses(&self) -> (Option<SocketAddr>, Option<SocketAddr>) {
        let peer = self.writer.is_connected().then(|| self.socket.peer_address()).flatten();
        (self.socket.local_address(), peer)
    }
}
