//! A peer of HTTP/2 that is nothing but a socket, and says whatever a test has it say.

#![allow(clippy::unwrap_used, reason = "a helper that fails is a test that fails")]
#![allow(dead_code, reason = "every test crate uses some of the helpers")]

use std::io::{Read, Write};
use std::net::TcpStream;

use super::support::connect;

pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Kinds of frames.
pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const PRIORITY: u8 = 2;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PUSH_PROMISE: u8 = 5;
pub(crate) const PING: u8 = 6;
pub(crate) const GOAWAY: u8 = 7;
pub(crate) const WINDOW_UPDATE: u8 = 8;
pub(crate) const CONTINUATION: u8 = 9;

/// Flags.
pub(crate) const END_STREAM: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;
pub(crate) const PADDED: u8 = 8;
pub(crate) const ACK: u8 = 1;

pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let size = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let head = [&size[1..], &[kind, flags], &stream.to_be_bytes()].concat();
    [&head, payload].concat()
}

/// A number in HPACK, behind so many bits of the first byte.
fn number(first: u8, bits: u32, value: usize) -> Vec<u8> {
    let most = (1 << bits) - 1;
    if value < most {
        return vec![first | u8::try_from(value).unwrap()];
    }
    let (mut bytes, mut rest) = (vec![first | u8::try_from(most).unwrap()], value - most);
    while rest >= 128 {
        bytes.push(u8::try_from(rest % 128).unwrap() | 128);
        rest /= 128;
    }
    bytes.push(u8::try_from(rest).unwrap());
    bytes
}

fn text(text: &[u8]) -> Vec<u8> {
    [number(0, 7, text.len()), text.to_vec()].concat()
}

/// A header, as it is.
pub(crate) fn header(name: &[u8], value: &[u8]) -> Vec<u8> {
    [vec![0], text(name), text(value)].concat()
}

/// A header that the peer is to remember.
pub(crate) fn remembered(name: &[u8], value: &[u8]) -> Vec<u8> {
    [vec![0x40], text(name), text(value)].concat()
}

/// Headers of a request, and others.
pub(crate) fn block(method: &str, path: &str, others: &[(&str, &str)]) -> Vec<u8> {
    let usual = [(":method", method), (":scheme", "http"), (":path", path), (":authority", "x")];
    fields(&[&usual, others].concat())
}

/// These headers and no others.
pub(crate) fn fields(all: &[(&str, &str)]) -> Vec<u8> {
    all.iter().flat_map(|(name, value)| header(name.as_bytes(), value.as_bytes())).collect()
}

/// A request without a body.
pub(crate) fn asking(stream: u32, path: &str) -> Vec<u8> {
    frame(HEADERS, END_STREAM | END_HEADERS, stream, &block("GET", path, &[]))
}

/// The head of a request with a body.
pub(crate) fn post(stream: u32, path: &str) -> Vec<u8> {
    frame(HEADERS, END_HEADERS, stream, &block("POST", path, &[]))
}

/// A setting.
pub(crate) fn setting(id: u16, value: u32) -> Vec<u8> {
    frame(SETTINGS, 0, 0, &[&id.to_be_bytes()[..], &value.to_be_bytes()].concat())
}

/// A connection that has begun.
pub(crate) fn open(port: u16) -> TcpStream {
    let mut stream = connect(port);
    stream.write_all(&[PREFACE, &frame(SETTINGS, 0, 0, &[])].concat()).unwrap();
    stream
}

/// A frame that has come.
#[derive(Debug)]
pub(crate) struct Frame {
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) stream: u32,
    pub(crate) payload: Vec<u8>,
}

impl Frame {
    /// The number at this place.
    pub(crate) fn number(&self, at: usize) -> u32 {
        let bytes = self.payload.get(at..at + 4).unwrap_or(&[0; 4]);
        u32::from_be_bytes(bytes.try_into().unwrap())
    }

    /// The status that these headers begin with: of the static table, or its three digits.
    pub(crate) fn status(&self) -> String {
        let known = ["200", "204", "206", "304", "400", "404", "500"];
        match self.payload[..] {
            [first @ 0x88..=0x8e, ..] => known[usize::from(first - 0x88)].to_owned(),
            // Huffman's code: 0 to 2 have five bits, the others six.
            [0x48, length, ref rest @ ..] if length & 0x80 != 0 => {
                let byte = |at: usize| u32::from(rest.get(at).copied().unwrap_or(0));
                let bits = (0..4).fold(0_u32, |bits, at| bits << 8 | byte(at));
                let mut at = 32;
                let digit = |at: &mut u32| {
                    let five = bits >> (*at - 5) & 31;
                    let (value, size) = match five {
                        0..=2 => (five, 5),
                        _ => ((bits >> (*at - 6) & 63) - 0b011001 + 3, 6),
                    };
                    *at -= size;
                    char::from_digit(value, 10).unwrap_or('?')
                };
                (0..3).map(|_| digit(&mut at)).collect()
            }
            _ => format!("{:02x?}", self.payload),
        }
    }
}

/// The next frame; nothing at the end.
pub(crate) fn next(stream: &mut TcpStream) -> Option<Frame> {
    let mut head = [0; 9];
    stream.read_exact(&mut head).ok()?;
    let size = u32::from_be_bytes([0, head[0], head[1], head[2]]);
    let mut payload = vec![0; usize::try_from(size).unwrap()];
    stream.read_exact(&mut payload).ok()?;
    let number = u32::from_be_bytes(head[5..].try_into().unwrap());
    Some(Frame { kind: head[3], flags: head[4], stream: number, payload })
}

/// What comes of what was said: each status, reset and farewell, and whether the connection was
/// closed; until that, or the end of a stream. Of what is gone before all was written only the end
/// is seen.
pub(crate) fn outcome(stream: &mut TcpStream) -> String {
    let mut said = Vec::new();
    loop {
        let Some(frame) = next(stream) else {
            said.push("closed".to_owned());
            break;
        };
        match frame.kind {
            HEADERS
                if frame.flags & END_HEADERS != 0
                    && said.last().is_none_or(|last| !last.starts_with("status")) =>
            {
                said.push(format!("status {}", frame.status()));
            }
            RST_STREAM => said.push(format!("reset {}", frame.number(0))),
            GOAWAY => said.push(format!("goaway {}", frame.number(4))),
            _ => {}
        }
        let has_ended = matches!(frame.kind, HEADERS | DATA) && frame.flags & END_STREAM != 0;
        if has_ended || frame.kind == RST_STREAM {
            break;
        }
    }
    said.join(" ")
}
