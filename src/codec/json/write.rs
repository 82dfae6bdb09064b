//! JSON, written: a serializer of serde's, which looks at many bytes of a text at once.

use std::fmt::{self, Write};

use serde::ser::{Serialize, SerializeMap, SerializeSeq, Serializer};

use super::scan;
use crate::codec::Error;
use crate::codec::write::{Never, Sink, append, refuse_what_no_script_has, refused};

type Result<T> = std::result::Result<T, Error>;

/// Whole numbers up to here are written without point and exponent; others would be read as 64-bit
/// integers.
const PLAIN_MAX: f64 = 9_007_199_254_740_992.0;

/// How numbers and text are written.
#[derive(Clone, Copy, Debug, Default)]
pub struct Style {
    /// Digits of a fraction; 0: as many as it takes to read the same number again.
    pub digits: usize,
    /// A slash has a backslash before it.
    pub escapes_slash: bool,
}

/// Writes one value. Bytes are text, and refused if they are not UTF-8.
#[derive(Debug)]
pub struct Writer<'a, S> {
    to: &'a mut S,
    style: Style,
}

impl<'a, S: Sink> Writer<'a, S> {
    /// A writer at the end of what `to` holds.
    pub fn new(to: &'a mut S, style: Style) -> Writer<'a, S> {
        Writer { to, style }
    }

    #[inline]
    fn text(&mut self, text: &[u8]) -> Result<()> {
        if self.style.escapes_slash || !scan::is_plain_ascii(text) {
            return self.unusual_text(text);
        }
        let out = self.to.claim(text.len() + 2)?;
        out.push(b'"');
        append(out, text);
        out.push(b'"');
        Ok(())
    }

    /// Text that has other letters than those of ASCII, or some that are escaped.
    fn unusual_text(&mut self, text: &[u8]) -> Result<()> {
        if std::str::from_utf8(text).is_err() {
            return Err(Error::new("text is not UTF-8"));
        }
        self.to.add_byte(b'"')?;
        self.part(text)?;
        self.to.add_byte(b'"')
    }

    /// A part of a text, which is UTF-8.
    fn part(&mut self, text: &[u8]) -> Result<()> {
        let slash = self.style.escapes_slash;
        let mut rest = text;
        loop {
            let mut count = scan::plain(rest);
            if slash {
                count = memchr::memchr(b'/', &rest[..count]).unwrap_or(count);
            }
            let (plain, behind) = rest.split_at(count);
            self.to.claim(plain.len())?.extend_from_slice(plain);
            let Some((special, behind)) = behind.split_first() else { return Ok(()) };
            rest = behind;
            let letter = match special {
                0x08 => b'b',
                b'\t' => b't',
                b'\n' => b'n',
                0x0c => b'f',
                b'\r' => b'r',
                b'"' | b'\\' | b'/' => *special,
                control => {
                    let digit = |number: u8| b"0123456789abcdef"[usize::from(number)];
                    self.to.add(&[
                        b'\\',
                        b'u',
                        b'0',
                        b'0',
                        digit(control >> 4),
                        digit(control & 15),
                    ])?;
                    continue;
                }
            };
            self.to.add(&[b'\\', letter])?;
        }
    }

    fn open(&mut self, bracket: u8, end: u8) -> Result<Entries<'_, 'a, S>> {
        self.to.add_byte(bracket)?;
        Ok(Entries { writer: self, is_first: true, end })
    }
}

/// A number with this many digits, as C's `%g` has it.
fn rounded(value: f64, digits: usize) -> String {
    let text = format!("{value:.*e}", digits - 1);
    let Some((digits_text, exponent)) = text.split_once('e') else { return text };
    let exponent: i32 = exponent.parse().unwrap_or(0);
    let trim = |text: &str| match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => text.to_owned(),
    };
    if exponent < -4 || exponent >= digits as i32 {
        let sign = if exponent < 0 { '-' } else { '+' };
        return format!("{}e{sign}{:02}", trim(digits_text), exponent.unsigned_abs());
    }
    trim(&format!("{value:.*}", (digits as i32 - 1 - exponent).max(0) as usize))
}

struct Parts<'w, 'a, S>(&'w mut Writer<'a, S>);

impl<S: Sink> fmt::Write for Parts<'_, '_, S> {
    fn write_str(&mut self, part: &str) -> fmt::Result {
        self.0.part(part.as_bytes()).map_err(|_| fmt::Error)
    }
}

/// What is in brackets, so far.
#[derive(Debug)]
pub struct Entries<'w, 'a, S> {
    writer: &'w mut Writer<'a, S>,
    is_first: bool,
    end: u8,
}

impl<S: Sink> Entries<'_, '_, S> {
    #[inline]
    fn next(&mut self) -> Result<()> {
        match std::mem::take(&mut self.is_first) {
            true => Ok(()),
            false => self.writer.to.add_byte(b','),
        }
    }
}

impl<S: Sink> SerializeSeq for Entries<'_, '_, S> {
    type Ok = ();
    type Error = Error;

    #[inline]
    fn serialize_element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<()> {
        self.next()?;
        value.serialize(&mut *self.writer)
    }

    fn end(self) -> Result<()> {
        self.writer.to.add_byte(self.end)
    }
}

impl<S: Sink> SerializeMap for Entries<'_, '_, S> {
    type Ok = ();
    type Error = Error;

    /// Keys are text, as their source sees to.
    #[inline]
    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<()> {
        self.next()?;
        key.serialize(&mut *self.writer)
    }

    #[inline]
    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<()> {
        self.writer.to.add_byte(b':')?;
        value.serialize(&mut *self.writer)
    }

    fn end(self) -> Result<()> {
        self.writer.to.add_byte(self.end)
    }
}

impl<'w, 'a, S: Sink> Serializer for &'w mut Writer<'a, S> {
    type Ok = ();
    type Error = Error;
    type SerializeSeq = Entries<'w, 'a, S>;
    type SerializeMap = Entries<'w, 'a, S>;

    fn serialize_bool(self, value: bool) -> Result<()> {
        self.to.add(if value { b"true" } else { b"false" })
    }

    #[inline]
    fn serialize_i64(self, value: i64) -> Result<()> {
        self.to.add(itoa::Buffer::new().format(value).as_bytes())
    }

    fn serialize_u64(self, value: u64) -> Result<()> {
        self.to.add(itoa::Buffer::new().format(value).as_bytes())
    }

    fn serialize_f64(self, value: f64) -> Result<()> {
        if self.style.digits > 0 {
            return self.to.add(rounded(value, self.style.digits).as_bytes());
        }
        if value == 0.0 {
            return self.to.add(b"-0");
        }
        if value.fract() == 0.0 && value.abs() <= PLAIN_MAX {
            return self.serialize_i64(value as i64);
        }
        self.to.add(zmij::Buffer::new().format_finite(value).as_bytes())
    }

    #[inline]
    fn serialize_str(self, value: &str) -> Result<()> {
        self.text(value.as_bytes())
    }

    #[inline]
    fn serialize_bytes(self, value: &[u8]) -> Result<()> {
        self.text(value)
    }

    fn serialize_unit(self) -> Result<()> {
        self.to.add(b"null")
    }

    /// Text in parts, none of which is kept.
    fn collect_str<T: fmt::Display + ?Sized>(self, text: &T) -> Result<()> {
        self.to.add_byte(b'"')?;
        let written = write!(Parts(self), "{text}");
        written.map_err(|_| Error::new("no room"))?;
        self.to.add_byte(b'"')
    }

    #[inline]
    fn serialize_seq(self, _: Option<usize>) -> Result<Entries<'w, 'a, S>> {
        self.open(b'[', b']')
    }

    #[inline]
    fn serialize_map(self, _: Option<usize>) -> Result<Entries<'w, 'a, S>> {
        self.open(b'{', b'}')
    }

    refuse_what_no_script_has!();
    refused! {
        serialize_some(&T) [T] -> ();
        serialize_newtype_variant(&'static str, u32, &'static str, &T) [T] -> ();
    }
}
