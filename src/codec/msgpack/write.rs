//! MessagePack, written: a serializer of serde's.

use std::fmt;

use serde::ser::{Serialize, SerializeMap, SerializeSeq, Serializer};

use crate::codec::Error;
use crate::codec::write::{Never, Sink, is_ascii, refuse_what_no_script_has, refused};

type Result<T> = std::result::Result<T, Error>;

/// What bytes are.
#[derive(Clone, Copy, Debug)]
enum Sort {
    /// Text, if they are UTF-8.
    Text,
    Binary,
    /// Of an application's own type.
    Extension(i8),
}

/// Writes one value.
#[derive(Debug)]
pub struct Writer<'a, S> {
    to: &'a mut S,
    next: Sort,
}

impl<'a, S: Sink> Writer<'a, S> {
    /// A writer at the end of what `to` holds.
    pub fn new(to: &'a mut S) -> Writer<'a, S> {
        Writer { to, next: Sort::Text }
    }

    /// A marker, and a number behind it, the most significant byte first.
    #[inline]
    fn number<const N: usize>(&mut self, marker: u8, number: [u8; N]) -> Result<()> {
        let out = self.to.claim(1 + N)?;
        out.push(marker);
        out.extend_from_slice(&number);
        Ok(())
    }

    /// A marker with a length: that for a byte of it, if there is one; those for two and for four
    /// follow. `few` has those below `few_end` in itself.
    #[inline]
    fn length(
        &mut self,
        length: usize,
        few: (u8, usize),
        first: Option<u8>,
        two: u8,
    ) -> Result<()> {
        match (length, first) {
            (..0x100, _) if length < few.1 => self.to.add_byte(few.0 | length as u8),
            (..0x100, Some(one)) => self.number(one, [length as u8]),
            (..0x1_0000, _) => self.number(two, (length as u16).to_be_bytes()),
            _ => match u32::try_from(length) {
                Ok(length) => self.number(two + 1, length.to_be_bytes()),
                Err(_) => Err(Error::new("longer than the format has a length for")),
            },
        }
    }

    /// The marker of an application's own type, and its number.
    fn extension(&mut self, kind: i8, length: usize) -> Result<()> {
        match length {
            1 | 2 | 4 | 8 | 16 => self.to.add_byte(0xd4 + length.trailing_zeros() as u8)?,
            _ => self.length(length, (0, 0), Some(0xc7), 0xc8)?,
        }
        self.to.add_byte(kind as u8)
    }
}

/// What is in a list or map.
#[derive(Debug)]
pub struct Entries<'w, 'a, S>(&'w mut Writer<'a, S>);

impl<S: Sink> SerializeSeq for Entries<'_, '_, S> {
    type Ok = ();
    type Error = Error;

    #[inline]
    fn serialize_element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<()> {
        value.serialize(&mut *self.0)
    }

    #[inline]
    fn end(self) -> Result<()> {
        Ok(())
    }
}

impl<S: Sink> SerializeMap for Entries<'_, '_, S> {
    type Ok = ();
    type Error = Error;

    #[inline]
    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<()> {
        key.serialize(&mut *self.0)
    }

    #[inline]
    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<()> {
        value.serialize(&mut *self.0)
    }

    #[inline]
    fn end(self) -> Result<()> {
        Ok(())
    }
}

impl<'w, 'a, S: Sink> Serializer for &'w mut Writer<'a, S> {
    type Ok = ();
    type Error = Error;
    type SerializeSeq = Entries<'w, 'a, S>;
    type SerializeMap = Entries<'w, 'a, S>;

    fn serialize_bool(self, value: bool) -> Result<()> {
        self.to.add_byte(if value { 0xc3 } else { 0xc2 })
    }

    #[inline]
    fn serialize_i64(self, value: i64) -> Result<()> {
        match value {
            0.. => self.serialize_u64(value as u64),
            -0x20..0 => self.to.add_byte(value as u8),
            -0x80..-0x20 => self.number(0xd0, [value as u8]),
            -0x8000..-0x80 => self.number(0xd1, (value as i16).to_be_bytes()),
            -0x8000_0000..-0x8000 => self.number(0xd2, (value as i32).to_be_bytes()),
            _ => self.number(0xd3, value.to_be_bytes()),
        }
    }

    #[inline]
    fn serialize_u64(self, value: u64) -> Result<()> {
        match value {
            0..0x80 => self.to.add_byte(value as u8),
            0x80..0x100 => self.number(0xcc, [value as u8]),
            0x100..0x1_0000 => self.number(0xcd, (value as u16).to_be_bytes()),
            0x1_0000..0x1_0000_0000 => self.number(0xce, (value as u32).to_be_bytes()),
            _ => self.number(0xcf, value.to_be_bytes()),
        }
    }

    fn serialize_f64(self, value: f64) -> Result<()> {
        self.number(0xcb, value.to_be_bytes())
    }

    #[inline]
    fn serialize_str(self, value: &str) -> Result<()> {
        self.serialize_bytes(value.as_bytes())
    }

    #[inline]
    fn serialize_bytes(self, value: &[u8]) -> Result<()> {
        match std::mem::replace(&mut self.next, Sort::Text) {
            Sort::Text if is_ascii(value) || std::str::from_utf8(value).is_ok() => {
                self.length(value.len(), (0xa0, 32), Some(0xd9), 0xda)?;
            }
            Sort::Text | Sort::Binary => self.length(value.len(), (0, 0), Some(0xc4), 0xc5)?,
            Sort::Extension(kind) => self.extension(kind, value.len())?,
        }
        self.to.add(value)
    }

    fn serialize_unit(self) -> Result<()> {
        self.to.add_byte(0xc0)
    }

    fn serialize_some<T: Serialize + ?Sized>(self, bytes: &T) -> Result<()> {
        self.next = Sort::Binary;
        bytes.serialize(self)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        kind: u32,
        _: &'static str,
        bytes: &T,
    ) -> Result<()> {
        self.next = Sort::Extension(kind as i8);
        bytes.serialize(self)
    }

    #[inline]
    fn serialize_seq(self, length: Option<usize>) -> Result<Entries<'w, 'a, S>> {
        self.length(length.unwrap_or(0), (0x90, 16), None, 0xdc)?;
        Ok(Entries(self))
    }

    #[inline]
    fn serialize_map(self, length: Option<usize>) -> Result<Entries<'w, 'a, S>> {
        self.length(length.unwrap_or(0), (0x80, 16), None, 0xde)?;
        Ok(Entries(self))
    }

    fn collect_str<T: fmt::Display + ?Sized>(self, text: &T) -> Result<()> {
        self.serialize_str(&text.to_string())
    }

    refuse_what_no_script_has!();
}

#[cfg(test)]
mod tests {
    use serde_json::{Map, Value, json};

    use super::*;

    #[test]
    fn values_are_written_as_another_writer_has_them() {
        let mut values = vec![json!(null), json!(true), json!(0.5), json!([[], {}, [false]])];
        for power in 0..64 {
            let number = 1_u64 << power;
            for number in [number - 1, number, number + 1] {
                values.extend([json!(number), json!(0_i64.wrapping_sub(number as i64))]);
            }
        }
        for length in [1, 15, 16, 31, 32, 255, 256, 65_535, 65_536] {
            values.extend([json!("a".repeat(length)), json!("\u{e9}".repeat(length))]);
            values.push(json!(vec![1; length]));
            let pairs = (0..length).map(|number| (number.to_string(), json!(number)));
            values.push(Value::Object(Map::from_iter(pairs)));
        }
        for value in values {
            let mut written = Vec::new();
            value.serialize(&mut Writer::new(&mut written)).expect("it can be written");
            assert_eq!(written, rmp_serde::to_vec(&value).expect("so it can by others"));
        }
    }
}
