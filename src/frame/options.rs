//! How the head of a frame looks, for one direction of a socket.
//!
//! Holds the rules of `set_rwopt` only: which widths exist, what each can count, and that a wrong
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

/// Byte order, width and largest value of the length before each frame.
///
/// # Examples
/// ```
/// use node_lua::frame::{HeadOptions, HeadPatch};
///
/// let mut options = HeadOptions::default();
/// options.apply(HeadPatch { bytes: Some(2), ..HeadPatch::default() }).unwrap();
/// assert_eq!((options.bytes(), options.max()), (2, 65_535));
/// ```
///
/// # Invariant
/// The width is 0, 1, 2 or 4; the maximum is 0 exactly if the width is 0, and otherwise at most
/// [`limit`](HeadOptions::limit) of the width.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HeadOptions {
    endian: Endian,
    bytes: u8,
    max: u32,
}

/// A change of some options; absent fields stay as they are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HeadPatch {
    /// New byte order.
    pub endian: Option<Endian>,
    /// New width, as the script gave it.
    pub bytes: Option<i64>,
    /// New maximum, as the script gave it; 0 stands for the limit of the width.
    pub max: Option<i64>,
}

impl HeadPatch {
    /// True if nothing would change: such a patch is welcome even on frozen options.
    pub fn is_empty(&self) -> bool {
        *self == HeadPatch::default()
    }
}

impl HeadOptions {
    /// Options with all fields given; a `max` of 0 stands for the limit of the width.
    ///
    /// # Errors
    /// A width that does not exist, or a maximum that does not fit it.
    pub fn new(endian: Endian, bytes: u8, max: u32) -> Result<HeadOptions, OptionsError> {
        let mut options = HeadOptions { endian, ..HeadOptions::default() };
        options.apply(HeadPatch {
            endian: None,
            bytes: Some(i64::from(bytes)),
            max: Some(i64::from(max)),
        })?;
        Ok(options)
    }

    /// Byte order of the length.
    #[inline]
    pub fn endian(&self) -> Endian {
        self.endian
    }

    /// Width of the length in bytes: 0, 1, 2 or 4. Zero means that there are no heads.
    #[inline]
    pub fn bytes(&self) -> u8 {
        self.bytes
    }

    /// The longest body allowed; 0 if there are no heads.
    #[inline]
    pub fn max(&self) -> u32 {
        self.max
    }

    /// What a length of so many bytes may count; `None` if there is no such width.
    pub fn limit(bytes: i64) -> Option<u32> {
        match bytes {
            0 => Some(0),
            1 => Some(u32::from(u8::MAX)),
            2 => Some(u32::from(u16::MAX)),
            4 => Some(i32::MAX.unsigned_abs()),
            _ => None,
        }
    }

    /// Changes the fields the patch has. A new width without a maximum brings its own limit as the
    /// maximum; a maximum without a width is held against the present width.
    ///
    /// # Errors
    /// As for [`HeadOptions::new`]; nothing is changed then.
    pub fn apply(&mut self, patch: HeadPatch) -> Result<(), OptionsError> {
        let bytes = patch.bytes.unwrap_or(i64::from(self.bytes));
        let limit = HeadOptions::limit(bytes).ok_or(OptionsError::Bytes(bytes))?;
        let width = bytes as u8;
        let max = match patch.max {
            None if width == self.bytes => self.max,
            None | Some(0) => limit,
            Some(max) => match u32::try_from(max) {
                Ok(max) if max <= limit => max,
                _ => return Err(OptionsError::Max { max, bytes: width, limit }),
            },
        };
        *self = HeadOptions { endian: patch.endian.unwrap_or(self.endian), bytes: width, max };
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
        /// The width it was asked for.
        bytes: u8,
        /// The largest value allowed there.
        limit: u32,
    },
}

impl fmt::Display for OptionsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            OptionsError::Bytes(bytes) => write!(f, "head_bytes: {bytes} is not 0, 1, 2 or 4"),
            OptionsError::Max { max, bytes: 0, .. } => {
                write!(f, "head_max: {max} must be 0 with head_bytes 0")
            }
            OptionsError::Max { max, bytes, limit } => {
                write!(f, "head_max: {max} is not within 0 and {limit} for head_bytes {bytes}")
            }
        }
    }
}

impl std::error::Error for OptionsError {}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn patch(bytes: Option<i64>, max: Option<i64>) -> HeadPatch {
        HeadPatch { endian: None, bytes, max }
    }

    #[test]
    fn defaults_are_little_without_head() {
        let options = HeadOptions::default();
        assert_eq!((options.endian().letter(), options.bytes(), options.max()), ("L", 0, 0));
    }

    #[test]
    fn each_limit_holds_at_and_around_it() {
        for (bytes, limit) in [(1, 255), (2, 65_535), (4, 2_147_483_647)] {
            let of = |max| HeadOptions::new(Endian::Little, bytes, max);
            assert_eq!(of(limit - 1).unwrap().max(), limit - 1);
            assert_eq!(of(limit).unwrap().max(), limit);
            assert_eq!(of(0).unwrap().max(), limit);
            let error = of(limit + 1).unwrap_err().to_string();
            assert!(error.contains(&(limit + 1).to_string()) && error.contains(&limit.to_string()));
        }
        assert_eq!(HeadOptions::new(Endian::Big, 0, 0).unwrap().endian(), Endian::Big);
        assert!(HeadOptions::new(Endian::Big, 0, 1).is_err());
        for bytes in [3, 5, 8, 255] {
            let error = HeadOptions::new(Endian::Big, bytes, 0).unwrap_err();
            assert_eq!(error, OptionsError::Bytes(i64::from(bytes)));
        }
    }

    #[test]
    fn new_width_without_max_brings_its_own_limit() {
        let mut options = HeadOptions::new(Endian::Little, 2, 0).unwrap();
        options.apply(patch(Some(1), None)).unwrap();
        assert_eq!((options.bytes(), options.max()), (1, 255));
        options.apply(patch(Some(4), None)).unwrap();
        assert_eq!((options.bytes(), options.max()), (4, 2_147_483_647));
        options.apply(patch(Some(0), None)).unwrap();
        assert_eq!((options.bytes(), options.max()), (0, 0));
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
            (Some(3), None),
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
            assert!(options.apply(HeadPatch { endian, bytes, max }).is_err());
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
}
