//! Connecting: name resolution, then one address after the other.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::notice::{Completion, Notice, Notices};
use super::sockets::{KIND_WRITE, Socket, Sockets, source};
use crate::error::Code;
use crate::net::{Connector, Progress};
use crate::os;
use crate::sched::Context;

/// The state of connection attempts, by token.
#[derive(Debug)]
pub(super) enum Attempt {
    Resolving,
    Connecting(u64),
}

impl Sockets {
    /// Starts to connect; the outcome comes as a notice under `token`.
    pub(super) fn connect(
        &mut self,
        token: u64,
        addresses: Vec<os::Address>,
        context: &Arc<Context>,
        notices: &mut Notices,
    ) {
        let key = self.all.insert(|key| {
            let source = source(key, KIND_WRITE);
            Socket::Connecting(Box::new(Connector::new(token, addresses, context, source)))
        });
        self.attempts.insert(token, Attempt::Connecting(key));
        self.advance(key, context, notices);
    }

    /// Notes that `token` waits for a name to be looked up before it can connect.
    pub(super) fn begin_resolving(&mut self, token: u64) {
        self.attempts.insert(token, Attempt::Resolving);
    }

    /// A name was resolved: begins to connect, if it was resolved for that.
    pub(super) fn on_resolved(
        &mut self,
        token: u64,
        result: Result<Vec<std::net::SocketAddr>, Code>,
        context: &Arc<Context>,
        notices: &mut Notices,
    ) {
        // Relaxed: only the thread that runs the context writes it.
        let lookups = &context.metrics().lookups;
        lookups.store(lookups.load(Ordering::Relaxed).saturating_sub(1), Ordering::Relaxed);
        match (self.attempts.remove(&token), result) {
            (Some(_), Ok(addresses)) => {
                let addresses = addresses.into_iter().map(Into::into).collect();
                self.connect(token, addresses, context, notices);
            }
            (_, result) => {
                notices.push(Notice::Complete(token, result.map(Completion::Addresses)));
            }
        }
    }

    /// Abandons an attempt.
    pub(super) fn cancel_connect(&mut self, token: u64) {
        if let Some(Attempt::Connecting(key)) = self.attempts.remove(&token) {
            self.all.remove(key);
        }
    }

    pub(super) fn advance(&mut self, key: u64, context: &Arc<Context>, notices: &mut Notices) {
        let Some(Socket::Connecting(connector)) = self.all.get_mut(key) else { return };
        let token = connector.token;
        let result = match connector.poll() {
            Progress::Wait => return,
            Progress::Connected(stream) => Ok(stream),
            Progress::Failed(code) => Err(code),
        };
        self.all.remove(key);
        self.attempts.remove(&token);
        let result = result.map(|stream| Completion::Connected(self.add_stream(stream, context)));
        notices.push(Notice::Complete(token, result));
    }
}
