//! Events for others, and what of those for the context itself the mailbox still counts.

use std::collections::VecDeque;

use super::host::Host;
use super::unread::deliver_counted;
use crate::error::Code;
use crate::message::{Event, Id, Value};

/// Messages that may be received before the mailbox is told: senders on other threads look at the
/// count, and each change takes it away from them.
const RECEIVED_MAX: usize = 64;

/// The same for the bytes that they held.
const RECEIVED_BYTES_MAX: usize = 64 * 1024;

/// Room for events that a context keeps from one turn to the next while it waits.
const BATCH_KEPT: usize = 4096;

impl Host {
    /// Puts an event into the mailbox of another context.
    #[inline]
    pub(super) fn deliver(&mut self, to: Id, event: Event) -> Result<(), Code> {
        self.begin_delivery();
        let (Some(peer), own) = self.peer(to) else { return Err(Code::NO_CONTEXT) };
        match own.allowance() {
            None => peer.deliver(event).map_err(Code::from),
            Some(allowance) => deliver_counted(peer, allowance, event),
        }
    }

    /// Before events are delivered, what this context has received is told: whoever is moved to
    /// send more by the event finds room. And what it has written to sockets of others leaves: who
    /// is told of it may close the socket at once.
    #[inline]
    pub(super) fn begin_delivery(&mut self) {
        self.settle();
        if !self.remotes.is_clean() {
            self.flush_remotes();
        }
    }

    /// Delivers a value to one of those who answer under a name, the next in turn if it has room.
    pub(super) fn deliver_named(
        &mut self,
        name: &[u8],
        mut value: Value,
        event: impl Fn(Value) -> Event,
    ) -> Result<Id, Code> {
        let holders = self.context.scheduler().names().next(name);
        let mut failure = Code::NO_CONTEXT;
        for (left, &holder) in (0..holders.len()).rev().zip(&holders) {
            let one = if left == 0 { std::mem::take(&mut value) } else { value.clone() };
            match self.deliver(holder, event(one)) {
                Ok(()) => return Ok(holder),
                // Who has ended meanwhile is none of them any more.
                Err(Code::NO_CONTEXT) => {}
                Err(code) => failure = code,
            }
        }
        Err(failure)
    }

    /// Bytes that may be held besides by what the context sends.
    #[inline]
    pub(super) fn room(&self) -> usize {
        self.context.allowance().map_or(usize::MAX, |allowance| allowance.room())
    }

    /// The message that was handed out last waits again, under this number; returns its bytes.
    pub(super) fn keep(&mut self, number: u64) -> usize {
        self.settle();
        let bytes = self.unread.keep(number);
        self.context.unreceive(bytes);
        bytes
    }

    /// A message that waited so is received.
    pub(super) fn receive_kept(&mut self, number: u64, bytes: usize) {
        self.unread.take(number);
        if bytes > 0 {
            self.context.received_bytes(bytes, 0);
        }
        self.receive();
    }

    /// Counts a message as received.
    #[inline]
    pub(super) fn receive(&mut self) {
        self.received += 1;
        if self.received >= RECEIVED_MAX {
            self.settle();
        }
    }

    /// Tells the mailbox what was received.
    #[inline]
    pub(super) fn settle(&mut self) {
        let received = std::mem::take(&mut self.received);
        if received > 0 {
            self.context.received(received);
        }
        if self.received_bytes > 0 {
            self.settle_bytes();
        }
    }

    #[cold]
    fn settle_bytes(&mut self) {
        let (bytes, own) =
            (std::mem::take(&mut self.received_bytes), std::mem::take(&mut self.own_bytes));
        self.context.received_bytes(bytes, own);
    }

    /// Counts what an event that is taken has held in the mailbox, and returns it.
    pub(super) fn note_bytes(&mut self, event: &Event) -> usize {
        let (bytes, is_own) = match event {
            Event::Message { from, value, .. } => (value.held_bytes(), *from == self.context.id()),
            Event::Reply { result: Ok(value), .. } => (value.held_bytes(), false),
            Event::Publication { published, .. } => {
                (published.held_bytes(), published.from == self.context.id())
            }
            _ => return 0,
        };
        // Those before are gone: whoever holds much is held to it for as long as it is there.
        if self.received_bytes >= RECEIVED_BYTES_MAX {
            self.settle_bytes();
        }
        self.received_bytes += bytes;
        if is_own {
            self.own_bytes += bytes;
        }
        bytes
    }

    /// Gives back what a burst of messages has left, if nothing more comes.
    #[inline]
    pub(super) fn rest(&mut self) {
        if self.batch.capacity().max(self.notices.capacity()) > BATCH_KEPT {
            self.trim();
        }
    }

    #[cold]
    fn trim(&mut self) {
        if self.batch.is_empty() && self.notices.is_empty() && self.context.trim() {
            self.batch = VecDeque::new();
            self.notices = VecDeque::new();
        }
    }
}
