//! Texts that were pushed, each where its length and bytes lead: those of keys repeat, and often
//! those of values. Comparing one with what had its place before takes a third of the way to it
//! through the VM's table of all strings.

use std::ffi::c_int;

use super::slots;
use crate::vm::layout::{self, NIL};
use crate::vm::stack::Stack;

/// Places for keys, and for values: powers of two.
const KEYS: c_int = 64;
const VALUE_BITS: u32 = 9;

/// Bytes of the longest key that is remembered, and of the longest value.
const KEY_MAX: usize = 24;
const VALUE_MAX: usize = 15;

/// Fewer bytes to read have few keys, or values, that repeat.
const WORTH_KEYS: usize = 256;
const WORTH_VALUES: usize = 32 * 1024;

/// Values are remembered as long as so many of so many were known.
const LOOK: u32 = 512;
const HITS_MIN: u32 = LOOK * 3 / 8;

/// They are on the stack: what a table, and all that is in it, is let go for, be it by a key that
/// comes again or by a weak table that the script has made of a mark, may be collected meanwhile.
pub(super) struct Known {
    /// Where the first key is; 0 if none is remembered. Values follow.
    first: c_int,
    /// What the values are; none if it is not worth while.
    values: Vec<[u64; 2]>,
    /// Until the next look at how many were known, and how many were since the last.
    left: u32,
    hits: u32,
}

impl Known {
    /// For a document of so many bytes: takes slots of the stack, which are left there.
    pub(super) fn new(lua: Stack<'_>, bytes: usize) -> Known {
        // The first that are looked at are all new.
        let mut known = Known { first: 0, values: Vec::new(), left: LOOK, hits: HITS_MIN };
        let values = if bytes < WORTH_VALUES { 0 } else { 1 << VALUE_BITS };
        if bytes < WORTH_KEYS || !lua.has_room(KEYS + values) {
            return known;
        }
        known.first = lua.top() + 1;
        known.values = vec![[0; 2]; values as usize];
        (0..(KEYS + values) / 16).for_each(|_| lua.set_top(lua.top() + 16));
        known
    }

    /// Pushes a key.
    #[inline]
    pub(super) fn push_key(&self, lua: Stack<'_>, text: &[u8]) {
        let [first, .., last] = *text else { return lua.push_text(text) };
        if text.len() > KEY_MAX || self.first == 0 {
            return lua.push_text(text);
        }
        let middle = text[text.len() / 2];
        let mixed = usize::from(first) + 5 * usize::from(middle) + 25 * usize::from(last);
        let place = self.first + ((mixed + 11 * text.len()) % KEYS as usize) as c_int;
        let known = slots::at(lua, place);
        // SAFETY: what is on the stack is alive, and there it is a text if it is not nil.
        if known != NIL && is_same(unsafe { layout::text(known) }, text) {
            return lua.push_copy(place);
        }
        push_new(lua, text, place);
    }

    /// Pushes a value.
    #[inline]
    pub(super) fn push_value(&mut self, lua: Stack<'_>, text: &[u8]) {
        if self.values.is_empty() || text.is_empty() || text.len() > VALUE_MAX {
            return lua.push_text(text);
        }
        let packed = pack(text);
        let mixed = (packed[0] ^ packed[1].rotate_left(29)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let which = (mixed >> (u64::BITS - VALUE_BITS)) as usize;
        let place = self.first + KEYS + which as c_int;
        if self.values[which] == packed {
            self.hits += 1;
            lua.push_copy(place);
        } else {
            self.values[which] = packed;
            push_new(lua, text, place);
        }
        self.left -= 1;
        if self.left == 0 {
            if self.hits < HITS_MIN {
                self.values = Vec::new();
            }
            (self.left, self.hits) = (LOOK, 0);
        }
    }
}

/// Pushes a text, and puts it into a place of the stack.
#[inline]
fn push_new(lua: Stack<'_>, text: &[u8], place: c_int) {
    lua.push_text(text);
    lua.push_copy(-1);
    lua.replace(place);
}

/// The bytes of a text of [`VALUE_MAX`] at most, and behind them how many they are.
#[inline]
fn pack(text: &[u8]) -> [u64; 2] {
    let len = text.len();
    let end = (len as u64) << 56;
    if let (Some(first), Some(last)) = (text.first_chunk(), text.last_chunk()) {
        // Without what is in both.
        let last = u64::from_le_bytes(*last) >> 8 >> (8 * (VALUE_MAX - len));
        return [u64::from_le_bytes(*first), last | end];
    }
    if let (Some(first), Some(last)) = (text.first_chunk(), text.last_chunk()) {
        let last = u64::from(u32::from_le_bytes(*last)) >> (8 * (8 - len));
        return [u64::from(u32::from_le_bytes(*first)) | last << 32, end];
    }
    [text.iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte)), end]
}

/// Whether two texts are the same; of few bytes, without a call.
#[inline]
fn is_same(a: &[u8], b: &[u8]) -> bool {
    if a.len() != b.len() {
        return false;
    }
    if let (Some(a_first), Some(b_first)) = (a.first_chunk::<8>(), b.first_chunk::<8>()) {
        let is_rest = a.len() <= 16 || a[8..16] == b[8..16];
        return a_first == b_first && is_rest && a.last_chunk::<8>() == b.last_chunk::<8>();
    }
    if let (Some(a_first), Some(b_first)) = (a.first_chunk::<4>(), b.first_chunk::<4>()) {
        return a_first == b_first && a.last_chunk::<4>() == b.last_chunk::<4>();
    }
    a.iter().zip(b).all(|(a, b)| a == b)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::{VALUE_MAX, pack};

    #[test]
    fn texts_that_differ_are_packed_differently() {
        let mut seen = HashSet::new();
        let mut count = 0;
        for len in 1..=VALUE_MAX {
            for at in 0..len {
                for byte in [0, 1, b'a', 255] {
                    let mut text = vec![b'x'; len];
                    text[at] = byte;
                    seen.insert(pack(&text));
                    count += 1;
                }
            }
            seen.insert(pack(&vec![b'x'; len]));
            count += 1;
        }
        assert_eq!(seen.len(), count);
        assert!(!seen.contains(&[0, 0]));
    }
}
