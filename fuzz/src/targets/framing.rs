//! Frames: what was encoded comes back however it is cut; hostile bytes do no harm.

use node_lua::frame::{
    Decoder, Delimiter, Encoder, Endian, FrameError, HeadOptions, HeadPatch, Step, Width,
};

use super::Choices;

/// First a choice of options, then a choice: bytes from a peer, or frames to encode and to cut.
pub(super) fn run(input: &[u8]) {
    let mut choices = Choices(input);
    let form = choices.byte();
    if form & 32 != 0 {
        return unusual(choices);
    }
    let endian = if form & 1 == 0 { Endian::Little } else { Endian::Big };
    let width = [0, 1, 2, 4][usize::from(form >> 1) & 3];
    let max = if form & 8 == 0 { 0 } else { u32::from(choices.byte()) };
    let Ok(options) = HeadOptions::new(endian, width, max) else {
        assert!(width == 0 && max > 0, "{width} bytes may count to {max}");
        return;
    };
    if form & 16 == 0 {
        hostile(options, choices.0);
    } else {
        round_trip(options, choices);
    }
}

/// Walks over bytes that nobody has encoded.
fn hostile(options: HeadOptions, mut rest: &[u8]) {
    let decoder = Decoder::from(options);
    let head = usize::from(options.bytes());
    loop {
        match decoder.next(rest) {
            Ok(Step::Frame { head: found, body, tail: 0 }) => {
                assert_eq!(found, head);
                assert!(
                    found + body <= rest.len() && (head == 0 || body <= options.max() as usize)
                );
                if head > 0 {
                    let made = Encoder::new(options).head(body).expect("a length that was read");
                    assert_eq!(made.as_slice(), &rest[..head]);
                }
                // A shorter input is never a longer frame.
                let less = decoder.next(&rest[..head + body - usize::from(head + body > 0)]);
                assert!(
                    head == 0
                        || matches!(less, Ok(Step::Incomplete { need }) if need <= head + body)
                );
                rest = &rest[head + body..];
            }
            Ok(Step::Incomplete { need }) => {
                assert!(need > rest.len());
                assert!(need <= head + options.max() as usize || need == head.max(1));
                return;
            }
            Err(FrameError::TooLong { length, max }) => {
                assert!(length > u64::from(max) && max == options.max() && head > 0);
                assert_eq!(decoder.next(rest), Err(FrameError::TooLong { length, max }));
                return;
            }
            other => panic!("{other:?} of a plain head"),
        }
        if head == 0 {
            assert!(rest.is_empty(), "without heads all the input is one frame");
        }
    }
}

/// Encodes bodies, delivers them in pieces, and expects the same bodies.
fn round_trip(options: HeadOptions, mut choices: Choices<'_>) {
    let (encoder, decoder) = (Encoder::new(options), Decoder::from(options));
    let (mut stream, mut bodies) = (Vec::new(), Vec::new());
    let head = usize::from(options.bytes());
    for _ in 0..choices.byte() % 8 {
        let mut len = usize::from(choices.byte());
        if len >= 250 {
            len = (len - 249) * 1000;
        }
        let body: Vec<u8> = (0..len).map(|at| (at + bodies.len()) as u8).collect();
        match encoder.head(len) {
            Ok(made) => {
                assert_eq!(made.as_slice().len(), head);
                stream.extend_from_slice(made.as_slice());
                stream.extend_from_slice(&body);
                if head > 0 || len > 0 {
                    bodies.push(body);
                }
            }
            Err(error) => {
                assert!(len > options.max() as usize && head > 0);
                assert_eq!(error, FrameError::TooLong { length: len as u64, max: options.max() });
            }
        }
    }
    let (mut held, mut rest, mut found) = (Vec::new(), &stream[..], Vec::new());
    while !rest.is_empty() {
        let size = match choices.byte() {
            0 => rest.len(),
            size => usize::from(size).min(rest.len()),
        };
        held.extend_from_slice(&rest[..size]);
        rest = &rest[size..];
        let mut at = 0;
        while let Ok(Step::Frame { head, body, .. }) = decoder.next(&held[at..]) {
            found.push(held[at + head..at + head + body].to_vec());
            at += head + body;
        }
        held.drain(..at);
    }
    assert!(held.is_empty(), "{} bytes are left", held.len());
    if head == 0 {
        // Pieces are frames then.
        assert_eq!(found.concat(), bodies.concat());
    } else {
        assert_eq!(found, bodies);
    }
}

/// Any other form of frame, over bytes of a peer, and over what was encoded.
fn unusual(mut choices: Choices<'_>) {
    let form = choices.byte();
    let max = i64::from(choices.byte());
    if form & 1 == 0 {
        let count = usize::from(choices.byte() % 17) + 1;
        let bytes: Box<[u8]> = (0..count).map(|_| choices.byte() % 3).collect();
        let decoder = Decoder::until(Delimiter { bytes: bytes.clone(), max: max as u32 });
        return walk(&decoder, choices.0, |input, body| {
            let first = input.windows(count).position(|part| part == &bytes[..]);
            assert_eq!(first, Some(body.len()));
        });
    }
    let width = match form >> 1 & 15 {
        width @ 0..=8 => Width::Bytes(i64::from(width)),
        _ => Width::Varint,
    };
    let mut options = HeadOptions::default();
    let patch = HeadPatch {
        endian: Some(if form & 32 == 0 { Endian::Little } else { Endian::Big }),
        width: Some(width),
        max: Some(max),
        adjust: Some(i64::from(choices.byte()) - 128),
        offset: Some(i64::from(choices.byte() % 20)),
    };
    if options.apply(patch).is_err() {
        return;
    }
    let (encoder, decoder) = (Encoder::new(options), Decoder::from(options));
    let encode = |body: &[u8]| {
        let packet = encoder.packet(body)?;
        Ok([&body[..packet.front], packet.field.as_slice(), &body[packet.rest..]].concat())
    };
    walk(&decoder, choices.0, |_, body| {
        if encoder.is_plain() {
            return;
        }
        // A frame that was received can be sent, and comes again.
        let sent: Result<_, FrameError> = encode(body);
        let sent = sent.expect("what was a frame is one");
        let step = decoder.next(&sent).expect("what was sent is a frame");
        let Step::Frame { head, body: length, tail: 0 } = step else { panic!("{step:?}") };
        let again = &sent[head..head + length];
        assert!(options.offset() == 0 && again == body || encode(again) == Ok(sent.clone()));
    });
    // What can be sent comes back.
    if let (false, Ok(sent)) = (encoder.is_plain(), encode(choices.0)) {
        match decoder.next(&sent) {
            Ok(Step::Frame { head, body, tail: 0 }) => {
                assert_eq!(head + body, sent.len());
                assert!(options.offset() > 0 || &sent[head..] == choices.0);
            }
            other => panic!("{other:?} of {sent:?}"),
        }
    }
}

/// Cuts bytes into frames; `check` looks at the input and the frame each time.
fn walk(decoder: &Decoder, mut rest: &[u8], check: impl Fn(&[u8], &[u8])) {
    loop {
        match decoder.next(rest) {
            Ok(Step::Frame { head, body, tail }) => {
                let end = head + body + tail;
                assert!(end <= rest.len());
                check(rest, &rest[head..head + body]);
                if end == 0 {
                    return;
                }
                let less = decoder.next(&rest[..end - 1]);
                assert!(!decoder.is_open() || matches!(less, Ok(Step::Incomplete { .. })));
                rest = &rest[end..];
            }
            Ok(Step::Incomplete { need }) => return assert!(need > rest.len()),
            Err(error) => return assert_eq!(decoder.next(rest), Err(error)),
        }
    }
}
