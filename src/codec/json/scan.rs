//! Bytes that stand for themselves in a text of JSON, many at once.

const ONES: u64 = 0x0101_0101_0101_0101;
const HIGH: u64 = 0x8080_8080_8080_8080;

/// Bytes that are looked at together, in a way that compilers make one of.
const WIDE: usize = 32;

/// How many bytes come before the first that is a quotation mark, a backslash or a control
/// character.
#[inline]
pub(super) fn plain(bytes: &[u8]) -> usize {
    let mut count = 0;
    // Two at once: most texts are no longer, and how long they are cannot be guessed.
    while let Some(sixteen) = bytes[count..].first_chunk::<16>() {
        let two = u128::from_le_bytes(*sixteen);
        let (first, second) = (special(two as u64), special((two >> 64) as u64));
        let found = u128::from(second) << 64 | u128::from(first);
        if found != 0 {
            // The lowest byte that is found is one; above it some may not be.
            return count + found.trailing_zeros() as usize / 8;
        }
        count += 16;
    }
    while let Some(eight) = bytes[count..].first_chunk::<8>() {
        let found = special(u64::from_le_bytes(*eight));
        if found != 0 {
            return count + found.trailing_zeros() as usize / 8;
        }
        count += 8;
    }
    let is_plain = |byte: &&u8| !matches!(byte, b'"' | b'\\' | 0..0x20);
    count + bytes[count..].iter().take_while(is_plain).count()
}

/// Marks the bytes of eight that do not stand for themselves, among them the lowest.
#[inline]
fn special(bytes: u64) -> u64 {
    let below = |bytes: u64, least: u8| bytes.wrapping_sub(ONES * u64::from(least));
    // With this bit changed a quotation mark is next to the control characters, which stay.
    let controls = below(bytes ^ (ONES * 2), 0x21);
    (controls | below(bytes ^ (ONES * u64::from(b'\\')), 1)) & !bytes & HIGH
}

/// Whether all bytes stand for themselves, and are ASCII.
#[inline]
pub(super) fn is_plain_ascii(bytes: &[u8]) -> bool {
    let mut rest = bytes;
    while let Some((wide, behind)) = rest.split_first_chunk::<WIDE>() {
        // Below a blank as a signed number are control characters, and what is beyond ASCII.
        let other = |byte: &u8| (*byte as i8) < 0x20 || *byte == b'"' || *byte == b'\\';
        if wide.iter().fold(false, |any, byte| any | other(byte)) {
            return false;
        }
        rest = behind;
    }
    let mut found = 0;
    // What is left of eight is seen with the eight that end there.
    while let Some((eight, behind)) = rest.split_first_chunk::<8>() {
        let eight = u64::from_le_bytes(*eight);
        found |= special(eight) | eight & HIGH;
        rest = behind;
    }
    if let Some(last) = bytes.last_chunk::<8>() {
        let last = u64::from_le_bytes(*last);
        return (found | special(last) | last & HIGH) == 0;
    }
    let few = match (bytes.first_chunk::<4>(), bytes.last_chunk::<4>()) {
        (Some(first), Some(last)) => {
            u64::from(u32::from_le_bytes(*first)) | u64::from(u32::from_le_bytes(*last)) << 32
        }
        // Behind blanks, which stand for themselves.
        _ => bytes.iter().fold(ONES * 0x20, |few, byte| few << 8 | u64::from(*byte)),
    };
    (special(few) | few & HIGH) == 0
}

#[cfg(test)]
mod tests {
    use super::{is_plain_ascii, plain};

    #[test]
    fn every_byte_at_every_place() {
        for len in 1..80 {
            for at in 0..len {
                for byte in 0..=255 {
                    let mut bytes = vec![b'~'; len];
                    bytes[at] = byte;
                    let is_special = matches!(byte, b'"' | b'\\' | 0..0x20);
                    let expected = if is_special { at } else { len };
                    assert_eq!(plain(&bytes), expected, "{byte} at {at} of {len}");
                    let is_plain = !is_special && byte < 0x80;
                    assert_eq!(is_plain_ascii(&bytes), is_plain, "{byte} at {at} of {len}");
                }
            }
        }
        assert!(is_plain_ascii(b"") && plain(b"") == 0);
    }
}
