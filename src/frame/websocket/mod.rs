//! WebSocket frames (RFC 6455) and their compression (RFC 7692), without I/O.
//!
//! [`Reader`] makes messages of received bytes and holds no more than what has come of the present
//! one; [`Writer`] makes frames of messages. Compression has no memory from one message to the
//! next, so that a connection at rest holds nothing, and one message for many is packed once.

mod close;
mod deflate;
mod handshake;
mod head;
mod mask;
mod reader;
mod writer;

pub use close::Close;
pub use deflate::forget_packed;
pub use handshake::{OFFER, accept_key, agreed, negotiate};
pub use head::Head;
pub use mask::mask;
pub use reader::{Event, Reader, Violation};
pub use writer::{Form, Frame, NoFrame, Writer};

/// Whose frames are masked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Sends masked frames.
    Client,
    /// Receives masked frames.
    Server,
}

/// What a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// UTF-8.
    Text,
    /// Any bytes.
    Binary,
}

impl Kind {
    /// The word that scripts use.
    pub fn word(self) -> &'static str {
        match self {
            Kind::Text => "text",
            Kind::Binary => "binary",
        }
    }

    /// The kind that a script names.
    pub fn from_word(word: &[u8]) -> Option<Kind> {
        match word {
            b"text" => Some(Kind::Text),
            b"binary" => Some(Kind::Binary),
            _ => None,
        }
    }
}

/// What a frame is, as it stands in its first byte.
mod opcode {
    pub(super) const CONTINUATION: u8 = 0;
    pub(super) const TEXT: u8 = 1;
    pub(super) const BINARY: u8 = 2;
    pub(super) const CLOSE: u8 = 8;
    pub(super) const PING: u8 = 9;
    pub(super) const PONG: u8 = 10;
}

/// The most bytes that a frame which is no message has.
pub const CONTROL_BYTES_MAX: usize = 125;

#[cfg(test)]
mod tests;
