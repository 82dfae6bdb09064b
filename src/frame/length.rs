//! Where frames begin and end.
//!
//! [`Decoder`] finds the next frame at the start of the bytes received so far and keeps no state;
//! [`Encoder`] makes the head for a body. Neither holds or copies bodies. Numbers in heads are
//! unsigned. What few protocols need is in unusual.rs.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use byteorder::{BigEndian, ByteOrder, LittleEndian};

use super::options::{Delimiter, Endian, HeadOptions, ReadOptions};
use crate::error::Code;

/// What stands at the start of the input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// A whole frame: this many bytes of head, then this many of body, and of what ends it.
    Frame {
        /// Bytes to skip before the body.
        head: usize,
        /// Bytes of body; may be 0.
        body: usize,
        /// Bytes to skip behind the body.
        tail: usize,
    },
    /// Not yet a frame.
    Incomplete {
        /// Bytes, counted from the start of the input, without which there is no point in asking
        /// again: those of the frame if its head is there, else those of the head.
        need: usize,
    },
}

/// Bytes that are no frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameError {
    /// A body longer than the options allow.
    TooLong {
        /// Bytes of the body.
        length: u64,
        /// Bytes allowed.
        max: u32,
    },
    /// A head that no frame has.
    Impossible,
    /// A body to which no head belongs: it has less than these bytes, which the head takes off.
    TooShort {
        /// Bytes of the body.
        length: u64,
        /// The fewest that there can be.
        min: u64,
    },
    /// A packet that ends before, or in, its length, or whose varint does not end.
    NoPlace {
        /// Bytes of the packet.
        length: u64,
        /// Where the length begins.
        offset: u16,
    },
    /// A text message that is no UTF-8.
    NoText {
        /// The first byte that is none, counted from 0.
        at: usize,
    },
    /// Who writes it ends before it is made.
    Over,
}

impl FrameError {
    /// The code scripts see when such a frame is received.
    pub fn code(&self) -> Code {
        match self {
            FrameError::TooLong { .. } => Code::MESSAGE_TOO_LONG,
            _ => Code::BAD_HEAD,
        }
    }
}

impl fmt::Display for FrameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FrameError::TooLong { length, max } => {
                write!(f, "frame of {length} bytes exceeds head max {max}")
            }
            FrameError::Impossible => f.write_str("a head that cannot be"),
            FrameError::Over => f.write_str("the context ends"),
            FrameError::TooShort { length, min } => {
                write!(f, "frame of {length} bytes is less than head adjust {min}")
            }
            FrameError::NoPlace { length, offset } => write!(
                f,
                "packet of {length} bytes has no place for its length, which begins behind \
                 {offset} bytes (head offset)"
            ),
            FrameError::NoText { at } => write!(
                f,
                "text that is no UTF-8, from its byte {} on: 'binary' sends any bytes",
                at + 1
            ),
        }
    }
}

impl std::error::Error for FrameError {}

/// What ends a frame.
#[derive(Clone, Debug, Default)]
pub(super) enum Form {
    /// A length of 1, 2 or 4 bytes before it, or nothing.
    #[default]
    Plain,
    /// Any other length.
    Head,
    /// Bytes behind it.
    Delimited(Arc<Delimiter>),
    /// It has this many bytes.
    Exact(usize),
}

/// Finds frames in received bytes.
///
/// # Examples
/// ```
/// use node_lua::frame::{Decoder, Encoder, Endian, HeadOptions, Step};
///
/// let options = HeadOptions::new(Endian::Big, 2, 1000).unwrap();
/// let mut stream = Encoder::new(options).head(5).unwrap().as_slice().to_vec();
/// stream.extend_from_slice(b"hello");
/// let decoder = Decoder::from(options);
/// assert_eq!(decoder.next(&stream), Ok(Step::Frame { head: 2, body: 5, tail: 0 }));
/// assert_eq!(decoder.next(&stream[..3]), Ok(Step::Incomplete { need: 7 }));
/// assert_eq!(Decoder::exact(4).next(b"12345"), Ok(Step::Frame { head: 0, body: 4, tail: 0 }));
/// ```
#[derive(Clone, Debug, Default)]
pub struct Decoder {
    pub(super) head: HeadOptions,
    pub(super) form: Form,
}

impl From<HeadOptions> for Decoder {
    fn from(head: HeadOptions) -> Decoder {
        Decoder { head, form: if head.is_plain() { Form::Plain } else { Form::Head } }
    }
}

impl Decoder {
    /// A decoder for such frames; without heads and delimiters all the input is one frame.
    pub fn new(options: &ReadOptions) -> Decoder {
        match options.delimiter() {
            None => Decoder::from(*options.head()),
            Some(delimiter) => Decoder::until(delimiter.clone()),
        }
    }

    /// For one frame of `count` bytes.
    pub fn exact(count: usize) -> Decoder {
        Decoder { form: Form::Exact(count), ..Decoder::default() }
    }

    /// For frames that such bytes end.
    pub fn until(delimiter: Delimiter) -> Decoder {
        Decoder { form: Form::Delimited(Arc::new(delimiter)), ..Decoder::default() }
    }

    /// Looks at the start of `input`. Without heads, only empty input is incomplete.
    ///
    /// # Errors
    /// The head announces more than the maximum, or cannot be. It does so however often it is
    /// asked.
    #[inline]
    pub fn next(&self, input: &[u8]) -> Result<Step, FrameError> {
        match self.form {
            Form::Plain => next_plain(&self.head, input),
            _ => self.next_unusual(input),
        }
    }

    /// Finds the frames of at most `body_max` bytes that `input` begins with, and where their
    /// bodies are; returns how many, and where the last one ends.
    #[inline]
    pub fn find(
        &self,
        input: &[u8],
        body_max: usize,
        places: &mut [Range<usize>],
    ) -> (usize, usize) {
        match self.form {
            Form::Plain if self.head.has_head() => find_plain(&self.head, input, body_max, places),
            _ => find(|rest| self.next(rest), input, body_max, places),
        }
    }
}

/// The usual heads, in a loop of their own: what there is to know of them stays in registers, and
/// four bytes are looked at, however many a head has.
#[inline]
fn find_plain(
    options: &HeadOptions,
    input: &[u8],
    body_max: usize,
    places: &mut [Range<usize>],
) -> (usize, usize) {
    let (head, is_big) = (usize::from(options.plain_bytes()), options.endian() == Endian::Big);
    let unused = 8 * (4 - head as u32);
    let max = body_max.min(options.max() as usize);
    let (mut count, mut end) = (0, 0);
    for place in places {
        let body = match input[end..].first_chunk() {
            Some(&bytes) if is_big => u32::from_be_bytes(bytes) >> unused,
            Some(&bytes) => u32::from_le_bytes(bytes) << unused >> unused,
            None => match next_plain(options, &input[end..]) {
                Ok(Step::Frame { body, .. }) => body as u32,
                _ => break,
            },
        };
        let start = end + head;
        let stop = start + body as usize;
        if body as usize > max || stop > input.len() {
            break;
        }
        *place = start..stop;
        end = stop;
        count += 1;
    }
    (count, end)
}

fn find(
    next: impl Fn(&[u8]) -> Result<Step, FrameError>,
    input: &[u8],
    body_max: usize,
    places: &mut [Range<usize>],
) -> (usize, usize) {
    let (mut count, mut end) = (0, 0);
    for place in places {
        let Ok(Step::Frame { head, body, tail }) = next(&input[end..]) else { break };
        if body > body_max {
            break;
        }
        *place = end + head..end + head + body;
        end += head + body + tail;
        count += 1;
    }
    (count, end)
}

#[inline]
fn next_plain(options: &HeadOptions, input: &[u8]) -> Result<Step, FrameError> {
    let head = usize::from(options.plain_bytes());
    let Some(bytes) = input.get(..head.max(1)) else {
        return Ok(Step::Incomplete { need: head.max(1) });
    };
    let length = match options.endian() {
        _ if head == 0 => return Ok(Step::Frame { head, body: input.len(), tail: 0 }),
        Endian::Little => length_in::<LittleEndian>(bytes),
        Endian::Big => length_in::<BigEndian>(bytes),
    };
    if length > options.max() {
        return Err(FrameError::TooLong { length: u64::from(length), max: options.max() });
    }
    let body = length as usize;
    if input.len() - head < body {
        return Ok(Step::Incomplete { need: head + body });
    }
    Ok(Step::Frame { head, body, tail: 0 })
}

/// The length that a head of 1, 2 or 4 bytes holds.
#[inline]
fn length_in<E: ByteOrder>(head: &[u8]) -> u32 {
    match head.len() {
        1 => u32::from(head[0]),
        2 => u32::from(E::read_u16(head)),
        _ => E::read_u32(head),
    }
}

/// Makes heads for bodies to send.
///
/// # Examples
/// ```
/// use node_lua::frame::{Encoder, Endian, HeadOptions};
///
/// let encoder = Encoder::new(HeadOptions::new(Endian::Big, 2, 1000).unwrap());
/// assert_eq!(encoder.head(258).unwrap().as_slice(), [1, 2]);
/// assert!(encoder.head(1001).is_err());
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Encoder {
    pub(super) options: HeadOptions,
    is_plain: bool,
    /// What makes frames that have no head of this kind at all.
    #[cfg(feature = "websocket")]
    websocket: Option<super::websocket::Writer>,
}

impl Default for Encoder {
    fn default() -> Encoder {
        Encoder::new(HeadOptions::default())
    }
}

impl Encoder {
    /// An encoder for frames with such heads.
    pub fn new(options: HeadOptions) -> Encoder {
        Encoder {
            options,
            is_plain: options.is_plain(),
            #[cfg(feature = "websocket")]
            websocket: None,
        }
    }

    /// An encoder for WebSocket's frames.
    #[cfg(feature = "websocket")]
    pub fn websocket(writer: super::websocket::Writer) -> Encoder {
        Encoder { is_plain: false, websocket: Some(writer), ..Encoder::default() }
    }

    /// The same for frames of such a form.
    #[cfg(feature = "websocket")]
    pub fn with_form(self, form: super::websocket::Form) -> Encoder {
        Encoder { websocket: self.websocket.map(|writer| writer.with_form(form)), ..self }
    }

    /// What makes WebSocket's frames, if it is for these.
    #[cfg(feature = "websocket")]
    pub fn websocket_writer(&self) -> Option<&super::websocket::Writer> {
        self.websocket.as_ref()
    }

    /// Whether [`Encoder::head`] makes the heads; otherwise [`Encoder::packet`] does.
    #[inline]
    pub fn is_plain(&self) -> bool {
        self.is_plain
    }

    /// The head for a body of `body_len` bytes, if heads are plain; empty if the options have none.
    ///
    /// # Errors
    /// The body is longer than the maximum.
    #[inline]
    pub fn head(&self, body_len: usize) -> Result<Head, FrameError> {
        debug_assert!(self.is_plain);
        let len = self.options.plain_bytes();
        if len == 0 {
            return Ok(Head { bytes: [0; 4], len });
        }
        let max = self.options.max();
        let length = match u32::try_from(body_len) {
            Ok(length) if length <= max => length,
            _ => return Err(FrameError::TooLong { length: body_len as u64, max }),
        };
        let mut bytes = [0; 4];
        match self.options.endian() {
            Endian::Little => LittleEndian::write_u32(&mut bytes, length),
            // Shifted up so that the significant bytes come first at every width.
            Endian::Big => BigEndian::write_u32(&mut bytes, length << (32 - 8 * u32::from(len))),
        }
        Ok(Head { bytes, len })
    }
}

/// The bytes to send before a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    bytes: [u8; 4],
    len: u8,
}

impl Head {
    /// The most bytes a head has.
    pub const BYTES_MAX: usize = 4;

    /// No bytes.
    pub const NONE: Head = Head { bytes: [0; 4], len: 0 };

    /// The bytes, and zeros up to [`Head::BYTES_MAX`].
    #[inline]
    pub fn padded(&self) -> &[u8; Head::BYTES_MAX] {
        &self.bytes
    }

    /// How many bytes there are.
    #[inline]
    #[allow(clippy::len_without_is_empty, reason = "a number like the others")]
    pub fn len(&self) -> usize {
        usize::from(self.len)
    }

    /// The bytes: 0, 1, 2 or 4 of them.
    pub fn as_slice(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::super::testing::bodies;
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    fn options(endian: Endian, bytes: u8, max: u32) -> HeadOptions {
        HeadOptions::new(endian, bytes, max).unwrap()
    }

    fn any_options() -> impl Strategy<Value = HeadOptions> {
        (
            prop_oneof![Just(Endian::Little), Just(Endian::Big)],
            prop_oneof![Just(1), Just(2), Just(4)],
        )
            .prop_map(|(endian, bytes)| options(endian, bytes, 0))
    }

    fn encode(options: HeadOptions, frames: &[Vec<u8>]) -> Vec<u8> {
        let encoder = Encoder::new(options);
        let mut stream = Vec::new();
        for frame in frames {
            stream.extend_from_slice(encoder.head(frame.len()).unwrap().as_slice());
            stream.extend_from_slice(frame);
        }
        stream
    }

    #[test]
    fn heads_have_the_documented_bytes() {
        for (endian, bytes, length, expected) in [
            (Endian::Little, 1, 0xab, &[0xab][..]),
            (Endian::Big, 1, 0xab, &[0xab]),
            (Endian::Little, 2, 0x0102, &[2, 1]),
            (Endian::Big, 2, 0x0102, &[1, 2]),
            (Endian::Little, 4, 0x0102_0304, &[4, 3, 2, 1]),
            (Endian::Big, 4, 0x0102_0304, &[1, 2, 3, 4]),
            (Endian::Big, 0, 1000, &[]),
        ] {
            let head = Encoder::new(options(endian, bytes, 0)).head(length).unwrap();
            assert_eq!(head.as_slice(), expected);
        }
    }

    #[test]
    fn limits_hold_at_and_around_them() {
        for endian in [Endian::Little, Endian::Big] {
            for (bytes, max) in [(1, 255), (1, 7), (2, 65_535), (2, 300), (4, 0), (4, 70_000)] {
                let options = options(endian, bytes, max);
                let (encoder, max) = (Encoder::new(options), options.max());
                for length in [max - 1, max] {
                    let head = encoder.head(length as usize).unwrap();
                    let need = head.as_slice().len() + length as usize;
                    let step = Decoder::from(options).next(head.as_slice());
                    assert_eq!(step, Ok(Step::Incomplete { need }));
                }
                let error = FrameError::TooLong { length: u64::from(max) + 1, max };
                assert_eq!(encoder.head(max as usize + 1), Err(error));
                assert!(error.to_string().contains(&max.to_string()));
            }
        }
        let too_long = Encoder::new(options(Endian::Big, 4, 0)).head(usize::MAX).unwrap_err();
        assert_eq!(
            too_long,
            FrameError::TooLong { length: usize::MAX as u64, max: i32::MAX as u32 }
        );
    }

    #[test]
    fn received_length_above_max_is_refused_each_time() {
        let decoder = Decoder::from(options(Endian::Big, 2, 300));
        for _ in 0..2 {
            assert_eq!(
                decoder.next(&[1, 45, 9, 9]),
                Err(FrameError::TooLong { length: 301, max: 300 })
            );
        }
    }

    #[test]
    fn top_bit_is_part_of_an_unsigned_length() {
        let big = Decoder::from(options(Endian::Big, 4, 0));
        let error = FrameError::TooLong { length: 0x8000_0000, max: i32::MAX as u32 };
        assert_eq!(big.next(&[0x80, 0, 0, 0]), Err(error));
        let two = Decoder::from(options(Endian::Little, 2, 0));
        assert_eq!(two.next(&[0, 0x80]), Ok(Step::Incomplete { need: 2 + 0x8000 }));
    }

    #[test]
    fn empty_bodies_are_frames() {
        let decoder = Decoder::from(options(Endian::Little, 2, 0));
        assert_eq!(decoder.next(&[0, 0]), Ok(Step::Frame { head: 2, body: 0, tail: 0 }));
        assert_eq!(decoder.next(&[0]), Ok(Step::Incomplete { need: 2 }));
    }

    #[test]
    fn without_head_all_input_is_one_frame() {
        let decoder = Decoder::default();
        assert_eq!(decoder.next(&[]), Ok(Step::Incomplete { need: 1 }));
        assert_eq!(decoder.next(&[7; 9]), Ok(Step::Frame { head: 0, body: 9, tail: 0 }));
    }

    proptest! {
        #[test]
        fn every_split_yields_the_same_frames(
            options in any_options(),
            frames in vec(vec(any::<u8>(), 0..200), 0..6),
            sizes in vec(0usize..40, 0..40),
        ) {
            let stream = encode(options, &frames);
            let decoder = Decoder::from(options);
            prop_assert_eq!(bodies(&decoder, &stream, &sizes), frames.clone());
            prop_assert_eq!(bodies(&decoder, &stream, &vec![1; stream.len()]), frames);
        }
    }
}
