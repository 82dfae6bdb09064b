#![allow(clippy::unwrap_used, reason = "tests")]

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

/// The bytes that `writer` sends for a message.
fn bytes(writer: &Writer, body: &[u8], key: [u8; 4]) -> Vec<u8> {
    let frame = writer.frame(body, None, key, || false).unwrap();
    let mut payload = frame.packed.as_deref().unwrap_or(body).to_vec();
    if let Some(key) = frame.mask {
        mask(key, 0, &mut payload);
    }
    [frame.head(), &payload].concat()
}

/// A frame by hand, masked with zeros if it is for a server.
fn frame(first: u8, role: Role, payload: &[u8]) -> Vec<u8> {
    assert!(payload.len() < 126);
    let mut bytes = vec![first, payload.len() as u8];
    if role == Role::Server {
        bytes[1] |= 0x80;
        bytes.extend_from_slice(&[0; 4]);
    }
    bytes.extend_from_slice(payload);
    bytes
}

/// All that a stream comes to, given in pieces of these sizes, then the rest.
fn events(
    reader: &mut Reader,
    stream: &[u8],
    sizes: impl IntoIterator<Item = usize>,
) -> Result<Vec<Event>, Violation> {
    let (mut rest, mut found) = (stream, Vec::new());
    for size in sizes.into_iter().chain([usize::MAX]) {
        let (mut piece, later) = rest.split_at(size.min(rest.len()));
        rest = later;
        loop {
            // Now and then as a connection does with long frames.
            let direct = reader.wanted().min(piece.len());
            let event = if direct > 3 {
                let (payload, others) = piece.split_at(direct);
                piece = others;
                reader.body().extend_from_slice(payload);
                reader.received_directly(direct)?
            } else {
                reader.read(&mut piece)?
            };
            found.extend(event.clone());
            if event.is_none() && piece.is_empty() {
                break;
            }
        }
    }
    Ok(found)
}

fn message(kind: Kind, body: &[u8]) -> Event {
    Event::Message(kind, body.into())
}

#[test]
fn heads_have_the_documented_bytes() {
    let server = Writer::new(Role::Server, Kind::Binary, None);
    for (length, head) in [
        (0, &[0x82, 0][..]),
        (125, &[0x82, 125]),
        (126, &[0x82, 126, 0, 126]),
        (65_535, &[0x82, 126, 0xff, 0xff]),
        (65_536, &[0x82, 127, 0, 0, 0, 0, 0, 1, 0, 0]),
    ] {
        assert_eq!(server.frame(&vec![0; length], None, [0; 4], || false).unwrap().head(), head);
    }
    // RFC 6455, 5.7.
    let client = Writer::new(Role::Client, Kind::Text, None);
    let masked = [0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58];
    assert_eq!(bytes(&client, b"Hello", [0x37, 0xfa, 0x21, 0x3d]), masked);
    assert_eq!(bytes(&server.with_form(Form::Ping), b"Hello", [0; 4]), b"\x89\x05Hello");
}

#[test]
fn parts_make_a_message_and_control_frames_come_in_between() {
    for role in [Role::Client, Role::Server] {
        let mut reader = Reader::new(role, false, 100);
        let stream = [
            frame(0x01, role, b"he"),
            frame(0x89, role, b"there?"),
            frame(0x00, role, b""),
            frame(0x80, role, b"llo"),
            frame(0x8a, role, b""),
            frame(0x88, role, b"\x03\xe8bye"),
        ]
        .concat();
        let close = Close { code: 1000, reason: "bye".into() };
        let expected = [
            Event::Ping(b"there?".into()),
            message(Kind::Text, b"hello"),
            Event::Pong(Vec::new()),
            Event::Close(close),
        ];
        for step in 1..stream.len() {
            assert_eq!(events(&mut reader, &stream, [step; 99]).unwrap(), expected);
        }
    }
}

#[test]
fn what_may_not_come_is_told() {
    let server = Role::Server;
    let refused = [
        (frame(0x81, Role::Client, b"a"), 1002),      // not masked
        (frame(0xc1, server, b"a"), 1002),            // RSV1 without compression
        (frame(0xa1, server, b"a"), 1002),            // RSV2
        (frame(0x91, server, b"a"), 1002),            // RSV3
        (frame(0x83, server, b""), 1002),             // reserved
        (frame(0x8b, server, b""), 1002),             // reserved
        (frame(0x80, server, b""), 1002),             // continues nothing
        (frame(0x09, server, b""), 1002),             // a part of a ping
        (vec![0x89, 0xfe, 0, 126, 0, 0, 0, 0], 1002), // a long ping
        (vec![0x82, 0xfe, 0, 125, 0, 0, 0, 0], 1002), // a length that could be shorter
        (vec![0x82, 0xff, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0, 0, 0, 0], 1002),
        (vec![0x82, 0xff, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], 1002),
        ([frame(0x01, server, b"a"), frame(0x81, server, b"b")].concat(), 1002),
        (frame(0x88, server, b"\x03"), 1002),
        (frame(0x88, server, b"\x03\xee"), 1002), // 1006
        (frame(0x88, server, b"\x03\xe8\xff"), 1007),
        (frame(0x81, server, b"\xc3\xa4\xff"), 1007),
        (frame(0x01, server, b"\xf4\x90"), 1007), // before the message is whole
        (frame(0x82, server, &[0; 101]), 1009),
        ([frame(0x02, server, &[0; 60]), frame(0x80, server, &[0; 41])].concat(), 1009),
        (vec![0x82, 0xff, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0], 1009),
    ];
    for (stream, code) in refused {
        for step in [1, 2, 100] {
            let result = events(&mut Reader::new(server, false, 100), &stream, [step; 99]);
            assert_eq!(result.unwrap_err().code, code, "{stream:?}");
        }
    }
    let masked = events(&mut Reader::new(Role::Client, false, 9), &frame(0x81, server, b"a"), []);
    assert_eq!(masked.unwrap_err().code, 1002);
}

#[test]
fn text_is_looked_at_wherever_it_is_split() {
    let role = Role::Server;
    for (text, is_good) in [
        ("κόσμε".as_bytes(), true),
        ("a\u{10ffff}".as_bytes(), true),
        (b"\xed\xa0\x80", false),
        (b"ab\xc3", false),
        (b"\xf4\x90\x80\x80", false),
        (b"\xc0\xaf", false),
    ] {
        for at in 0..=text.len() {
            let parts = [frame(0x01, role, &text[..at]), frame(0x80, role, &text[at..])].concat();
            for stream in [frame(0x81, role, text), parts] {
                let result = events(&mut Reader::new(role, false, 100), &stream, [1; 99]);
                match result {
                    Ok(found) => assert!(is_good && found == [message(Kind::Text, text)]),
                    Err(error) => assert!(!is_good && error.code == 1007),
                }
            }
        }
    }
}

#[test]
fn packed_messages_are_unpacked_up_to_the_limit() {
    let writer = Writer::new(Role::Server, Kind::Binary, Some(15));
    let zeros = vec![0; 100_000];
    let stream = bytes(&writer, &zeros, [0; 4]);
    assert!(stream.len() < 1000 && stream[0] == 0xc2);
    for (max, is_good) in [(100_000, true), (99_999, false), (0, false)] {
        let result = events(&mut Reader::new(Role::Client, true, max), &stream, []);
        match result {
            Ok(found) => assert!(is_good && found == [message(Kind::Binary, &zeros)]),
            Err(error) => assert!(!is_good && error.code == 1009),
        }
    }
    // RFC 7692, 7.2.3: two blocks, a block that is the last one, stored bytes, nothing.
    for (packed, text) in [
        (&b"\xf2\x48\xcd\xc9\xc9\x07\x00"[..], &b"Hello"[..]),
        (b"\xf2\x48\x05\x00\x00\x00\xff\xff\xca\xc9\xc9\x07\x00", b"Hello"),
        (b"\xf3\x48\xcd\xc9\xc9\x07\x00\x00", b"Hello"),
        (b"\x00\x05\x00\xfa\xff\x48\x65\x6c\x6c\x6f\x00", b"Hello"),
        (b"\x00", b""),
    ] {
        let stream = frame(0xc1, Role::Client, packed);
        let result = events(&mut Reader::new(Role::Client, true, 5), &stream, [1; 99]);
        assert_eq!(result.unwrap(), [message(Kind::Text, text)]);
    }
    for packed in [&b"\xff\xff\xff"[..], b"\x07"] {
        let stream = frame(0xc1, Role::Client, packed);
        let result = events(&mut Reader::new(Role::Client, true, 5), &stream, []);
        assert_eq!(result.unwrap_err().code, 1007);
    }
}

#[test]
fn a_message_for_many_is_packed_once() {
    let writer = Writer::new(Role::Server, Kind::Text, Some(15));
    let body = "to all ".repeat(100);
    let packed =
        |body: &str| writer.frame(body.as_bytes(), None, [0; 4], || false).unwrap().packed.unwrap();
    let first = packed(&body);
    assert_eq!(packed(&body.clone()).as_ptr(), first.as_ptr());
    assert_ne!(packed(&"to few ".repeat(100)), first);
    forget_packed();
    assert_eq!(packed(&body), first);
}

/// What is masked is changed in place, for which nobody else may have it.
#[test]
fn a_long_message_of_a_client_is_held_once() {
    let writer = Writer::new(Role::Client, Kind::Binary, Some(15));
    let mut number = 1_u32;
    let noise = (0..2 << 20).map(|_| {
        number = number.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (number >> 24) as u8
    });
    let body = bytes::Bytes::from(noise.collect::<Vec<u8>>());
    let packed = writer.frame(&body, Some(&body), [0; 4], || false).unwrap().packed.unwrap();
    assert!(packed.len() > body.len() && packed.is_unique());
    let stream = bytes(&writer, &body, [1, 2, 3, 4]);
    let mut reader = Reader::new(Role::Server, true, 2 * body.len());
    let event = reader.read(&mut &*stream).unwrap();
    assert!(matches!(event, Some(Event::Message(Kind::Binary, came)) if came == body));
}

/// Who ends meanwhile is not waited for, and what was packed so far is nobody's.
#[test]
fn packing_ends_between_two_parts() {
    thread_local! {
        static LEFT: std::cell::Cell<u32> = const { std::cell::Cell::new(0) };
    }
    let is_over = || LEFT.replace(LEFT.get().saturating_sub(1)) == 0;
    let writer = Writer::new(Role::Server, Kind::Binary, Some(15));
    let body = b"some of much, ".repeat(100_000);
    for parts in [0, 1, 10] {
        LEFT.set(parts);
        assert_eq!(writer.frame(&body, None, [0; 4], is_over).err(), Some(NoFrame::Over));
    }
    // What is short is packed as a whole.
    LEFT.set(0);
    assert!(writer.frame(&body[..60_000], None, [0; 4], is_over).is_ok());
    let stream = bytes(&writer, &body, [0; 4]);
    let event = Reader::new(Role::Client, true, body.len()).read(&mut &*stream).unwrap();
    assert_eq!(event, Some(Event::Message(Kind::Binary, body[..].into())));
}

#[test]
fn compression_is_agreed_on_or_left() {
    let both = "permessage-deflate; server_no_context_takeover; client_no_context_takeover";
    for (offer, answer) in [
        ("permessage-deflate", Some(both.to_owned())),
        ("permessage-deflate; client_max_window_bits", Some(both.to_owned())),
        (OFFER, Some(both.to_owned())),
        (
            "x-other, permessage-deflate;server_max_window_bits = \"9\";client_max_window_bits=8",
            Some(format!("{both}; server_max_window_bits=9")),
        ),
        (
            "permessage-deflate; other, permessage-deflate; server_max_window_bits=8",
            Some(format!("{both}; server_max_window_bits=8")),
        ),
        ("permessage-deflate; server_max_window_bits", None),
        ("permessage-deflate; server_max_window_bits=16", None),
        ("permessage-deflate; server_max_window_bits=09", None),
        ("permessage-deflate; client_max_window_bits; client_max_window_bits", None),
        ("permessage-deflate; other", None),
        ("permessage-deflate; server_no_context_takeover=1", None),
        ("", None),
    ] {
        assert_eq!(negotiate(offer).map(|(_, answer)| answer), answer, "{offer}");
    }
    assert_eq!(agreed(both), Ok(15));
    assert!(agreed("permessage-deflate").is_err());
    assert!(agreed("x-other").is_err() && agreed("permessage-deflate, x-other").is_err());
    assert_eq!(agreed(&format!("{both}; client_max_window_bits=9")), Ok(9));
    assert_eq!(agreed(&format!("{both}; server_max_window_bits=9")), Ok(15));
    assert!(agreed(&format!("{both}; client_max_window_bits")).is_err());
}

proptest! {
    #[test]
    fn messages_arrive_as_they_were_however_they_are_cut(
        bodies in vec(vec(any::<u8>(), 0..300), 0..5),
        sizes in vec(1_usize..100, 0..40),
        key in any::<[u8; 4]>(),
        is_client in any::<bool>(),
        window in proptest::option::of(8_u8..=15),
    ) {
        let (from, to) = match is_client {
            true => (Role::Client, Role::Server),
            false => (Role::Server, Role::Client),
        };
        let writer = Writer::new(from, Kind::Binary, window);
        let stream: Vec<u8> = bodies.iter().flat_map(|body| bytes(&writer, body, key)).collect();
        let mut reader = Reader::new(to, window.is_some(), 300);
        let found = events(&mut reader, &stream, sizes).unwrap();
        let expected: Vec<_> = bodies.iter().map(|body| message(Kind::Binary, body)).collect();
        prop_assert_eq!(found, expected);
        prop_assert_eq!(reader.held_bytes(), 0);
    }

    #[test]
    fn masks_agree_with_one_byte_after_the_other(
        mut bytes in vec(any::<u8>(), 0..300),
        key in any::<[u8; 4]>(),
        start in 0_usize..9,
    ) {
        let expected: Vec<u8> =
            bytes.iter().enumerate().map(|(at, byte)| byte ^ key[(start + at) % 4]).collect();
        mask(key, start, &mut bytes);
        prop_assert_eq!(bytes, expected);
    }
}

#[test]
fn no_more_is_done_than_is_allowed() {
    let role = Role::Server;
    let pings = frame(0x89, role, b"").repeat(1000);
    let parts = [frame(0x01, role, b""), frame(0x00, role, b"x").repeat(1000)].concat();
    for (stream, size) in [(pings, 6), (parts, 7)] {
        let mut reader = Reader::new(role, false, 1 << 20);
        let (mut input, mut calls) = (&stream[..], 0);
        while !input.is_empty() {
            reader.allow(6400);
            let before = input.len();
            while reader.read(&mut input).unwrap().is_some() {}
            let frames = (before - input.len()) / size;
            assert!((1..=100).contains(&frames), "{frames} in one call");
            calls += 1;
        }
        assert!(calls >= 10);
    }
    let writer = Writer::new(Role::Client, Kind::Text, Some(15));
    let body = "\u{e4}".repeat(1 << 19);
    let stream = bytes(&writer, body.as_bytes(), [1, 2, 3, 4]);
    let mut reader = Reader::new(role, true, 1 << 20);
    let (mut input, mut calls) = (&stream[..], 0);
    let event = loop {
        calls += 1;
        reader.allow(1 << 16);
        if let Some(event) = reader.read(&mut input).unwrap() {
            break event;
        }
        assert_eq!(reader.credit(), 0);
        assert!(reader.is_unpacking() && reader.held_bytes() > 0);
    };
    assert_eq!(event, message(Kind::Text, body.as_bytes()));
    assert!(calls >= 8, "{calls}");
    assert!(!reader.is_unpacking());
}
