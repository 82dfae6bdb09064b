//! Checks requests of HTTP/1 before hyper parses them, and refuses whatever two parsers could take
//! differently (request smuggling). Whatever it lets pass leaves no doubt where one request ends
//! and the next begins.

use std::ops::Range;

use http::HeaderName;
use http::header::{CONTENT_LENGTH, HOST, TRANSFER_ENCODING};
use memchr::memchr2;

/// Bytes of the longest line with the size of a chunk, its extensions included.
const SIZE_LINE_MAX: usize = 4096;

/// Hexadecimal digits of a chunk's size.
const SIZE_DIGITS_MAX: usize = 15;

/// Why a request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It is malformed, or can be read in two ways.
    Bad,
    /// Its first line is too long.
    LongLine,
    /// Its head is too long, or has too many headers.
    LongHead,
    /// It is of another version of HTTP.
    Version,
}

impl Refusal {
    /// The status of the response.
    pub fn status(self) -> u16 {
        match self {
            Refusal::Bad => 400,
            Refusal::LongLine => 414,
            Refusal::LongHead => 431,
            Refusal::Version => 505,
        }
    }
}

/// What the next bytes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// A head.
    Head(Head),
    /// This many bytes of a body.
    Body(u64),
    /// The line with the size of a chunk.
    Size,
    /// This many bytes of a chunk.
    Data(u64),
    /// The end of the line behind a chunk.
    DataEnd,
    /// A line of the trailers, behind this many bytes and lines of them.
    Trailers(usize, usize),
}

/// What is known of a head.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Head {
    /// The first line has come.
    has_line: bool,
    is_old: bool,
    headers: usize,
    bytes: usize,
    length: Option<u64>,
    is_chunked: bool,
    /// It is no plain GET with a host.
    is_special: bool,
    hosts: usize,
}

/// The outcome of a scan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scanned {
    /// The number of bytes that are sound: all but an incomplete line or head.
    pub sound: usize,
    /// Why the bytes behind those are refused.
    pub refusal: Option<Refusal>,
}

/// The scanner of one connection.
#[derive(Debug)]
pub struct Scan {
    state: State,
    head_max: usize,
    headers_max: usize,
    /// How many heads were sound so far.
    pub heads: u64,
    /// Of the last head, if that request is plain.
    plain: Option<PlainOffsets>,
}

/// Where things are in the head of a plain request: a GET with a host and nothing that needs more
/// than its path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlainOffsets {
    /// Path and query. Offsets from the head's first byte.
    pub target: Range<usize>,
    /// Bytes of the head.
    pub end: usize,
    /// Headers in it.
    pub headers: usize,
}

impl Scan {
    /// For heads of at most this many bytes and headers.
    pub fn new(head_max: usize, headers_max: usize) -> Scan {
        Scan { state: State::Head(Head::default()), head_max, headers_max, heads: 0, plain: None }
    }

    /// Whether the next byte belongs to a head.
    pub fn is_at_head(&self) -> bool {
        matches!(self.state, State::Head(_))
    }

    /// The offsets of the last head, if its request is plain and it is the whole of `bytes` bytes.
    pub fn take_plain(&mut self, bytes: usize) -> Option<PlainOffsets> {
        self.plain.take().filter(|plain| plain.end == bytes && self.is_at_head())
    }

    /// How many of the next bytes need no scan.
    pub fn free(&self) -> u64 {
        match self.state {
            State::Body(left) | State::Data(left) => left,
            _ => 0,
        }
    }

    /// Passes over bytes that need no scan.
    pub fn skip(&mut self, count: u64) {
        if let State::Body(left) | State::Data(left) = &mut self.state {
            *left -= count.min(*left);
            if *left == 0 {
                self.state = match self.state {
                    State::Data(_) => State::DataEnd,
                    _ => State::Head(Head::default()),
                };
            }
        }
    }

    /// Scans bytes, which begin with those that were incomplete the last time.
    pub fn scan(&mut self, bytes: &[u8]) -> Scanned {
        let mut at = 0;
        while at < bytes.len() {
            match self.step(&bytes[at..]) {
                Ok(0) => break,
                Ok(count) => at += count,
                Err(refusal) => return Scanned { sound: at, refusal: Some(refusal) },
            }
        }
        Scanned { sound: at, refusal: None }
    }

    /// Takes one unit of these bytes, and returns its length; 0 if it is incomplete.
    fn step(&mut self, bytes: &[u8]) -> Result<usize, Refusal> {
        match &mut self.state {
            State::Head(_) => self.take_head(bytes),
            State::Body(left) | State::Data(left) => {
                let count = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len());
                self.skip(count as u64);
                Ok(count)
            }
            State::DataEnd => match bytes {
                [b'\r', b'\n', ..] => {
                    self.state = State::Size;
                    Ok(2)
                }
                [b'\r'] => Ok(0),
                _ => Err(Refusal::Bad),
            },
            State::Size => {
                let Some(line) = line_of(bytes, SIZE_LINE_MAX, Refusal::Bad)? else { return Ok(0) };
                self.state = match size_of(line)? {
                    0 => State::Trailers(0, 0),
                    size => State::Data(size),
                };
                Ok(line.len() + 2)
            }
            State::Trailers(known, count) => {
                let left = self.head_max.saturating_sub(*known);
                let Some(line) = line_of(bytes, left, Refusal::Bad)? else { return Ok(0) };
                (*known, *count) = (*known + line.len() + 2, *count + 1);
                if line.is_empty() {
                    self.state = State::Head(Head::default());
                } else if *count > self.headers_max || !is_trailer(header_of(line)?.0) {
                    return Err(Refusal::Bad);
                }
                Ok(line.len() + 2)
            }
        }
    }

    /// Takes a whole head, so that hyper never sees a part of one.
    fn take_head(&mut self, bytes: &[u8]) -> Result<usize, Refusal> {
        let State::Head(mut head) = self.state else { return Ok(0) };
        let (mut at, mut target) = (0, 0..0);
        loop {
            let refusal = if head.has_line { Refusal::LongHead } else { Refusal::LongLine };
            let left = self.head_max.saturating_sub(at);
            // Another protocol may send no lines at all.
            if !head.has_line && bytes.get(at).is_some_and(|byte| !begins_line(*byte)) {
                return Err(Refusal::Bad);
            }
            let Some(line) = line_of(&bytes[at..], left, refusal)? else { return Ok(0) };
            at += line.len() + 2;
            if !head.has_line {
                // Empty lines may come before it.
                if !line.is_empty() {
                    head.is_old = is_old(line)?;
                    head.has_line = true;
                    head.is_special = head.is_old || at != line.len() + 2 || !is_plain(line);
                    target = GET.len()..GET.len() + line.len().saturating_sub(FIRST_LINE);
                }
                continue;
            }
            if line.is_empty() {
                break;
            }
            head.headers += 1;
            if head.headers > self.headers_max {
                return Err(Refusal::LongHead);
            }
            head.take_header(line)?;
        }
        self.state = match (head.is_chunked, head.length) {
            (true, Some(_)) => return Err(Refusal::Bad),
            (true, None) if head.is_old => return Err(Refusal::Bad),
            (true, None) => State::Size,
            (false, None | Some(0)) => State::Head(Head::default()),
            (false, Some(length)) => State::Body(length),
        };
        self.heads += 1;
        let is_plain = !head.is_special && head.hosts == 1;
        self.plain = is_plain.then_some(PlainOffsets { target, end: at, headers: head.headers });
        Ok(at)
    }
}

impl Head {
    fn take_header(&mut self, line: &[u8]) -> Result<(), Refusal> {
        let (name, value) = header_of(line)?;
        // The length tells most of them apart.
        match name.len() {
            4 if name.eq_ignore_ascii_case(b"host") => {
                self.hosts += 1;
                self.is_special |= !is_host(value);
            }
            10 if name.eq_ignore_ascii_case(b"connection") => {
                self.is_special |= !value.eq_ignore_ascii_case(b"keep-alive");
            }
            6 => self.is_special |= name.eq_ignore_ascii_case(b"expect"),
            7 => self.is_special |= name.eq_ignore_ascii_case(b"upgrade"),
            _ => {}
        }
        if name.len() == 14 && name.eq_ignore_ascii_case(b"content-length") {
            self.is_special = true;
            let is_number = !value.is_empty() && value.iter().all(u8::is_ascii_digit);
            let text = std::str::from_utf8(value).ok().filter(|_| is_number);
            let length = text.and_then(|text| text.parse().ok()).ok_or(Refusal::Bad)?;
            if self.length.replace(length).is_some() {
                return Err(Refusal::Bad);
            }
        }
        if name.len() == 17 && name.eq_ignore_ascii_case(b"transfer-encoding") {
            if self.is_chunked || !value.eq_ignore_ascii_case(b"chunked") {
                return Err(Refusal::Bad);
            }
            (self.is_chunked, self.is_special) = (true, true);
        }
        Ok(())
    }
}

/// The first line, without its end; `None` if it is incomplete.
fn line_of(bytes: &[u8], max: usize, too_long: Refusal) -> Result<Option<&[u8]>, Refusal> {
    let end = match memchr2(b'\r', b'\n', bytes) {
        Some(end) if end + 2 > max => return Err(too_long),
        None if bytes.len() > max => return Err(too_long),
        Some(end) => end,
        None => return Ok(None),
    };
    match bytes[end..] {
        [b'\r', b'\n', ..] => Ok(Some(&bytes[..end])),
        [b'\r'] => Ok(None),
        _ => Err(Refusal::Bad),
    }
}

/// Whether a request's first line is of HTTP/1.0.
fn is_old(line: &[u8]) -> Result<bool, Refusal> {
    let (method, rest) = line.split_at(run(line, TOKEN));
    let [b' ', rest @ ..] = rest else { return Err(Refusal::Bad) };
    let (target, rest) = rest.split_at(run(rest, TARGET));
    let [b' ', version @ ..] = rest else { return Err(Refusal::Bad) };
    if method.is_empty() {
        return Err(Refusal::Bad);
    }
    match version {
        b"HTTP/1.1" | b"HTTP/1.0" if !is_target(target, method) => Err(Refusal::Bad),
        b"HTTP/1.1" => Ok(false),
        b"HTTP/1.0" => Ok(true),
        [b'H', b'T', b'T', b'P', b'/', b'0'..=b'9', b'.', b'0'..=b'9'] => Err(Refusal::Version),
        _ => Err(Refusal::Bad),
    }
}

/// How the first line of a plain request begins.
const GET: &[u8] = b"GET ";

/// Whether a sound first line asks for a path that all parsers take as it is.
fn is_plain(line: &[u8]) -> bool {
    line.starts_with(b"GET /") && run(&line[GET.len()..], PLAIN) == line.len() - FIRST_LINE
}

/// Bytes of such a line beside its path.
const FIRST_LINE: usize = "GET  HTTP/1.1".len();

/// Whether the first line of a head may begin with this byte.
fn begins_line(byte: u8) -> bool {
    byte == b'\r' || is_token(byte)
}

/// Whether a request may have this target: a path, a URL, or the form that its method allows.
fn is_target(target: &[u8], method: &[u8]) -> bool {
    let begins = |scheme: &[u8]| {
        let found = target.get(..scheme.len());
        found.is_some_and(|found| found.eq_ignore_ascii_case(scheme))
    };
    match method {
        b"CONNECT" => !target.contains(&b'/'),
        b"OPTIONS" if target == b"*" => true,
        _ => target.first() == Some(&b'/') || begins(b"http://") || begins(b"https://"),
    }
}

/// Whether a text is the name or address of a host, with or without a port.
pub fn is_host(text: &[u8]) -> bool {
    let (name, port, kind) = match text.strip_prefix(b"[") {
        None => {
            let (name, port) = text.split_at(run(text, HOST_NAME));
            (name, port, HOST_NAME)
        }
        Some(text) => match text.iter().position(|byte| *byte == b']') {
            Some(end) => (&text[..end], &text[end + 1..], HOST_ADDRESS),
            None => return false,
        },
    };
    let is_port = match port {
        [] => true,
        [b':', digits @ ..] => digits.iter().all(u8::is_ascii_digit),
        _ => false,
    };
    is_port && are(name, kind)
}

/// Headers that may not be trailers: they say how long the body is, or for which host.
pub const NEVER_TRAILERS: [HeaderName; 3] = [CONTENT_LENGTH, TRANSFER_ENCODING, HOST];

fn is_trailer(name: &[u8]) -> bool {
    !NEVER_TRAILERS.iter().any(|other| name.eq_ignore_ascii_case(other.as_str().as_bytes()))
}

/// Kinds of bytes, as flags: of the name of a method or header; of a target (without `#`, which
/// some parsers end it at); of a target that all parsers take as it is; of the value of a header;
/// of the name of a host; and of an address in brackets.
const TOKEN: u8 = 1;
const TARGET: u8 = 2;
const PLAIN: u8 = 4;
const VALUE: u8 = 8;
const HOST_NAME: u8 = 16;
const HOST_ADDRESS: u8 = 32;

static KINDS: [u8; 256] = kinds();

const fn kinds() -> [u8; 256] {
    let mut kinds = [0; 256];
    let mut at = 0;
    while at < 256 {
        let byte = at as u8;
        let is_word = byte.is_ascii_alphanumeric();
        if is_word || is_in(byte, b"!#$%&'*+-.^_`|~") {
            kinds[at] |= TOKEN;
        }
        if byte > b' ' && byte != 0x7f && byte != b'#' {
            kinds[at] |= TARGET;
        }
        if byte.is_ascii_graphic() && !is_in(byte, b"\"#<>\\^`{|}") {
            kinds[at] |= PLAIN;
        }
        if byte >= b' ' && byte != 0x7f || byte == b'\t' {
            kinds[at] |= VALUE;
        }
        if is_word || is_in(byte, b"-._~!$&'()*+;=%") {
            kinds[at] |= HOST_NAME;
        }
        if is_word || is_in(byte, b":.%-_~") {
            kinds[at] |= HOST_ADDRESS;
        }
        at += 1;
    }
    kinds
}

const fn is_in(byte: u8, bytes: &[u8]) -> bool {
    let mut at = 0;
    while at < bytes.len() {
        if bytes[at] == byte {
            return true;
        }
        at += 1;
    }
    false
}

/// The number of leading bytes of this kind.
fn run(bytes: &[u8], kind: u8) -> usize {
    let end = bytes.iter().position(|byte| KINDS[usize::from(*byte)] & kind == 0);
    end.unwrap_or(bytes.len())
}

fn are(bytes: &[u8], kind: u8) -> bool {
    bytes.iter().fold(kind, |all, byte| all & KINDS[usize::from(*byte)]) != 0
}

/// Whether a byte may be part of the name of a method or header.
fn is_token(byte: u8) -> bool {
    KINDS[usize::from(byte)] & TOKEN != 0
}

/// Whether a text is the name of a header.
pub(super) fn is_name(name: &[u8]) -> bool {
    !name.is_empty() && are(name, TOKEN)
}

/// Whether a text may be the value of a header.
pub(super) fn is_value(value: &[u8]) -> bool {
    are(value, VALUE)
}

/// Name and value of a header.
fn header_of(line: &[u8]) -> Result<(&[u8], &[u8]), Refusal> {
    // A folded line begins with a space, and so has no name.
    let (name, rest) = line.split_at(run(line, TOKEN));
    let [b':', value @ ..] = rest else { return Err(Refusal::Bad) };
    if name.is_empty() || !is_value(value) {
        return Err(Refusal::Bad);
    }
    Ok((name, value.trim_ascii()))
}

fn size_of(line: &[u8]) -> Result<u64, Refusal> {
    let count = line.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
    let (digits, rest) = line.split_at(count);
    if !(1..=SIZE_DIGITS_MAX).contains(&count) || !matches!(rest.first(), None | Some(b';')) {
        return Err(Refusal::Bad);
    }
    if rest.iter().any(|byte| matches!(byte, 0..=8 | 10..=31 | 127)) {
        return Err(Refusal::Bad);
    }
    let digits = std::str::from_utf8(digits).map_err(|_| Refusal::Bad)?;
    u64::from_str_radix(digits, 16).map_err(|_| Refusal::Bad)
}

#[cfg(test)]
#[path = "scan_test.rs"]
mod tests;
