//! Which bytes of a stream `scanf` takes for a number.

/// The bytes of a number that have come so far.
#[derive(Debug, Default)]
pub(super) struct Number {
    text: Vec<u8>,
    has_sign: bool,
    has_digit: bool,
    has_point: bool,
    is_hexadecimal: bool,
    has_exponent: bool,
    is_over: bool,
}

const WORDS: [&[u8]; 2] = [b"nan", b"infinity"];

impl Number {
    /// What has been taken, but for the space before it.
    pub(super) fn text(self) -> Vec<u8> {
        self.text
    }

    /// Whether this byte belongs to the number, or to the space before it, as the next one.
    pub(super) fn takes(&mut self, byte: u8) -> bool {
        if self.is_over {
            return false;
        }
        let is_space = byte.is_ascii_whitespace() || byte == b'\x0b';
        if self.text.is_empty() && is_space {
            return true;
        }
        let takes = self.goes_on_with(byte.to_ascii_lowercase());
        if takes {
            self.text.push(byte);
        }
        // Of a word the C library takes the first wrong byte, too.
        let is_missed = !takes && self.word().is_some_and(|(word, at)| at != 3 && at < word.len());
        self.is_over = !takes;
        takes || is_missed
    }

    /// The word that this begins like, and how much of it is there.
    fn word(&self) -> Option<(&'static [u8], usize)> {
        let body = &self.text[usize::from(self.has_sign)..];
        let first = body.first()?.to_ascii_lowercase();
        let word = WORDS.into_iter().find(|word| word[0] == first)?;
        Some((word, body.len()))
    }

    fn goes_on_with(&mut self, byte: u8) -> bool {
        let body = &self.text[usize::from(self.has_sign)..];
        let exponent = if self.is_hexadecimal { b'p' } else { b'e' };
        if let Some((word, at)) = self.word() {
            return word.get(at) == Some(&byte);
        }
        match byte {
            b'+' | b'-' if self.text.is_empty() => self.has_sign = true,
            b'+' | b'-' => {
                return self.has_exponent
                    && body.last().is_some_and(|last| last.to_ascii_lowercase() == exponent);
            }
            b'0'..=b'9' => self.has_digit = true,
            b'x' if body == b"0" => (self.is_hexadecimal, self.has_digit) = (true, false),
            b'a'..=b'f' if self.is_hexadecimal && !self.has_exponent => self.has_digit = true,
            _ if byte == exponent && self.has_digit && !self.has_exponent => {
                (self.has_exponent, self.has_point) = (true, true);
            }
            _ if byte == point() && !self.has_point => self.has_point = true,
            _ => return body.is_empty() && WORDS.iter().any(|word| word[0] == byte),
        }
        true
    }
}

/// What stands before a fraction.
fn point() -> u8 {
    // SAFETY: the C library's table, and its text, stay; `setlocale` may change them at any time,
    // as it may for `scanf`.
    unsafe { (*libc::localeconv()).decimal_point.cast::<u8>().read() }
}
