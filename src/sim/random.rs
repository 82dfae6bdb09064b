//! Numbers that follow from a seed, and a fingerprint of what has happened.

/// SplitMix64: small, and the same in every version of everything.
#[derive(Debug)]
pub(super) struct Random(u64);

fn mix(number: u64) -> u64 {
    let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

impl Random {
    pub(super) fn new(seed: u64) -> Random {
        Random(mix(seed))
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    /// A number in `0..count`; 0 if that is empty.
    pub(super) fn below(&mut self, count: u64) -> u64 {
        // The high half of the product: the bias is below 2^-32 for what is asked for here.
        ((u128::from(self.next()) * u128::from(count)) >> 64) as u64
    }

    pub(super) fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high - low + 1)
    }

    pub(super) fn chance(&mut self, probability: f64) -> bool {
        // Drawn in any case, so that what follows does not depend on how likely this was.
        let drawn = (self.next() >> 11) as f64 / (1u64 << 53) as f64;
        drawn < probability
    }
}

/// A fingerprint of all steps of a run.
#[derive(Debug)]
pub(super) struct Trace {
    hash: u64,
    steps: u64,
}

impl Trace {
    pub(super) fn new(seed: u64) -> Trace {
        Trace { hash: mix(seed), steps: 0 }
    }

    /// Adds a step: what it was, and to whom it happened, when.
    pub(super) fn add(&mut self, kind: u64, what: u64, now: u64) {
        self.steps += 1;
        self.hash = mix(self.hash ^ kind).wrapping_add(what);
        self.hash = mix(self.hash ^ now);
    }

    /// The fingerprint, and the number of steps.
    pub(super) fn result(&self) -> (u64, u64) {
        (self.hash, self.steps)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_follow_from_the_seed_and_fill_their_range() {
        let mut random = Random::new(7);
        let mut again = Random::new(7);
        let mut seen = [0; 10];
        for _ in 0..1000 {
            let number = random.below(10);
            assert_eq!(number, again.below(10));
            seen[number as usize] += 1;
        }
        assert!(seen.iter().all(|&count| count > 50), "{seen:?}");
        assert_eq!((random.below(0), random.below(1)), (0, 0));
        assert!(!random.chance(0.0) && random.chance(1.0));
        assert_ne!(Random::new(8).next(), Random::new(9).next());
    }

    #[test]
    fn a_trace_tells_steps_and_their_order_apart() {
        let result = |steps: &[(u64, u64, u64)]| {
            let mut trace = Trace::new(1);
            steps.iter().for_each(|&(kind, what, now)| trace.add(kind, what, now));
            trace.result()
        };
        let (one, two) = ((1, 2, 3), (1, 3, 3));
        assert_eq!(result(&[one, two]), result(&[one, two]));
        assert_ne!(result(&[one, two]), result(&[two, one]));
        assert_ne!(result(&[one]), result(&[(2, 2, 3)]));
    }
}
