//! Messages that were received and that the mailbox still counts.

use super::unread::Unread;
use crate::hint::rarely;
use crate::message::{Event, Value};
use crate::sched::Context;

/// How many messages are received before the mailbox is told: senders on other threads read its
/// count, and each change invalidates their cache line.
const RECEIVED_MAX: usize = 64;

/// The same for the bytes that they held.
const RECEIVED_BYTES_MAX: usize = 64 * 1024;

/// Messages received that the mailbox of `context`, their receiver, still counts.
#[derive(Default)]
pub(super) struct Received {
    messages: usize,
    /// The bytes that these and answers held, and how many of them the context has sent itself.
    bytes: usize,
    own_bytes: usize,
    pub(super) unread: Unread,
}

impl Received {
    /// Counts a message as received.
    #[inline]
    pub(super) fn receive(&mut self, context: &Context) {
        self.messages += 1;
        if rarely(self.messages >= RECEIVED_MAX) {
            self.settle(context);
        }
    }

    /// Tells the mailbox what was received.
    #[inline]
    pub(super) fn settle(&mut self, context: &Context) {
        let messages = std::mem::take(&mut self.messages);
        if messages > 0 {
            context.received(messages);
        }
        if self.bytes > 0 {
            self.settle_bytes(context);
        }
    }

    #[cold]
    fn settle_bytes(&mut self, context: &Context) {
        let (bytes, own) = (std::mem::take(&mut self.bytes), std::mem::take(&mut self.own_bytes));
        context.received_bytes(bytes, own);
    }

    /// Counts what an event that is taken has held in the mailbox, and returns it.
    pub(super) fn note_bytes(&mut self, event: &Event, context: &Context) -> usize {
        let (value, bytes) = match event {
            Event::Message { value, .. } | Event::Reply { result: Ok(value), .. } => {
                (value, value.held_bytes())
            }
            Event::Publication { published, .. } => (&published.value, published.held_bytes()),
            Event::Ended { ending, .. } => (&Value::Nil, ending.held_bytes()),
            _ => return 0,
        };
        // Those before are gone: whoever holds much is held to it for as long as it is there.
        if self.bytes >= RECEIVED_BYTES_MAX {
            self.settle_bytes(context);
        }
        self.bytes += bytes;
        if context.allowance().is_some_and(|own| value.is_held_by(own)) {
            self.own_bytes += bytes;
        }
        bytes
    }

    /// The message that was handed out last waits again, under this number; returns its bytes.
    pub(super) fn keep(&mut self, number: u64, context: &Context) -> usize {
        let (bytes, is_own) = self.unread.keep(number, context);
        // Before what was received makes room: others may not take this message's.
        context.unreceive(bytes, if is_own { bytes } else { 0 });
        self.settle(context);
        bytes
    }

    /// A message that waited so is received.
    pub(super) fn receive_kept(&mut self, number: u64, bytes: usize, context: &Context) {
        let is_own = self.unread.take(number, context);
        if bytes > 0 {
            context.received_bytes(bytes, if is_own { bytes } else { 0 });
        }
        self.receive(context);
    }
}
