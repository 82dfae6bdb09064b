//! Freed memory: how much of it the C library's allocator keeps, and when it goes back to the
//! system.
//!
//! The allocator keeps freed blocks where they are, between those in use, and reuses them as it
//! likes: a process whose contexts come and go touches more and more of its memory, for hours. So
//! the watchdog has freed pages given back now and then (`sched::trim`), and while there are
//! contexts with a memory limit, a thread that allocates or frees a lot looks whether the process
//! has grown beyond what they may use.

use std::cell::Cell;
use std::ffi::c_int;
use std::sync::atomic::{AtomicIsize, AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use crate::sync::lock;

// SAFETY: numbers only; refused if not understood.
unsafe extern "C" {
    safe fn mallopt(what: c_int, value: c_int) -> c_int;
    safe fn malloc_trim(kept: usize) -> c_int;
}

/// Allocations of at least this size get pages of their own, which are new each time.
const MAPPED_BYTES: c_int = 4 << 20;

/// Free memory that each of the allocator's arenas keeps for later: giving pages back and getting
/// new ones costs more than what is read into them.
const KEPT_BYTES: c_int = 16 << 20;

/// Bytes that a thread allocates and frees between two looks: the least, and the most, while the
/// process is far smaller than it may be.
const LOOK_BYTES: usize = 1 << 20;
const LOOK_BYTES_FAR: usize = 16 << 20;

/// Freed memory that may stay while somebody has a memory limit: this many bytes, or one part in so
/// many of what the process takes.
const FREED_MAX: isize = 4 << 20;
const FREED_SHARE: isize = 16;

/// Sets what the allocator keeps. Call before any thread exists.
pub fn init() {
    mallopt(libc::M_MMAP_THRESHOLD, MAPPED_BYTES);
    mallopt(libc::M_TRIM_THRESHOLD, KEPT_BYTES);
}

/// Bounds how many pools of free memory the allocator keeps. By default each thread has one of its
/// own, and what one has freed is of no use to the others: with the threads that take a stuck
/// worker's place, the process would grow for an hour before it stays as it is.
pub fn limit_pools(count: usize) {
    mallopt(libc::M_ARENA_MAX, c_int::try_from(count).unwrap_or(c_int::MAX));
}

/// What gives memory back that the allocator does not know of.
static GIVE_BACK: OnceLock<fn()> = OnceLock::new();

/// Sets what [`give_back`] calls as well.
pub fn on_give_back(function: fn()) {
    // Set more than once only by tests, to the same function.
    let _ = GIVE_BACK.set(function);
}

/// What the process took, and what was counted of that, when memory was last given back.
#[derive(Clone, Copy)]
struct Last {
    resident: isize,
    live: isize,
}

/// Which one thread at a time does.
struct GivingBack {
    is_running: bool,
    last: Option<Last>,
}

static GIVING_BACK: Mutex<GivingBack> = Mutex::new(GivingBack { is_running: false, last: None });

/// Notified when that is done.
static GIVEN_BACK: Condvar = Condvar::new();

/// How long other threads wait for that: going on meanwhile, they would take new memory beside what
/// is about to be freed. Not longer, since the thread that does it may have the lowest priority.
const WAIT_MAX: Duration = Duration::from_millis(100);

/// Bytes in use, as far as they are told by [`changed`].
static LIVE: AtomicIsize = AtomicIsize::new(0);

/// All memory limits that somebody has.
static LIMITS: AtomicUsize = AtomicUsize::new(0);

/// What the process took when the first of them was noticed; 0 if there is none.
static BASE: AtomicIsize = AtomicIsize::new(0);

/// Gives memory that was freed back to the system, unless another thread is about to.
pub fn give_back() {
    without_looks(|| {
        let giving = lock(&GIVING_BACK);
        if !giving.is_running {
            give_back_from(giving);
        }
    });
}

fn give_back_from(mut giving: MutexGuard<'_, GivingBack>) {
    giving.is_running = true;
    drop(giving);
    if let Some(function) = GIVE_BACK.get() {
        function();
    }
    malloc_trim(0);
    let last = now();
    *lock(&GIVING_BACK) = GivingBack { is_running: false, last };
    GIVEN_BACK.notify_all();
}

/// Pages of the process that are in memory, in bytes, and what is counted.
fn now() -> Option<Last> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let kib = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: isize = kib.split_ascii_whitespace().next()?.parse().ok()?;
    // Relaxed: figures that nothing depends on but when memory is given back.
    Some(Last { resident: kib * 1024, live: LIVE.load(Ordering::Relaxed) })
}

/// Somebody has a memory limit.
#[derive(Debug)]
pub struct Limited(usize);

impl Limited {
    /// One of `bytes`, as long as the result lives.
    pub fn new(bytes: usize) -> Limited {
        let bytes = bytes.clamp(1, 1 << 40);
        // Relaxed: as in `now`.
        LIMITS.fetch_add(bytes, Ordering::Relaxed);
        Limited(bytes)
    }
}

impl Drop for Limited {
    fn drop(&mut self) {
        // Relaxed: as in `now`.
        if LIMITS.fetch_sub(self.0, Ordering::Relaxed) == self.0 {
            BASE.store(0, Ordering::Relaxed);
        }
    }
}

thread_local! {
    /// What this thread has not told yet: by how much it is more; and what may change before that.
    static CHANGES: Cell<(isize, usize)> = const { Cell::new((0, LOOK_BYTES)) };
}

/// Counts that what took `before` bytes takes `after` bytes now: of whatever is large, or held by
/// somebody with a limit.
#[inline]
pub fn changed(before: usize, after: usize) {
    // A thread that ends tells no more.
    let _ = CHANGES.try_with(|changes| {
        let (more, left) = changes.get();
        let left = left.saturating_sub(before.abs_diff(after));
        changes.set((more.wrapping_add_unsigned(after).wrapping_sub_unsigned(before), left));
        if left == 0 {
            changes.set((0, LOOK_BYTES));
            let more = more.wrapping_add_unsigned(after).wrapping_sub_unsigned(before);
            let next = without_looks(|| look(more));
            changes.set((changes.get().0, next));
        }
    });
}

/// Calls a function that has memory given back: what this thread frees meanwhile is no reason to
/// look, which would have it wait for itself.
fn without_looks<R>(function: impl FnOnce() -> R) -> R {
    let set_left = |now| {
        let set = |changes: &Cell<(isize, usize)>| {
            let (more, left) = changes.get();
            changes.set((more, now));
            left
        };
        // A thread that ends tells no more.
        CHANGES.try_with(set).unwrap_or(now)
    };
    let left = set_left(usize::MAX);
    let result = function();
    set_left(left);
    result
}

/// If the process is larger than those with limits may make it by one allocation more, of as much
/// as a limit, and by more than is counted, that is what was freed. Returns what may change until
/// the next look.
#[cold]
fn look(more: isize) -> usize {
    // Relaxed: as in `now`.
    LIVE.fetch_add(more, Ordering::Relaxed);
    let limits = LIMITS.load(Ordering::Relaxed) as isize;
    if limits == 0 {
        return LOOK_BYTES;
    }
    let Some(mut now) = self::now() else { return LOOK_BYTES_FAR };
    // Relaxed: as in `now`. Of several threads one says what it was.
    let base = BASE.compare_exchange(0, now.resident, Ordering::Relaxed, Ordering::Relaxed);
    let base = base.err().unwrap_or(now.resident);
    let room = base.saturating_add(limits).saturating_sub(now.resident);
    if room > 0 {
        // Others may take as much meanwhile.
        return (room as usize / 4).clamp(LOOK_BYTES, LOOK_BYTES_FAR);
    }
    let mut giving = lock(&GIVING_BACK);
    if giving.is_running {
        let waited = GIVEN_BACK.wait_timeout_while(giving, WAIT_MAX, |giving| giving.is_running);
        giving = waited.unwrap_or_else(PoisonError::into_inner).0;
        if giving.is_running {
            return LOOK_BYTES;
        }
        now = self::now().unwrap_or(now);
    }
    let is_much = giving.last.is_none_or(|last| {
        let freed = (now.resident - last.resident) - (now.live - last.live);
        freed > FREED_MAX.max(last.resident / FREED_SHARE)
    });
    if is_much {
        give_back_from(giving);
    }
    LOOK_BYTES
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_waits_for_himself_or_for_ever_until_memory_is_given_back() {
        let _limited = Limited::new(1);
        changed(0, LOOK_BYTES_FAR);
        // More than anybody may have made the process take.
        let _large = std::hint::black_box(vec![1_u8; 64 << 20]);
        lock(&GIVING_BACK).is_running = true;
        without_looks(|| {
            for _ in 0..10 {
                changed(LOOK_BYTES_FAR, 0);
                changed(0, LOOK_BYTES_FAR);
            }
        });
        changed(0, LOOK_BYTES_FAR);
        lock(&GIVING_BACK).is_running = false;
        give_back();
        assert!(lock(&GIVING_BACK).last.is_some());
        changed(0, LOOK_BYTES_FAR);
    }
}
