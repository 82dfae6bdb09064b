//! The other contexts that one deals with: receivers of its messages, and its unanswered queries.

use std::sync::Arc;

use super::received::Received;
use super::sessions::Sessions;
use super::unread::{deliver, deliver_counted};
use crate::error::Code;
use crate::message::{Event, Failure, Id, Published, Value};
use crate::sched::Context;

/// How many receivers are cached, to spare looking them up. A power of two.
const PEERS: usize = 8;

/// What is made for a context whatever room it has: if there is none it learns so by the refusal.
const ROOM_BYTES_MIN: usize = 4096;

#[derive(Default)]
pub(super) struct Peers {
    known: [Option<Arc<Context>>; PEERS],
    /// Queries that wait for an answer.
    pub(super) sessions: Sessions,
    pub(super) received: Received,
    /// The publication that is being delivered.
    pub(super) published: Option<Arc<Published>>,
    /// The text of the failure that is about to be returned, beside its code.
    pub(super) explanation: Option<Box<str>>,
}

impl Peers {
    /// The context with this address, looked up for `own`; may be one that has just ended.
    #[inline(always)]
    pub(super) fn find(&mut self, id: Id, own: &Context) -> Option<&Arc<Context>> {
        let peer = &mut self.known[id.index() % PEERS];
        if peer.as_ref().is_none_or(|peer| peer.id() != id) {
            // The one before is kept if there is none.
            match own.scheduler().registry().get(id) {
                None => return None,
                found => *peer = found,
            }
        }
        peer.as_ref()
    }

    /// Bytes that may come to a context, as far as that is known; little always may be tried.
    #[inline]
    pub(super) fn room_of(&mut self, to: Option<Id>, own: &Context) -> usize {
        let peer = to.and_then(|to| self.find(to, own)).filter(|peer| peer.id() != own.id());
        let allowance = peer.and_then(|peer| peer.allowance());
        allowance.map_or(usize::MAX, |allowance| allowance.room().max(ROOM_BYTES_MIN))
    }

    /// Puts an event of `own` into the mailbox of another context.
    #[inline]
    pub(super) fn deliver(&mut self, to: Id, event: Event, own: &Context) -> Result<(), Code> {
        let Some(peer) = self.find(to, own) else { return self.deliver_far(to, event, own) };
        match own.allowance() {
            None => deliver(peer, event, own),
            Some(allowance) => deliver_counted(peer, allowance, event, own),
        }
    }

    /// The same for a context of another process.
    #[cold]
    fn deliver_far(&mut self, to: Id, event: Event, own: &Context) -> Result<(), Code> {
        let cluster = own.scheduler().cluster().filter(|_| to.is_far()).ok_or(Code::NO_CONTEXT)?;
        // It counts as what is written for the other process instead.
        let event = match event {
            Event::Message { from, session, value } => {
                Event::Message { from, session, value: value.uncounted() }
            }
            Event::Reply { session, result } => {
                Event::Reply { session, result: result.map(Value::uncounted) }
            }
            event => event,
        };
        cluster.send(to, Some(own), event).map_err(|failure| self.explain(failure))
    }

    /// Keeps what is said of a failure, for [`push_failure`](super::native::push_failure).
    pub(super) fn explain(&mut self, failure: Failure) -> Code {
        self.explanation = failure.text;
        failure.code
    }
}
