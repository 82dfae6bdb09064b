//! Connecting: looking names up, and trying their addresses.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::host::{Host, KIND_WRITE, Socket, source};
use super::notice::{Completion, Notice};
use crate::error::Code;
use crate::net::{Connector, Progress};
use crate::os;

/// How a connection attempt stands, by token.
#[derive(Debug)]
pub(super) enum Attempt {
    Resolving,
    Connecting(u64),
}

impl Host {
    /// Starts to connect; the outcome comes as a notice under `token`.
    pub(super) fn connect(&mut self, token: u64, addresses: Vec<os::Address>) {
        let context = Arc::clone(&self.context);
        let stored = self.sockets.try_insert(|key| {
            let connector = Connector::new(token, addresses, &context, source(key, KIND_WRITE));
            Ok::<_, std::convert::Infallible>(Socket::Connecting(connector))
        });
        match stored {
            Ok(key) => {
                self.attempts.insert(token, Attempt::Connecting(key));
                self.advance(key);
            }
            Err(never) => match never {},
        }
    }

    /// Notes that `token` waits for a name to be looked up before it can connect.
    pub(super) fn begin_resolving(&mut self, token: u64) {
        self.attempts.insert(token, Attempt::Resolving);
    }

    /// A lookup is over: goes on to connect if that is what it was for.
    pub(super) fn on_resolved(
        &mut self,
        token: u64,
        result: Result<Vec<std::net::SocketAddr>, Code>,
    ) {
        // Relaxed: only the thread that runs the context writes it.
        let lookups = &self.context.metrics().lookups;
        lookups.store(lookups.load(Ordering::Relaxed).saturating_sub(1), Ordering::Relaxed);
        match (self.attempts.remove(&token), result) {
            (Some(_), Ok(addresses)) => {
                self.connect(token, addresses.into_iter().map(Into::into).collect());
            }
            (_, result) => {
                self.notices.push_back(Notice::Complete(token, result.map(Completion::Addresses)))
            }
        }
    }

    /// Gives up connecting; the outcome does not matter any more.
    pub(super) fn cancel_connect(&mut self, token: u64) {
        if let Some(Attempt::Connecting(key)) = self.attempts.remove(&token) {
            self.sockets.remove(key);
        }
    }

    pub(super) fn advance(&mut self, key: u64) {
        let Some(Socket::Connecting(connector)) = self.sockets.get_mut(key) else { return };
        let token = connector.token;
        let result = match connector.poll() {
            Progress::Wait => return,
            Progress::Connected(stream) => Ok(stream),
            Progress::Failed(code) => Err(code),
        };
        self.sockets.remove(key);
        self.attempts.remove(&token);
        let result = result.map(|stream| Completion::Connected(self.add_stream(stream)));
        self.notices.push_back(Notice::Complete(token, result));
    }
}
