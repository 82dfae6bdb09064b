//! A connection attempt: one address after the other.

use std::sync::Arc;
use std::task::{Context as TaskContext, Poll, Waker};
use std::vec::IntoIter;

use crate::error::Code;
use crate::os::Address;
use crate::rt::Stream;
use crate::sched::{Context, ReadyWaker};

/// How far an attempt is.
#[derive(Debug)]
pub enum Progress {
    /// The context is woken when there is news.
    Wait,
    /// The connection stands.
    Connected(Stream),
    /// No address answered; the code of the last.
    Failed(Code),
}

/// An attempt to connect to the first of some addresses that answers.
#[derive(Debug)]
pub struct Connector {
    /// The number of what the script waits for, as its notice has it.
    pub token: u64,
    stream: Option<Stream>,
    addresses: IntoIter<Address>,
    waker: Waker,
    last: Code,
}

impl Connector {
    /// An attempt whose progress wakes `context` with `source`. Call [`Connector::poll`] at once.
    pub fn new(
        token: u64,
        addresses: Vec<Address>,
        context: &Arc<Context>,
        source: u64,
    ) -> Connector {
        Connector {
            token,
            stream: None,
            addresses: addresses.into_iter(),
            waker: ReadyWaker::waker(context, source),
            last: Code::INVALID,
        }
    }

    /// Goes on as far as possible without waiting.
    pub fn poll(&mut self) -> Progress {
        loop {
            let Some(stream) = self.stream.take() else {
                match self.addresses.next().map(|address| Stream::connect(&address)) {
                    None => return Progress::Failed(self.last),
                    Some(Ok(stream)) => self.stream = Some(stream),
                    Some(Err(error)) => self.last = Code::from(&error),
                }
                continue;
            };
            match stream.poll_write_ready(&mut TaskContext::from_waker(&self.waker)) {
                Poll::Pending => {
                    self.stream = Some(stream);
                    return Progress::Wait;
                }
                Poll::Ready(()) => match stream.take_error() {
                    Ok(None) => return Progress::Connected(stream),
                    Ok(Some(error)) | Err(error) => self.last = Code::from(&error),
                },
            }
        }
    }
}
