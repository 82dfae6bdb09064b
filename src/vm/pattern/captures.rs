//! What the parentheses of a pattern stand for so far.

use super::CAPTURES_MAX;

/// Those that take no memory of their own.
const CAPTURES_NEAR: usize = 4;

#[derive(Clone, Copy, Default)]
pub(super) struct Capture {
    /// Bytes of the subject before it.
    pub(super) start: u32,
    /// Bytes; negative: a position, or not closed yet.
    pub(super) len: i32,
}

/// The captures of a pattern; few have many.
#[derive(Default)]
pub(super) struct Captures {
    near: [Capture; CAPTURES_NEAR],
    far: Vec<Capture>,
}

impl Captures {
    #[inline]
    pub(super) fn get(&self, index: usize) -> Capture {
        match self.near.get(index) {
            Some(capture) => *capture,
            None => self.far[index - CAPTURES_NEAR],
        }
    }

    #[inline]
    pub(super) fn set(&mut self, index: usize, capture: Capture) {
        match self.near.get_mut(index) {
            Some(near) => *near = capture,
            None => {
                self.far.resize(CAPTURES_MAX - CAPTURES_NEAR, Capture::default());
                self.far[index - CAPTURES_NEAR] = capture;
            }
        }
    }
}
