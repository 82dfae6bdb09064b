//! Turns that do not end take turns: of many threads that are stuck in one, only as many as there
//! are workers run at a time. The others stand still, at a point where their behavior says that it
//! may, so that they take no CPU time away from those that answer.

use std::cell::Cell;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, OnceLock, PoisonError};

use super::watchdog::current_watch;

/// Asks the behavior that runs on this thread to call [`pause`] soon; false if it must be asked
/// again. Async-signal-safe.
static ASK: OnceLock<fn() -> bool> = OnceLock::new();

thread_local! {
    /// The thread stands still already.
    static IS_PAUSED: Cell<bool> = const { Cell::new(false) };
}

/// Sets how a behavior is asked to call [`pause`], from inside a signal handler on the thread that
/// runs it; false tells that it cannot be asked at this moment.
pub fn set_ask_pause(ask: fn() -> bool) {
    // Set more than once only by tests, to the same function.
    let _ = ASK.set(ask);
}

/// Stands still for as long as others are to run. Called by a behavior in its turn, where it holds
/// no lock that others take.
pub fn pause() {
    if let Some(watch) = current_watch()
        && !IS_PAUSED.replace(true)
    {
        watch.hold.wait();
        IS_PAUSED.set(false);
    }
}

/// Whether a thread is to stand still.
#[derive(Debug, Default)]
pub(super) struct Hold {
    /// As below, for the signal handler.
    is_wanted: AtomicBool,
    is_held: Mutex<bool>,
    released: Condvar,
}

impl Hold {
    /// Sets whether the thread is to stand still: from the next [`pause`] on, or no longer.
    pub(super) fn set(&self, is_held: bool) {
        self.is_wanted.store(is_held, Ordering::Relaxed);
        *self.is_held.lock().unwrap_or_else(PoisonError::into_inner) = is_held;
        if !is_held {
            self.released.notify_all();
        }
    }

    pub(super) fn is_set(&self) -> bool {
        self.is_wanted.load(Ordering::Relaxed)
    }

    /// Asks the behavior to pause if it is to; false if it must be asked again. Only in the poke
    /// handler of the thread.
    pub(super) fn ask(&self) -> bool {
        match ASK.get() {
            Some(ask) if self.is_set() && !IS_PAUSED.get() => ask(),
            _ => true,
        }
    }

    fn wait(&self) {
        let mut is_held = self.is_held.lock().unwrap_or_else(PoisonError::into_inner);
        while *is_held {
            is_held = self.released.wait(is_held).unwrap_or_else(PoisonError::into_inner);
        }
    }
}
