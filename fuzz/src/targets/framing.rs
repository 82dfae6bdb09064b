//! Frames behind heads: what was encoded comes back however it is cut; hostile heads do no harm.

use node_lua::frame::{Decoder, Encoder, Endian, HeadOptions, Step, TooLong};

use super::Choices;

/// First a choice of options, then a choice: bytes from a peer, or frames to encode and to cut.
pub(super) fn run(input: &[u8]) {
    let mut choices = Choices(input);
    let form = choices.byte();
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
    let decoder = Decoder::new(options);
    let head = usize::from(options.bytes());
    loop {
        match decoder.next(rest) {
            Ok(Step::Frame { head: found, body }) => {
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
            Err(TooLong { length, max }) => {
                assert!(length > u64::from(max) && max == options.max() && head > 0);
                assert_eq!(decoder.next(rest), Err(TooLong { length, max }));
                return;
            }
        }
        if head == 0 {
            assert!(rest.is_empty(), "without heads all the input is one frame");
        }
    }
}

/// Encodes bodies, delivers them in pieces, and expects the same bodies.
fn round_trip(options: HeadOptions, mut choices: Choices<'_>) {
    let (encoder, decoder) = (Encoder::new(options), Decoder::new(options));
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
                assert_eq!((error.length, error.max), (len as u64, options.max()));
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
        while let Ok(Step::Frame { head, body }) = decoder.next(&held[at..]) {
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
