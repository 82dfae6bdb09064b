//! How a connection comes to have TLS.

use std::task::Poll;

use super::{Connection, Input};
use crate::error::Code;
use crate::message::Held;
use crate::net::secure::Secure;
use crate::tls::{Details, Session};

impl Connection {
    /// Begins TLS. What was staged must have been flushed; what was received and not delivered
    /// belongs to the handshake, whose end [`Connection::advance_tls`] tells under the token.
    ///
    /// # Errors
    /// It cannot begin, for this reason.
    pub fn start_tls(&mut self, mut session: Session, token: u64) -> Result<(), &'static str> {
        if self.gather_need > 0 {
            return Err("a frame is half received");
        }
        if let Some(code) = self.ended().or(self.writer.failed()) {
            return Err(code.text());
        }
        session.feed(&std::mem::take(&mut self.buffered));
        let held = self.held.as_ref().map(Held::another);
        if !self.writer.start_tls(session, held) {
            return Err("the connection has TLS already");
        }
        self.tls_token = token;
        Ok(())
    }

    /// Goes on with the handshake as far as possible. Returns the token of who waits for its
    /// end, and what that is, once it is there.
    pub fn advance_tls(&mut self) -> Option<(u64, Result<(), Code>)> {
        let secure = self.transport.secure().filter(|secure| secure.is_handshaking())?;
        if self.tls_token == 0 {
            return None;
        }
        let stream = &self.transport;
        let result = match secure.advance(stream, &self.read_waker, &self.writer.waker) {
            Poll::Pending => return None,
            Poll::Ready(result) => result,
        };
        match result {
            Ok(()) => self.input = Input::Ready,
            Err(code) => {
                self.end(code);
                self.writer.abandon(code);
            }
        }
        self.writer.on_ready();
        if self.awaited.is_some() {
            self.read_waker.wake_by_ref();
        }
        Some((std::mem::take(&mut self.tls_token), result))
    }

    /// Gives a handshake up: nothing can be read or written any more. Returns the token of who has
    /// waited; 0 for nobody.
    pub fn cancel_tls(&mut self) -> u64 {
        let token = std::mem::take(&mut self.tls_token);
        if token != 0 {
            self.end(Code::TLS_FAILED);
            self.writer.abandon(Code::TLS_FAILED);
            if self.awaited.is_some() {
                self.read_waker.wake_by_ref();
            }
        }
        token
    }

    /// What the handshake has come to, and why TLS has failed; nothing without TLS.
    pub fn tls(&self) -> Option<(Option<Details>, Option<String>)> {
        self.transport.secure().map(Secure::details)
    }
}
