//! What a context may use, and what it has used.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

/// CPU time, in nanoseconds, that a context may be ahead of others: what it has used beyond, where
/// it could not be cut, is forgiven.
const AHEAD_MAX: u64 = 100_000_000;

/// What a context may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Messages its mailbox holds.
    pub mailbox: usize,
    /// Bytes that those may hold; one larger message is taken if none of them holds any.
    pub mailbox_bytes: usize,
    /// Queries of its own that may wait for an answer at a time.
    pub queries: usize,
    /// CPU time of one turn, over all its slices; `None` for no limit.
    pub turn: Option<Duration>,
    /// Bytes of its VM, and those it holds in buffers; 0 for no limit.
    pub memory: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            mailbox: MAILBOX_USUAL,
            mailbox_bytes: 64 << 20,
            queries: 65_536,
            turn: None,
            memory: 0,
        }
    }
}

/// Messages that any mailbox may hold whose owner has a memory limit, and for how many bytes of a
/// larger limit there may be one more: those that hold nothing themselves take some 50 each.
const MAILBOX_USUAL: usize = 65_536;
const MESSAGE_PART: usize = 4096;

impl Limits {
    /// Sets how many bytes there may be, if that is not 0. What waits in the mailbox is the
    /// context's, too, though not in its VM yet.
    pub fn set_memory(&mut self, bytes: usize) {
        self.memory = bytes;
        if bytes > 0 {
            self.mailbox_bytes = self.mailbox_bytes.min(bytes / 2);
            self.mailbox = self.mailbox.min(MAILBOX_USUAL.max(bytes / MESSAGE_PART));
        }
    }
}

/// What a context has used, and holds. Written by the thread that runs it, with plain stores; the
/// CPU time by the watchdog too.
#[derive(Debug, Default)]
pub struct Metrics {
    turns: AtomicU64,
    /// How often a turn was cut.
    cuts: AtomicU64,
    cpu_nanoseconds: AtomicU64,
    /// Of these, those of the turn that goes on, as far as it is known to be a long one.
    turn_nanoseconds: AtomicU64,
    /// What is added to all of them, modulo 2^64, where CPU time is compared.
    head_start: AtomicU64,
    /// The last turn has ended in good time.
    is_proven: AtomicBool,
    /// The turn was cut, and has not ended yet.
    is_cut: AtomicBool,
    /// The most messages that have waited, as seen whenever they were taken.
    mailbox_peak: AtomicUsize,
    /// The most queries that have waited for an answer.
    queries_peak: AtomicUsize,
    /// What was published to it and found no room.
    missed: AtomicUsize,
    /// Host names being looked up.
    pub lookups: AtomicUsize,
    /// About how many bytes its names and subscriptions take outside of its VM.
    pub ties_bytes: AtomicUsize,
    /// Bytes of the VM.
    pub lua_bytes: AtomicUsize,
    /// Bytes held in buffers.
    pub buffer_bytes: AtomicUsize,
    /// Pending timers.
    pub timers: AtomicUsize,
    /// Open sockets.
    pub sockets: AtomicUsize,
    /// The turn in which all garbage was last collected because descriptors ran out.
    pub collected_in: AtomicU64,
}

impl Metrics {
    /// Counts what found no room. On any thread.
    pub(super) fn count_missed(&self) {
        // Relaxed: a figure for people.
        self.missed.fetch_add(1, Ordering::Relaxed);
    }

    /// How many messages were published to it and found no room in its mailbox.
    pub fn missed(&self) -> usize {
        self.missed.load(Ordering::Relaxed)
    }

    #[inline]
    pub(super) fn count_turn(&self) {
        self.turns.store(self.turns() + 1, Ordering::Relaxed);
    }

    /// Turns begun.
    pub fn turns(&self) -> u64 {
        self.turns.load(Ordering::Relaxed)
    }

    /// Slices begun: a turn is one, and one more each time that it is cut.
    pub fn slices(&self) -> u64 {
        self.turns() + self.cuts.load(Ordering::Relaxed)
    }

    /// Whether the turn was cut, and has not ended yet.
    #[inline]
    pub(super) fn is_cut(&self) -> bool {
        self.is_cut.load(Ordering::Relaxed)
    }

    /// Notes that the turn was cut.
    pub(super) fn cut(&self) {
        self.is_cut.store(true, Ordering::Relaxed);
        self.cuts.store(self.cuts.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
    }

    /// Its CPU time, in nanoseconds, among others that share the CPU, of whom none has less than
    /// `floor`. Called with the lock of their queue.
    pub(super) fn rank(&self, floor: u64) -> u64 {
        let used = self.cpu_nanoseconds.load(Ordering::Relaxed);
        let among = used.wrapping_add(self.head_start.load(Ordering::Relaxed));
        let among = among.clamp(floor, floor.saturating_add(AHEAD_MAX));
        self.head_start.store(among.wrapping_sub(used), Ordering::Relaxed);
        among
    }

    /// Notes that a turn has ended that was cut before, or has taken long.
    pub(super) fn end_long_turn(&self) {
        self.is_cut.store(false, Ordering::Relaxed);
        self.turn_nanoseconds.store(0, Ordering::Relaxed);
    }

    /// The CPU time that a long turn has used so far.
    pub(super) fn turn_cpu(&self) -> Duration {
        Duration::from_nanos(self.turn_nanoseconds.load(Ordering::Relaxed))
    }

    pub(super) fn add_turn_cpu(&self, time: Duration) {
        self.add_cpu(time);
        self.turn_nanoseconds.fetch_add(time.as_nanos() as u64, Ordering::Relaxed);
    }

    /// The CPU time used: an estimate from one turn in this many, but for long ones.
    pub fn cpu(&self) -> Duration {
        Duration::from_nanos(self.cpu_nanoseconds.load(Ordering::Relaxed))
    }

    pub(super) fn add_cpu(&self, time: Duration) {
        self.cpu_nanoseconds.fetch_add(time.as_nanos() as u64, Ordering::Relaxed);
    }

    /// Whether the last turn, if there was one, has ended in good time.
    #[inline]
    pub(super) fn is_proven(&self) -> bool {
        self.is_proven.load(Ordering::Relaxed)
    }

    /// Notes whether the last turn has ended in good time.
    #[inline]
    pub(super) fn prove(&self, in_time: bool) {
        // Read first: a store would take the line away from those that look at it.
        if self.is_proven() != in_time {
            self.is_proven.store(in_time, Ordering::Relaxed);
        }
    }

    /// Notes how many messages wait.
    #[inline]
    pub(super) fn on_waiting(&self, messages: usize) {
        if messages > self.mailbox_peak() {
            self.mailbox_peak.store(messages, Ordering::Relaxed);
        }
    }

    /// Notes how many queries wait for an answer.
    #[inline]
    pub(super) fn on_asked(&self, queries: usize) {
        if queries > self.queries_peak() {
            self.queries_peak.store(queries, Ordering::Relaxed);
        }
    }

    /// The most queries that have waited for an answer.
    pub fn queries_peak(&self) -> usize {
        self.queries_peak.load(Ordering::Relaxed)
    }

    /// The most messages that have waited.
    pub fn mailbox_peak(&self) -> usize {
        self.mailbox_peak.load(Ordering::Relaxed)
    }
}
