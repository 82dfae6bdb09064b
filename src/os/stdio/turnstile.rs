//! A lock for what is done for every line that is printed: one atomic operation to take it, none to
//! let it go. Who finds it taken has all threads of the process pass a barrier (`membarrier`) once
//! it has said that it waits: then whoever lets the lock go sees that.

use std::cell::Cell;
use std::ffi::c_int;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering, compiler_fence};
use std::time::Duration;

use rustix::thread::futex::{self, Timespec};
use rustix::thread::{MembarrierCommand, membarrier};

use super::waits;

/// Where the system has no such barrier, those who wait look again after so long.
const LOOK_AGAIN: Duration = Duration::from_millis(1);

/// Threads that may wait at a time. A process has some more for what does not print, but not for
/// ever more of those that wait for a reader who does not read.
const WAITING_MAX: u32 = 1280;

/// How long those who wait sleep at a time.
const LONGEST: Duration = Duration::from_secs(3600);

static HAS_BARRIER: AtomicBool = AtomicBool::new(false);

thread_local! {
    /// This thread's number; 0 for none yet.
    static NUMBER: Cell<u32> = const { Cell::new(0) };
}

#[inline]
fn number() -> u32 {
    match NUMBER.get() {
        0 => new_number(),
        number => number,
    }
}

#[cold]
fn new_number() -> u32 {
    static LAST: AtomicU32 = AtomicU32::new(0);
    NUMBER.set(LAST.fetch_add(1, Ordering::Relaxed) + 1);
    NUMBER.get()
}

/// Prepares the process. Call once.
pub(super) fn init() {
    let has_barrier = membarrier(MembarrierCommand::RegisterPrivateExpedited).is_ok();
    HAS_BARRIER.store(has_barrier, Ordering::Relaxed);
}

/// The lock. Its holder may take it again.
#[derive(Debug)]
pub(super) struct Turnstile {
    /// The number of who holds it, 0 for nobody.
    holder: AtomicU32,
    /// How often its holder has taken it again. The holder's.
    again: AtomicU32,
    waiting: AtomicU32,
}

impl Turnstile {
    pub(super) const fn new() -> Turnstile {
        Turnstile {
            holder: AtomicU32::new(0),
            again: AtomicU32::new(0),
            waiting: AtomicU32::new(0),
        }
    }

    /// Waits for it, at least until what this thread runs is to end.
    ///
    /// # Errors
    /// As in `errno`: EINTR if it is to end, EAGAIN if too many wait.
    #[inline]
    pub(super) fn take(&self) -> Result<(), c_int> {
        if self.try_take() { Ok(()) } else { self.wait_for_turn() }
    }

    #[cold]
    fn wait_for_turn(&self) -> Result<(), c_int> {
        match () {
            () if self.waiting.load(Ordering::Relaxed) >= WAITING_MAX => Err(libc::EAGAIN),
            () if self.wait(waits::until_end()) => Ok(()),
            () => Err(libc::EINTR),
        }
    }

    /// Takes it unless another thread has it.
    #[inline]
    pub(super) fn try_take(&self) -> bool {
        let me = number();
        // Acquire: pairs with `leave`.
        let found = self.holder.compare_exchange(0, me, Ordering::Acquire, Ordering::Relaxed);
        if found == Err(me) {
            self.again.fetch_add(1, Ordering::Relaxed);
        }
        found.is_ok() || found == Err(me)
    }

    /// Whether this thread holds it.
    pub(super) fn is_mine(&self) -> bool {
        self.holder.load(Ordering::Relaxed) == number()
    }

    /// Waits for it, so long at a time, until `patience` gives no more time.
    #[cold]
    pub(super) fn take_within(&self, patience: impl FnMut() -> Option<Duration>) -> bool {
        self.try_take() || self.wait(patience)
    }

    #[cold]
    fn wait(&self, mut patience: impl FnMut() -> Option<Duration>) -> bool {
        self.waiting.fetch_add(1, Ordering::SeqCst);
        // Who has let it go before this has seen that somebody waits, or has it free for the next
        // try: its two steps are not on both sides of the barrier.
        let has_barrier = HAS_BARRIER.load(Ordering::Relaxed)
            && membarrier(MembarrierCommand::PrivateExpedited).is_ok();
        let mut is_taken = self.try_take();
        while !is_taken {
            let Some(time) = patience() else { break };
            let holder = self.holder.load(Ordering::Relaxed);
            if holder != 0 {
                self.sleep(holder, if has_barrier { time } else { time.min(LOOK_AGAIN) });
            }
            is_taken = self.try_take();
        }
        self.waiting.fetch_sub(1, Ordering::SeqCst);
        is_taken
    }

    /// Sleeps until the holder is another, or a signal arrives, for so long at most.
    fn sleep(&self, holder: u32, time: Duration) {
        // The system goes on with a wait that has no limit once a signal's handler has returned.
        let time = time.min(LONGEST);
        let limit =
            Timespec { tv_sec: time.as_secs().cast_signed(), tv_nsec: time.subsec_nanos().into() };
        let _ = futex::wait(&self.holder, futex::Flags::PRIVATE, holder, Some(&limit));
    }

    /// Lets it go.
    #[inline]
    pub(super) fn leave(&self) {
        let again = self.again.load(Ordering::Relaxed);
        if again > 0 {
            self.again.store(again - 1, Ordering::Relaxed);
            return;
        }
        // Release: pairs with `try_take`.
        self.holder.store(0, Ordering::Release);
        compiler_fence(Ordering::SeqCst);
        if self.waiting.load(Ordering::Relaxed) > 0 {
            self.wake();
        }
    }

    #[cold]
    fn wake(&self) {
        let _ = futex::wake(&self.holder, futex::Flags::PRIVATE, 1);
    }

    /// Makes it free, in a process that was forked off one whose threads may have held it.
    pub(super) fn reset(&self) {
        self.holder.store(0, Ordering::Relaxed);
        self.again.store(0, Ordering::Relaxed);
        self.waiting.store(0, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::time::Duration;

    use super::{Turnstile, init};

    static COUNTED: AtomicU64 = AtomicU64::new(0);

    #[test]
    fn one_thread_at_a_time_passes_and_none_is_forgotten() {
        init();
        let lock = Turnstile::new();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..20_000 {
                        assert!(lock.take().is_ok() && lock.take().is_ok());
                        // Two steps, which others would get in between.
                        let count = COUNTED.load(Ordering::Relaxed);
                        std::hint::spin_loop();
                        COUNTED.store(count + 1, Ordering::Relaxed);
                        lock.leave();
                        lock.leave();
                    }
                });
            }
        });
        assert_eq!(COUNTED.load(Ordering::Relaxed), 80_000);
    }

    #[test]
    fn patience_ends_while_another_thread_holds_it() {
        let lock = Turnstile::new();
        assert!(lock.take().is_ok());
        let mut left = 2;
        let patience = || {
            left -= 1;
            (left > 0).then_some(Duration::from_millis(1))
        };
        let taken = std::thread::scope(|scope| scope.spawn(|| lock.take_within(patience)).join());
        assert!(matches!(taken, Ok(false)));
        lock.leave();
        assert!(lock.take_within(|| None));
    }
}
