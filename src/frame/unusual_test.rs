#![allow(clippy::unwrap_used, reason = "tests")]

use proptest::collection::vec;
use proptest::prelude::*;

use super::super::testing::bodies;
use super::super::{HeadPatch, ReadOptions, ReadPatch};
use super::*;

fn head(width: Width, endian: Endian, adjust: i64, offset: i64, max: i64) -> HeadOptions {
    let mut options = HeadOptions::default();
    let (endian, width, max) = (Some(endian), Some(width), Some(max));
    let (adjust, offset) = (Some(adjust), Some(offset));
    options.apply(HeadPatch { endian, width, max, adjust, offset }).unwrap();
    options
}

fn encode(options: HeadOptions, body: &[u8]) -> Result<Vec<u8>, FrameError> {
    let packet = Encoder::new(options).packet(body)?;
    Ok([&body[..packet.front], packet.field.as_slice(), &body[packet.rest..]].concat())
}

fn widths() -> impl Strategy<Value = Width> {
    prop_oneof![(1..=8i64).prop_map(Width::Bytes), Just(Width::Varint)]
}

fn endians() -> impl Strategy<Value = Endian> {
    prop_oneof![Just(Endian::Little), Just(Endian::Big)]
}

fn exact(width: Width, endian: Endian, number: u64) -> Vec<u8> {
    match (width, endian) {
        (Width::Bytes(bytes), Endian::Little) => number.to_le_bytes()[..bytes as usize].to_vec(),
        (Width::Bytes(bytes), Endian::Big) => number.to_be_bytes()[8 - bytes as usize..].to_vec(),
        (Width::Varint, _) => {
            let (mut bytes, mut number) = (Vec::new(), number);
            while number > 0x7f {
                bytes.push(number as u8 | 0x80);
                number >>= 7;
            }
            bytes.push(number as u8);
            bytes
        }
    }
}

proptest! {
    #[test]
    fn what_is_encoded_comes_back_however_it_is_cut(
        width in widths(),
        endian in endians(),
        adjust in -9i64..=0,
        offset in 0i64..5,
        contents in vec(vec(any::<u8>(), 0..200), 0..6),
        sizes in vec(0usize..40, 0..40),
    ) {
        let options = head(width, endian, adjust, offset, 0);
        let (mut stream, mut expected) = (Vec::new(), Vec::new());
        for content in contents {
            let number = (content.len() as i64 - adjust) as u64;
            let field = exact(width, endian, number);
            let sent = if offset == 0 {
                let sent = encode(options, &content).unwrap();
                prop_assert_eq!(&sent, &[&field[..], &content[..]].concat());
                expected.push(content);
                sent
            } else {
                let front = vec![0xff; offset as usize];
                let place = if width == Width::Varint { vec![0] } else { vec![7; field.len()] };
                let sent = encode(options, &[&front[..], &place, &content].concat()).unwrap();
                prop_assert_eq!(&sent, &[&front[..], &field, &content].concat());
                // Who sends on what was received changes nothing.
                prop_assert_eq!(&encode(options, &sent).unwrap(), &sent);
                expected.push(sent.clone());
                sent
            };
            stream.extend(sent);
        }
        let decoder = Decoder::from(options);
        prop_assert_eq!(&bodies(&decoder, &stream, &sizes), &expected);
        prop_assert_eq!(&bodies(&decoder, &stream, &vec![1; stream.len()]), &expected);
        let mut restored = Vec::new();
        expected.iter().for_each(|body| decoder.restore(body, &mut restored));
        prop_assert_eq!(restored, stream);
    }

    #[test]
    fn delimited_frames_come_back_however_they_are_cut(
        delimiter in vec(any::<u8>(), 1..=16),
        frames in vec(vec(any::<u8>(), 0..200), 0..6),
        sizes in vec(0usize..40, 0..40),
    ) {
        let mut stream = Vec::new();
        for frame in &frames {
            stream.extend_from_slice(frame);
            stream.extend_from_slice(&delimiter);
        }
        // Contents may have it too: what ends frames is its first place, always.
        let mut expected = Vec::new();
        let mut rest = &stream[..];
        while !rest.is_empty() {
            let end = rest.windows(delimiter.len()).position(|part| part == delimiter);
            let Some(end) = end else { break };
            expected.push(rest[..end].to_vec());
            rest = &rest[end + delimiter.len()..];
        }
        let stream = &stream[..stream.len() - rest.len()];
        let delimiter = Delimiter { bytes: delimiter.into(), max: 10_000 };
        let decoder = Decoder::until(delimiter);
        prop_assert_eq!(&bodies(&decoder, stream, &sizes), &expected);
        prop_assert_eq!(&bodies(&decoder, stream, &vec![1; stream.len()]), &expected);
        // Bytes that are known not to have it need no second look.
        let ends = 0..=stream.len().min(300);
        for (end, known) in ends.flat_map(|end| [(end, end / 2), (end, end)]) {
            let open = matches!(decoder.next(&stream[..known]), Ok(Step::Incomplete { .. }));
            if open {
                let step = decoder.next(&stream[..end]);
                let has_ended = !matches!(step, Ok(Step::Incomplete { .. }));
                prop_assert_eq!(decoder.has_ended(&stream[..end], known), has_ended);
            }
        }
    }
}

#[test]
fn every_limit_holds_at_and_around_it() {
    for width in (1..=8).map(Width::Bytes).chain([Width::Varint]) {
        for (adjust, max) in [(0, 100), (-4, 100), (7, 100)] {
            for endian in [Endian::Little, Endian::Big] {
                let options = head(width, endian, adjust, 0, max);
                let decoder = Decoder::from(options);
                for length in [max - 1, max, max + 1] {
                    let field = exact(width, endian, (length - adjust) as u64);
                    let stream = [field.clone(), vec![7; length as usize]].concat();
                    let (head, body) = (field.len(), length as usize);
                    if length <= max {
                        let frame = Step::Frame { head, body, tail: 0 };
                        assert_eq!(decoder.next(&stream), Ok(frame));
                        let last = stream.len() - 1;
                        let need = stream.len();
                        assert_eq!(decoder.next(&stream[..last]), Ok(Step::Incomplete { need }));
                        assert_eq!(encode(options, &stream[head..]).unwrap(), stream);
                    } else {
                        let error = FrameError::TooLong { length: length as u64, max: max as u32 };
                        assert_eq!(decoder.next(&field), Err(error));
                        assert_eq!(encode(options, &stream[head..]), Err(error));
                    }
                }
            }
        }
    }
}

#[test]
fn less_than_nothing_cannot_be() {
    let decoder = Decoder::from(head(Width::Bytes(4), Endian::Big, -4, 1, 0));
    let next = |length| decoder.next(&[b'Q', 0, 0, 0, length]);
    assert_eq!(next(3), Err(FrameError::Impossible));
    assert_eq!(next(4), Ok(Step::Frame { head: 0, body: 5, tail: 0 }));
    assert_eq!(next(5), Ok(Step::Incomplete { need: 6 }));
    assert_eq!(FrameError::Impossible.code().0, 215);
    // What is written has a number that is at least 0 too.
    let options = head(Width::Bytes(2), Endian::Big, 3, 0, 0);
    assert_eq!(encode(options, b"ab"), Err(FrameError::TooShort { length: 2, min: 3 }));
    assert_eq!(encode(options, b"abc").unwrap(), b"\0\0abc");
}

#[test]
fn varints_have_ten_bytes_at_most() {
    let decoder = Decoder::from(head(Width::Varint, Endian::Little, 0, 0, 0));
    let of = |tail: &[u8]| {
        let mut bytes = vec![0x80; 9];
        bytes.extend_from_slice(tail);
        decoder.next(&bytes)
    };
    assert_eq!(of(&[]), Ok(Step::Incomplete { need: 10 }));
    assert_eq!(of(&[0]), Ok(Step::Frame { head: 10, body: 0, tail: 0 }));
    assert_eq!(of(&[1]), Err(FrameError::TooLong { length: 1 << 63, max: i32::MAX as u32 }));
    assert_eq!(of(&[2]), Err(FrameError::Impossible));
    assert_eq!(of(&[0x80]), Err(FrameError::Impossible));
    let most = [&[0xff; 9][..], &[1]].concat();
    let error = FrameError::TooLong { length: u64::MAX, max: i32::MAX as u32 };
    assert_eq!(decoder.next(&most), Err(error));
}

#[test]
fn packets_need_a_place_for_their_length() {
    let fixed = head(Width::Bytes(4), Endian::Big, 0, 2, 0);
    let error = |length| Err(FrameError::NoPlace { length, offset: 2 });
    assert_eq!(encode(fixed, b""), error(0));
    assert_eq!(encode(fixed, b"ab123"), error(5));
    assert_eq!(encode(fixed, b"ab1234x").unwrap(), b"ab\0\0\0\x01x");
    let varint = head(Width::Varint, Endian::Big, 0, 2, 0);
    assert_eq!(encode(varint, b"ab"), error(2));
    assert_eq!(encode(varint, b"ab\x80"), error(3));
    assert_eq!(encode(varint, b"ab\x80\0x").unwrap(), b"ab\x01x");
}

#[test]
fn delimited_frames_have_limits() {
    let decoder = Decoder::until(Delimiter { bytes: (*b"\r\n").into(), max: 5 });
    let frame = |body| Ok(Step::Frame { head: 0, body, tail: 2 });
    assert_eq!(decoder.next(b"\r\n"), frame(0));
    assert_eq!(decoder.next(b"abcd\r\n"), frame(4));
    assert_eq!(decoder.next(b"abcde\r\nf"), frame(5));
    assert_eq!(decoder.next(b"abcde\r"), Ok(Step::Incomplete { need: 7 }));
    let error = FrameError::TooLong { length: 6, max: 5 };
    assert_eq!(decoder.next(b"abcdef\r\n"), Err(error));
    assert_eq!(decoder.next(b"abcdef"), Err(error));
    assert_eq!(decoder.next(b"abcde\rf"), Err(error));
    let options = ReadPatch { delimiter: Some(b"\n".to_vec()), ..ReadPatch::default() };
    let mut lines = ReadOptions::default();
    lines.apply(options).unwrap();
    assert!(Decoder::new(&lines).is_open());
    assert_eq!(Decoder::new(&lines).next(b"a\nb\n"), Ok(Step::Frame { head: 0, body: 1, tail: 1 }));
}
