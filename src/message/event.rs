//! What a context's mailbox holds.

use std::net::SocketAddr;
use std::sync::Arc;

use super::id::Id;
use super::value::Value;
use crate::error::Code;

/// The exit notice that watchers of a context get.
#[derive(Debug, PartialEq, Eq)]
pub struct Ending {
    /// `normal`, `error`, `killed`, `memory` or `time`.
    pub reason: &'static str,
    /// Error text or traceback, any bytes, if there is one.
    pub detail: Option<Vec<u8>>,
}

impl Ending {
    /// Bytes of memory that it holds beside itself.
    pub fn held_bytes(&self) -> usize {
        self.detail.as_ref().map_or(0, Vec::len)
    }

    /// The same for who has no room for its text.
    pub fn without_text(&self) -> Ending {
        let text = format!("({} bytes of text: no room in the mailbox)", self.held_bytes());
        Ending { reason: self.reason, detail: Some(text.into_bytes()) }
    }
}

/// What was published, the same for all who have subscribed to it.
#[derive(Debug)]
pub struct Published {
    /// By whom.
    pub from: Id,
    /// To which topic.
    pub topic: Box<[u8]>,
    /// The value.
    pub value: Value,
}

impl Published {
    /// Bytes of memory that it holds beside itself.
    pub fn held_bytes(&self) -> usize {
        self.topic.len() + self.value.held_bytes()
    }
}

/// Why something does not get there, or is not answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// For the script.
    pub code: Code,
    /// More of it than the code's own text.
    pub text: Option<Box<str>>,
}

impl From<Code> for Failure {
    fn from(code: Code) -> Failure {
        Failure { code, text: None }
    }
}

/// Bits of a session: what a Lua number holds exactly.
pub const SESSION_BITS: u32 = 53;

/// One thing for a context to react to.
#[derive(Debug)]
pub enum Event {
    /// Another context sent (`session` 0) or asks (`session` > 0, to be used in the answer).
    Message {
        /// The sender.
        from: Id,
        /// The query's session, or 0.
        session: u64,
        /// What was sent.
        value: Value,
    },
    /// Something was published that this context has subscribed to.
    Publication {
        /// The number of the subscription.
        subscription: u64,
        /// What.
        published: Arc<Published>,
    },
    /// The answer to a query of this context.
    Reply {
        /// The session of the query.
        session: u64,
        /// What was answered, or why nothing was.
        result: Result<Value, Failure>,
    },
    /// A context that this one watches, or has asked something, has ended.
    Ended {
        /// Which one.
        id: Id,
        /// Why.
        ending: Arc<Ending>,
    },
    /// Something the context owns is ready.
    Ready {
        /// The source's key and kind, `key << 2 | kind`, as built by `lua::host::source`.
        source: u64,
    },
    /// An operation under `token` is over.
    Complete {
        /// The operation.
        token: u64,
        /// How it ended.
        result: Result<(), Code>,
    },
    /// A name lookup is over.
    Resolved {
        /// The operation it belongs to.
        token: u64,
        /// At least one address, or the failure.
        result: Result<Vec<SocketAddr>, Code>,
    },
}
