//! A listen socket, as its owning context uses it.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll, Waker};

use crate::error::Code;
use crate::rt::{Listener, Stream};
use crate::sched::{Context, ReadyWaker};

/// Connections accepted in one turn before other work goes first.
const ACCEPTS_PER_TURN: u32 = 64;

/// A listen socket that wakes its context when a connection waits.
#[derive(Debug)]
pub struct Acceptor {
    listener: Listener,
    waker: Waker,
    /// In this turn, and in all.
    accepted: u32,
    accepted_ever: u64,
}

impl Acceptor {
    /// Takes a listening socket; `source` wakes its context.
    pub fn new(listener: Listener, context: &Arc<Context>, source: u64) -> Acceptor {
        Acceptor {
            listener,
            waker: ReadyWaker::waker(context, source),
            accepted: 0,
            accepted_ever: 0,
        }
    }

    /// Accepts a connection; `None` if none waits (or the turn's share is used up): the context is
    /// woken when there may be one.
    pub fn accept(&mut self) -> Option<Result<Stream, Code>> {
        if self.accepted >= ACCEPTS_PER_TURN {
            self.waker.wake_by_ref();
            return None;
        }
        self.accepted += 1;
        loop {
            match self.listener.accept() {
                Ok(stream) => {
                    self.accepted_ever += 1;
                    return Some(Ok(stream));
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    match self.listener.poll_read_ready(&mut TaskContext::from_waker(&self.waker)) {
                        Poll::Pending => return None,
                        Poll::Ready(()) => {}
                    }
                }
                Err(error) => return Some(Err(Code::from(&error))),
            }
        }
    }

    /// Notes that connections may wait: a new turn's share begins.
    pub fn on_ready(&mut self) {
        self.accepted = 0;
    }

    /// Connections that wait, and how many may; nothing for unix sockets.
    pub fn backlog(&self) -> Option<(usize, usize)> {
        self.listener.backlog()
    }

    /// How many connections were accepted so far.
    pub fn accepted(&self) -> u64 {
        self.accepted_ever
    }

    /// The address listened on, if it is an IP one.
    pub fn local_address(&self) -> Option<SocketAddr> {
        self.listener.local_address()
    }
}
