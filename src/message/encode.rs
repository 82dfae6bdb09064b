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
//! writer.finish();
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

    /// Ends the writing. Every table must be closed.
    pub fn finish(self) {}

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
        self.put_tagged(Tag::SameTable, number.to_ne_bytes())
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
        self.put_tagged(Tag::Number, value.to_ne_bytes())
    }

    /// A signed 64-bit cdata.
    pub fn int64(&mut self, value: i64) -> Result<(), TooLarge> {
        self.put_tagged(Tag::Int64, value.to_ne_bytes())
    }

    /// An unsigned 64-bit cdata.
    pub fn uint64(&mut self, value: u64) -> Result<(), TooLarge> {
        self.put_tagged(Tag::UInt64, value.to_ne_bytes())
    }

    /// The address in a light userdata.
    pub fn light_userdata(&mut self, address: usize) -> Result<(), TooLarge> {
        self.put_tagged(Tag::LightUserdata, (address as u64).to_ne_bytes())
    }

    /// A string.
    #[inline]
    pub fn string(&mut self, value: &[u8]) -> Result<(), TooLarge> {
        self.put_string(Tag::ShortString, Tag::LongString, value)
    }

    /// A buffer, by its index among those of the message.
    pub fn buffer(&mut self, index: u32) -> Result<(), TooLarge> {
        self.put_tagged(Tag::Buffer, index.to_ne_bytes())
    }

    /// A string that is the key of the value after it.
    #[inline]
    pub fn string_key(&mut self, key: &[u8]) -> Result<(), TooLarge> {
        self.put_string(Tag::ShortStringKey, Tag::LongStringKey, key)
    }

    /// A number that is the key of the value after it.
    pub fn number_key(&mut self, key: f64) -> Result<(), TooLarge> {
        self.put_tagged(Tag::NumberKey, key.to_ne_bytes())
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
    fn put_tagged<const N: usize>(&mut self, tag: Tag, bytes: [u8; N]) -> Result<(), TooLarge> {
        self.check(1 + N)?;
        self.bytes.reserve(1 + N);
        self.bytes.push(tag as u8);
        self.bytes.extend_from_slice(&bytes);
        Ok(())
    }

    #[inline]
    fn put_string(&mut self, short: Tag, long: Tag, value: &[u8]) -> Result<(), TooLarge> {
        match u8::try_from(value.len()) {
            Ok(len) => self.put([short as u8, len])?,
            Err(_) => {
                self.check(value.len())?;
                self.put_tagged(long, (value.len() as u32).to_ne_bytes())?;
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
