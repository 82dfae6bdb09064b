//! The way out of a datagram socket. What the system does not take waits in a bounded queue; a
//! datagram that fails does so alone.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context as TaskContext, Poll, Waker};
use std::time::Duration;

use futures::future::{poll_fn, select};

use super::batch::UdpBatch;
use crate::buf::Piece;
use crate::error::Code;
use crate::message::{Allowance, Event, Held};
use crate::net::leftovers::{self, until_too_much};
use crate::net::linger::Lingering;
use crate::os::{DATAGRAMS_MAX, Departure};
use crate::rt::{self, UdpSocket};
use crate::sched::Context;
use crate::sync::lock;

/// Bytes that may wait, and what each datagram counts for beside its own.
const QUEUE_BYTES_MAX: usize = 8 << 20;
const OVERHEAD_BYTES: usize = 128;

/// How long what waits at a socket that is closed may take to leave.
const LINGER: Duration = Duration::from_secs(5);

#[derive(Debug)]
struct Waiting {
    to: Option<SocketAddr>,
    bytes: Piece,
    tell: Option<(Arc<Context>, u64)>,
    _held: Option<Held>,
}

impl Waiting {
    fn size(&self) -> usize {
        self.bytes.block_bytes() + OVERHEAD_BYTES
    }

    fn tell(self, result: Result<(), Code>) {
        if let Some((context, token)) = self.tell {
            // Who has ended does not wait any more.
            let _ = context.deliver(Event::Complete { token, result });
        }
    }
}

#[derive(Debug, Default)]
struct Queue {
    waiting: VecDeque<Waiting>,
    bytes: usize,
    /// The owner is gone: nothing more is accepted.
    closed: bool,
}

/// The queue of a socket, shared by all contexts that write to it.
#[derive(Debug)]
pub struct UdpWriter {
    socket: Arc<UdpSocket>,
    waker: Waker,
    is_ip6: bool,
    is_connected: AtomicBool,
    queue: Mutex<Queue>,
    sent: AtomicU64,
    failed: AtomicU64,
    /// That a peer has refused, which a write was told of in place of a read; 0 if not.
    refused: AtomicU16,
}

impl UdpWriter {
    /// A writer whose owner is woken by `waker` when the socket takes more.
    pub fn new(socket: Arc<UdpSocket>, waker: Waker) -> UdpWriter {
        let is_ip6 = socket.local_address().is_some_and(|address| address.is_ipv6());
        UdpWriter {
            socket,
            waker,
            is_ip6,
            is_connected: AtomicBool::new(false),
            queue: Mutex::default(),
            sent: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            refused: AtomicU16::new(0),
        }
    }

    /// Whether the socket is for IPv6.
    pub fn is_ip6(&self) -> bool {
        self.is_ip6
    }

    /// Notes that it has one peer.
    pub(super) fn set_connected(&self) {
        // Relaxed, here and below: what it allows is told by other ways.
        self.is_connected.store(true, Ordering::Relaxed);
    }

    /// Whether it has one peer.
    pub fn is_connected(&self) -> bool {
        self.is_connected.load(Ordering::Relaxed)
    }

    /// Datagrams that the system has taken, and that failed.
    pub fn counts(&self) -> (u64, u64) {
        // Relaxed, here and below: figures.
        (self.sent.load(Ordering::Relaxed), self.failed.load(Ordering::Relaxed))
    }

    /// Counts a datagram that failed before it was staged.
    pub fn count_failed(&self) {
        self.failed.fetch_add(1, Ordering::Relaxed);
    }

    /// What a write was told that is for a reader to know.
    pub fn take_refused(&self) -> Option<Code> {
        match self.refused.swap(0, Ordering::Relaxed) {
            0 => None,
            code => Some(Code(code)),
        }
    }

    /// Sends what `context` has staged, or queues what the system does not take yet. Tokens whose
    /// outcome is known are handed to `notify`; others are told by an event later.
    pub fn flush(
        &self,
        staged: &mut UdpBatch,
        context: &Arc<Context>,
        mut notify: impl FnMut(u64, Result<(), Code>),
    ) {
        let mut queue = lock(&self.queue);
        let mut tell = |token: u64, result: Result<(), Code>| {
            let count = if result.is_ok() { &self.sent } else { &self.failed };
            count.fetch_add(1, Ordering::Relaxed);
            if token != 0 {
                notify(token, result);
            }
        };
        let mut at = 0;
        while at < staged.len() && queue.waiting.is_empty() && !queue.closed {
            // One alone is what there mostly is, and needs no more room than that.
            let result = match at + 1 == staged.len() {
                true => self.send(&[(staged.get(at).to, staged.bytes_of(at))]),
                false => self.send_some(staged, at),
            };
            match result {
                Ok(count) => {
                    for _ in 0..count {
                        tell(staged.get(at).token, Ok(()));
                        at += 1;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => {
                    tell(staged.get(at).token, Err(Code::from(&error)));
                    at += 1;
                }
            }
        }
        let is_first = queue.waiting.is_empty();
        for at in at..staged.len() {
            let token = staged.get(at).token;
            match queue.closed {
                true => tell(token, Err(Code::SOCKET_CLOSED)),
                false => match queue.push(staged, at, context) {
                    Ok(()) => {}
                    Err(code) => tell(token, Err(code)),
                },
            }
        }
        if is_first && !queue.waiting.is_empty() {
            self.wait_writable();
        }
        staged.clear();
    }

    /// Sends as many as leave in one system call, from one place on.
    fn send_some(&self, staged: &UdpBatch, from: usize) -> io::Result<usize> {
        let mut departures: [Departure<'_>; DATAGRAMS_MAX] = [(None, &[]); DATAGRAMS_MAX];
        let count = staged.fill(from, &mut departures);
        self.send(&departures[..count])
    }

    /// Sends some datagrams; how many went. That a peer has refused an earlier one is no failure of
    /// the first of them.
    fn send(&self, departures: &[Departure<'_>]) -> io::Result<usize> {
        match self.socket.send(departures) {
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                self.refused.store(Code::CONNECTION_REFUSED.0, Ordering::Relaxed);
                self.socket.send(departures)
            }
            result => result,
        }
    }

    /// Makes the owner be woken when the socket takes more.
    fn wait_writable(&self) {
        if self.socket.poll_write_ready(&mut TaskContext::from_waker(&self.waker)).is_ready() {
            self.waker.wake_by_ref();
        }
    }

    /// Goes on sending what waits, after the socket has become writable.
    pub fn on_ready(&self) {
        if !self.send_waiting() {
            self.wait_writable();
        }
    }

    /// Sends until nothing waits any more (true), or the system takes no more (false).
    fn send_waiting(&self) -> bool {
        let mut queue = lock(&self.queue);
        while !queue.waiting.is_empty() {
            let result = {
                let mut departures: [Departure<'_>; DATAGRAMS_MAX] = [(None, &[]); DATAGRAMS_MAX];
                let mut count = 0;
                for (departure, one) in departures.iter_mut().zip(&queue.waiting) {
                    *departure = (one.to, &one.bytes);
                    count += 1;
                }
                self.send(&departures[..count])
            };
            let (count, result) = match result {
                Ok(count) => (count, Ok(())),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return false,
                Err(error) => (1, Err(Code::from(&error))),
            };
            let counter = if result.is_ok() { &self.sent } else { &self.failed };
            counter.fetch_add(count as u64, Ordering::Relaxed);
            for _ in 0..count {
                if let Some(one) = queue.waiting.pop_front() {
                    queue.bytes -= one.size();
                    one.tell(result);
                }
            }
        }
        queue.waiting = VecDeque::new();
        drop(queue);
        self.socket.rest_writing();
        true
    }

    /// Refuses writes from now on; what waits still leaves. How many bytes that are.
    pub fn close(&self) -> usize {
        let mut queue = lock(&self.queue);
        queue.closed = true;
        queue.bytes
    }

    /// Drops what waits; who waits for it is told.
    fn abandon(&self) {
        let waiting = std::mem::take(&mut lock(&self.queue).waiting);
        self.failed.fetch_add(waiting.len() as u64, Ordering::Relaxed);
        waiting.into_iter().for_each(|one| one.tell(Err(Code::TIMED_OUT)));
    }

    fn poll_drained(&self, cx: &mut TaskContext<'_>) -> Poll<()> {
        while !self.send_waiting() {
            if self.socket.poll_write_ready(cx).is_pending() {
                return Poll::Pending;
            }
        }
        Poll::Ready(())
    }
}

impl Queue {
    fn push(&mut self, staged: &UdpBatch, at: usize, context: &Arc<Context>) -> Result<(), Code> {
        let size = staged.bytes_of(at).len() + OVERHEAD_BYTES;
        if self.bytes + size > QUEUE_BYTES_MAX {
            return Err(Code::WRITE_QUEUE_FULL);
        }
        let (to, token, bytes) = (staged.get(at).to, staged.get(at).token, staged.piece_of(at));
        let held = Allowance::hold_of(context.allowance(), bytes.block_bytes() + OVERHEAD_BYTES);
        let held = held.ok_or(Code::WRITE_QUEUE_FULL)?;
        let tell = (token != 0).then(|| (Arc::clone(context), token));
        let waiting = Waiting { to, bytes, tell, _held: held };
        self.bytes += waiting.size();
        self.waiting.push_back(waiting);
        Ok(())
    }
}

/// Closes a socket once what waits has left, or [`LINGER`] is over, or there is too much of it.
pub fn linger_datagrams(writer: Arc<UdpWriter>) {
    let bytes = writer.close();
    if bytes == 0 {
        return;
    }
    let counted = Lingering::new();
    let abandoned = Arc::clone(&writer);
    let leftover = leftovers::count(bytes, move || abandoned.abandon());
    rt::spawn(async move {
        let _counted = counted;
        let drained = pin!(poll_fn(|cx| writer.poll_drained(cx)));
        let enough = pin!(until_too_much(leftover.as_ref()));
        select(drained, select(pin!(rt::sleep(LINGER)), enough)).await;
        writer.abandon();
    });
}
