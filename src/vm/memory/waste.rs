//! What a state's memory takes beside the blocks in use, of a context with a memory limit: a state
//! may keep one block in each page of every class.

use crate::message::Held;

/// So much waste is always allowed, or a quarter of a small limit.
const WASTE_MIN: usize = 4 << 20;

/// Slots that come or go between two looks at what is wasted, at least.
const WASTE_LOOK_SLOTS: usize = 4;

/// How much of it nothing uses.
#[derive(Debug)]
pub(crate) struct Waste {
    held: Held,
    /// What the last look has found.
    wasted: usize,
    /// With so little nobody minds.
    min: usize,
    /// May be wasted besides.
    spare: usize,
    /// What has been taken outside of the slots since the last look.
    grown: usize,
    /// What blocks there may waste, and what of them was freed: before that, nothing is wasted.
    large: usize,
    freed: usize,
    /// With so many slots, or so few, it is looked at again.
    more: usize,
    fewer: usize,
}

impl Waste {
    /// Counts with what the context holds elsewhere, of which `limit` bytes are allowed in all.
    pub(super) fn new(held: Held, limit: usize) -> Waste {
        let min = WASTE_MIN.min(limit / 4);
        Waste { held, wasted: 0, min, spare: 0, grown: 0, large: 0, freed: 0, more: 0, fewer: 0 }
    }

    pub(super) fn wasted(&self) -> usize {
        self.wasted
    }

    /// Allows so much more, until it is said again.
    pub(super) fn spare(&mut self, bytes: usize) {
        self.spare = bytes;
    }

    /// Blocks outside of the slots may waste so much less, and so much more, and this many of their
    /// bytes were freed.
    pub(super) fn note_large(&mut self, less: usize, more: usize, freed: usize) {
        self.large = (self.large + more).saturating_sub(less);
        self.freed = self.freed.saturating_add(freed);
    }

    /// This many bytes are about to be taken outside of the slots: whether there is reason to look.
    #[inline]
    pub(super) fn grow(&mut self, bytes: usize) -> bool {
        self.grown = self.grown.saturating_add(bytes);
        let is_much = self.grown >= self.min / 4;
        if is_much {
            self.more = 0;
        }
        is_much
    }

    /// They are taken.
    pub(super) fn has_grown(&mut self) {
        self.grown = 0;
    }

    /// Whether it is time to look, with this many slots.
    pub(super) fn is_due(&self, slots: usize) -> bool {
        !(self.fewer..self.more).contains(&slots)
    }

    /// Whether this many bytes of this many slots may be unused, which counts from now on.
    pub(super) fn admits(&mut self, wasted: usize, slots: usize) -> bool {
        let wasted = wasted + self.large.min(self.freed);
        let step = WASTE_LOOK_SLOTS.max(slots / 16);
        (self.fewer, self.more) = (slots.saturating_sub(step), slots + step);
        let is_counted = self.held.try_set_beyond(wasted, self.spare);
        let is_admitted = is_counted || wasted <= self.min;
        self.held.set(wasted);
        self.wasted = wasted;
        if !is_admitted {
            // Whoever tries again is refused again.
            self.more = 0;
        }
        is_admitted
    }
}
