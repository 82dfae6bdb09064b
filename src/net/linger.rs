//! Connections that are closed but not yet written out.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures::future::{Either, poll_fn, select};

use super::connection::Connection;
use crate::error::Code;
use crate::rt;

/// How long a peer may take to read what was written before its connection was closed.
pub const LINGER: Duration = Duration::from_secs(30);

static LINGERING: AtomicUsize = AtomicUsize::new(0);

/// Closes a connection once its queue is out, or after [`LINGER`].
pub fn linger(connection: Connection) {
    connection.close();
    if connection.writer().is_drained() {
        return;
    }
    // Relaxed: a count that is only polled.
    LINGERING.fetch_add(1, Ordering::Relaxed);
    rt::spawn(async move {
        let drained = poll_fn(|cx| connection.writer().poll_drained(cx));
        let late = rt::sleep(LINGER);
        if let Either::Right(_) = select(drained, std::pin::pin!(late)).await {
            connection.writer().abandon(Code::TIMED_OUT);
        }
        drop(connection);
        LINGERING.fetch_sub(1, Ordering::Relaxed);
    });
}

/// Waits, blocking, until no connection lingers, or `patience` is over.
pub fn wait_for_lingering(patience: Duration) {
    let deadline = rt::now() + patience.as_nanos() as u64;
    while LINGERING.load(Ordering::Relaxed) > 0 && rt::now() < deadline {
        rt::drive(Duration::from_millis(5));
    }
}
