//! Gives freed memory back to the system, now and then.
//!
//! The allocator keeps freed memory among what is in use, and reuses any of it: a process whose
//! contexts come and go touches more and more memory, for hours. The watchdog gives unused pages
//! back.

use crate::os::{memory, thread};
use crate::rt;

/// Looks of the watchdog that see something run before memory is given back …
const LOOKS: u32 = 250;

/// … or this many, when nothing runs any more.
const LOOKS_QUIET: u32 = 25;

/// Giving back may take at most one part in this many of all time; the pages cost several times as
/// much again where they are used next.
const SHARE: u64 = 1000;

/// When memory is given back.
#[derive(Debug, Default)]
pub(super) struct Trimmer {
    /// Looks that have seen something run since the last time.
    looks: u32,
    /// Not before this time.
    due: u64,
}

impl Trimmer {
    /// Notes that something has run.
    pub(super) fn note(&mut self) {
        self.looks += 1;
        if self.looks >= LOOKS {
            self.trim();
        }
    }

    /// Notes that nothing has for a while.
    pub(super) fn rest(&mut self) {
        if self.looks >= LOOKS_QUIET {
            self.trim();
        }
    }

    fn trim(&mut self) {
        if rt::now() < self.due {
            return;
        }
        let before = thread::cpu_time();
        memory::give_back();
        let taken = thread::cpu_time().saturating_sub(before).as_nanos() as u64;
        *self = Trimmer { looks: 0, due: rt::now() + taken * SHARE };
    }
}
