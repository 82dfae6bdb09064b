//! What stands before the payload of a frame.

use super::{CONTROL_BYTES_MAX, Role, Violation, opcode};

/// A head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// Whether the message ends with this frame.
    pub is_last: bool,
    /// Whether the message is compressed, which its first frame says.
    pub is_packed: bool,
    /// What the frame is: 0 to 15.
    pub opcode: u8,
    /// What the payload is masked with.
    pub mask: Option<[u8; 4]>,
    /// Bytes of payload.
    pub length: u64,
}

const LAST: u8 = 0x80;
const PACKED: u8 = 0x40;
const RESERVED: u8 = 0x30;
const OPCODE: u8 = 0x0f;
const MASKED: u8 = 0x80;

/// Lengths that stand for a length of two, and of eight bytes, that follows.
const TWO_BYTES: u8 = 126;
const EIGHT_BYTES: u8 = 127;

impl Head {
    /// The most bytes of a head.
    pub const BYTES_MAX: usize = 14;

    /// Bytes of the head that these begin, as far as they tell: with this many it can be parsed, or
    /// tells more.
    pub(super) fn need(start: &[u8]) -> usize {
        let Some(second) = start.get(1) else { return 2 };
        let length = match second & !MASKED {
            TWO_BYTES => 2,
            EIGHT_BYTES => 8,
            _ => 0,
        };
        2 + length + if second & MASKED != 0 { 4 } else { 0 }
    }

    /// Parses a head of [`Head::need`] bytes, sent to `role`.
    ///
    /// # Errors
    /// No such frame may be sent, whatever came before.
    pub(super) fn parse(bytes: &[u8], role: Role, may_pack: bool) -> Result<Head, Violation> {
        let wrong = |why| Err(Violation::protocol(why));
        let (first, second) = (bytes[0], bytes[1]);
        let is_masked = second & MASKED != 0;
        let rest = &bytes[2..];
        let (length, rest) = match second & !MASKED {
            TWO_BYTES => (u64::from(u16::from_be_bytes([rest[0], rest[1]])), &rest[2..]),
            EIGHT_BYTES => {
                let (length, rest) = rest.split_at(8);
                (length.iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte)), rest)
            }
            length => (u64::from(length), rest),
        };
        let head = Head {
            is_last: first & LAST != 0,
            is_packed: first & PACKED != 0,
            opcode: first & OPCODE,
            mask: is_masked.then(|| std::array::from_fn(|at| rest[at])),
            length,
        };
        if first & RESERVED != 0 || head.is_packed && !may_pack {
            return wrong("a frame with a reserved bit");
        }
        if !matches!(head.opcode, opcode::CONTINUATION..=opcode::BINARY)
            && !matches!(head.opcode, opcode::CLOSE..=opcode::PONG)
        {
            return wrong("a frame of a reserved kind");
        }
        match role {
            Role::Server if !is_masked => return wrong("a frame that is not masked"),
            Role::Client if is_masked => return wrong("a masked frame"),
            _ => {}
        }
        let shortest = match second & !MASKED {
            TWO_BYTES => u64::from(TWO_BYTES),
            EIGHT_BYTES => 1 << 16,
            _ => 0,
        };
        if length < shortest || length >> 63 != 0 {
            return wrong("a length that is not written as short as it can be");
        }
        if head.is_control() {
            if !head.is_last || head.is_packed {
                return wrong("a control frame that is a part of something");
            }
            if length > CONTROL_BYTES_MAX as u64 {
                return wrong("a control frame of more than 125 bytes");
            }
        }
        if head.opcode == opcode::CONTINUATION && head.is_packed {
            return wrong("a frame with a reserved bit");
        }
        Ok(head)
    }

    /// Whether it is no part of a message.
    pub(super) fn is_control(&self) -> bool {
        self.opcode & 8 != 0
    }

    /// The bytes, and how many they are.
    pub(super) fn write(&self) -> ([u8; Head::BYTES_MAX], usize) {
        let mut bytes = [0; Head::BYTES_MAX];
        bytes[0] = self.opcode
            | if self.is_last { LAST } else { 0 }
            | if self.is_packed { PACKED } else { 0 };
        let mut end = 2;
        bytes[1] = match self.length {
            length @ 0..126 => length as u8,
            length @ 126..0x1_0000 => {
                bytes[2..4].copy_from_slice(&(length as u16).to_be_bytes());
                end += 2;
                TWO_BYTES
            }
            length => {
                bytes[2..10].copy_from_slice(&length.to_be_bytes());
                end += 8;
                EIGHT_BYTES
            }
        };
        if let Some(mask) = self.mask {
            bytes[1] |= MASKED;
            bytes[end..end + 4].copy_from_slice(&mask);
            end += 4;
        }
        (bytes, end)
    }
}
