//! Texts of others in the log: an entry is what somebody has logged, and nothing else. Lines after
//! the first are indented, and control characters are written as escapes, so that no text passes
//! for another entry or does something to a terminal.

use std::borrow::Cow;
use std::fmt::Write;

/// Bytes as text; those that are no UTF-8 as escapes.
///
/// # Examples
/// ```
/// use node_lua::logging::text_of;
///
/// assert_eq!(text_of(b"caf\xc3\xa9 \xff"), "café \\xff");
/// ```
pub fn text_of(bytes: &[u8]) -> Cow<'_, str> {
    if let Ok(text) = std::str::from_utf8(bytes) {
        return Cow::Borrowed(text);
    }
    let mut text = String::with_capacity(bytes.len() + 16);
    for chunk in bytes.utf8_chunks() {
        text.push_str(chunk.valid());
        for byte in chunk.invalid() {
            // Writing to a string does not fail.
            let _ = write!(text, "\\x{byte:02x}");
        }
    }
    Cow::Owned(text)
}

/// Bytes that are kept, and shown in the log, of errors and reasons.
pub const TEXT_BYTES_MAX: usize = 1 << 16;

/// The first `max` bytes of a text, and what is said of the others.
pub fn shorten(text: &[u8], max: usize) -> (&[u8], String) {
    match text.split_at_checked(max) {
        Some((shown, rest)) if !rest.is_empty() => {
            (shown, format!("… and {} more bytes", rest.len()))
        }
        _ => (text, String::new()),
    }
}

/// A copy, kept outside of the VM, of a text of a context with this memory limit: cut if there is
/// one and it is very long.
pub fn bounded(text: &[u8], limit: usize) -> Vec<u8> {
    let (shown, rest) = shorten(text, if limit == 0 { usize::MAX } else { TEXT_BYTES_MAX });
    [shown, rest.as_bytes()].concat()
}

/// Whether a character would do something else than stand there.
fn is_control(character: char) -> bool {
    // Separators of lines, and what turns the direction of the text round.
    character.is_control() || matches!(character, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Writes a name in one line: what would end that is escaped.
///
/// # Errors
/// Those of `to`.
pub fn write_name(to: &mut impl Write, name: &str) -> std::fmt::Result {
    name.chars().try_for_each(|character| match is_control(character) {
        true => write_escape(to, character),
        false => to.write_char(character),
    })
}

fn write_escape(to: &mut impl Write, character: char) -> std::fmt::Result {
    match u32::from(character) {
        number @ 0..=0x7f => write!(to, "\\x{number:02x}"),
        number => write!(to, "\\u{{{number:x}}}"),
    }
}

/// The text of an entry. Lines after the first are indented but for those that `is_own` knows.
pub(super) fn append(to: &mut String, text: &str, is_own: fn(&str) -> bool) {
    for (index, line) in text.split('\n').enumerate() {
        if index > 0 {
            to.push('\n');
            if !line.is_empty() && !is_own(line) {
                to.push_str("    ");
            }
        }
        // Most lines hold nothing but letters.
        if line.bytes().all(|byte| matches!(byte, b'\t' | b' '..=b'~')) {
            to.push_str(line);
            continue;
        }
        for character in line.chars() {
            match character != '\t' && is_control(character) {
                // Writing to a string does not fail.
                true => drop(write_escape(to, character)),
                false => to.push(character),
            }
        }
    }
    to.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(text: &str) -> String {
        let mut to = String::new();
        append(&mut to, text, |line| line.starts_with('\t'));
        to
    }

    #[test]
    fn texts_are_one_entry_whatever_is_in_them() {
        assert_eq!(entry("a\tb, äöü €"), "a\tb, äöü €\n");
        assert_eq!(entry("a\n[INFO] b\n\n\tc\n"), "a\n    [INFO] b\n\n\tc\n\n");
        assert_eq!(entry("a\0b\r\x1b[2J\x7f"), "a\\x00b\\x0d\\x1b[2J\\x7f\n");
        assert_eq!(entry("\u{9b}1m \u{202e}x"), "\\u{9b}1m \\u{202e}x\n");
        assert_eq!(text_of(b"a\xffb\xc3"), "a\\xffb\\xc3");
        let mut name = String::new();
        assert!(write_name(&mut name, "a\nb\tc").is_ok());
        assert_eq!(name, "a\\x0ab\\x09c");
    }
}
