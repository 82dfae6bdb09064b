//! Heads that few protocols have: of other widths, that count other bytes, or that stand behind
//! other bytes; and frames without heads that end at a delimiter or at a number of bytes.

use std::ops::Range;

use memchr::memmem;

use super::length::{Decoder, Encoder, Form, FrameError, Step};
use super::options::{Delimiter, Endian, HeadOptions, Width};

const VARINT_BYTES_MAX: usize = 10;

/// A number at the start of bytes, and how many of them it takes; how many there must be to tell.
enum Number {
    Whole(u64, usize),
    Incomplete(usize),
    Impossible,
}

fn varint(bytes: &[u8]) -> Number {
    let mut number = 0;
    for (index, byte) in bytes.iter().take(VARINT_BYTES_MAX).enumerate() {
        let group = u64::from(byte & 0x7f);
        number |= group << (7 * index);
        if byte & 0x80 == 0 {
            // The tenth has room for one bit.
            let fits = index + 1 < VARINT_BYTES_MAX || group <= 1;
            return if fits { Number::Whole(number, index + 1) } else { Number::Impossible };
        }
    }
    if bytes.len() < VARINT_BYTES_MAX {
        Number::Incomplete(bytes.len() + 1)
    } else {
        Number::Impossible
    }
}

fn number(options: &HeadOptions, bytes: &[u8]) -> Number {
    let Width::Bytes(_) = options.width() else { return varint(bytes) };
    let width = usize::from(options.bytes());
    let Some(bytes) = bytes.get(..width) else { return Number::Incomplete(width) };
    let add = |number: u64, byte: &u8| number << 8 | u64::from(*byte);
    let number = match options.endian() {
        Endian::Little => bytes.iter().rev().fold(0, add),
        Endian::Big => bytes.iter().fold(0, add),
    };
    Number::Whole(number, width)
}

impl Decoder {
    /// [`Decoder::next`] for all that is not plain.
    #[cold]
    pub(super) fn next_unusual(&self, input: &[u8]) -> Result<Step, FrameError> {
        match &self.form {
            Form::Exact(count) if input.len() < *count => Ok(Step::Incomplete { need: *count }),
            Form::Exact(count) => Ok(Step::Frame { head: 0, body: *count, tail: 0 }),
            Form::Delimited(delimiter) => next_delimited(delimiter, input),
            Form::Plain | Form::Head => next_behind_head(&self.head, input),
        }
    }

    /// Whether nothing but its end tells how long a frame is.
    pub fn is_open(&self) -> bool {
        matches!(self.form, Form::Delimited(_))
    }

    /// Whether an open frame that had not ended in the first `known` bytes of `input` does now, or
    /// is too long.
    pub fn has_ended(&self, input: &[u8], known: usize) -> bool {
        let Form::Delimited(delimiter) = &self.form else { return false };
        let start = known.saturating_sub(delimiter.bytes.len() - 1);
        memmem::find(&input[start..], &delimiter.bytes).is_some() || !may_end(delimiter, input)
    }

    /// Appends what the peer has sent of a frame with this body, but for zeros that end a varint.
    pub fn restore(&self, body: &[u8], into: &mut Vec<u8>) {
        match &self.form {
            Form::Delimited(delimiter) => {
                into.extend_from_slice(body);
                into.extend_from_slice(&delimiter.bytes);
            }
            Form::Head if self.head.offset() == 0 => {
                let number = body.len() as i64 - i64::from(self.head.adjust());
                into.extend_from_slice(Field::new(&self.head, number as u64).as_slice());
                into.extend_from_slice(body);
            }
            Form::Plain => {
                if let Ok(head) = Encoder::new(self.head).head(body.len()) {
                    into.extend_from_slice(head.as_slice());
                }
                into.extend_from_slice(body);
            }
            Form::Head | Form::Exact(_) => into.extend_from_slice(body),
        }
    }
}

/// Whether what follows may end a frame that is not too long, and has not ended in `input`.
fn may_end(delimiter: &Delimiter, input: &[u8]) -> bool {
    let Delimiter { bytes, max } = delimiter;
    let first = (input.len() + 1).saturating_sub(bytes.len());
    let last = input.len().min(*max as usize);
    (first..=last).any(|start| bytes.starts_with(&input[start..]))
}

fn next_delimited(delimiter: &Delimiter, input: &[u8]) -> Result<Step, FrameError> {
    let Delimiter { bytes, max } = delimiter;
    let most = *max as usize + bytes.len();
    match memmem::find(&input[..input.len().min(most)], bytes) {
        Some(body) => Ok(Step::Frame { head: 0, body, tail: bytes.len() }),
        None if may_end(delimiter, input) => {
            Ok(Step::Incomplete { need: bytes.len().max(input.len() + 1) })
        }
        None => Err(FrameError::TooLong { length: u64::from(*max) + 1, max: *max }),
    }
}

fn next_behind_head(options: &HeadOptions, input: &[u8]) -> Result<Step, FrameError> {
    let offset = usize::from(options.offset());
    let (number, width) = match number(options, input.get(offset..).unwrap_or_default()) {
        Number::Whole(number, width) => (number, width),
        Number::Incomplete(need) => return Ok(Step::Incomplete { need: offset + need }),
        Number::Impossible => return Err(FrameError::Impossible),
    };
    let length = i128::from(number) + i128::from(options.adjust());
    let Ok(length) = u64::try_from(length.min(i128::from(u64::MAX))) else {
        return Err(FrameError::Impossible);
    };
    if length > u64::from(options.max()) {
        return Err(FrameError::TooLong { length, max: options.max() });
    }
    let (head, body) = (offset + width, length as usize);
    if input.len() < head + body {
        return Ok(Step::Incomplete { need: head + body });
    }
    Ok(match offset {
        0 => Step::Frame { head, body, tail: 0 },
        _ => Step::Frame { head: 0, body: head + body, tail: 0 },
    })
}

/// A length as it stands in a head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field {
    bytes: [u8; VARINT_BYTES_MAX],
    len: u8,
}

impl Field {
    fn new(options: &HeadOptions, mut number: u64) -> Field {
        let (mut bytes, mut len) = ([0; VARINT_BYTES_MAX], usize::from(options.bytes()));
        match (options.width(), options.endian()) {
            (Width::Varint, _) => loop {
                bytes[len] = number as u8 & 0x7f;
                number >>= 7;
                len += 1;
                if number == 0 {
                    break;
                }
                bytes[len - 1] |= 0x80;
            },
            (_, Endian::Little) => bytes[..8].copy_from_slice(&number.to_le_bytes()),
            (_, Endian::Big) => bytes[..len].copy_from_slice(&number.to_be_bytes()[8 - len..]),
        }
        Field { bytes, len: len as u8 }
    }

    /// Its bytes.
    pub fn as_slice(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

/// What is sent for a body, or packet: the bytes of it up to [`Packet::front`], the length, and its
/// bytes from [`Packet::rest`] on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet {
    /// Bytes in front of the length.
    pub front: usize,
    /// The length.
    pub field: Field,
    /// The offset in the packet of the byte where the rest begins.
    pub rest: usize,
}

impl Encoder {
    /// What to send for `body`, which is a whole packet if the length does not come first. There
    /// the length has a place; a varint of any value stands for the one that takes it.
    ///
    /// # Errors
    /// What is behind the length is longer than the maximum, or there is no such length, or no
    /// place for it.
    pub fn packet(&self, body: &[u8]) -> Result<Packet, FrameError> {
        let options = &self.options;
        let front = usize::from(options.offset());
        let place = if front == 0 { 0..0 } else { place(options, body)? };
        let (length, max) = ((body.len() - place.end) as u64, options.max());
        if options.has_head() && length > u64::from(max) {
            return Err(FrameError::TooLong { length, max });
        }
        let number = length as i64 - i64::from(options.adjust());
        let Ok(number) = u64::try_from(number) else {
            let min = options.adjust().unsigned_abs().into();
            return Err(FrameError::TooShort { length, min });
        };
        Ok(Packet { front, field: Field::new(options, number), rest: place.end })
    }
}

/// Where a packet has its length.
fn place(options: &HeadOptions, packet: &[u8]) -> Result<Range<usize>, FrameError> {
    let offset = options.offset();
    let start = usize::from(offset);
    match number(options, packet.get(start..).unwrap_or_default()) {
        Number::Whole(_, width) => Ok(start..start + width),
        _ => Err(FrameError::NoPlace { length: packet.len() as u64, offset }),
    }
}

#[cfg(test)]
#[path = "unusual_test.rs"]
mod tests;
