//! The wire form of a table: a run of tagged items, written and read without a VM.
//!
//! A table is a count of positional values, a count of pairs, and then its entries in any order: a
//! value alone takes the next position, a key is followed by its value. Tables number themselves in
//! order of appearance from 0, so that one met again is written as that number: shared tables stay
//! shared, cycles stay cycles. The form never leaves the process: numbers have the machine's byte
//! order, and there is no version.
//!
//! A [`Reader`] is safe on any bytes: it checks what it reads, bounds depth, and never announces
//! more entries than there are bytes for.
//!
//! ```
//! use node_lua::message::{Reader, Tag, Writer};
//!
//! let mut bytes = Vec::new();
//! let mut writer = Writer::new(&mut bytes, 1000);
//! let table = writer.open_table().unwrap(); // {true, n = 1}
//! writer.bool(true).unwrap();
//! writer.string_key(b"n").unwrap();
//! writer.number(1.0).unwrap();
//! writer.close_table(table, 1, 1);
//!
//! let mut reader = Reader::new(&bytes).unwrap();
//! assert_eq!((reader.tag(), reader.enter()), (Ok(Tag::Table), Ok((1, 1))));
//! assert_eq!(reader.tag(), Ok(Tag::True));
//! assert_eq!((reader.tag(), reader.short_string()), (Ok(Tag::ShortStringKey), Ok(&b"n"[..])));
//! assert_eq!((reader.tag(), reader.number()), (Ok(Tag::Number), Ok(1.0)));
//! ```

use std::fmt;

/// Tables within tables, the outermost included.
pub const DEPTH_MAX: u32 = 100;

/// Bytes a table may take unless the owner of the writer says otherwise.
pub const TABLE_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Positions that may be left empty rather than writing the key of the value after them.
const GAP_MAX: f64 = 8.0;

/// What comes next in the wire form. The comment says what to read for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Tag {
    /// `nil`: nothing.
    Nil,
    /// `false`: nothing.
    False,
    /// `true`: nothing.
    True,
    /// A number: [`Reader::number`].
    Number,
    /// A signed 64-bit cdata: [`Reader::bits`].
    Int64,
    /// An unsigned 64-bit cdata: [`Reader::bits`].
    UInt64,
    /// The address in a light userdata: [`Reader::bits`].
    LightUserdata,
    /// A string below 256 bytes: [`Reader::short_string`].
    ShortString,
    /// A longer one: [`Reader::long_string`].
    LongString,
    /// A buffer by its index: [`Reader::index`]. Whether there is one is for the caller to check.
    Buffer,
    /// The start of a table: [`Reader::enter`], then as many entries, then [`Reader::leave`].
    Table,
    /// A table that started before: [`Reader::same_table`].
    SameTable,
    /// The key of the value after it: [`Reader::short_string`].
    ShortStringKey,
    /// The key of the value after it: [`Reader::long_string`].
    LongStringKey,
    /// The key of the value after it: [`Reader::number_key`].
    NumberKey,
    /// The key of the value after it: nothing.
    FalseKey,
    /// The key of the value after it: nothing.
    TrueKey,
}

impl Tag {
    const ALL: [Tag; 17] = [
        Tag::Nil,
        Tag::False,
        Tag::True,
        Tag::Number,
        Tag::Int64,
        Tag::UInt64,
        Tag::LightUserdata,
        Tag::ShortString,
        Tag::LongString,
        Tag::Buffer,
        Tag::Table,
        Tag::SameTable,
        Tag::ShortStringKey,
        Tag::LongStringKey,
        Tag::NumberKey,
        Tag::FalseKey,
        Tag::TrueKey,
    ];
}

/// First byte: no table appears twice.
const TREE: u8 = 0;
/// First byte: some table appears again, so that the reader must remember them.
const GRAPH: u8 = 1;

/// The wire form would be larger than allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooLarge {
    /// Bytes allowed.
    pub max: usize,
}

impl fmt::Display for TooLarge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "table takes more than {} bytes", self.max)
    }
}

impl std::error::Error for TooLarge {}

/// Writes one value, usually a table, into memory that is reused.
#[derive(Debug)]
pub struct Writer<'a> {
    bytes: &'a mut Vec<u8>,
    bytes_max: usize,
}

/// Where the counts of an open table go.
#[derive(Debug)]
#[must_use = "close the table"]
pub struct OpenTable(usize);

impl<'a> Writer<'a> {
    /// Writes into `bytes`, from the start, at most `bytes_max` of them.
    #[inline]
    pub fn new(bytes: &'a mut Vec<u8>, bytes_max: usize) -> Writer<'a> {
        bytes.clear();
        bytes.push(TREE);
        Writer { bytes, bytes_max: bytes_max.min(u32::MAX as usize) }
    }

    /// Starts a table: entries follow. Its number is that of tables opened before it.
    #[inline]
    pub fn open_table(&mut self) -> Result<OpenTable, TooLarge> {
        self.put([Tag::Table as u8, 0, 0, 0, 0, 0, 0, 0, 0])?;
        Ok(OpenTable(self.bytes.len() - 8))
    }

    /// Ends a table, with the number of values without and with keys written since.
    #[inline]
    pub fn close_table(&mut self, table: OpenTable, positional: u32, pairs: u32) {
        if let Some(counts) = self.bytes.get_mut(table.0..table.0 + 8) {
            counts[..4].copy_from_slice(&positional.to_ne_bytes());
            counts[4..].copy_from_slice(&pairs.to_ne_bytes());
        }
    }

    /// A table that was opened before, by its number.
    pub fn same_table(&mut self, number: u32) -> Result<(), TooLarge> {
        self.bytes[0] = GRAPH;
        self.put_index(Tag::SameTable, number)
    }

    /// `nil`: a position that stays empty.
    pub fn nil(&mut self) -> Result<(), TooLarge> {
        self.put([Tag::Nil as u8])
    }

    /// A boolean.
    #[inline]
    pub fn bool(&mut self, value: bool) -> Result<(), TooLarge> {
        self.put([if value { Tag::True } else { Tag::False } as u8])
    }

    /// A number.
    #[inline]
    pub fn number(&mut self, value: f64) -> Result<(), TooLarge> {
        self.put_bits(Tag::Number, value.to_bits())
    }

    /// A signed 64-bit cdata.
    pub fn int64(&mut self, value: i64) -> Result<(), TooLarge> {
        self.put_bits(Tag::Int64, value as u64)
    }

    /// An unsigned 64-bit cdata.
    pub fn uint64(&mut self, value: u64) -> Result<(), TooLarge> {
        self.put_bits(Tag::UInt64, value)
    }

    /// The address in a light userdata.
    pub fn light_userdata(&mut self, address: usize) -> Result<(), TooLarge> {
        self.put_bits(Tag::LightUserdata, address as u64)
    }

    /// A string.
    #[inline]
    pub fn string(&mut self, value: &[u8]) -> Result<(), TooLarge> {
        self.put_string(Tag::ShortString, Tag::LongString, value)
    }

    /// A buffer, by its index among those of the message.
    pub fn buffer(&mut self, index: u32) -> Result<(), TooLarge> {
        self.put_index(Tag::Buffer, index)
    }

    /// A string that is the key of the value after it.
    #[inline]
    pub fn string_key(&mut self, key: &[u8]) -> Result<(), TooLarge> {
        self.put_string(Tag::ShortStringKey, Tag::LongStringKey, key)
    }

    /// Whatever must stand before the value of a number key, where so many values took a position
    /// already. Returns true if that is the key. Otherwise the value takes a position: it is the
    /// next, or so few are absent between that nils fill them.
    #[inline]
    pub fn number_or_position(&mut self, key: f64, positional: &mut u32) -> Result<bool, TooLarge> {
        let gap = key - f64::from(*positional) - 1.0;
        if gap != 0.0 {
            if !(0.0..=GAP_MAX).contains(&gap) || gap.fract() != 0.0 {
                self.number_key(key)?;
                return Ok(true);
            }
            for _ in 0..gap as u32 {
                self.nil()?;
                *positional += 1;
            }
        }
        *positional += 1;
        Ok(false)
    }

    /// A number that is the key of the value after it.
    pub fn number_key(&mut self, key: f64) -> Result<(), TooLarge> {
        self.put_bits(Tag::NumberKey, key.to_bits())
    }

    /// A boolean that is the key of the value after it.
    pub fn bool_key(&mut self, key: bool) -> Result<(), TooLarge> {
        self.put([if key { Tag::TrueKey } else { Tag::FalseKey } as u8])
    }

    #[inline]
    fn put<const N: usize>(&mut self, bytes: [u8; N]) -> Result<(), TooLarge> {
        self.check(N)?;
        self.bytes.extend_from_slice(&bytes);
        Ok(())
    }

    #[inline]
    fn put_index(&mut self, tag: Tag, index: u32) -> Result<(), TooLarge> {
        let [a, b, c, d] = index.to_ne_bytes();
        self.put([tag as u8, a, b, c, d])
    }

    #[inline]
    fn put_bits(&mut self, tag: Tag, bits: u64) -> Result<(), TooLarge> {
        let [a, b, c, d, e, f, g, h] = bits.to_ne_bytes();
        self.put([tag as u8, a, b, c, d, e, f, g, h])
    }

    #[inline]
    fn put_string(&mut self, short: Tag, long: Tag, value: &[u8]) -> Result<(), TooLarge> {
        match u8::try_from(value.len()) {
            Ok(len) => self.put([short as u8, len])?,
            Err(_) => {
                self.check(value.len())?;
                self.put_index(long, value.len() as u32)?;
            }
        }
        self.check(value.len())?;
        self.bytes.extend_from_slice(value);
        Ok(())
    }

    #[inline]
    fn check(&self, more: usize) -> Result<(), TooLarge> {
        if more > self.bytes_max.saturating_sub(self.bytes.len()) {
            return Err(TooLarge { max: self.bytes_max });
        }
        Ok(())
    }
}

/// Bytes that no writer made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Malformed {
    /// They end within an item, or announce more than there is.
    Truncated,
    /// No item has this tag.
    Tag(u8),
    /// A key that is NaN, or a key without a value.
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
            Malformed::Key => write!(f, "encoded table has a key that cannot be one"),
            Malformed::Depth => write!(f, "encoded table is nested deeper than {DEPTH_MAX} levels"),
            Malformed::Reference(number) => write!(f, "encoded table refers to missing {number}"),
        }
    }
}

impl std::error::Error for Malformed {}

/// Reads items one after the other.
#[derive(Clone, Debug)]
pub struct Reader<'a> {
    rest: &'a [u8],
    depth: u32,
    tables: u32,
    /// Items that the tables entered so far announced and that were not read yet.
    owed: u64,
    is_graph: bool,
}

impl<'a> Reader<'a> {
    /// Reads what a [`Writer`] wrote.
    ///
    /// # Errors
    /// The first byte is missing or unknown.
    #[inline]
    pub fn new(bytes: &'a [u8]) -> Result<Reader<'a>, Malformed> {
        match bytes {
            [first @ (TREE | GRAPH), rest @ ..] => {
                Ok(Reader { rest, depth: 0, tables: 0, owed: 0, is_graph: *first == GRAPH })
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
    /// This and all other methods fail if the bytes are not from a writer. What they return if the
    /// tag announced something else is anything, but they do not panic.
    #[inline(always)]
    pub fn tag(&mut self) -> Result<Tag, Malformed> {
        let [tag] = self.take()?;
        self.owed = self.owed.saturating_sub(1);
        Tag::ALL.get(usize::from(tag)).copied().ok_or(Malformed::Tag(tag))
    }

    /// A number.
    #[inline(always)]
    pub fn number(&mut self) -> Result<f64, Malformed> {
        self.take().map(f64::from_ne_bytes)
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
        self.take().map(u64::from_ne_bytes)
    }

    /// The index of a buffer.
    #[inline(always)]
    pub fn index(&mut self) -> Result<u32, Malformed> {
        self.take().map(u32::from_ne_bytes)
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

    /// Starts a table of so many values without and with a key; all tables together announce at
    /// most as many as there are bytes.
    #[inline(always)]
    pub fn enter(&mut self) -> Result<(u32, u32), Malformed> {
        let positional = self.index()?;
        let pairs = self.index()?;
        // Every key and value takes at least one byte. Announcing more, in all tables together,
        // would make the caller allocate for nothing.
        self.owed += u64::from(positional) + 2 * u64::from(pairs);
        if self.owed > self.rest.len() as u64 {
            return Err(Malformed::Truncated);
        }
        if self.depth == DEPTH_MAX {
            return Err(Malformed::Depth);
        }
        self.depth += 1;
        self.tables += 1;
        Ok((positional, pairs))
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

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
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
                    let is_key = match tag {
                        Tag::ShortStringKey => reader.short_string().map(|_| true)?,
                        Tag::LongStringKey => reader.long_string().map(|_| true)?,
                        Tag::NumberKey => reader.number_key().map(|_| true)?,
                        Tag::FalseKey | Tag::TrueKey => true,
                        _ => false,
                    };
                    if is_key {
                        tag = reader.tag()?;
                    }
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
    fn tags_are_numbered_in_order() {
        for (number, tag) in Tag::ALL.into_iter().enumerate() {
            assert_eq!(tag as usize, number);
        }
    }

    #[test]
    fn size_limit_holds_at_and_around_it() {
        let text = [7; 1000];
        for (max, is_ok) in [(1005, false), (1006, true), (1007, true)] {
            let mut bytes = Vec::new();
            let result = Writer::new(&mut bytes, max).string(&text);
            assert_eq!(result.is_ok(), is_ok, "{max}");
            assert!(bytes.len() <= max);
        }
        let error = Writer::new(&mut Vec::new(), 5).number(1.0).unwrap_err();
        assert!(error.to_string().contains(" 5 bytes"));
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
    fn absent_positions_are_filled_if_few() {
        let mut bytes = Vec::new();
        let mut writer = Writer::new(&mut bytes, 1000);
        let mut positional = 0;
        for (key, is_pair, after) in [
            (1.0, false, 1),
            (1.0, true, 1),
            (0.0, true, 1),
            (-3.0, true, 1),
            (10.0, false, 10),
            (20.0, true, 10),
            (11.5, true, 10),
            (f64::INFINITY, true, 10),
            (19.0, false, 19),
        ] {
            assert_eq!(writer.number_or_position(key, &mut positional), Ok(is_pair));
            assert_eq!(positional, after);
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
        bytes.extend(table(3, 0));
        bytes.extend([Tag::Nil as u8; 4]);
        assert_eq!(walk_all(&bytes), Err(Malformed::Truncated));
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
        fn reader_takes_any_bytes(bytes in vec(any::<u8>(), 0..200)) {
            let _ = walk_all(&bytes);
        }

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
