//! Requests that get a path and say no more than that: most of HTTP/1.1. Their heads stay as they
//! came, and what is answered with few bytes is written as it is, both without hyper.

use std::cell::RefCell;
use std::io::Write;

use http::header::{CONNECTION, CONTENT_LENGTH, DATE, TRANSFER_ENCODING};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Request, StatusCode};

use super::date::with_date;
use super::scan::{Plain, is_name, is_value};

/// Bytes of the longest head that is kept so, and of the longest answer.
pub(super) const LINES_BYTES: usize = 4096;
pub(super) const ANSWER_BYTES: usize = 16 * 1024;

/// A head whose lines are sound.
#[derive(Debug)]
pub struct Lines {
    bytes: Box<[u8]>,
    plain: Plain,
}

impl Lines {
    pub(super) fn new(bytes: &[u8], plain: Plain) -> Lines {
        Lines { bytes: bytes.into(), plain }
    }

    /// All of it.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// How many headers there are.
    pub(super) fn headers(&self) -> usize {
        self.plain.headers
    }

    fn target(&self) -> (&[u8], Option<&[u8]>) {
        let target = &self.bytes[self.plain.target.clone()];
        match memchr::memchr(b'?', target) {
            Some(end) => (&target[..end], Some(&target[end + 1..])),
            None => (target, None),
        }
    }

    /// The path that is asked for.
    pub fn path(&self) -> &[u8] {
        self.target().0
    }

    /// What follows it behind a question mark.
    pub fn query(&self) -> Option<&[u8]> {
        self.target().1
    }

    /// The same as hyper has it.
    pub fn parts(&self) -> Parts {
        let (mut parts, ()) = Request::new(()).into_parts();
        parts.uri = self.bytes[self.plain.target.clone()].try_into().unwrap_or_default();
        parts.headers.reserve(self.plain.headers);
        for line in self.bytes[self.plain.target.end..].split(|byte| *byte == b'\n').skip(1) {
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
    /// Where answers are written; nothing between two.
    static ANSWER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// The head of an answer that nothing is special about.
pub struct Head<'a>(&'a mut Vec<u8>, bool);

impl Head<'_> {
    /// Adds a header; false if what it means, or whether it is one, is not for this to say.
    pub fn add(&mut self, name: &[u8], value: &[u8]) -> bool {
        let out = &mut *self.0;
        let begin = out.len();
        out.extend_from_slice(name);
        out[begin..].make_ascii_lowercase();
        let own = &out[begin..];
        let is_other = |header: HeaderName| own != header.as_str().as_bytes();
        let is_plain = match name.len() {
            4 => {
                self.1 |= !is_other(DATE);
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
        is_name(name) && is_value(value) && is_plain && out.len() < LINES_BYTES
    }

    /// Adds all; false as with one.
    pub fn add_all(&mut self, headers: &HeaderMap) -> bool {
        headers.iter().all(|(name, value)| self.add(name.as_str().as_bytes(), value.as_bytes()))
    }
}

/// Calls `send` with the bytes of an answer whose headers `add` adds; nothing if hyper is to write
/// it.
pub fn write<R>(
    status: StatusCode,
    add: impl FnOnce(&mut Head<'_>) -> bool,
    body: &[u8],
    now: u64,
    send: impl FnOnce(&[u8]) -> R,
) -> Option<R> {
    let is_bodyless = matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    if status.is_informational() || is_bodyless || body.len() > ANSWER_BYTES - LINES_BYTES {
        return None;
    }
    ANSWER.with_borrow_mut(|out| {
        out.clear();
        match status {
            StatusCode::OK => out.extend_from_slice(b"HTTP/1.1 200 OK\r\n"),
            _ => write!(out, "HTTP/1.1 {} {}\r\n", status.as_str(), status.canonical_reason()?)
                .ok()?,
        }
        let mut head = Head(out, false);
        if !add(&mut head) {
            return None;
        }
        if !head.1 {
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
