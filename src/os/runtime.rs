//! The async runtime: what runs a future to its end, and tasks in the background.

use std::future::Future;

use super::clock::epoch;
use super::descriptors::raise_descriptor_limit;

/// Prepares the runtime. Call once, first thing in `main`, before any thread exists.
///
/// async-std starts one executor thread per core on first use. Contexts do not run on it (it only
/// flushes closed sockets and watches signals), so one thread is enough.
pub fn init() {
    epoch();
    raise_descriptor_limit();
    if std::env::var_os("ASYNC_STD_THREAD_COUNT").is_none() {
        // SAFETY: called first thing in `main`: no other thread reads the environment.
        unsafe { std::env::set_var("ASYNC_STD_THREAD_COUNT", "1") };
    }
}

/// Runs a future to its end on this thread, driving the reactor while it waits.
pub(crate) fn block_on<F: Future>(future: F) -> F::Output {
    // What async-std's own `block_on` does beneath an executor for tasks of this thread.
    async_io::block_on(future)
}

/// Starts a background task.
pub(crate) fn spawn(future: impl Future<Output = ()> + Send + 'static) {
    drop(async_std::task::spawn(future));
}
