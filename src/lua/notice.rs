//! What a turn tells the library beside the events of its mailbox.

use std::collections::VecDeque;

use crate::error::Code;
use crate::os;

/// Something the library's dispatcher reacts to that does not come from the mailbox.
#[derive(Debug)]
pub(super) enum Notice {
    /// Garbage is to be collected.
    Collect,
    Gone(u64),
    Complete(u64, Result<Completion, Code>),
    Signal(os::Signal),
}

/// What a one-shot operation yields.
#[derive(Debug)]
pub(super) enum Completion {
    Done,
    Connected(u64),
    Addresses(Vec<std::net::SocketAddr>),
}

/// What a turn still has to tell, in the order in which it came.
#[derive(Debug, Default)]
pub(super) struct Notices(VecDeque<Notice>);

impl Notices {
    #[inline]
    pub(super) fn push(&mut self, notice: Notice) {
        self.0.push_back(notice);
    }

    #[inline]
    pub(super) fn pop(&mut self) -> Option<Notice> {
        self.0.pop_front()
    }

    /// An operation that yields nothing is over.
    pub(super) fn done(&mut self, token: u64, result: Result<(), Code>) {
        self.push(Notice::Complete(token, result.map(|()| Completion::Done)));
    }

    pub(super) fn fail(&mut self, token: u64, code: Code) {
        self.push(Notice::Complete(token, Err(code)));
    }

    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    #[inline]
    pub(super) fn capacity(&self) -> usize {
        self.0.capacity()
    }
}
