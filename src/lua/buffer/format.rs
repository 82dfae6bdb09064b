//! The format strings of `pack` and `unpack`, those of Lua 5.3's `string.pack`.
//!
//! [`Options`] walks a format and says, item by item, what is to be written or read, and with how
//! much padding before it. It touches no bytes and no values.
//!
//! ```text
//!   <i4 !8 d s2  →  Int 4, then (aligned) Float 8, then Text with a length of 2 bytes
//! ```

/// Largest integer size that a format may name.
const INT_BYTES_MAX: usize = 16;

/// What one option stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Item {
    /// A signed integer of that many bytes.
    Signed(usize),
    /// An unsigned integer of that many bytes.
    Unsigned(usize),
    /// An IEEE float of 4 bytes.
    Single,
    /// An IEEE float of 8 bytes.
    Double,
    /// A string of exactly that many bytes, padded with zeros.
    Chars(usize),
    /// A string behind its length, an unsigned integer of that many bytes.
    Text(usize),
    /// A string up to a zero byte.
    Zero,
    /// One byte of padding.
    Pad,
    /// Padding up to an alignment only.
    Align,
}

/// One item of a format: where it starts and what it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// Bytes of padding before the item.
    pub padding: usize,
    /// The item.
    pub item: Item,
    /// True if it is written with the least significant byte first.
    pub little: bool,
}

/// What is wrong with a format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FormatError {
    /// An unknown option character.
    Unknown(u8),
    /// An integer size or alignment outside 1 to 16.
    Size(usize),
    /// `c` without a count, or a count that is too large.
    Count,
    /// An alignment that is not a power of two.
    Alignment(usize),
    /// `X` without an option that has an alignment behind it.
    AlignTo,
}

/// A walk over a format.
#[derive(Debug)]
pub struct Options<'a> {
    format: &'a [u8],
    at: usize,
    little: bool,
    align_max: usize,
}

impl<'a> Options<'a> {
    /// Starts at the beginning, with native byte order and no alignment.
    pub fn new(format: &'a [u8]) -> Options<'a> {
        Options { format, at: 0, little: cfg!(target_endian = "little"), align_max: 1 }
    }

    /// The next item, given how many bytes precede it; `None` at the end of the format.
    ///
    /// # Errors
    /// What is wrong with the format from here on.
    pub fn step(&mut self, offset: usize) -> Result<Option<Step>, FormatError> {
        loop {
            let Some(&option) = self.format.get(self.at) else { return Ok(None) };
            self.at += 1;
            match option {
                b' ' => {}
                b'<' => self.little = true,
                b'>' => self.little = false,
                b'=' => self.little = cfg!(target_endian = "little"),
                b'!' => self.align_max = self.size(8)?,
                b'X' => return self.align_to(offset).map(Some),
                _ => {
                    let item = self.item(option)?;
                    let align = match item {
                        Item::Signed(n) | Item::Unsigned(n) | Item::Text(n) => n,
                        Item::Single => 4,
                        Item::Double => 8,
                        _ => 1,
                    };
                    let padding = self.padding(offset, align)?;
                    return Ok(Some(Step { padding, item, little: self.little }));
                }
            }
        }
    }

    fn item(&mut self, option: u8) -> Result<Item, FormatError> {
        Ok(match option {
            b'b' => Item::Signed(1),
            b'B' => Item::Unsigned(1),
            b'h' => Item::Signed(2),
            b'H' => Item::Unsigned(2),
            b'i' => Item::Signed(self.size(4)?),
            b'I' => Item::Unsigned(self.size(4)?),
            b'l' | b'j' => Item::Signed(8),
            b'L' | b'J' | b'T' => Item::Unsigned(8),
            b'f' => Item::Single,
            b'd' | b'n' => Item::Double,
            b's' => Item::Text(self.size(8)?),
            b'c' => Item::Chars(self.number()?.ok_or(FormatError::Count)?),
            b'z' => Item::Zero,
            b'x' => Item::Pad,
            _ => return Err(FormatError::Unknown(option)),
        })
    }

    /// `X` and the option behind it, which is taken for its alignment only.
    fn align_to(&mut self, offset: usize) -> Result<Step, FormatError> {
        let option = *self.format.get(self.at).ok_or(FormatError::AlignTo)?;
        self.at += 1;
        let align = match option {
            b' ' | b'<' | b'>' | b'=' | b'!' | b'X' => return Err(FormatError::AlignTo),
            _ => match self.item(option)? {
                Item::Signed(n) | Item::Unsigned(n) | Item::Text(n) => n,
                Item::Single => 4,
                Item::Double => 8,
                _ => return Err(FormatError::AlignTo),
            },
        };
        Ok(Step { padding: self.padding(offset, align)?, item: Item::Align, little: self.little })
    }

    fn padding(&self, offset: usize, align: usize) -> Result<usize, FormatError> {
        let align = align.min(self.align_max);
        if align <= 1 {
            return Ok(0);
        }
        if !align.is_power_of_two() {
            return Err(FormatError::Alignment(align));
        }
        Ok(offset.wrapping_neg() & (align - 1))
    }

    /// A size from 1 to 16, or the default if there is none.
    fn size(&mut self, default: usize) -> Result<usize, FormatError> {
        let size = self.number()?.unwrap_or(default);
        if size == 0 || size > INT_BYTES_MAX { Err(FormatError::Size(size)) } else { Ok(size) }
    }

    fn number(&mut self) -> Result<Option<usize>, FormatError> {
        let digits = self.format[self.at..].iter().take_while(|c| c.is_ascii_digit()).count();
        if digits == 0 {
            return Ok(None);
        }
        let mut number = 0usize;
        for digit in &self.format[self.at..self.at + digits] {
            number = number * 10 + usize::from(digit - b'0');
            if number > crate::buf::SIZE_MAX {
                return Err(FormatError::Count);
            }
        }
        self.at += digits;
        Ok(Some(number))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test")]

    use super::*;

    fn items(format: &str) -> Result<Vec<(usize, Item, bool)>, FormatError> {
        let mut options = Options::new(format.as_bytes());
        let mut offset = 0;
        let mut items = Vec::new();
        while let Some(step) = options.step(offset)? {
            items.push((step.padding, step.item, step.little));
            offset += step.padding
                + match step.item {
                    Item::Signed(n) | Item::Unsigned(n) | Item::Text(n) | Item::Chars(n) => n,
                    Item::Single => 4,
                    Item::Double => 8,
                    Item::Zero | Item::Pad => 1,
                    Item::Align => 0,
                };
        }
        Ok(items)
    }

    #[test]
    fn byte_order_holds_until_changed() {
        assert_eq!(
            items("<H h>I3").unwrap(),
            [
                (0, Item::Unsigned(2), true),
                (0, Item::Signed(2), true),
                (0, Item::Unsigned(3), false)
            ]
        );
    }

    #[test]
    fn alignment_pads_up_to_its_limit() {
        let padding = |format| items(format).unwrap().iter().map(|item| item.0).collect::<Vec<_>>();
        assert_eq!(padding("bi4"), [0, 0]);
        assert_eq!(padding("!bi4"), [0, 3]);
        assert_eq!(padding("!2bi4"), [0, 1]);
        assert_eq!(padding("!bXdb"), [0, 7, 0]);
        assert_eq!(padding("!4bXi8"), [0, 3]);
    }

    #[test]
    fn limits_are_enforced() {
        assert!(items("i1i16").is_ok());
        assert_eq!(items("i0"), Err(FormatError::Size(0)));
        assert_eq!(items("i17"), Err(FormatError::Size(17)));
        assert_eq!(items("!17"), Err(FormatError::Size(17)));
        assert_eq!(items("!4i3"), Err(FormatError::Alignment(3)));
        assert_eq!(items("c"), Err(FormatError::Count));
        assert!(items("c2147483647").is_ok());
        assert_eq!(items("c2147483648"), Err(FormatError::Count));
        assert_eq!(items("c99999999999999999999999"), Err(FormatError::Count));
        assert_eq!(items("X"), Err(FormatError::AlignTo));
        assert_eq!(items("Xz"), Err(FormatError::AlignTo));
        assert_eq!(items("y"), Err(FormatError::Unknown(b'y')));
    }
}
