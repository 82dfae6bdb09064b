//! A histogram of durations with 1.6 % resolution and constant cost per sample.

/// Buckets per power of two.
const FINE_BITS: u32 = 6;
const FINE: usize = 1 << FINE_BITS;

/// Counts of durations in nanoseconds.
#[derive(Clone, Debug)]
pub struct Histogram {
    counts: Vec<u64>,
    total: u64,
}

impl Histogram {
    /// An empty histogram.
    pub fn new() -> Histogram {
        Histogram { counts: vec![0; FINE * 59], total: 0 }
    }

    /// Counts one duration.
    #[inline]
    pub fn record(&mut self, ns: u64) {
        self.counts[bucket(ns)] += 1;
        self.total += 1;
    }

    /// Adds all of `other`.
    pub fn merge(&mut self, other: &Histogram) {
        for (mine, theirs) in self.counts.iter_mut().zip(&other.counts) {
            *mine += theirs;
        }
        self.total += other.total;
    }

    /// The duration in nanoseconds below which the share `q` of the samples lies; 0 when empty.
    pub fn quantile(&self, q: f64) -> f64 {
        let rank = (self.total as f64 * q).ceil().max(1.0) as u64;
        let mut seen = 0;
        for (i, n) in self.counts.iter().enumerate() {
            seen += n;
            if seen >= rank {
                return middle(i);
            }
        }
        0.0
    }
}

fn bucket(ns: u64) -> usize {
    if ns < FINE as u64 {
        return ns as usize;
    }
    let shift = 63 - ns.leading_zeros() - FINE_BITS;
    (shift as usize + 1) * FINE + ((ns >> shift) as usize - FINE)
}

fn middle(bucket: usize) -> f64 {
    if bucket < FINE {
        return bucket as f64;
    }
    let shift = bucket / FINE - 1;
    let low = ((bucket % FINE + FINE) as f64) * 2f64.powi(shift as i32);
    low + 2f64.powi(shift as i32) / 2.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_within_two_percent() {
        let mut h = Histogram::new();
        for i in 1..=100_000u64 {
            h.record(i * 10);
        }
        for q in [0.5, 0.99, 0.999] {
            let want = 1_000_000.0 * q;
            assert!((h.quantile(q) - want).abs() < want * 0.02, "{q}: {}", h.quantile(q));
        }
    }

    #[test]
    fn longest_duration_has_a_bucket() {
        Histogram::new().record(u64::MAX);
    }
}
