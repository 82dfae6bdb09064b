//! The wire form of a table: a run of tagged items, written and read without a VM.
//!
//! A table is a count of positional values, a count of pairs, and then its entries in any order: a
//! value alone takes the next position, a key is followed by its value. Tables number themselves in
//! order of appearance from 0, so that one met again is written as that number: shared tables stay
//! shared, cycles stay cycles. It is the same on every machine; between processes it is part of
//! what `docs/PROTOCOL.md` describes, which has a version.
//!
//! Reading is for [`decode`](super::decode).

use std::fmt;

use byteorder::{ByteOrder, LittleEndian};

use super::allowance::Making;

/// Levels of tables within tables, the outermost included, at most.
pub const DEPTH_MAX: u32 = 100;

/// Bytes a table may take unless the owner of the writer says otherwise.
pub const TABLE_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Up to this many bytes need not be counted while they are written.
const UNCOUNTED_BYTES: usize = 64 * 1024;

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
    /// A number: [`Reader::number`](super::decode::Reader::number).
    Number,
    /// A signed 64-bit cdata: [`Reader::bits`](super::decode::Reader::bits).
    Int64,
    /// An unsigned 64-bit cdata: [`Reader::bits`](super::decode::Reader::bits).
    UInt64,
    /// The address in a light userdata: [`Reader::bits`](super::decode::Reader::bits).
    LightUserdata,
    /// A string below 256 bytes: [`Reader::short_string`](super::decode::Reader::short_string).
    ShortString,
    /// A longer one: [`Reader::long_string`](super::decode::Reader::long_string).
    LongString,
    /// A buffer by its index: [`Reader::index`](super::decode::Reader::index). Whether there is one
    /// is for the caller to check.
    Buffer,
    /// The start of a table: [`Reader::enter`](super::decode::Reader::enter), then as many entries,
    /// then [`Reader::leave`](super::decode::Reader::leave).
    Table,
    /// A table that started before: [`Reader::same_table`](super::decode::Reader::same_table).
    SameTable,
    /// The key of the value after it:
    /// [`Reader::short_string`](super::decode::Reader::short_string).
    ShortStringKey,
    /// The key of the value after it: [`Reader::long_string`](super::decode::Reader::long_string).
    LongStringKey,
    /// The key of the value after it: [`Reader::number_key`](super::decode::Reader::number_key).
    NumberKey,
    /// The key of the value after it: nothing.
    FalseKey,
    /// The key of the value after it: nothing.
    TrueKey,
}

impl Tag {
    /// The one with this number. A range of numbers that are what they were is seen as that, and
    /// costs a comparison.
    #[inline(always)]
    pub(super) fn new(number: u8) -> Option<Tag> {
        Some(match number {
            0 => Tag::Nil,
            1 => Tag::False,
            2 => Tag::True,
            3 => Tag::Number,
            4 => Tag::Int64,
            5 => Tag::UInt64,
            6 => Tag::LightUserdata,
            7 => Tag::ShortString,
            8 => Tag::LongString,
            9 => Tag::Buffer,
            10 => Tag::Table,
            11 => Tag::SameTable,
            12 => Tag::ShortStringKey,
            13 => Tag::LongStringKey,
            14 => Tag::NumberKey,
            15 => Tag::FalseKey,
            16 => Tag::TrueKey,
            _ => return None,
        })
    }
}

/// A string of few bytes, which are copied at once.
#[derive(Clone, Copy, Debug)]
pub struct Packed {
    len: usize,
    /// The bytes, the first the lowest; those above are 0.
    bytes: u128,
}

impl Packed {
    /// The most bytes that one has: with tag and length it is as long as a number of 128 bits.
    pub const LEN_MAX: usize = 14;

    /// A string with as many bytes, at most [`Packed::LEN_MAX`], which are the last of `window`.
    #[inline]
    pub fn at_end(window: [u8; 16], len: usize) -> Packed {
        debug_assert!(len <= Packed::LEN_MAX);
        Packed { len, bytes: u128::from_le_bytes(window) >> 8 >> (8 * (15 - len)) }
    }
}

/// First byte: no table appears twice.
pub(super) const TREE: u8 = 0;
/// First byte: some table appears again, so that the reader must remember them.
pub(super) const GRAPH: u8 = 1;

/// The wire form would be larger than allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooLarge {
    /// Bytes allowed; 0 if what may be held is used up.
    pub max: usize,
}

impl fmt::Display for TooLarge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "table takes more than {} bytes", self.max)
    }
}

impl std::error::Error for TooLarge {}

/// Writes one value, usually a table, into memory that is reused. What would take more bytes than
/// allowed fails, whatever the method; the bytes are of no use then.
///
/// # Examples
/// ```
/// use node_lua::message::{Reader, Tag, Writer};
///
/// let mut bytes = Vec::new();
/// let mut writer = Writer::new(&mut bytes, 1000);
/// let table = writer.open_table().unwrap(); // {true, n = 1}
/// writer.bool(true).unwrap();
/// writer.string_key(b"n").unwrap();
/// writer.number(1.0).unwrap();
/// writer.close_table(table, 1, 1);
///
/// let mut reader = Reader::new(&bytes).unwrap();
/// assert_eq!((reader.tag(), reader.enter()), (Ok(Tag::Table), Ok((1, 1))));
/// assert_eq!(reader.tag(), Ok(Tag::True));
/// assert_eq!((reader.tag(), reader.short_string()), (Ok(Tag::ShortStringKey), Ok(&b"n"[..])));
/// assert_eq!((reader.tag(), reader.number()), (Ok(Tag::Number), Ok(1.0)));
/// ```
#[derive(Debug)]
pub struct Writer<'a> {
    bytes: &'a mut Vec<u8>,
    bytes_max: usize,
    /// Up to this many nobody has to be asked.
    admitted: usize,
    /// What is used elsewhere for what is written.
    elsewhere: usize,
    making: Option<&'a mut Making>,
}

/// Where the counts of an open table go.
#[derive(Debug)]
#[must_use = "close the table"]
pub struct OpenTable(usize);

#[expect(clippy::missing_errors_doc, reason = "said above: all fail alike")]
impl<'a> Writer<'a> {
    /// Writes into `bytes`, from the start, at most `bytes_max` of them.
    #[inline]
    pub fn new(bytes: &'a mut Vec<u8>, bytes_max: usize) -> Writer<'a> {
        bytes.clear();
        bytes.push(TREE);
        let bytes_max = bytes_max.min(u32::MAX as usize);
        Writer { bytes, bytes_max, admitted: bytes_max, elsewhere: 0, making: None }
    }

    /// The same; what much memory is taken for is counted while it is written.
    #[inline]
    pub fn counted(bytes: &'a mut Vec<u8>, bytes_max: usize, making: &'a mut Making) -> Writer<'a> {
        let writer = Writer::new(bytes, bytes_max);
        let admitted = writer.bytes_max.min(UNCOUNTED_BYTES);
        Writer { admitted, making: Some(making), ..writer }
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
            LittleEndian::write_u32_into(&[positional, pairs], counts);
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

    /// The same for few bytes.
    #[inline]
    pub fn packed_string(&mut self, value: Packed) -> Result<(), TooLarge> {
        self.put_packed(Tag::ShortString, value)
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

    /// The same for few bytes.
    #[inline]
    pub fn packed_key(&mut self, key: Packed) -> Result<(), TooLarge> {
        self.put_packed(Tag::ShortStringKey, key)
    }

    /// Whatever must stand before the value of a number key, where this many values took a position
    /// already. Returns true if that is the key. Otherwise the value takes a position: it is the
    /// next, or so few are absent between that nils fill them. That would give the copy another
    /// length than the table if the key is not part of its array: then it is not `fillable`.
    #[inline]
    pub fn number_or_position(
        &mut self,
        key: f64,
        positional: &mut u32,
        fillable: bool,
    ) -> Result<bool, TooLarge> {
        let gap = key - f64::from(*positional) - 1.0;
        if gap != 0.0 {
            if !fillable || !(0.0..=GAP_MAX).contains(&gap) || gap.fract() != 0.0 {
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

    /// This many bytes of what is allowed are used elsewhere.
    pub fn set_apart(&mut self, bytes: usize) -> Result<(), TooLarge> {
        self.check(bytes)?;
        self.bytes_max -= bytes;
        self.admitted -= bytes;
        self.elsewhere += bytes;
        Ok(())
    }

    /// This many bytes more are used meanwhile.
    #[cold]
    pub fn use_elsewhere(&mut self, bytes: usize) -> Result<(), TooLarge> {
        self.elsewhere += bytes;
        self.admitted = self.bytes.len();
        self.admit(0)
    }

    #[inline]
    fn put<const N: usize>(&mut self, bytes: [u8; N]) -> Result<(), TooLarge> {
        self.check(N)?;
        self.bytes.extend_from_slice(&bytes);
        Ok(())
    }

    #[inline]
    fn put_index(&mut self, tag: Tag, index: u32) -> Result<(), TooLarge> {
        let mut bytes = [tag as u8; 5];
        LittleEndian::write_u32(&mut bytes[1..], index);
        self.put(bytes)
    }

    #[inline]
    fn put_bits(&mut self, tag: Tag, bits: u64) -> Result<(), TooLarge> {
        let mut bytes = [tag as u8; 9];
        LittleEndian::write_u64(&mut bytes[1..], bits);
        self.put(bytes)
    }

    #[inline]
    fn put_packed(&mut self, tag: Tag, text: Packed) -> Result<(), TooLarge> {
        let item = tag as u128 | (text.len as u128) << 8 | text.bytes << 16;
        let item = item.to_le_bytes();
        let len = 2 + text.len;
        if self.check(item.len()).is_err() {
            self.check(len)?;
            self.bytes.extend_from_slice(&item[..len]);
            return Ok(());
        }
        let end = self.bytes.len() + len;
        self.bytes.extend_from_slice(&item);
        self.bytes.truncate(end);
        Ok(())
    }

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
    fn check(&mut self, more: usize) -> Result<(), TooLarge> {
        if more > self.admitted.saturating_sub(self.bytes.len()) {
            return self.admit(more);
        }
        Ok(())
    }

    /// Takes memory for this many bytes more, and for some that may follow, if there is any left.
    #[cold]
    fn admit(&mut self, more: usize) -> Result<(), TooLarge> {
        let len = self.bytes.len();
        if more > self.bytes_max.saturating_sub(len) {
            return Err(TooLarge { max: self.bytes_max });
        }
        let need = len + more;
        if let Some(making) = &mut self.making {
            let some = [need + need / 2, need + need / 8, need + UNCOUNTED_BYTES, need];
            let mut some = some.map(|bytes| bytes.min(self.bytes_max)).into_iter();
            let is_left = |bytes: &usize| making.set(bytes + self.elsewhere);
            self.admitted = some.find(is_left).ok_or(TooLarge { max: 0 })?;
            self.bytes.reserve_exact(self.admitted - len);
        }
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::sync::Arc;

    use super::super::allowance::Allowance;
    use super::*;

    #[test]
    fn tags_are_numbered_in_order() {
        let numbers: Vec<_> = (0..=u8::MAX).map_while(Tag::new).map(|tag| tag as u8).collect();
        assert!(numbers.iter().copied().eq(0..=Tag::TrueKey as u8));
        assert!((numbers.len() as u8..=u8::MAX).all(|number| Tag::new(number).is_none()));
    }

    #[test]
    fn what_is_written_counts_and_ends_where_nothing_is_left() {
        let allowance = Allowance::of_limit(1 << 20);
        let mut bytes = Vec::new();
        let write = |bytes: &mut Vec<u8>, most: usize| {
            let mut making = Making::default();
            making.set_allowance(Some(Arc::clone(&allowance)));
            let mut writer = Writer::counted(bytes, usize::MAX, &mut making);
            let full = (0..most).find_map(|_| writer.number(0.5).err());
            (making.finish(), full)
        };
        let (held, _) = write(&mut bytes, 1000);
        assert!(held.is_none() && allowance.held() == 0);
        let (held, _) = write(&mut bytes, 10_000);
        assert_eq!((bytes.len(), held.map(|held| held.bytes() >= 90_001)), (90_001, Some(true)));
        assert_eq!(allowance.held(), 0);
        // What comes meanwhile leaves less.
        assert!(allowance.come(400_000));
        let (held, full) = write(&mut bytes, 100_000);
        assert_eq!(full.unwrap(), TooLarge { max: 0 });
        assert!((400_000..=600_000).contains(&bytes.len()), "{}", bytes.len());
        drop(held);
        assert_eq!(allowance.held(), 400_000);
        let mut making = Making::default();
        making.set_allowance(Some(Arc::clone(&allowance)));
        let mut writer = Writer::counted(&mut bytes, usize::MAX, &mut making);
        assert!(writer.use_elsewhere(400_000).is_ok() && writer.use_elsewhere(400_000).is_err());
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
    fn packed_strings_are_written_like_others() {
        let text = *b"..an abc of text";
        for len in 0..=Packed::LEN_MAX {
            for max in (0..40).chain([usize::MAX]) {
                let (mut packed, mut plain) = (Vec::new(), Vec::new());
                let mut writer = Writer::new(&mut packed, max);
                let few = Packed::at_end(text, len);
                let one = writer.packed_key(few).and_then(|()| writer.packed_string(few));
                let mut writer = Writer::new(&mut plain, max);
                let bytes = &text[text.len() - len..];
                let other = writer.string_key(bytes).and_then(|()| writer.string(bytes));
                assert_eq!(one, other, "{len} {max}");
                assert!(one.is_err() || packed == plain, "{len} {max}");
            }
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
            assert_eq!(writer.number_or_position(key, &mut positional, true), Ok(is_pair));
            assert_eq!(positional, after);
        }
    }
}
