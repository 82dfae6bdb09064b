//! Keys that were pushed, each where its length and bytes lead: those of records repeat, and
//! comparing a text with what had its place before takes a third of the way to it through the VM's
//! table of all strings.

use super::slots;
use crate::vm::layout::{self, Slot};
use crate::vm::stack::Stack;

/// A power of two.
const PLACES: usize = 64;

/// Bytes of the longest that is remembered.
const LENGTH_MAX: usize = 24;

/// # Invariant
/// Each is a key of a table that is being built, which keeps it alive, or on the stack.
pub(super) struct Keys([Slot; PLACES]);

impl Keys {
    pub(super) fn new() -> Keys {
        Keys([0; PLACES])
    }

    /// Pushes a key, which is going to be in a table that is built.
    #[inline]
    pub(super) fn push(&mut self, lua: Stack<'_>, text: &[u8]) {
        let [first, .., last] = *text else { return lua.push_text(text) };
        if text.len() > LENGTH_MAX {
            return lua.push_text(text);
        }
        let middle = text[text.len() / 2];
        let mixed = usize::from(first) + 5 * usize::from(middle) + 25 * usize::from(last);
        let place = &mut self.0[(mixed + 11 * text.len()) % PLACES];
        // SAFETY: a string that is alive, by the invariant; a slot is free, and what is pushed is
        // on top then.
        unsafe {
            if *place != 0 && is_same(layout::text(*place), text) {
                return slots::push(lua, *place);
            }
            lua.push_text(text);
            *place = slots::top(lua);
        }
    }
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
    a.iter().zip(b).all(|(a, b)| a == b)
}
