//! The end of a conversation: a number and a text.

use super::{CONTROL_BYTES_MAX, Violation};

/// What a close frame says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Close {
    /// Why: 1000 to 4999, or [`Close::NONE`] if the frame is empty.
    pub code: u16,
    /// For people.
    pub reason: String,
}

impl Close {
    /// The side that says so goes away.
    pub const AWAY: u16 = 1001;
    /// The other one does not keep to the protocol.
    pub const PROTOCOL: u16 = 1002;
    /// Stands for a frame that gives no reason; none says it.
    pub const NONE: u16 = 1005;
    /// Text that is no UTF-8, or compressed bytes that are none.
    pub const INVALID: u16 = 1007;
    /// A message longer than this side takes.
    pub const TOO_BIG: u16 = 1009;

    /// The longest reason, in bytes.
    pub const REASON_BYTES_MAX: usize = CONTROL_BYTES_MAX - 2;

    /// Whether a frame may have this number.
    pub fn is_code(code: u16) -> bool {
        matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999)
    }

    /// What is in the payload of a close frame.
    ///
    /// # Errors
    /// No close frame has that.
    pub(super) fn parse(payload: &[u8]) -> Result<Close, Violation> {
        let (code, reason) = match payload {
            [] => return Ok(Close { code: Close::NONE, reason: String::new() }),
            [_] => return Err(Violation::protocol("a close frame of one byte")),
            [high, low, reason @ ..] => (u16::from_be_bytes([*high, *low]), reason),
        };
        if !Close::is_code(code) {
            return Err(Violation::protocol("a close code that no frame may have"));
        }
        match simdutf8::basic::from_utf8(reason) {
            Ok(reason) => Ok(Close { code, reason: reason.to_owned() }),
            Err(_) => Err(Violation::invalid("the reason of a close frame is no UTF-8")),
        }
    }

    /// The payload of the frame that says so.
    pub fn payload(&self) -> Vec<u8> {
        if self.code == Close::NONE {
            return Vec::new();
        }
        let mut payload = self.code.to_be_bytes().to_vec();
        payload.extend_from_slice(self.reason.as_bytes());
        payload
    }
}
