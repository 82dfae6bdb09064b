//! What a turn has printed that does not end: written by a thread of its own, so that the watchdog,
//! which asks for it, never waits for a reader.

use std::sync::{Condvar, Mutex, PoisonError};

use crate::sync::lock;

/// Whether there is a thread, and whether it is to write.
#[derive(Debug, Default)]
struct State {
    has_thread: bool,
    is_asked: bool,
}

static STATE: Mutex<State> = Mutex::new(State { has_thread: false, is_asked: false });
static ASKED: Condvar = Condvar::new();

/// Has what was printed so far written soon. Does not wait.
pub fn nudge() {
    if super::pending() == 0 {
        return;
    }
    let mut state = lock(&STATE);
    state.is_asked = true;
    ASKED.notify_one();
    if !state.has_thread {
        // Without a thread, the next nudge tries again.
        let started = std::thread::Builder::new().name("stdout".to_owned()).spawn(work);
        state.has_thread = started.is_ok();
    }
}

fn work() {
    loop {
        let state = lock(&STATE);
        let mut state = ASKED
            .wait_while(state, |state| !state.is_asked)
            .unwrap_or_else(PoisonError::into_inner);
        state.is_asked = false;
        drop(state);
        super::flush_all();
    }
}
