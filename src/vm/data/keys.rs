//! Keys that were pushed, each where its length and bytes lead: those of records repeat, and
//! comparing a text with what had its place before takes a third of the way to it through the VM's
//! table of all strings. (Of values too few repeat: looking costs more than it spares.)

use std::ffi::c_int;

use crate::vm::layout::{self, STRING, tag};
use crate::vm::stack::{Stack, slots};
use crate::vm::texts;

/// A power of two.
const PLACES: c_int = 64;

/// Bytes of the longest that is remembered.
const LENGTH_MAX: usize = 24;

/// Fewer bytes to read have few keys that repeat.
pub(super) const WORTH_BYTES: usize = 256;

/// They are on the stack: what a table, and all that is in it, is let go for, be it by a key that
/// comes again or by a weak table that the script has made of a mark, may be collected meanwhile.
pub(super) struct Keys<'d> {
    /// What they are a part of.
    document: &'d [u8],
    /// Where the first is; 0 if none is remembered.
    first: c_int,
}

impl<'d> Keys<'d> {
    /// For a document: takes slots of the stack, which are left there.
    pub(super) fn new(lua: Stack<'_>, document: &'d [u8]) -> Keys<'d> {
        if document.len() < WORTH_BYTES || !lua.has_room(PLACES) {
            return Keys { document, first: 0 };
        }
        let first = lua.top() + 1;
        (0..PLACES / 16).for_each(|_| lua.set_top(lua.top() + 16));
        Keys { document, first }
    }

    #[inline]
    pub(super) fn push(&self, lua: Stack<'_>, text: &[u8]) {
        let push = || slots::push(lua, texts::text(lua, text, self.document));
        let [first, .., last] = *text else { return push() };
        if text.len() > LENGTH_MAX || self.first == 0 {
            return push();
        }
        let middle = text[text.len() / 2];
        let mixed = usize::from(first) + 5 * usize::from(middle) + 25 * usize::from(last);
        let place = self.first + ((mixed + 11 * text.len()) % PLACES as usize) as c_int;
        let known = slots::at(lua, place);
        // SAFETY: what is on the stack is alive.
        let known_text = if tag(known) == STRING { unsafe { layout::text(known) } } else { &[] };
        if known_text.len() == text.len() && texts::is_same(known_text, text) {
            return slots::push(lua, known);
        }
        let text = texts::text(lua, text, self.document);
        slots::set(lua, place, text);
        slots::push(lua, text);
    }
}
