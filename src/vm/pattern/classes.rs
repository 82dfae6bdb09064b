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

/// The bytes that are in a set, a bit each.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Members([u64; 4]);

impl Members {
    /// Those of which [`is_in_set`] is true, in as many steps as the set is long.
    pub(super) fn of(set: &[u8]) -> Members {
        let is_negated = set.get(1) == Some(&b'^');
        let (mut members, mut classes) = (Members::default(), Members::default());
        let mut at = 1 + usize::from(is_negated);
        while at < set.len() {
            let one = set[at];
            if one == b'%' && at + 1 < set.len() {
                let class = set[at + 1];
                if !classes.has(class) {
                    classes.add(class, class);
                    let all = (0..=u8::MAX).filter(|byte| is_of_class(*byte, class));
                    all.for_each(|byte| members.add(byte, byte));
                }
                at += 2;
            } else if at + 2 < set.len() && set[at + 1] == b'-' {
                members.add(one, set[at + 2]);
                at += 3;
            } else {
                members.add(one, one);
                at += 1;
            }
        }
        if is_negated { Members(members.0.map(|word| !word)) } else { members }
    }

    pub(super) fn has(self, byte: u8) -> bool {
        self.0[usize::from(byte / 64)] >> (byte % 64) & 1 != 0
    }

    /// Adds a range, which is empty if the last comes before the first.
    fn add(&mut self, first: u8, last: u8) {
        for (index, word) in self.0.iter_mut().enumerate() {
            let base = 64 * index as u32;
            let begin = u32::from(first).saturating_sub(base);
            let end = (u32::from(last) + 1).saturating_sub(base).min(64);
            if begin < end {
                *word |= u64::MAX >> (64 - (end - begin)) << begin;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn members_of_a_set_are_what_is_in_it(
            rest in proptest::collection::vec(
                prop_oneof![Just(b'%'), Just(b'-'), Just(b'^'), Just(b']'), 0..=u8::MAX],
                0..12,
            )
        ) {
            let set = [&b"["[..], &rest].concat();
            let members = Members::of(&set);
            for byte in 0..=u8::MAX {
                prop_assert_eq!(members.has(byte), is_in_set(byte, &set), "{} in {:?}", byte, set);
            }
        }
    }
}
