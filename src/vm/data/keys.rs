//! Keys that were pushed, each where its length and bytes lead: those of records repeat, and
//! comparing a text with what had its place before takes a third of the way to it through the VM's
//! table of all strings. (Of values too few repeat: looking costs more than it spares.)

use std::ffi::c_int;

use super::slots;
use crate::vm::layout::{self, NIL};
use crate::vm::stack::Stack;

/// A power of two.
const PLACES: c_int = 64;

/// Bytes of the longest that is remembered.
const LENGTH_MAX: usize = 24;

/// Fewer bytes to read have few keys that repeat.
const WORTH_BYTES: usize = 256;

/// They are on the stack: what a table, and all that is in it, is let go for, be it by a key that
/// comes again or by a weak table that the script has made of a mark, may be collected meanwhile.
pub(super) struct Keys {
    /// Where the first is; 0 if none is remembered.
    first: c_int,
}

impl Keys {
    /// For a document of so many bytes: takes slots of the stack, which are left there.
    pub(super) fn new(lua: Stack<'_>, bytes: usize) -> Keys {
        if bytes < WORTH_BYTES || !lua.has_room(PLACES) {
            return Keys { first: 0 };
        }
        let first = lua.top() + 1;
        (0..PLACES / 16).for_each(|_| lua.set_top(lua.top() + 16));
        Keys { first }
    }

    /// Pushes a key.
    #[inline]
    pub(super) fn push(&self, lua: Stack<'_>, text: &[u8]) {
        let [first, .., last] = *text else { return lua.push_text(text) };
        if text.len() > LENGTH_MAX || self.first == 0 {
            return lua.push_text(text);
        }
        let middle = text[text.len() / 2];
        let mixed = usize::from(first) + 5 * usize::from(middle) + 25 * usize::from(last);
        let place = self.first + ((mixed + 11 * text.len()) % PLACES as usize) as c_int;
        let known = slots::at(lua, place);
        // SAFETY: what is on the stack is alive, and there it is a text if it is not nil.
        if known != NIL && is_same(unsafe { layout::text(known) }, text) {
            return lua.push_copy(place);
        }
        lua.push_text(text);
        lua.push_copy(-1);
        lua.replace(place);
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
    if let (Some(a_first), Some(b_first)) = (a.first_chunk::<4>(), b.first_chunk::<4>()) {
        return a_first == b_first && a.last_chunk::<4>() == b.last_chunk::<4>();
    }
    a.iter().zip(b).all(|(a, b)| a == b)
}
