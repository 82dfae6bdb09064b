//! Frames out of messages.

use bytes::Bytes;

use super::head::Head;
use super::{CONTROL_BYTES_MAX, Kind, Role, deflate, opcode};

/// What kind of frame one writes; a message, of the writer's own kind unless something is said.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Form {
    /// A message of the usual kind.
    #[default]
    Usual,
    /// A message.
    Message(Kind),
    /// Asks whether the peer is there.
    Ping,
    /// Answers that.
    Pong,
    /// Says that nothing follows.
    Close,
}

/// Why there is no frame for a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoFrame {
    /// A text that is no UTF-8.
    NoText {
        /// The first byte that is none, counted from 0.
        at: usize,
    },
    /// A control frame of more than [`CONTROL_BYTES_MAX`].
    TooLong {
        /// Bytes of the body.
        length: usize,
    },
    /// Nobody wants it any more, before it is packed.
    Over,
}

/// A frame to send: the head, then the payload, which is the body unless it was packed; masked, if
/// there is a mask, which is in the head already.
#[derive(Debug)]
pub struct Frame {
    head: [u8; Head::BYTES_MAX],
    head_len: u8,
    /// In place of the body.
    pub packed: Option<Bytes>,
    /// What to mask the payload with.
    pub mask: Option<[u8; 4]>,
}

impl Frame {
    /// The bytes of the head.
    pub fn head(&self) -> &[u8] {
        &self.head[..usize::from(self.head_len)]
    }
}

/// Makes frames of messages.
///
/// # Examples
/// ```
/// use node_lua::frame::websocket::{Kind, Role, Writer};
///
/// let writer = Writer::new(Role::Server, Kind::Text, None);
/// assert_eq!(writer.frame(b"hello", None, [0; 4], || false).unwrap().head(), [0x81, 5]);
/// assert!(writer.frame(b"\xff", None, [0; 4], || false).is_err());
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Writer {
    role: Role,
    kind: Kind,
    form: Form,
    /// The window for compressing, if it was agreed on.
    window: Option<u8>,
}

impl Writer {
    /// For frames that `role` sends; `kind` is that of messages unless something else is said. With
    /// a window, of this many bits, they are compressed.
    pub fn new(role: Role, kind: Kind, window: Option<u8>) -> Writer {
        Writer { role, kind, form: Form::Usual, window }
    }

    /// The same for frames of such a form.
    pub fn with_form(mut self, form: Form) -> Writer {
        self.form = form;
        self
    }

    /// Whether frames are masked.
    pub fn is_client(&self) -> bool {
        self.role == Role::Client
    }

    /// The frame for `body`, which is `shared` if it can be referred to; `key` masks it if it is to
    /// be masked. What is long is packed in parts, between which `is_over` is asked.
    ///
    /// # Errors
    /// A text that is no UTF-8, or a control frame that is too long; or it is over.
    pub fn frame(
        &self,
        body: &[u8],
        shared: Option<&Bytes>,
        key: [u8; 4],
        is_over: fn() -> bool,
    ) -> Result<Frame, NoFrame> {
        let (opcode, kind) = match self.form {
            Form::Usual => (opcode_of(self.kind), Some(self.kind)),
            Form::Message(kind) => (opcode_of(kind), Some(kind)),
            Form::Ping => (opcode::PING, None),
            Form::Pong => (opcode::PONG, None),
            Form::Close => (opcode::CLOSE, None),
        };
        match kind {
            Some(Kind::Text) if simdutf8::basic::from_utf8(body).is_err() => {
                let at =
                    simdutf8::compat::from_utf8(body).err().map_or(0, |error| error.valid_up_to());
                return Err(NoFrame::NoText { at });
            }
            None if body.len() > CONTROL_BYTES_MAX => {
                return Err(NoFrame::TooLong { length: body.len() });
            }
            _ => {}
        }
        // What is to be masked should be nobody else's.
        let shared = shared.filter(|_| !self.is_client());
        let packed = match self.window.filter(|_| kind.is_some()) {
            Some(window) => deflate::pack(body, shared, window, is_over)?,
            None => None,
        };
        let mask = self.is_client().then_some(key);
        let length = packed.as_ref().map_or(body.len(), Bytes::len) as u64;
        let head = Head { is_last: true, is_packed: packed.is_some(), opcode, mask, length };
        let (head, head_len) = head.write();
        Ok(Frame { head, head_len: head_len as u8, packed, mask })
    }
}

fn opcode_of(kind: Kind) -> u8 {
    match kind {
        Kind::Text => opcode::TEXT,
        Kind::Binary => opcode::BINARY,
    }
}
