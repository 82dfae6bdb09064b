//! A second reader of HTTP/1 requests, before hyper: what two readers could take differently is
//! refused. Where one request ends and the next begins is never in doubt behind it.

use http::HeaderName;
use http::header::{CONTENT_LENGTH, HOST, TRANSFER_ENCODING};
use memchr::memchr2;

/// The longest line of a chunk's size, with what may follow it there.
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
    /// The status that says so.
    pub fn status(self) -> u16 {
        match self {
            Refusal::Bad => 400,
            Refusal::LongLine => 414,
            Refusal::LongHead => 431,
            Refusal::Version => 505,
        }
    }
}

/// What comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// A line of a head; nothing of it has come yet if it is the first.
    Head(Head),
    /// So many bytes of a body.
    Body(u64),
    /// The line of a chunk's size.
    Size,
    /// So many bytes of a chunk.
    Data(u64),
    /// The end of its line.
    DataEnd,
    /// A line of the trailers, of which so many bytes and lines have come.
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
}

/// What was found in some bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scanned {
    /// So many of them are sound: all but the beginning of a line, or of a head.
    pub sound: usize,
    /// Why those behind are none of a request.
    pub refusal: Option<Refusal>,
}

/// The reader of one connection.
#[derive(Debug)]
pub struct Scan {
    state: State,
    head_max: usize,
    headers_max: usize,
    /// Heads that were sound.
    pub heads: u64,
}

impl Scan {
    /// For heads of so many bytes and headers.
    pub fn new(head_max: usize, headers_max: usize) -> Scan {
        Scan { state: State::Head(Head::default()), head_max, headers_max, heads: 0 }
    }

    /// Whether the next byte belongs to a head.
    pub fn is_at_head(&self) -> bool {
        matches!(self.state, State::Head(_))
    }

    /// How many bytes come next that need not be looked at.
    pub fn free(&self) -> u64 {
        match self.state {
            State::Body(left) | State::Data(left) => left,
            _ => 0,
        }
    }

    /// So many of them have come.
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

    /// Looks at bytes: those that were not sound the last time come again, before others.
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

    /// Takes what comes next of these bytes, which are some; 0 if it has not come whole.
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
        let mut at = 0;
        loop {
            let refusal = if head.has_line { Refusal::LongHead } else { Refusal::LongLine };
            let left = self.head_max.saturating_sub(at);
            let Some(line) = line_of(&bytes[at..], left, refusal)? else {
                // Another protocol may have no lines at all.
                let begins = head.has_line || bytes[at..].first().is_none_or(begins_line);
                return if begins { Ok(0) } else { Err(Refusal::Bad) };
            };
            at += line.len() + 2;
            if !head.has_line {
                // Lines that end nothing may come before it.
                if !line.is_empty() {
                    head.is_old = is_old(line)?;
                    head.has_line = true;
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
        Ok(at)
    }
}

impl Head {
    fn take_header(&mut self, line: &[u8]) -> Result<(), Refusal> {
        let (name, value) = header_of(line)?;
        // Most are told by their length.
        if name.len() == 14 && name.eq_ignore_ascii_case(b"content-length") {
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
            self.is_chunked = true;
        }
        Ok(())
    }
}

/// The first line, without its end; nothing if that has not come.
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
    let mut words = line.split(|byte| *byte == b' ');
    let (Some(method), Some(target), Some(version), None) =
        (words.next(), words.next(), words.next(), words.next())
    else {
        return Err(Refusal::Bad);
    };
    if method.is_empty()
        || !method.iter().all(|byte| is_token(*byte))
        || !target.iter().all(|byte| is_of_target(*byte))
    {
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

/// Whether the first line of a head may begin so.
fn begins_line(byte: &u8) -> bool {
    *byte == b'\r' || is_token(*byte)
}

/// Whether a byte may be in what is asked for: some take what follows a `#` for a part of it, some
/// do not.
fn is_of_target(byte: u8) -> bool {
    matches!(byte, 0x21..=0x7e | 0x80..) && byte != b'#'
}

/// Whether that can be asked for: a path, a URL, or what the method alone has.
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

/// Headers that may not come behind a body: they say how long it is, or whose.
pub const NOT_BEHIND: [HeaderName; 3] = [CONTENT_LENGTH, TRANSFER_ENCODING, HOST];

fn is_trailer(name: &[u8]) -> bool {
    !NOT_BEHIND.iter().any(|other| name.eq_ignore_ascii_case(other.as_str().as_bytes()))
}

/// Whether a byte may be in the name of a method or header.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// Name and value of a header.
fn header_of(line: &[u8]) -> Result<(&[u8], &[u8]), Refusal> {
    let colon = memchr::memchr(b':', line).ok_or(Refusal::Bad)?;
    let (name, value) = (&line[..colon], &line[colon + 1..]);
    // A line that is folded begins with a space, too.
    if name.is_empty() || !name.iter().all(|byte| is_token(*byte)) {
        return Err(Refusal::Bad);
    }
    if value.iter().any(|byte| matches!(byte, 0..=8 | 10..=31 | 127)) {
        return Err(Refusal::Bad);
    }
    Ok((name, value.trim_ascii()))
}

/// The size that a chunk's line tells.
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
