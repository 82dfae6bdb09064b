//! Frames whose length stands before them.
//!
//! [`Decoder`] finds the next frame at the start of the bytes received so far and keeps no state;
//! [`Encoder`] makes the head for a body. Neither holds or copies bodies. Lengths are unsigned and
//! count the body only.

use std::fmt;

use byteorder::{BigEndian, ByteOrder, LittleEndian};

use super::options::{Endian, HeadOptions};
use crate::error::Code;

/// What stands at the start of the input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// A whole frame: so many bytes of head, then so many of body.
    Frame {
        /// Bytes to skip before the body.
        head: usize,
        /// Bytes of body; may be 0.
        body: usize,
    },
    /// Not yet a frame.
    Incomplete {
        /// Bytes, counted from the start of the input, without which there is no point in asking
        /// again: those of the frame if its head is there, else those of the head.
        need: usize,
    },
}

/// A body longer than the options allow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooLong {
    /// Bytes of the body.
    pub length: u64,
    /// Bytes allowed.
    pub max: u32,
}

impl TooLong {
    /// The code scripts see.
    pub fn code(&self) -> Code {
        Code::MESSAGE_TOO_LONG
    }
}

impl fmt::Display for TooLong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "frame of {} bytes exceeds head max {}", self.length, self.max)
    }
}

impl std::error::Error for TooLong {}

/// Finds frames in received bytes.
///
/// # Examples
/// ```
/// use node_lua::frame::{Decoder, Encoder, Endian, HeadOptions, Step};
///
/// let options = HeadOptions::new(Endian::Big, 2, 1000).unwrap();
/// let mut stream = Encoder::new(options).head(5).unwrap().as_slice().to_vec();
/// stream.extend_from_slice(b"hello");
/// assert_eq!(Decoder::new(options).next(&stream), Ok(Step::Frame { head: 2, body: 5 }));
/// assert_eq!(Decoder::new(options).next(&stream[..3]), Ok(Step::Incomplete { need: 7 }));
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct Decoder {
    options: HeadOptions,
}

impl Decoder {
    /// A decoder for frames with such heads; without a head all the input is one frame.
    pub fn new(options: HeadOptions) -> Decoder {
        Decoder { options }
    }

    /// Looks at the start of `input`. Without heads, only empty input is incomplete.
    ///
    /// # Errors
    /// The head announces more than the maximum. It does so however often it is asked.
    #[inline]
    pub fn next(&self, input: &[u8]) -> Result<Step, TooLong> {
        let head = usize::from(self.options.bytes());
        let Some(bytes) = input.get(..head.max(1)) else {
            return Ok(Step::Incomplete { need: head.max(1) });
        };
        let length = match self.options.endian() {
            _ if head == 0 => return Ok(Step::Frame { head, body: input.len() }),
            Endian::Little => length_in::<LittleEndian>(bytes),
            Endian::Big => length_in::<BigEndian>(bytes),
        };
        if length > self.options.max() {
            return Err(TooLong { length: u64::from(length), max: self.options.max() });
        }
        let body = length as usize;
        if input.len() - head < body {
            return Ok(Step::Incomplete { need: head + body });
        }
        Ok(Step::Frame { head, body })
    }
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
/// assert_eq!(encoder.head(1001).unwrap_err().max, 1000);
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct Encoder {
    options: HeadOptions,
}

impl Encoder {
    /// An encoder for frames with such heads.
    pub fn new(options: HeadOptions) -> Encoder {
        Encoder { options }
    }

    /// The head for a body of `body_len` bytes; empty if the options have none.
    ///
    /// # Errors
    /// The body is longer than the maximum.
    #[inline]
    pub fn head(&self, body_len: usize) -> Result<Head, TooLong> {
        let len = self.options.bytes();
        if len == 0 {
            return Ok(Head { bytes: [0; 4], len });
        }
        let max = self.options.max();
        let length = match u32::try_from(body_len) {
            Ok(length) if length <= max => length,
            _ => return Err(TooLong { length: body_len as u64, max }),
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

    /// Feeds `stream` in pieces of the given sizes (then the rest) and collects the bodies.
    fn bodies(decoder: Decoder, stream: &[u8], sizes: &[usize]) -> Vec<Vec<u8>> {
        let (mut held, mut rest, mut found) = (Vec::new(), stream, Vec::new());
        for size in sizes.iter().copied().chain([usize::MAX]) {
            let (piece, later) = rest.split_at(size.min(rest.len()));
            rest = later;
            held.extend_from_slice(piece);
            loop {
                match decoder.next(&held).unwrap() {
                    Step::Frame { head, body } => {
                        found.push(held[head..head + body].to_vec());
                        held.drain(..head + body);
                    }
                    Step::Incomplete { need } => {
                        assert!(need > held.len());
                        break;
                    }
                }
            }
        }
        assert!(held.is_empty());
        found
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
                    let step = Decoder::new(options).next(head.as_slice());
                    assert_eq!(step, Ok(Step::Incomplete { need }));
                }
                let error = TooLong { length: u64::from(max) + 1, max };
                assert_eq!(encoder.head(max as usize + 1), Err(error));
                assert!(error.to_string().contains(&max.to_string()));
            }
        }
        let too_long = Encoder::new(options(Endian::Big, 4, 0)).head(usize::MAX).unwrap_err();
        assert_eq!(too_long.length, usize::MAX as u64);
    }

    #[test]
    fn received_length_above_max_is_refused_each_time() {
        let decoder = Decoder::new(options(Endian::Big, 2, 300));
        for _ in 0..2 {
            assert_eq!(decoder.next(&[1, 45, 9, 9]), Err(TooLong { length: 301, max: 300 }));
        }
    }

    #[test]
    fn top_bit_is_part_of_an_unsigned_length() {
        let big = Decoder::new(options(Endian::Big, 4, 0));
        let error = TooLong { length: 0x8000_0000, max: i32::MAX as u32 };
        assert_eq!(big.next(&[0x80, 0, 0, 0]), Err(error));
        let two = Decoder::new(options(Endian::Little, 2, 0));
        assert_eq!(two.next(&[0, 0x80]), Ok(Step::Incomplete { need: 2 + 0x8000 }));
    }

    #[test]
    fn empty_bodies_are_frames() {
        let decoder = Decoder::new(options(Endian::Little, 2, 0));
        assert_eq!(decoder.next(&[0, 0]), Ok(Step::Frame { head: 2, body: 0 }));
        assert_eq!(decoder.next(&[0]), Ok(Step::Incomplete { need: 2 }));
    }

    #[test]
    fn without_head_all_input_is_one_frame() {
        let decoder = Decoder::default();
        assert_eq!(decoder.next(&[]), Ok(Step::Incomplete { need: 1 }));
        assert_eq!(decoder.next(&[7; 9]), Ok(Step::Frame { head: 0, body: 9 }));
    }

    proptest! {
        #[test]
        fn every_split_yields_the_same_frames(
            options in any_options(),
            frames in vec(vec(any::<u8>(), 0..200), 0..6),
            sizes in vec(0usize..40, 0..40),
        ) {
            let stream = encode(options, &frames);
            let decoder = Decoder::new(options);
            prop_assert_eq!(bodies(decoder, &stream, &sizes), frames.clone());
            prop_assert_eq!(bodies(decoder, &stream, &vec![1; stream.len()]), frames);
        }

        #[test]
        fn garbage_never_panics(
            options in any_options(),
            max in 0u32..=255,
            input in vec(any::<u8>(), 0..300),
        ) {
            let narrow = HeadOptions::new(options.endian(), options.bytes(), max).unwrap();
            for options in [options, narrow, HeadOptions::default()] {
                match Decoder::new(options).next(&input) {
                    Ok(Step::Frame { head, body }) => prop_assert!(head + body <= input.len()),
                    Ok(Step::Incomplete { need }) => prop_assert!(need > input.len()),
                    Err(error) => prop_assert!(error.length > u64::from(error.max)),
                }
            }
        }
    }
}
