//! What a turn tells the library beside the events of its mailbox.

use crate::error::Code;
use crate::os;

/// Something the library's dispatcher reacts to that does not come from the mailbox.
#[derive(Debug)]
pub(super) enum Notice {
    Readable(u64),
    Acceptable(u64),
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
