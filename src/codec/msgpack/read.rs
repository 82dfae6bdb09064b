//! MessagePack, read: a deserializer of serde's over bytes.

use serde::de::value::{BorrowedBytesDeserializer, I8Deserializer};
use serde::de::{DeserializeSeed, Deserializer, IntoDeserializer, MapAccess, SeqAccess, Visitor};

use crate::codec::Error;
use crate::codec::read::any_or_bytes;

type Result<T> = std::result::Result<T, Error>;

/// Reads values that follow each other.
#[derive(Debug)]
pub struct Reader<'de> {
    bytes: &'de [u8],
    at: usize,
    /// Where the value begins that is being read.
    start: usize,
}

impl<'de> Reader<'de> {
    /// From the first of these bytes on.
    pub fn new(bytes: &'de [u8]) -> Reader<'de> {
        Reader { bytes, at: 0, start: 0 }
    }

    /// Bytes that were read.
    pub fn position(&self) -> usize {
        self.at
    }

    /// The index of the first byte of the value that was read last; after an error, of the wrong
    /// one.
    pub fn start(&self) -> usize {
        self.start
    }

    #[inline]
    fn take(&mut self, count: usize) -> Result<&'de [u8]> {
        let rest = &self.bytes[self.at..];
        match rest.get(..count) {
            Some(found) => {
                self.at += count;
                Ok(found)
            }
            None => Err(Error::new("unexpected end of data")),
        }
    }

    /// A number of this many bytes, the most significant first.
    #[inline]
    fn unsigned(&mut self, count: usize) -> Result<u64> {
        Ok(self.take(count)?.iter().fold(0, |number, byte| number << 8 | u64::from(*byte)))
    }

    /// The same with a sign.
    fn signed(&mut self, count: usize) -> Result<i64> {
        let unused = 64 - 8 * count as u32;
        Ok((self.unsigned(count)? << unused) as i64 >> unused)
    }

    #[inline]
    fn text<V: Visitor<'de>>(
        &mut self,
        count: usize,
        visitor: V,
        as_bytes: bool,
    ) -> Result<V::Value> {
        let bytes = self.take(count)?;
        if !as_bytes && let Ok(text) = std::str::from_utf8(bytes) {
            return visitor.visit_borrowed_str(text);
        }
        visitor.visit_bytes(bytes)
    }

    /// A list, whose elements take a byte each at least.
    fn list<V: Visitor<'de>>(&mut self, count: usize, visitor: V) -> Result<V::Value> {
        self.check(count)?;
        visitor.visit_seq(Entries { reader: self, left: count })
    }

    fn map<V: Visitor<'de>>(&mut self, count: usize, visitor: V) -> Result<V::Value> {
        self.check(2 * count)?;
        visitor.visit_map(Entries { reader: self, left: count })
    }

    fn check(&self, bytes: usize) -> Result<()> {
        match bytes <= self.bytes.len() - self.at {
            true => Ok(()),
            false => Err(Error::new("unexpected end of data")),
        }
    }

    fn extension<V: Visitor<'de>>(&mut self, count: usize, visitor: V) -> Result<V::Value> {
        let kind = self.signed(1)? as i8;
        visitor.visit_newtype_struct(Extension { kind: Some(kind), data: self.take(count)? })
    }

    /// In line, so that what is no list and no map takes no call.
    #[inline(always)]
    fn value<V: Visitor<'de>>(&mut self, visitor: V, as_bytes: bool) -> Result<V::Value> {
        self.start = self.at;
        let marker = self.take(1)?[0];
        // Of the markers with a number behind them the lowest bits say how long that is.
        let size = |first: u8| 1_usize << (marker - first);
        match marker {
            0x00..=0x7f => visitor.visit_u64(marker.into()),
            0x80..=0x8f => self.map((marker & 0x0f).into(), visitor),
            0x90..=0x9f => self.list((marker & 0x0f).into(), visitor),
            0xa0..=0xbf => self.text((marker & 0x1f).into(), visitor, as_bytes),
            0xc0 => visitor.visit_unit(),
            0xc1 => Err(Error::new("marker 0xc1, which is no value,")),
            0xc2 => visitor.visit_bool(false),
            0xc3 => visitor.visit_bool(true),
            0xc4..=0xc6 => {
                let count = self.unsigned(size(0xc4))?;
                visitor.visit_borrowed_bytes(self.take(count as usize)?)
            }
            0xc7..=0xc9 => {
                let count = self.unsigned(size(0xc7))?;
                self.extension(count as usize, visitor)
            }
            0xca => visitor.visit_f64(f32::from_bits(self.unsigned(4)? as u32).into()),
            0xcb => visitor.visit_f64(f64::from_bits(self.unsigned(8)?)),
            0xcc..=0xcf => visitor.visit_u64(self.unsigned(size(0xcc))?),
            0xd0..=0xd3 => visitor.visit_i64(self.signed(size(0xd0))?),
            0xd4..=0xd8 => self.extension(size(0xd4), visitor),
            0xd9..=0xdb => {
                let count = self.unsigned(size(0xd9))?;
                self.text(count as usize, visitor, as_bytes)
            }
            0xdc | 0xdd => {
                let count = self.unsigned(2 * size(0xdc))?;
                self.list(count as usize, visitor)
            }
            0xde | 0xdf => {
                let count = self.unsigned(2 * size(0xde))?;
                self.map(count as usize, visitor)
            }
            0xe0..=0xff => visitor.visit_i64((marker as i8).into()),
        }
    }
}

impl<'de> Deserializer<'de> for &mut Reader<'de> {
    type Error = Error;

    any_or_bytes!(self => self.value);
}

struct Entries<'a, 'de> {
    reader: &'a mut Reader<'de>,
    left: usize,
}

impl Entries<'_, '_> {
    fn advance(&mut self) -> bool {
        let is_one = self.left > 0;
        self.left -= usize::from(is_one);
        is_one
    }
}

impl<'de> SeqAccess<'de> for Entries<'_, 'de> {
    type Error = Error;

    #[inline]
    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>> {
        match self.advance() {
            true => seed.deserialize(&mut *self.reader).map(Some),
            false => Ok(None),
        }
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.left)
    }
}

impl<'de> MapAccess<'de> for Entries<'_, 'de> {
    type Error = Error;

    #[inline]
    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>> {
        match self.advance() {
            true => seed.deserialize(&mut *self.reader).map(Some),
            false => Ok(None),
        }
    }

    #[inline]
    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value> {
        seed.deserialize(&mut *self.reader)
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.left)
    }
}

/// The number of an application's type, and its bytes.
struct Extension<'de> {
    kind: Option<i8>,
    data: &'de [u8],
}

impl<'de> Deserializer<'de> for Extension<'de> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        visitor.visit_seq(self)
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option
        unit unit_struct newtype_struct seq tuple tuple_struct map struct enum identifier
        ignored_any
    }
}

impl<'de> SeqAccess<'de> for Extension<'de> {
    type Error = Error;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>> {
        if let Some(kind) = self.kind.take() {
            let kind: I8Deserializer<Error> = kind.into_deserializer();
            return seed.deserialize(kind).map(Some);
        }
        seed.deserialize(BorrowedBytesDeserializer::new(self.data)).map(Some)
    }
}
