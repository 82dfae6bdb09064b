//! Classes and sets of bytes, as patterns name them.

/// The bit of each class, by the lower five bits of its letter.
const CLASSES: [u16; 32] = {
    let mut classes = [0; 32];
    let (letters, mut index) = (b"acdglpsuwxz", 0);
    while index < letters.len() {
        classes[(letters[index] & 0x1f) as usize] = 1 << index;
        index += 1;
    }
    classes
};

/// The classes that each byte is in.
static MEMBERS: [u16; 256] = {
    let mut members = [0; 256];
    let mut index = 0;
    while index < 256 {
        let byte = index as u8;
        let is_in = [
            byte.is_ascii_alphabetic(),
            byte.is_ascii_control(),
            byte.is_ascii_digit(),
            byte.is_ascii_graphic(),
            byte.is_ascii_lowercase(),
            byte.is_ascii_punctuation(),
            matches!(byte, 9..=13 | b' '),
            byte.is_ascii_uppercase(),
            byte.is_ascii_alphanumeric(),
            byte.is_ascii_hexdigit(),
            byte == 0,
        ];
        let mut class = 0;
        while class < is_in.len() {
            members[index] |= (is_in[class] as u16) << class;
            class += 1;
        }
        index += 1;
    }
    members
};

/// Whether a byte is in the class that a letter names, or is that byte.
#[inline]
pub(super) fn is_of_class(byte: u8, class: u8) -> bool {
    let bit = if class & 0xc0 == 0x40 { CLASSES[usize::from(class & 0x1f)] } else { 0 };
    if bit == 0 {
        return byte == class;
    }
    // A capital letter stands for all others.
    (MEMBERS[usize::from(byte)] & bit != 0) == (class & 0x20 != 0)
}

/// Whether a byte is in a set, which begins with `[`; without its `]`.
pub(super) fn is_in_set(byte: u8, set: &[u8]) -> bool {
    let is_negated = set.get(1) == Some(&b'^');
    let mut at = 1 + usize::from(is_negated);
    while at < set.len() {
        let one = set[at];
        if one == b'%' && at + 1 < set.len() {
            if is_of_class(byte, set[at + 1]) {
                return !is_negated;
            }
            at += 2;
        } else if at + 2 < set.len() && set[at + 1] == b'-' {
            if one <= byte && byte <= set[at + 2] {
                return !is_negated;
            }
            at += 3;
        } else if one == byte {
            return !is_negated;
        } else {
            at += 1;
        }
    }
    is_negated
}
