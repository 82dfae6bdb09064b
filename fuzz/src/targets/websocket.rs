//! WebSocket's frames: what was written is read however it is cut; hostile bytes come to the same
//! however they come, within the limit.

use node_lua::frame::websocket::{
    Event, Form, Kind, Reader, Role, Violation, Writer, agreed, mask, negotiate,
};

use super::Choices;

/// First a choice of sides and options, then of what is done: hostile frames, messages, headers.
pub(super) fn run(input: &[u8]) {
    let mut choices = Choices(input);
    let form = choices.byte();
    let (from, to) =
        if form & 1 == 0 { (Role::Client, Role::Server) } else { (Role::Server, Role::Client) };
    let may_pack = form & 2 != 0;
    let max = usize::from(choices.byte()) * if form & 4 == 0 { 1 } else { 100 };
    match form >> 3 & 3 {
        0 | 1 => hostile(to, may_pack, max, choices),
        2 => round_trip(from, to, may_pack, choices),
        _ => headers(choices.0),
    }
}

/// What a stream comes to in pieces of `size` bytes, up to what may not come.
fn read(
    mut reader: Reader,
    stream: &[u8],
    mut size: impl FnMut() -> usize,
    work: usize,
) -> (Vec<Event>, Option<Violation>) {
    let (mut rest, mut found) = (stream, Vec::new());
    while !rest.is_empty() {
        let (mut piece, later) = rest.split_at(size().clamp(1, rest.len()));
        rest = later;
        loop {
            reader.allow(work);
            let direct = reader.wanted().min(piece.len());
            let result = if direct > 8 {
                let (payload, others) = piece.split_at(direct);
                piece = others;
                reader.body().extend_from_slice(payload);
                reader.received_directly(direct)
            } else {
                reader.read(&mut piece)
            };
            match result {
                Ok(Some(event)) => found.push(event),
                Ok(None) if piece.is_empty() && !reader.is_unpacking() => break,
                Ok(None) => {}
                Err(violation) => return (found, Some(violation)),
            }
        }
    }
    (found, None)
}

fn hostile(to: Role, may_pack: bool, max: usize, mut choices: Choices<'_>) {
    let size = usize::from(choices.byte());
    let stream = choices.0;
    let at_once = read(Reader::new(to, may_pack, max), stream, || usize::MAX, usize::MAX);
    let in_pieces = read(Reader::new(to, may_pack, max), stream, || size, 1 + size);
    assert_eq!(at_once, in_pieces);
    for event in at_once.0 {
        match event {
            Event::Message(kind, body) => {
                assert!(body.len() <= max);
                assert!(kind == Kind::Binary || std::str::from_utf8(&body).is_ok());
            }
            Event::Ping(payload) | Event::Pong(payload) => assert!(payload.len() <= 125),
            Event::Close(close) => assert!(close.reason.len() <= 123),
        }
    }
}

fn round_trip(from: Role, to: Role, may_pack: bool, mut choices: Choices<'_>) {
    let writer = Writer::new(from, Kind::Binary, may_pack.then_some(15));
    let (mut stream, mut sent) = (Vec::new(), Vec::new());
    for _ in 0..choices.byte() % 8 {
        let (kind, mut len) = (choices.byte(), usize::from(choices.byte()));
        if len >= 250 {
            len = (len - 249) * 20_000;
        }
        let body: Vec<u8> = (0..len).map(|at| ((at * at) >> (kind & 7)) as u8 & 0x7f).collect();
        let (form, event) = match kind % 4 {
            0 => (Form::Usual, Event::Message(Kind::Binary, body[..].into())),
            1 => (Form::Message(Kind::Text), Event::Message(Kind::Text, body[..].into())),
            2 => (Form::Ping, Event::Ping(body.clone())),
            _ => (Form::Pong, Event::Pong(body.clone())),
        };
        let key = [kind, len as u8, 3, 200];
        match writer.with_form(form).frame(&body, None, key, || false) {
            Ok(frame) => {
                stream.extend_from_slice(frame.head());
                let start = stream.len();
                stream.extend_from_slice(frame.packed.as_deref().unwrap_or(&body));
                if let Some(key) = frame.mask {
                    mask(key, 0, &mut stream[start..]);
                }
                sent.push(event);
            }
            Err(_) => assert!(kind % 4 > 1 && len > 125),
        }
    }
    let reader = Reader::new(to, may_pack, 200_000);
    let work = usize::from(choices.byte()) * 100 + 1;
    let size = || match choices.byte() {
        0 => usize::MAX,
        size => usize::from(size),
    };
    let (found, violation) = read(reader, &stream, size, work);
    assert_eq!(violation, None);
    assert_eq!(found, sent);
}

/// What is agreed on can be said to the other side.
fn headers(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Some((window, answer)) = negotiate(text) {
        assert!((8..=15).contains(&window));
        assert_eq!(agreed(&answer), Ok(15), "an answer of our own");
    }
    let _ = agreed(text);
}
