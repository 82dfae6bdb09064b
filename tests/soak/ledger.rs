//! What became of every request, and what the server held meanwhile.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::sync::Mutex;
use std::time::Duration;

/// Counts by name; what must not happen is kept in words.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    counts: Mutex<BTreeMap<&'static str, u64>>,
    faults: Mutex<Vec<String>>,
}

impl Ledger {
    pub(crate) fn count(&self, what: &'static str, how_many: u64) {
        if how_many > 0 {
            *self.counts.lock().unwrap().entry(what).or_default() += how_many;
        }
    }

    pub(crate) fn get(&self, what: &str) -> u64 {
        self.counts.lock().unwrap().get(what).copied().unwrap_or_default()
    }

    /// Keeps what must not happen; printed at once, since a long run may be watched.
    pub(crate) fn fault(&self, what: String) {
        eprintln!("FAULT: {what}");
        self.faults.lock().unwrap().push(what);
    }

    pub(crate) fn faults(&self) -> Vec<String> {
        self.faults.lock().unwrap().clone()
    }

    pub(crate) fn report(&self) -> String {
        let mut text = String::new();
        for (what, count) in &*self.counts.lock().unwrap() {
            writeln!(text, "  {what:<44} {count:>10}").unwrap();
        }
        text
    }
}

/// What the server's process held at a moment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sample {
    pub(crate) at: Duration,
    pub(crate) resident: u64,
    pub(crate) descriptors: usize,
    pub(crate) threads: usize,
    /// CPU time used so far, in clock ticks of 10 ms.
    pub(crate) ticks: u64,
}

impl Sample {
    pub(crate) fn take(process: u32, at: Duration) -> Sample {
        let entries =
            |what| fs::read_dir(format!("/proc/{process}/{what}")).map_or(0, Iterator::count);
        let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
        let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
        Sample {
            at,
            resident: super::support::resident_bytes(process),
            descriptors: entries("fd"),
            threads: entries("task"),
            ticks: fields.skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum(),
        }
    }
}

/// The median of what `of` tells of each sample; 0 without samples.
pub(crate) fn median(samples: &[Sample], of: impl Fn(&Sample) -> u64) -> u64 {
    let mut values: Vec<u64> = samples.iter().map(of).collect();
    values.sort_unstable();
    values.get(values.len() / 2).copied().unwrap_or_default()
}

/// Bytes of resident memory gained per minute, by least squares.
pub(crate) fn slope(samples: &[Sample]) -> f64 {
    let count = samples.len() as f64;
    let minutes = |sample: &Sample| sample.at.as_secs_f64() / 60.0;
    let (mut x, mut y) = (0.0, 0.0);
    for sample in samples {
        x += minutes(sample) / count;
        y += sample.resident as f64 / count;
    }
    let (mut above, mut below) = (0.0, 0.0);
    for sample in samples {
        above += (minutes(sample) - x) * (sample.resident as f64 - y);
        below += (minutes(sample) - x).powi(2);
    }
    if below > 0.0 { above / below } else { 0.0 }
}

/// Samples in words: one line for each part of the run.
pub(crate) fn table(samples: &[Sample], lines: usize) -> String {
    let mut text =
        String::from("  minutes   resident MiB (least, median, most)   descriptors   threads\n");
    for part in samples.chunks(samples.len().div_ceil(lines).max(1)) {
        let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        let least = part.iter().map(|sample| sample.resident).min().unwrap_or_default();
        let most = part.iter().map(|sample| sample.resident).max().unwrap_or_default();
        let first = part.first().map_or(0.0, |sample| sample.at.as_secs_f64() / 60.0);
        let last = part.last().map_or(0.0, |sample| sample.at.as_secs_f64() / 60.0);
        writeln!(
            text,
            "  {first:4.1}–{last:4.1}   {:10.1} {:10.1} {:10.1}        {:>6}   {:>7}",
            mib(least),
            mib(median(part, |sample| sample.resident)),
            mib(most),
            median(part, |sample| sample.descriptors as u64),
            median(part, |sample| sample.threads as u64),
        )
        .unwrap();
    }
    text
}

/// Numbers for choices, from a seed that is printed.
#[derive(Debug)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Random {
        Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16
    }

    /// From 0 to `bound` − 1.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    /// True in `percent` of 100 cases.
    pub(crate) fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}
