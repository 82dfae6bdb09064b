//! How fast a peer must be: bodies have to come, and to be taken, at a least rate.

/// How long a peer is watched before it is judged, in nanoseconds.
pub(super) const WINDOW: u64 = 10_000_000_000;

/// When something is to be checked again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    /// At this time, in nanoseconds.
    At(u64),
    /// Not before something happens.
    Never,
    /// It has taken too long.
    Over,
}

/// The bytes that a peer had moved when a window began.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    since: u64,
    moved: u64,
}

impl Pace {
    /// A window that begins at `now`, in nanoseconds, when `moved` bytes have been moved.
    pub fn new(now: u64, moved: u64) -> Pace {
        Pace { since: now, moved }
    }

    /// Judges a window that has ended, and begins the next one; [`Due::Over`] if fewer than `rate`
    /// bytes a second were moved in it.
    pub fn check(&mut self, now: u64, moved: u64, rate: u64) -> Due {
        let end = self.since.saturating_add(WINDOW);
        if now < end {
            return Due::At(end);
        }
        let wanted = u128::from(rate) * u128::from(now - self.since);
        if u128::from(moved.saturating_sub(self.moved)) * 1_000_000_000 < wanted {
            return Due::Over;
        }
        *self = Pace::new(now, moved);
        Due::At(now + WINDOW)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_is_judged_by_whole_windows() {
        let mut pace = Pace::new(5, 100);
        assert_eq!(pace.check(5 + WINDOW - 1, 100, 10), Due::At(5 + WINDOW));
        assert_eq!(pace.check(5 + WINDOW, 200, 10), Due::At(5 + 2 * WINDOW));
        assert_eq!(pace.check(5 + 2 * WINDOW, 299, 10), Due::Over);
    }
}
