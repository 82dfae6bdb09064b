//! How frames look, for one direction of a socket.
//!
//! Holds the rules of `set_rwopt` only: which heads exist, what each can count, and that a wrong
//! change changes nothing. When options freeze is the socket's business.

use std::fmt;

/// Byte order of the length in a head.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Endian {
    /// Least significant byte first: `"L"`.
    #[default]
    Little,
    /// Most significant byte first: `"B"`.
    Big,
}

impl Endian {
    /// The letter scripts use.
    pub fn letter(self) -> &'static str {
        match self {
            Endian::Little => "L",
            Endian::Big => "B",
        }
    }

    /// The byte order a script names; none by anything but `"L"` and `"B"`.
    pub fn from_letter(letter: &[u8]) -> Option<Endian> {
        match letter {
            b"L" => Some(Endian::Little),
            b"B" => Some(Endian::Big),
            _ => None,
        }
    }
}

/// How the length in a head is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Width {
    /// In this many bytes; 0 stands for no head.
    Bytes(i64),
    /// In groups of seven bits, the lowest first, as LEB128 does; the byte order is of no matter.
    Varint,
}

impl Width {
    /// What scripts call a [`Width::Varint`].
    pub const VARINT: &'static str = "varint";

    /// The most bytes of a length.
    pub const BYTES_MAX: u8 = 8;
}

/// The longest body that any options allow.
const BODY_MAX: u32 = i32::MAX.unsigned_abs();

/// Stands for [`Width::Varint`] among numbers of bytes.
const VARINT: u8 = u8::MAX;

/// Byte order, width and place of the length before each frame, what it counts, and the longest
/// body.
///
/// # Examples
/// ```
/// use node_lua::frame::{HeadOptions, HeadPatch, Width};
///
/// let mut options = HeadOptions::default();
/// options.apply(HeadPatch { width: Some(Width::Bytes(2)), ..HeadPatch::default() }).unwrap();
/// assert_eq!((options.width(), options.max()), (Width::Bytes(2), 65_535));
/// ```
///
/// # Invariant
/// The width is one that exists; without heads all but the byte order is 0; the maximum is at most
/// [`HeadOptions::limit`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HeadOptions {
    endian: Endian,
    width: u8,
    offset: u16,
    adjust: i32,
    max: u32,
}

/// A change of some options; absent fields stay as they are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HeadPatch {
    /// New byte order.
    pub endian: Option<Endian>,
    /// New width, as the script gave it.
    pub width: Option<Width>,
    /// New maximum of bytes in a body, as the script gave it; 0 stands for the limit.
    pub max: Option<i64>,
    /// What is added to the number in the head.
    pub adjust: Option<i64>,
    /// Bytes in front of the length.
    pub offset: Option<i64>,
}

impl HeadPatch {
    /// True if nothing would change: such a patch is welcome even on frozen options.
    pub fn is_empty(&self) -> bool {
        *self == HeadPatch::default()
    }
}

impl HeadOptions {
    /// Options of a plain head: a length of 1, 2 or 4 `bytes`, or 0 for none, of bodies of at most
    /// `max` bytes; a `max` of 0 stands for the limit of the width.
    ///
    /// # Errors
    /// A width that does not exist, or a maximum that does not fit it.
    pub fn new(endian: Endian, bytes: u8, max: u32) -> Result<HeadOptions, OptionsError> {
        let mut options = HeadOptions { endian, ..HeadOptions::default() };
        let (width, max) = (Some(Width::Bytes(i64::from(bytes))), Some(i64::from(max)));
        options.apply(HeadPatch { width, max, ..HeadPatch::default() })?;
        Ok(options)
    }

    /// Byte order of the length.
    #[inline]
    pub fn endian(&self) -> Endian {
        self.endian
    }

    /// Width of the length.
    pub fn width(&self) -> Width {
        if self.width == VARINT { Width::Varint } else { Width::Bytes(i64::from(self.width)) }
    }

    /// Bytes of a length that has a fixed width, 0 if there are no heads; of others 0 too.
    #[inline]
    pub fn bytes(&self) -> u8 {
        if self.width == VARINT { 0 } else { self.width }
    }

    /// The same where heads are plain.
    #[inline]
    pub(super) fn plain_bytes(&self) -> u8 {
        self.width
    }

    /// Whether frames have heads.
    pub fn has_head(&self) -> bool {
        self.width != 0
    }

    /// Bytes of the longest body allowed; 0 if there are no heads.
    #[inline]
    pub fn max(&self) -> u32 {
        self.max
    }

    /// What is added to the number in the head to get the bytes behind it.
    pub fn adjust(&self) -> i32 {
        self.adjust
    }

    /// Bytes in front of the length. If there are some the frame is the whole packet.
    pub fn offset(&self) -> u16 {
        self.offset
    }

    /// Whether a head is a length of 1, 2 or 4 bytes that counts what is behind it, or nothing.
    pub(super) fn is_plain(&self) -> bool {
        matches!(self.width, 0 | 1 | 2 | 4) && self.adjust == 0 && self.offset == 0
    }

    /// How many bytes there may be behind such a head; less than 0 if there can be none.
    fn limit_of(width: u8, adjust: i64) -> i64 {
        let counts = match width {
            0 => return 0,
            1..4 => (1 << (8 * width)) - 1,
            // More than any body has, whatever is taken off.
            _ => i64::from(u32::MAX),
        };
        counts.saturating_add(adjust).min(i64::from(BODY_MAX))
    }

    /// The largest [`max`](Self::max) that these options allow.
    pub fn limit(&self) -> u32 {
        HeadOptions::limit_of(self.width, i64::from(self.adjust)) as u32
    }

    /// Changes the fields the patch has. A new width without a maximum brings its own limit as the
    /// maximum; a maximum without a width is held against the present width. Without heads the
    /// fields of heads are 0.
    ///
    /// # Errors
    /// As for [`HeadOptions::new`], and likewise for the other fields; nothing is changed then.
    pub fn apply(&mut self, patch: HeadPatch) -> Result<(), OptionsError> {
        let width = match patch.width.unwrap_or(self.width()) {
            Width::Varint => VARINT,
            Width::Bytes(bytes) => match u8::try_from(bytes) {
                Ok(width) if width <= Width::BYTES_MAX => width,
                _ => return Err(OptionsError::Bytes(bytes)),
            },
        };
        let has_head = width != 0;
        let kept = |value| if has_head { value } else { 0 };
        let adjust = patch.adjust.unwrap_or(kept(i64::from(self.adjust)));
        let offset = patch.offset.unwrap_or(kept(i64::from(self.offset)));
        let limit = HeadOptions::limit_of(width, adjust);
        let is_possible = i32::try_from(adjust).is_ok() && limit >= 0;
        if !is_possible || !has_head && adjust != 0 {
            return Err(OptionsError::Adjust { adjust, has_head });
        }
        if u16::try_from(offset).is_err() || !has_head && offset != 0 {
            return Err(OptionsError::Offset { offset, has_head });
        }
        let is_narrowed = width == self.width && self.max != self.limit();
        let max = match patch.max {
            None if is_narrowed => i64::from(self.max),
            None | Some(0) => limit,
            Some(max) => max,
        };
        if !(0..=limit).contains(&max) {
            return Err(OptionsError::Max { max, width, limit: limit as u32 });
        }
        *self = HeadOptions {
            endian: patch.endian.unwrap_or(self.endian),
            width,
            offset: offset as u16,
            adjust: adjust as i32,
            max: max as u32,
        };
        Ok(())
    }
}

/// The bytes that a frame ends with, and the longest frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delimiter {
    /// The bytes; at least one.
    pub bytes: Box<[u8]>,
    /// The most bytes before them.
    pub max: u32,
}

impl Delimiter {
    /// The most bytes of one that frames end with.
    pub const BYTES_MAX: usize = 16;
}

/// How frames are found in what is received: behind heads, in front of delimiters, or not at all.
///
/// # Invariant
/// With a delimiter there are no heads.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReadOptions {
    head: HeadOptions,
    delimiter: Option<Delimiter>,
}

/// A change of some options for reading.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReadPatch {
    /// Of heads; the maximum is a delimiter's if there is one.
    pub head: HeadPatch,
    /// A new delimiter, or with no bytes none any more.
    pub delimiter: Option<Vec<u8>>,
}

impl ReadPatch {
    /// True if nothing would change.
    pub fn is_empty(&self) -> bool {
        *self == ReadPatch::default()
    }
}

impl ReadOptions {
    /// How heads look.
    pub fn head(&self) -> &HeadOptions {
        &self.head
    }

    /// What frames end with instead.
    pub fn delimiter(&self) -> Option<&Delimiter> {
        self.delimiter.as_ref()
    }

    /// Changes the fields the patch has. A delimiter takes the place of heads, and heads that of a
    /// delimiter.
    ///
    /// # Errors
    /// Both at once, or what [`HeadOptions::apply`] refuses; nothing is changed then.
    pub fn apply(&mut self, patch: ReadPatch) -> Result<(), OptionsError> {
        let wants_head = !matches!(patch.head.width, None | Some(Width::Bytes(0)));
        let (bytes, max) = match (patch.delimiter, &self.delimiter) {
            (Some(bytes), _) if wants_head && !bytes.is_empty() => {
                return Err(OptionsError::Both);
            }
            (Some(bytes), _) => (bytes, None),
            (None, Some(old)) if !wants_head => (old.bytes.to_vec(), Some(old.max)),
            (None, _) => (Vec::new(), None),
        };
        let mut head = self.head;
        if bytes.is_empty() {
            head.apply(patch.head)?;
            *self = ReadOptions { head, delimiter: None };
            return Ok(());
        }
        if bytes.len() > Delimiter::BYTES_MAX {
            return Err(OptionsError::Delimiter(bytes.len()));
        }
        head.apply(HeadPatch { width: Some(Width::Bytes(0)), max: None, ..patch.head })?;
        let max = patch.head.max.filter(|max| *max != 0).or(max.map(i64::from));
        let max = match max.unwrap_or(i64::from(BODY_MAX)) {
            max @ 0..=0x7fff_ffff => max as u32,
            max => return Err(OptionsError::Max { max, width: VARINT, limit: BODY_MAX }),
        };
        *self = ReadOptions { head, delimiter: Some(Delimiter { bytes: bytes.into(), max }) };
        Ok(())
    }
}

/// Why options were refused.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum OptionsError {
    /// Not a width.
    Bytes(i64),
    /// More (or less) than the width can count.
    Max {
        /// The maximum asked for.
        max: i64,
        /// The width it was asked for, in bytes; more than 8 for others.
        width: u8,
        /// The largest value allowed there.
        limit: u32,
    },
    /// No number can be added, or none so large.
    Adjust {
        /// The number asked for.
        adjust: i64,
        /// Whether there are heads.
        has_head: bool,
    },
    /// Nothing can stand in front, or not this many bytes.
    Offset {
        /// Bytes asked for.
        offset: i64,
        /// Whether there are heads.
        has_head: bool,
    },
    /// A delimiter of this many bytes.
    Delimiter(usize),
    /// A delimiter together with heads.
    Both,
}

impl OptionsError {
    /// What follows the direction's name in the name of the field.
    fn field(&self) -> &'static str {
        match self {
            OptionsError::Bytes(_) => "head_bytes",
            OptionsError::Max { .. } => "head_max",
            OptionsError::Adjust { .. } => "head_adjust",
            OptionsError::Offset { .. } => "head_offset",
            OptionsError::Delimiter(_) | OptionsError::Both => "delimiter",
        }
    }
}

impl fmt::Display for OptionsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.field())?;
        match *self {
            OptionsError::Bytes(bytes) => write!(f, "{bytes} is not 0 to 8 or 'varint'"),
            OptionsError::Max { max, width: 0, .. } => {
                write!(f, "{max} must be 0 with head_bytes 0")
            }
            OptionsError::Max { max, width, limit } => {
                write!(f, "{max} is not within 0 and {limit}")?;
                if width <= Width::BYTES_MAX {
                    write!(f, " for head_bytes {width}")?;
                }
                Ok(())
            }
            OptionsError::Adjust { adjust: number, has_head: false }
            | OptionsError::Offset { offset: number, has_head: false } => {
                write!(f, "{number} must be 0 with head_bytes 0: set head_bytes too")
            }
            OptionsError::Adjust { adjust, .. } => {
                write!(f, "{adjust} leaves no number that a head could have")
            }
            OptionsError::Offset { offset, .. } => {
                write!(f, "{offset} is not within 0 and {}", u16::MAX)
            }
            OptionsError::Delimiter(bytes) => {
                write!(f, "1 to {} bytes expected, got {bytes} bytes", Delimiter::BYTES_MAX)
            }
            OptionsError::Both => f.write_str(
                "not together with head_bytes: frames end with it or have heads (false removes it)",
            ),
        }
    }
}

impl std::error::Error for OptionsError {}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn patch(bytes: Option<i64>, max: Option<i64>) -> HeadPatch {
        HeadPatch { width: bytes.map(Width::Bytes), max, ..HeadPatch::default() }
    }

    #[test]
    fn defaults_are_little_without_head() {
        let options = HeadOptions::default();
        assert_eq!((options.endian().letter(), options.width, options.max()), ("L", 0, 0));
    }

    #[test]
    fn each_limit_holds_at_and_around_it() {
        for (bytes, limit) in [
            (1, 255),
            (2, 65_535),
            (3, 0xff_ffff),
            (4, 2_147_483_647),
            (5, 2_147_483_647),
            (8, 2_147_483_647),
        ] {
            let of = |max| HeadOptions::new(Endian::Little, bytes, max);
            assert_eq!(of(limit - 1).unwrap().max(), limit - 1);
            assert_eq!(of(limit).unwrap().max(), limit);
            assert_eq!(of(0).unwrap().max(), limit);
            let error = of(limit + 1).unwrap_err().to_string();
            assert!(error.contains(&(limit + 1).to_string()) && error.contains(&limit.to_string()));
        }
        assert_eq!(HeadOptions::new(Endian::Big, 0, 0).unwrap().endian(), Endian::Big);
        assert!(HeadOptions::new(Endian::Big, 0, 1).is_err());
        for bytes in [9, 254, 255] {
            let error = HeadOptions::new(Endian::Big, bytes, 0).unwrap_err();
            assert_eq!(error, OptionsError::Bytes(i64::from(bytes)));
        }
    }

    #[test]
    fn new_width_without_max_brings_its_own_limit() {
        let mut options = HeadOptions::new(Endian::Little, 2, 0).unwrap();
        options.apply(patch(Some(1), None)).unwrap();
        assert_eq!((options.width, options.max()), (1, 255));
        options.apply(patch(Some(4), None)).unwrap();
        assert_eq!((options.width, options.max()), (4, 2_147_483_647));
        options.apply(patch(Some(0), None)).unwrap();
        assert_eq!((options.width, options.max()), (0, 0));
    }

    #[test]
    fn same_width_keeps_the_max() {
        let mut options = HeadOptions::new(Endian::Little, 2, 100).unwrap();
        options.apply(patch(Some(2), None)).unwrap();
        assert_eq!(options.max(), 100);
        options.apply(patch(None, Some(0))).unwrap();
        assert_eq!(options.max(), 65_535);
    }

    #[test]
    fn refused_patch_changes_nothing() {
        let before = HeadOptions::new(Endian::Little, 2, 100).unwrap();
        let endian = Some(Endian::Big);
        for (bytes, max) in [
            (Some(9), None),
            (Some(-1), None),
            (Some(i64::MAX), Some(1)),
            (Some(1), Some(256)),
            (Some(0), Some(1)),
            (None, Some(65_536)),
            (None, Some(-1)),
            (None, Some(i64::MIN)),
            (Some(4), Some(1 << 31)),
        ] {
            let mut options = before;
            assert!(options.apply(HeadPatch { endian, ..patch(bytes, max) }).is_err());
            assert_eq!(options, before);
        }
    }

    #[test]
    fn letters_round_trip() {
        for endian in [Endian::Little, Endian::Big] {
            assert_eq!(Endian::from_letter(endian.letter().as_bytes()), Some(endian));
        }
        for wrong in [&b"l"[..], b"", b"LB", b"\xff"] {
            assert!(Endian::from_letter(wrong).is_none());
        }
    }

    #[test]
    fn the_number_in_the_head_and_what_is_added_bound_the_maximum() {
        let make = |bytes, adjust, max| {
            let mut options = HeadOptions::default();
            let patch = HeadPatch { adjust: Some(adjust), ..patch(Some(bytes), Some(max)) };
            options.apply(patch).map(|()| options.max())
        };
        assert_eq!(make(1, 0, 0), Ok(255));
        assert_eq!(make(1, 10, 265), Ok(265));
        assert!(make(1, 10, 266).is_err());
        assert_eq!(make(1, -255, 0), Ok(0));
        assert!(make(1, -256, 0).is_err());
        assert_eq!(make(4, -4, 0), Ok(BODY_MAX));
        assert_eq!(make(8, i64::from(i32::MIN), 0), Ok(BODY_MAX));
        assert!(make(8, i64::from(i32::MIN) - 1, 0).is_err());
        assert_eq!(make(8, i64::from(i32::MAX), 0), Ok(BODY_MAX));
        assert!(make(8, i64::from(i32::MAX) + 1, 0).is_err());
        assert!(make(0, 1, 0).is_err());
    }

    #[test]
    fn places_in_front_have_a_limit_and_need_a_head() {
        let make = |bytes, offset| {
            let mut options = HeadOptions::default();
            options.apply(HeadPatch { offset: Some(offset), ..patch(Some(bytes), None) })
        };
        assert!(make(4, 0).is_ok() && make(4, 65_535).is_ok() && make(0, 0).is_ok());
        assert!(make(4, -1).is_err() && make(4, 65_536).is_err() && make(0, 1).is_err());
    }

    #[test]
    fn another_number_to_add_moves_a_maximum_that_is_not_narrower() {
        let mut options = HeadOptions::new(Endian::Big, 1, 0).unwrap();
        let adjust = |adjust| HeadPatch { adjust: Some(adjust), ..HeadPatch::default() };
        options.apply(adjust(5)).unwrap();
        assert_eq!(options.max(), 260);
        options.apply(patch(None, Some(100))).unwrap();
        options.apply(adjust(-5)).unwrap();
        assert_eq!(options.max(), 100);
        assert!(options.apply(adjust(-200)).is_err(), "100 is more than there can be");
        options.apply(patch(Some(0), None)).unwrap();
        assert_eq!(options, HeadOptions { endian: Endian::Big, ..HeadOptions::default() });
    }

    #[test]
    fn delimiters_and_heads_replace_each_other() {
        let mut options = ReadOptions::default();
        let lines = ReadPatch { delimiter: Some(b"\r\n".to_vec()), ..ReadPatch::default() };
        let head = ReadPatch { head: patch(Some(2), None), ..ReadPatch::default() };
        options.apply(lines.clone()).unwrap();
        assert_eq!(options.delimiter().unwrap().max, BODY_MAX);
        options.apply(ReadPatch { head: patch(None, Some(80)), ..ReadPatch::default() }).unwrap();
        assert_eq!(options.delimiter().unwrap().max, 80);
        options.apply(head.clone()).unwrap();
        assert!(options.delimiter().is_none() && options.head().max() == 65_535);
        options.apply(lines.clone()).unwrap();
        assert!(!options.head().has_head());
        let both = ReadPatch { delimiter: lines.delimiter, ..head };
        assert_eq!(options.apply(both), Err(OptionsError::Both));
        options.apply(ReadPatch { delimiter: Some(Vec::new()), ..ReadPatch::default() }).unwrap();
        assert_eq!(options, ReadOptions::default());
    }

    #[test]
    fn delimiters_have_limits() {
        let of = |len, max| {
            let delimiter = Some(vec![7; len]);
            ReadOptions::default().apply(ReadPatch { head: patch(None, Some(max)), delimiter })
        };
        assert!(of(1, 0).is_ok() && of(16, 0).is_ok() && of(17, 0).is_err());
        assert!(of(1, 0x7fff_ffff).is_ok() && of(1, 0x8000_0000).is_err() && of(1, -1).is_err());
    }
}
