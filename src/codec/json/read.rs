//! JSON, read: a deserializer of serde's over a text.

use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};

use super::scan;
use crate::codec::Error;
use crate::codec::read::any_or_bytes;

type Result<T> = std::result::Result<T, Error>;

/// Powers of ten that are exact as doubles.
const POWERS: [f64; 23] = [
    1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16,
    1e17, 1e18, 1e19, 1e20, 1e21, 1e22,
];

/// Whole numbers up to here are exact as doubles.
const EXACT_MAX: u64 = 1 << 53;

/// Digits that a `u64` holds, whatever they are.
const DIGITS_MAX: usize = 19;

/// Reads one text.
pub struct Reader<'de> {
    text: &'de str,
    at: usize,
    /// Text with escapes, unescaped.
    unescaped: String,
    may_hold: Option<&'de dyn Fn(usize) -> bool>,
}

/// Nobody is asked about less memory.
const UNASKED_BYTES: usize = 64 * 1024;

/// Line, column and byte of a place, all from 1 on; columns are bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The line.
    pub line: usize,
    /// The column.
    pub column: usize,
    /// The byte.
    pub byte: usize,
}

impl Place {
    /// That of the byte with this index.
    pub fn of(text: &[u8], at: usize) -> Place {
        let before = &text[..at.min(text.len())];
        let start = memchr::memrchr(b'\n', before).map_or(0, |end| end + 1);
        let line = memchr::memchr_iter(b'\n', before).count() + 1;
        Place { line, column: at - start + 1, byte: at + 1 }
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "line {} column {} (byte {})", self.line, self.column, self.byte)
    }
}

impl<'de> Reader<'de> {
    /// For a text of one value.
    pub fn new(text: &'de str) -> Reader<'de> {
        Reader { text, at: 0, unescaped: String::new(), may_hold: None }
    }

    /// The same, where `may_hold` is asked before the longest text with escapes takes this many
    /// bytes of memory.
    pub fn with_memory(text: &'de str, may_hold: &'de dyn Fn(usize) -> bool) -> Reader<'de> {
        Reader { may_hold: Some(may_hold), ..Reader::new(text) }
    }

    /// Where it is; after an error, where that is.
    pub fn place(&self) -> Place {
        Place::of(self.text.as_bytes(), self.at)
    }

    /// Looks for the end of the text.
    ///
    /// # Errors
    /// Something follows the value.
    pub fn end(&mut self) -> Result<()> {
        match self.next() {
            0 if self.at >= self.text.len() => Ok(()),
            _ => Err(Error::new("more text behind the value")),
        }
    }

    /// The next byte; zero at the end, where none may be.
    #[inline(always)]
    fn peek(&self) -> u8 {
        self.text.as_bytes().get(self.at).copied().unwrap_or(0)
    }

    /// The next byte that is no blank, which stays.
    #[inline(always)]
    fn next(&mut self) -> u8 {
        match self.peek() {
            byte @ b'!'.. => byte,
            _ => self.next_behind_blanks(),
        }
    }

    fn next_behind_blanks(&mut self) -> u8 {
        loop {
            match self.peek() {
                b' ' | b'\n' | b'\r' | b'\t' => self.at += 1,
                byte => return byte,
            }
        }
    }

    #[cold]
    fn unexpected(&self, expected: &'static str) -> Error {
        match self.at >= self.text.len() {
            true => Error::new("unexpected end of text"),
            false => Error::new(expected),
        }
    }

    fn word(&mut self, word: &'static str) -> Result<()> {
        if !self.text.as_bytes()[self.at..].starts_with(word.as_bytes()) {
            let rest = &self.text.as_bytes()[self.at..];
            let same = rest.iter().zip(word.as_bytes()).take_while(|(a, b)| a == b).count();
            self.at += same;
            return Err(self.unexpected("invalid word (true, false or null expected)"));
        }
        self.at += word.len();
        Ok(())
    }

    /// How many bytes from here on are text as it is.
    #[inline]
    fn plain(&self) -> usize {
        scan::plain(&self.text.as_bytes()[self.at..])
    }

    /// The text behind a quotation mark, up to the next.
    #[inline(always)]
    fn string<V: Visitor<'de>>(&mut self, visitor: V, as_bytes: bool) -> Result<V::Value> {
        let start = self.at + 1;
        let rest = self.text.as_bytes().get(start..).unwrap_or_default();
        let count = scan::plain(rest);
        self.at = start + count;
        if rest.get(count) == Some(&b'"') {
            self.at += 1;
            return match as_bytes {
                true => visitor.visit_bytes(&rest[..count]),
                false => visitor.visit_borrowed_str(&self.text[start..start + count]),
            };
        }
        self.escaped(start)?;
        visitor.visit_str(&self.unescaped)
    }

    /// The rest of a text that is not plain.
    #[inline(never)]
    fn escaped(&mut self, start: usize) -> Result<()> {
        self.unescaped.clear();
        self.add(&self.text[start..self.at])?;
        loop {
            match self.peek() {
                b'"' => {
                    self.at += 1;
                    return Ok(());
                }
                b'\\' => self.escape()?,
                _ => return Err(self.unexpected("control character in a string")),
            }
            let start = self.at;
            self.at += self.plain();
            self.add(&self.text[start..self.at])?;
        }
    }

    #[inline]
    fn add(&mut self, part: &str) -> Result<()> {
        let length = self.unescaped.len() + part.len();
        if length > self.unescaped.capacity() && length > UNASKED_BYTES {
            let capacity = length.max(2 * self.unescaped.capacity());
            if self.may_hold.is_some_and(|may_hold| !may_hold(capacity)) {
                return Err(Error::new("not enough memory for a string with escapes"));
            }
            self.unescaped.reserve_exact(capacity - self.unescaped.len());
        }
        self.unescaped.push_str(part);
        Ok(())
    }

    fn escape(&mut self) -> Result<()> {
        let start = self.at;
        self.at += 1;
        let letter = match self.peek() {
            letter @ (b'"' | b'\\' | b'/') => char::from(letter),
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => {
                let first = self.unit()?;
                let is_pair = (0xd800..0xdc00).contains(&first);
                let letter = if is_pair && self.text[self.at..].starts_with("\\u") {
                    self.at += 1;
                    let second = self.unit()?;
                    char::decode_utf16([first, second]).next().and_then(|found| found.ok())
                } else {
                    char::from_u32(first.into())
                };
                let Some(letter) = letter else {
                    self.at = start;
                    return Err(Error::new("half a surrogate pair in an escape"));
                };
                return self.add(letter.encode_utf8(&mut [0; 4]));
            }
            _ => {
                let error = self.unexpected("invalid escape");
                return Err(error);
            }
        };
        self.at += 1;
        self.add(letter.encode_utf8(&mut [0; 4]))
    }

    /// The four digits behind a `u`, which is next.
    fn unit(&mut self) -> Result<u16> {
        let mut unit = 0;
        for _ in 0..4 {
            self.at += 1;
            let Some(digit) = char::from(self.peek()).to_digit(16) else {
                return Err(self.unexpected("invalid digit in an escape"));
            };
            unit = unit << 4 | digit as u16;
        }
        self.at += 1;
        Ok(unit)
    }

    /// Adds digits to a number, and returns how many they are; more than it holds are lost.
    #[inline]
    fn digits(&mut self, number: &mut u64) -> usize {
        let start = self.at;
        while let digit @ b'0'..=b'9' = self.peek() {
            *number = number.wrapping_mul(10).wrapping_add(u64::from(digit - b'0'));
            self.at += 1;
        }
        self.at - start
    }

    #[inline]
    fn number<V: Visitor<'de>>(&mut self, visitor: V) -> Result<V::Value> {
        let start = self.at;
        let is_negative = self.peek() == b'-';
        self.at += usize::from(is_negative);
        let mut number = 0;
        let is_zero = self.peek() == b'0';
        let mut count = self.digits(&mut number);
        if count == 0 || is_zero && count > 1 {
            self.at = if count == 0 { self.at } else { start + usize::from(is_negative) + 1 };
            return Err(self.unexpected("invalid number"));
        }
        if !matches!(self.peek(), b'.' | b'e' | b'E') {
            return self.whole(start, number, count, is_negative, visitor);
        }
        let mut exponent = 0;
        if self.peek() == b'.' {
            self.at += 1;
            let fraction = self.digits(&mut number);
            if fraction == 0 {
                return Err(self.unexpected("invalid number"));
            }
            count += fraction;
            exponent = -(fraction as i64);
        }
        if let b'e' | b'E' = self.peek() {
            self.at += 1;
            let sign = self.peek();
            self.at += usize::from(matches!(sign, b'+' | b'-'));
            let mut power = 0;
            let digits = self.digits(&mut power);
            if digits == 0 {
                return Err(self.unexpected("invalid number"));
            }
            let power = if digits > 6 { 1_000_000 } else { power as i64 };
            exponent += if sign == b'-' { -power } else { power };
        }
        let power = POWERS.get(exponent.unsigned_abs() as usize);
        if let (Some(power), true) = (power, count <= DIGITS_MAX && number <= EXACT_MAX) {
            // Both are exact, so that the result is the nearest double.
            let value = if exponent < 0 { number as f64 / power } else { number as f64 * power };
            return visitor.visit_f64(if is_negative { -value } else { value });
        }
        self.parse(start, visitor)
    }

    #[inline]
    fn whole<V: Visitor<'de>>(
        &mut self,
        start: usize,
        number: u64,
        count: usize,
        is_negative: bool,
        visitor: V,
    ) -> Result<V::Value> {
        match (count <= DIGITS_MAX, is_negative) {
            (true, false) => visitor.visit_u64(number),
            (true, true) if number == 0 => visitor.visit_f64(-0.0),
            (true, true) if number <= 1 << 63 => visitor.visit_i64((number as i64).wrapping_neg()),
            _ => match self.text[start..self.at].parse() {
                Ok(number) => visitor.visit_u64(number),
                Err(_) => self.parse(start, visitor),
            },
        }
    }

    /// The number since `start`, as a double.
    #[cold]
    fn parse<V: Visitor<'de>>(&mut self, start: usize, visitor: V) -> Result<V::Value> {
        match self.text[start..self.at].parse::<f64>() {
            Ok(value) if value.is_finite() => visitor.visit_f64(value),
            _ => {
                self.at = start;
                Err(Error::new("number out of range"))
            }
        }
    }

    /// In line, so that what is no list and no map takes no call.
    #[inline(always)]
    fn value<V: Visitor<'de>>(&mut self, visitor: V, as_bytes: bool) -> Result<V::Value> {
        match self.next() {
            b'"' => self.string(visitor, as_bytes),
            b'-' | b'0'..=b'9' => self.number(visitor),
            b'{' => visitor.visit_map(Entries { reader: self, is_first: true }),
            b'[' => visitor.visit_seq(Entries { reader: self, is_first: true }),
            b't' => self.word("true").and_then(|()| visitor.visit_bool(true)),
            b'f' => self.word("false").and_then(|()| visitor.visit_bool(false)),
            b'n' => self.word("null").and_then(|()| visitor.visit_unit()),
            _ => Err(self.unexpected("value expected")),
        }
    }
}

impl<'de> Deserializer<'de> for &mut Reader<'de> {
    type Error = Error;

    any_or_bytes!(self => self.value);
}

/// What is in brackets, of which the first is next until it has been read.
struct Entries<'a, 'de> {
    reader: &'a mut Reader<'de>,
    is_first: bool,
}

impl<'de> Entries<'_, 'de> {
    /// Goes on to the next entry; false at the end, which it takes.
    #[inline(always)]
    fn advance(&mut self, end: u8, expected: &'static str) -> Result<bool> {
        let is_first = std::mem::take(&mut self.is_first);
        if is_first {
            self.reader.at += 1;
        }
        match self.reader.next() {
            b',' if !is_first => {
                self.reader.at += 1;
                Ok(true)
            }
            byte if byte == end => {
                self.reader.at += 1;
                Ok(false)
            }
            byte if is_first && byte != 0 => Ok(true),
            _ => Err(self.reader.unexpected(expected)),
        }
    }
}

impl<'de> SeqAccess<'de> for Entries<'_, 'de> {
    type Error = Error;

    #[inline]
    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>> {
        match self.advance(b']', "',' or ']' expected")? {
            true => seed.deserialize(&mut *self.reader).map(Some),
            false => Ok(None),
        }
    }
}

impl<'de> MapAccess<'de> for Entries<'_, 'de> {
    type Error = Error;

    #[inline]
    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>> {
        if !self.advance(b'}', "',' or '}' expected")? {
            return Ok(None);
        }
        match self.reader.next() {
            b'"' => seed.deserialize(Quoted(self.reader)).map(Some),
            _ => Err(self.reader.unexpected("key expected (a string)")),
        }
    }

    #[inline]
    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value> {
        match self.reader.next() {
            b':' => {
                self.reader.at += 1;
                seed.deserialize(&mut *self.reader)
            }
            _ => Err(self.reader.unexpected("':' expected")),
        }
    }
}

/// A string, whose quotation mark is next.
struct Quoted<'a, 'de>(&'a mut Reader<'de>);

impl<'de> Deserializer<'de> for Quoted<'_, 'de> {
    type Error = Error;

    any_or_bytes!(self => self.0.string);
}
