//! The clock, and deadlines on the reactor.

use std::pin::Pin;
use std::sync::OnceLock;
use std::task::{Context, Poll};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// The instant that deadlines count from.
pub(super) fn epoch() -> Instant {
    static EPOCH: OnceLock<Instant> = OnceLock::new();
    *EPOCH.get_or_init(Instant::now)
}

/// Nanoseconds of the monotonic clock since the first call.
pub(crate) fn now() -> u64 {
    epoch().elapsed().as_nanos() as u64
}

/// Time since 1970-01-01 00:00 UTC, as far as the system knows it; 0 for one before that.
pub(crate) fn wall_clock() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// One deadline at a time, on the reactor.
#[derive(Debug)]
pub(crate) struct Timer(async_io::Timer);

impl Timer {
    /// A timer that never fires.
    pub(crate) fn new() -> Timer {
        Timer(async_io::Timer::never())
    }

    /// Fires at `deadline` (nanoseconds, see [`now`]) instead of whatever was set.
    pub(crate) fn set(&mut self, deadline: u64) {
        self.0.set_at(epoch() + Duration::from_nanos(deadline));
    }

    /// Ready once the deadline has passed; otherwise wakes `cx` when it has.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        Pin::new(&mut self.0).poll(cx).map(|_| ())
    }
}

/// Waits for `duration`.
pub(crate) async fn sleep(duration: Duration) {
    async_io::Timer::after(duration).await;
}
