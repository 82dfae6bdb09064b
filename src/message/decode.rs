//! Reads the wire form that [`encode`](super::encode) writes.
//!
//! A [`Reader`] is safe on any bytes: it checks what it reads, bounds depth, and never announces
//! more entries than there are bytes for. What the values are made into is for the caller.

use std::fmt;

use byteorder::{ByteOrder, LittleEndian};

use super::encode::{DEPTH_MAX, GRAPH, TREE, Tag};

/// Bytes that no writer made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Malformed {
    /// They end within an item, or announce more than there is.
    Truncated,
    /// No item has this tag.
    Tag(u8),
    /// A key that is NaN or without a value, a number that is a key twice, or more or fewer keys
    /// than announced.
    Key,
    /// More tables within each other than [`DEPTH_MAX`].
    Depth,
    /// A table or buffer that is not there.
    Reference(u32),
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Malformed::Truncated => write!(f, "encoded table is cut off"),
            Malformed::Tag(tag) => write!(f, "encoded table has unknown tag {tag}"),
            Malformed::Key => write!(f, "encoded table has keys that no table has"),
            Malformed::Depth => write!(f, "encoded table is nested deeper than {DEPTH_MAX} levels"),
            Malformed::Reference(number) => write!(f, "encoded table refers to missing {number}"),
        }
    }
}

impl std::error::Error for Malformed {}

/// Reads items one after the other.
///
/// # Examples
/// ```
/// use node_lua::message::{Malformed, Reader, Tag, Writer};
///
/// let mut bytes = Vec::new();
/// Writer::new(&mut bytes, 1000).number(0.5).unwrap();
/// let mut reader = Reader::new(&bytes).unwrap();
/// assert_eq!((reader.tag(), reader.number()), (Ok(Tag::Number), Ok(0.5)));
/// assert_eq!(reader.tag(), Err(Malformed::Truncated));
/// ```
#[derive(Clone, Debug)]
pub struct Reader<'a> {
    rest: &'a [u8],
    depth: u32,
    tables: u32,
    /// Items that tables may announce yet: in all as many as there are bytes.
    room: u64,
    is_graph: bool,
}

#[expect(clippy::missing_errors_doc, reason = "said above: all fail alike")]
impl<'a> Reader<'a> {
    /// Reads what a [`Writer`](super::encode::Writer) wrote.
    ///
    /// # Errors
    /// The first byte is missing or unknown.
    #[inline]
    pub fn new(bytes: &'a [u8]) -> Result<Reader<'a>, Malformed> {
        match bytes {
            [first @ (TREE | GRAPH), rest @ ..] => {
                let room = rest.len() as u64;
                Ok(Reader { rest, depth: 0, tables: 0, room, is_graph: *first == GRAPH })
            }
            [first, ..] => Err(Malformed::Tag(*first)),
            [] => Err(Malformed::Truncated),
        }
    }

    /// True if tables must be remembered by number, because some appear again.
    #[inline]
    pub fn is_graph(&self) -> bool {
        self.is_graph
    }

    /// Tables started so far.
    #[inline]
    pub fn tables(&self) -> u32 {
        self.tables
    }

    /// Ends the table entered last.
    #[inline]
    pub fn leave(&mut self) {
        self.depth = self.depth.saturating_sub(1);
    }

    /// What comes next.
    ///
    /// # Errors
    /// The bytes are not from a writer.
    #[inline(always)]
    pub fn tag(&mut self) -> Result<Tag, Malformed> {
        let [tag] = self.take()?;
        Tag::new(tag).ok_or(Malformed::Tag(tag))
    }

    /// A number.
    #[inline(always)]
    pub fn number(&mut self) -> Result<f64, Malformed> {
        self.take::<8>().map(|bytes| LittleEndian::read_f64(&bytes))
    }

    /// A number that is a key: never NaN.
    #[inline(always)]
    pub fn number_key(&mut self) -> Result<f64, Malformed> {
        let key = self.number()?;
        if key.is_nan() { Err(Malformed::Key) } else { Ok(key) }
    }

    /// The 64 bits of an integer or address.
    #[inline(always)]
    pub fn bits(&mut self) -> Result<u64, Malformed> {
        self.take::<8>().map(|bytes| LittleEndian::read_u64(&bytes))
    }

    /// The index of a buffer.
    #[inline(always)]
    pub fn index(&mut self) -> Result<u32, Malformed> {
        self.take::<4>().map(|bytes| LittleEndian::read_u32(&bytes))
    }

    /// The number of a table that started before.
    pub fn same_table(&mut self) -> Result<u32, Malformed> {
        let number = self.index()?;
        if !self.is_graph || number >= self.tables {
            return Err(Malformed::Reference(number));
        }
        Ok(number)
    }

    /// The bytes of a short string.
    #[inline(always)]
    pub fn short_string(&mut self) -> Result<&'a [u8], Malformed> {
        let [len] = self.take()?;
        self.take_bytes(usize::from(len))
    }

    /// The bytes of a long string.
    #[inline(always)]
    pub fn long_string(&mut self) -> Result<&'a [u8], Malformed> {
        let len = self.index()?;
        self.take_bytes(len as usize)
    }

    /// Starts a table of this many values without and with a key; all tables together announce at
    /// most as many as there are bytes.
    #[inline(always)]
    pub fn enter(&mut self) -> Result<(u32, u32), Malformed> {
        let positional = self.index()?;
        let pairs = self.index()?;
        // Every key and value takes at least one byte. Announcing more, in all tables together,
        // would make the caller allocate for nothing.
        let announced = u64::from(positional) + 2 * u64::from(pairs);
        self.room = self.room.checked_sub(announced).ok_or(Malformed::Truncated)?;
        if self.depth == DEPTH_MAX {
            return Err(Malformed::Depth);
        }
        self.depth += 1;
        self.tables += 1;
        Ok((positional, pairs))
    }

    /// Reads the key that a tag starts, if it does, and puts the tag of its value in its place.
    fn pass_key(&mut self, tag: &mut Tag) -> Result<bool, Malformed> {
        match tag {
            Tag::ShortStringKey => drop(self.short_string()?),
            Tag::LongStringKey => drop(self.long_string()?),
            Tag::NumberKey => drop(self.number_key()?),
            Tag::FalseKey | Tag::TrueKey => {}
            _ => return Ok(false),
        }
        *tag = self.tag()?;
        Ok(true)
    }

    #[inline(always)]
    fn take<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (bytes, rest) = self.rest.split_first_chunk().ok_or(Malformed::Truncated)?;
        self.rest = rest;
        Ok(*bytes)
    }

    #[inline(always)]
    fn take_bytes(&mut self, len: usize) -> Result<&'a [u8], Malformed> {
        let (bytes, rest) = self.rest.split_at_checked(len).ok_or(Malformed::Truncated)?;
        self.rest = rest;
        Ok(bytes)
    }
}

/// Checks that the bytes are one whole value which may have come from anywhere: all of it is what a
/// writer makes, no buffer is missing, and nothing is an address in memory.
///
/// # Errors
/// Says what is wrong.
pub fn check(wire: &[u8], buffers: usize) -> Result<(), Malformed> {
    let mut reader = Reader::new(wire)?;
    let tag = reader.tag()?;
    check_value(&mut reader, tag, buffers)?;
    if reader.rest.is_empty() { Ok(()) } else { Err(Malformed::Truncated) }
}

/// As deep as tables may be.
fn check_value(reader: &mut Reader<'_>, tag: Tag, buffers: usize) -> Result<(), Malformed> {
    match tag {
        Tag::Nil | Tag::False | Tag::True => {}
        Tag::Number => drop(reader.number()?),
        Tag::Int64 | Tag::UInt64 => drop(reader.bits()?),
        Tag::ShortString => drop(reader.short_string()?),
        Tag::LongString => drop(reader.long_string()?),
        Tag::Buffer => {
            let index = reader.index()?;
            if index as usize >= buffers {
                return Err(Malformed::Reference(index));
            }
        }
        Tag::SameTable => drop(reader.same_table()?),
        Tag::Table => {
            let (positional, pairs) = reader.enter()?;
            let (mut keys, mut numbers) = (0, Vec::new());
            for _ in 0..u64::from(positional) + u64::from(pairs) {
                let mut tag = reader.tag()?;
                if tag == Tag::NumberKey {
                    // One zero is like the other.
                    numbers.push((reader.clone().number_key()? + 0.0).to_bits());
                }
                if reader.pass_key(&mut tag)? {
                    keys += 1;
                }
                check_value(reader, tag, buffers)?;
            }
            numbers.sort_unstable();
            if keys != pairs || numbers.windows(2).any(|two| two[0] == two[1]) {
                return Err(Malformed::Key);
            }
            reader.leave();
        }
        Tag::LightUserdata => return Err(Malformed::Tag(tag as u8)),
        _ => return Err(Malformed::Key),
    }
    Ok(())
}

/// About what a VM takes for a table, for each of its positions and pairs (with the room that it
/// leaves), and for a string beside its bytes.
const TABLE_BYTES: usize = 64;
const POSITION_BYTES: usize = 8;
const PAIR_BYTES: usize = 48;
const STRING_BYTES: usize = 24;

/// About what a VM takes for what was written: small tables in a table are several times as large
/// as they are on their way.
///
/// # Errors
/// The bytes are not from a writer.
pub(super) fn vm_bytes(wire: &[u8]) -> Result<usize, Malformed> {
    let mut reader = Reader::new(wire)?;
    let mut all = 0_usize;
    while !reader.rest.is_empty() {
        all += match reader.tag()? {
            Tag::Table => {
                let (positional, pairs) = reader.enter()?;
                reader.leave();
                let slots = positional as usize * POSITION_BYTES + pairs as usize * PAIR_BYTES;
                TABLE_BYTES + slots
            }
            Tag::ShortString | Tag::ShortStringKey => STRING_BYTES + reader.short_string()?.len(),
            Tag::LongString | Tag::LongStringKey => STRING_BYTES + reader.long_string()?.len(),
            Tag::Number | Tag::NumberKey => reader.number().map(|_| 0)?,
            Tag::Int64 | Tag::UInt64 | Tag::LightUserdata => reader.bits().map(|_| STRING_BYTES)?,
            Tag::Buffer | Tag::SameTable => reader.index().map(|_| 0)?,
            Tag::Nil | Tag::False | Tag::True | Tag::FalseKey | Tag::TrueKey => 0,
        };
    }
    Ok(all)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::super::encode::Writer;
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    /// Reads as a VM would, following counts. Returns the number of entries it saw.
    fn walk(reader: &mut Reader<'_>, tag: Tag) -> Result<usize, Malformed> {
        match tag {
            Tag::Nil | Tag::False | Tag::True => {}
            Tag::Number => drop(reader.number()?),
            Tag::Int64 | Tag::UInt64 | Tag::LightUserdata => drop(reader.bits()?),
            Tag::ShortString => drop(reader.short_string()?),
            Tag::LongString => drop(reader.long_string()?),
            Tag::Buffer => drop(reader.index()?),
            Tag::SameTable => drop(reader.same_table()?),
            Tag::Table => {
                let (positional, pairs) = reader.enter()?;
                let mut entries = 0;
                for _ in 0..u64::from(positional) + u64::from(pairs) {
                    let mut tag = reader.tag()?;
                    reader.pass_key(&mut tag)?;
                    entries += 1 + walk(reader, tag)?;
                }
                reader.leave();
                return Ok(entries);
            }
            _ => return Err(Malformed::Key),
        }
        Ok(0)
    }

    fn walk_all(bytes: &[u8]) -> Result<usize, Malformed> {
        let mut reader = Reader::new(bytes)?;
        let tag = reader.tag()?;
        walk(&mut reader, tag)
    }

    #[test]
    fn short_and_long_strings_keep_their_bytes() {
        for len in [0, 1, 254, 255, 256, 70_000] {
            let text: Vec<u8> = (0..len).map(|n| n as u8).collect();
            let mut bytes = Vec::new();
            let mut writer = Writer::new(&mut bytes, usize::MAX);
            writer.string(&text).unwrap();
            writer.string_key(&text).unwrap();
            let mut reader = Reader::new(&bytes).unwrap();
            for (short, long) in
                [(Tag::ShortString, Tag::LongString), (Tag::ShortStringKey, Tag::LongStringKey)]
            {
                let tag = reader.tag().unwrap();
                assert_eq!(tag, if len < 256 { short } else { long });
                let read = if len < 256 { reader.short_string() } else { reader.long_string() };
                assert_eq!(read, Ok(&text[..]));
            }
            assert_eq!(reader.tag(), Err(Malformed::Truncated));
        }
    }

    #[test]
    fn depth_is_bounded() {
        let nested = |depth: u32| {
            let mut bytes = Vec::new();
            let mut writer = Writer::new(&mut bytes, usize::MAX);
            let open: Vec<_> = (0..depth).map(|_| writer.open_table().unwrap()).collect();
            for (above, table) in open.into_iter().rev().enumerate() {
                writer.close_table(table, u32::from(above != 0), 0);
            }
            walk_all(&bytes)
        };
        assert_eq!(nested(DEPTH_MAX), Ok(DEPTH_MAX as usize - 1));
        assert_eq!(nested(DEPTH_MAX + 1), Err(Malformed::Depth));
    }

    #[test]
    fn more_entries_than_bytes_are_refused_even_if_spread_over_tables() {
        let table = |positional: u32, pairs: u32| {
            let mut bytes = vec![Tag::Table as u8];
            bytes.extend(positional.to_ne_bytes());
            bytes.extend(pairs.to_ne_bytes());
            bytes
        };
        let mut bytes = vec![TREE];
        bytes.extend(table(u32::MAX, u32::MAX));
        assert_eq!(walk_all(&bytes), Err(Malformed::Truncated));
        // The outer table alone could be right, and the inner one too, but not both.
        let mut bytes = vec![TREE];
        bytes.extend(table(12, 0));
        bytes.extend(table(12, 0));
        bytes.extend([Tag::Nil as u8; 4]);
        let mut reader = Reader::new(&bytes).unwrap();
        for entered in [Ok((12, 0)), Err(Malformed::Truncated)] {
            assert_eq!(reader.tag(), Ok(Tag::Table));
            assert_eq!(reader.enter(), entered);
        }
    }

    /// A table that announces so many positions and pairs, and has these number keys.
    fn keyed(positional: u32, pairs: u32, keys: &[f64], value: &[u8]) -> Vec<u8> {
        let mut bytes = vec![TREE, Tag::Table as u8];
        bytes.extend(positional.to_le_bytes());
        bytes.extend(pairs.to_le_bytes());
        for key in keys {
            bytes.push(Tag::NumberKey as u8);
            bytes.extend(key.to_le_bytes());
            bytes.extend(value);
        }
        bytes
    }

    #[test]
    fn keys_that_no_writer_makes_are_refused() {
        let value = [Tag::True as u8];
        assert_eq!(check(&keyed(0, 2, &[0.5, 1.5], &value), 0), Ok(()));
        for keys in [&[0.5, 0.5][..], &[0.0, -0.0], &[-1.0, 2.5, -1.0]] {
            let wire = keyed(0, keys.len() as u32, keys, &value);
            assert_eq!(check(&wire, 0), Err(Malformed::Key), "{keys:?}");
        }
        // In the place of what was announced as a position, and the other way round.
        assert_eq!(check(&keyed(1, 1, &[0.5, 1.5], &value), 0), Err(Malformed::Key));
        let mut wire = keyed(0, 2, &[0.5], &value);
        wire.extend(value);
        assert_eq!(check(&wire, 0), Err(Malformed::Key));
    }

    #[test]
    fn references_to_tables_not_yet_started_are_refused() {
        for (first, number, expected) in [
            (TREE, 0u32, Malformed::Reference(0)),
            (GRAPH, 0, Malformed::Reference(0)),
            (GRAPH, 9, Malformed::Reference(9)),
        ] {
            let mut bytes = vec![first, Tag::SameTable as u8];
            bytes.extend(number.to_ne_bytes());
            assert_eq!(walk_all(&bytes), Err(expected));
        }
    }

    proptest! {
        #[test]
        fn reader_takes_any_likely_bytes(
            tags in vec((0u8..18, 0u8..4, 0u8..4), 0..60),
            is_graph in any::<bool>(),
        ) {
            let mut bytes = vec![u8::from(is_graph)];
            for (tag, a, b) in tags {
                bytes.extend([tag, a, 0, 0, 0, b, 0, 0, 0]);
            }
            if let Ok(entries) = walk_all(&bytes) {
                prop_assert!(entries <= bytes.len());
            }
        }
    }
}
