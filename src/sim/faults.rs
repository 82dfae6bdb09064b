//! What goes wrong, and how often. Durations are in nanoseconds.

use super::random::Random;

const MICROSECOND: u64 = 1_000;
const MILLISECOND: u64 = 1_000_000;

/// Bytes that a direction of a connection holds, as the system has it.
const CAPACITY: u64 = 208 * 1024;

/// How much goes wrong, from 0 (only order and timing vary) to 1.
#[derive(Clone, Copy, Debug)]
pub(super) struct Faults(f64);

impl Faults {
    /// `intensity` is cut to 0..=1.
    pub(super) fn new(intensity: f64) -> Faults {
        Faults(intensity.clamp(0.0, 1.0))
    }

    fn hits(self, random: &mut Random, probability: f64) -> bool {
        random.chance(probability * self.0)
    }

    /// Nanoseconds that something takes to get from one end to the other.
    pub(super) fn latency(self, random: &mut Random) -> u64 {
        let usual = random.between(10 * MICROSECOND, 200 * MICROSECOND);
        if self.hits(random, 0.05) { usual + random.below(2_000 * MILLISECOND) } else { usual }
    }

    /// Nanoseconds by which a timer is noticed late.
    pub(super) fn lateness(self, random: &mut Random) -> u64 {
        let usual = random.below(60 * MICROSECOND);
        if self.hits(random, 0.1) { usual + random.below(100 * MILLISECOND) } else { usual }
    }

    /// How long a turn of a context takes.
    pub(super) fn turn_time(self, random: &mut Random) -> u64 {
        let usual = random.between(MICROSECOND, 20 * MICROSECOND);
        if random.chance(0.02) { usual + random.below(500 * MICROSECOND) } else { usual }
    }

    /// Nanoseconds that a context that could run has to wait, if it has.
    pub(super) fn freeze(self, random: &mut Random) -> Option<u64> {
        let frozen = self.hits(random, 0.02);
        frozen.then(|| random.between(MICROSECOND, 500 * MILLISECOND))
    }

    /// Bytes that a direction of a new connection holds.
    pub(super) fn capacity(self, random: &mut Random) -> usize {
        let small = self.hits(random, 0.3);
        (if small { random.between(16, 4096) } else { CAPACITY }) as usize
    }

    /// After how many nanoseconds a new connection is reset, if it is.
    pub(super) fn reset_after(self, random: &mut Random) -> Option<u64> {
        let is_reset = self.hits(random, 0.2);
        is_reset.then(|| match random.below(3) {
            0 => random.below(MILLISECOND),
            1 => random.below(50 * MILLISECOND),
            _ => random.below(2_000 * MILLISECOND),
        })
    }

    /// How many of `count` bytes a read or write takes, at least one.
    pub(super) fn part(self, random: &mut Random, count: usize) -> usize {
        let cut = self.hits(random, 0.3) && count > 1;
        if cut { random.between(1, count as u64 - 1) as usize } else { count }
    }

    /// Where the next piece of `count` bytes under way ends.
    pub(super) fn piece(self, random: &mut Random, count: usize) -> usize {
        self.part(random, count)
    }

    /// A write finds no room although there is some.
    pub(super) fn refuses_write(self, random: &mut Random) -> bool {
        self.hits(random, 0.05)
    }

    /// How many of one datagram arrive.
    pub(super) fn copies(self, random: &mut Random) -> usize {
        let (is_lost, is_doubled) = (self.hits(random, 0.1), self.hits(random, 0.1));
        usize::from(!is_lost) + usize::from(is_doubled)
    }

    /// A datagram does not wait for those that were sent before.
    pub(super) fn overtakes(self, random: &mut Random) -> bool {
        self.hits(random, 0.3)
    }

    /// Nobody seems to listen.
    pub(super) fn refuses_connection(self, random: &mut Random) -> bool {
        self.hits(random, 0.05)
    }

    /// An `errno` of `accept(2)`, if that is to fail.
    pub(super) fn accept_error(self, random: &mut Random) -> Option<i32> {
        let kind = self.hits(random, 0.06).then(|| random.below(4))?;
        Some(if kind == 0 { libc::ECONNABORTED } else { libc::EMFILE })
    }

    /// No descriptor for a new socket.
    pub(super) fn lacks_descriptor(self, random: &mut Random) -> bool {
        self.hits(random, 0.01)
    }

    /// A name is not found.
    pub(super) fn loses_name(self, random: &mut Random) -> bool {
        self.hits(random, 0.05)
    }
}
