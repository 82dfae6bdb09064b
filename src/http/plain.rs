//! Plain requests: a GET with nothing that needs looking at but its path, as most of HTTP/1.1 are.
//! Their heads stay as they were received, and short responses are written directly, both without
//! hyper.

use std::cell::RefCell;
use std::io::Write;

use http::header::{CONNECTION, CONTENT_LENGTH, DATE, TRANSFER_ENCODING};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Request, StatusCode};

use super::date::with_date;
use super::scan::{PlainOffsets, is_name, is_value};

/// Bytes of the longest head, and of the longest response, that do without hyper.
pub(super) const HEAD_BYTES_MAX: usize = 4096;
pub(super) const RESPONSE_BYTES_MAX: usize = 16 * 1024;

/// The head of a plain request, as it was received.
#[derive(Debug)]
pub struct PlainHead {
    bytes: Box<[u8]>,
    offsets: PlainOffsets,
}

impl PlainHead {
    pub(super) fn new(bytes: &[u8], offsets: PlainOffsets) -> PlainHead {
        PlainHead { bytes: bytes.into(), offsets }
    }

    /// The whole head.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// How many headers there are.
    pub(super) fn headers(&self) -> usize {
        self.offsets.headers
    }

    /// The path, and the query behind a question mark.
    fn target(&self) -> (&[u8], Option<&[u8]>) {
        let target = &self.bytes[self.offsets.target.clone()];
        match memchr::memchr(b'?', target) {
            Some(end) => (&target[..end], Some(&target[end + 1..])),
            None => (target, None),
        }
    }

    /// The path that is asked for.
    pub fn path(&self) -> &[u8] {
        self.target().0
    }

    /// The query, without its question mark.
    pub fn query(&self) -> Option<&[u8]> {
        self.target().1
    }

    /// The head as hyper would have parsed it.
    pub fn parts(&self) -> Parts {
        let (mut parts, ()) = Request::new(()).into_parts();
        parts.uri = self.bytes[self.offsets.target.clone()].try_into().unwrap_or_default();
        parts.headers.reserve(self.offsets.headers);
        for line in self.bytes[self.offsets.target.end..].split(|byte| *byte == b'\n').skip(1) {
            if let Some(colon) = memchr::memchr(b':', line)
                && let Ok(name) = HeaderName::from_bytes(&line[..colon])
                && let Ok(value) = HeaderValue::from_bytes(line[colon + 1..].trim_ascii())
            {
                parts.headers.append(name, value);
            }
        }
        parts
    }
}

thread_local! {
    /// Where responses are written; its memory is kept from one to the next.
    static RESPONSE: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Writes the headers of a response.
pub struct HeadWriter<'a> {
    out: &'a mut Vec<u8>,
    has_date: bool,
}

impl HeadWriter<'_> {
    /// Adds a header; false if hyper has to judge or heed it: the response must not be sent then.
    pub fn add(&mut self, name: &[u8], value: &[u8]) -> bool {
        let out = &mut *self.out;
        let begin = out.len();
        out.extend_from_slice(name);
        out[begin..].make_ascii_lowercase();
        let own = &out[begin..];
        let is_other = |header: HeaderName| own != header.as_str().as_bytes();
        let is_plain = match name.len() {
            4 => {
                self.has_date |= !is_other(DATE);
                true
            }
            10 => is_other(CONNECTION),
            14 => is_other(CONTENT_LENGTH),
            17 => is_other(TRANSFER_ENCODING),
            _ => true,
        };
        out.extend_from_slice(b": ");
        out.extend_from_slice(value);
        out.extend_from_slice(b"\r\n");
        is_name(name) && is_value(value) && is_plain && out.len() < HEAD_BYTES_MAX
    }

    /// Adds all headers of a map; false as [`HeadWriter::add`].
    pub fn add_all(&mut self, headers: &HeaderMap) -> bool {
        headers.iter().all(|(name, value)| self.add(name.as_str().as_bytes(), value.as_bytes()))
    }
}

/// Whether responses of this status have no body, whatever was asked for.
pub fn has_no_body(status: StatusCode) -> bool {
    let statuses = [StatusCode::NO_CONTENT, StatusCode::RESET_CONTENT, StatusCode::NOT_MODIFIED];
    statuses.contains(&status)
}

/// Writes a response of HTTP/1.1, whose headers `add` adds, and returns what `send` makes of its
/// bytes; `None` if it has to go through hyper. `now` is in nanoseconds.
pub fn write_response<R>(
    status: StatusCode,
    add: impl FnOnce(&mut HeadWriter<'_>) -> bool,
    body: &[u8],
    now: u64,
    send: impl FnOnce(&[u8]) -> R,
) -> Option<R> {
    let is_long = body.len() > RESPONSE_BYTES_MAX - HEAD_BYTES_MAX;
    if status.is_informational() || has_no_body(status) || is_long {
        return None;
    }
    RESPONSE.with_borrow_mut(|out| {
        out.clear();
        match status {
            StatusCode::OK => out.extend_from_slice(b"HTTP/1.1 200 OK\r\n"),
            _ => write!(out, "HTTP/1.1 {} {}\r\n", status.as_str(), status.canonical_reason()?)
                .ok()?,
        }
        let mut head = HeadWriter { out, has_date: false };
        if !add(&mut head) {
            return None;
        }
        if !head.has_date {
            out.extend_from_slice(b"date: ");
            with_date(now, |date| out.extend_from_slice(date.as_bytes()));
            out.extend_from_slice(b"\r\n");
        }
        out.extend_from_slice(b"content-length: ");
        out.extend_from_slice(itoa::Buffer::new().format(body.len()).as_bytes());
        out.extend_from_slice(b"\r\n\r\n");
        out.extend_from_slice(body);
        Some(send(out))
    })
}
