//! Connections that are closed but not yet written out.

use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures::future::{Either, poll_fn, select};

use super::connection::Connection;
use crate::error::Code;
use crate::rt;

/// How long a peer may take to read what was written before its connection was closed.
pub const LINGER: Duration = Duration::from_secs(30);

/// The first and the longest pause between two looks at whether the peer has everything.
const PAUSE_MIN: Duration = Duration::from_millis(2);
const PAUSE_MAX: Duration = Duration::from_millis(100);

static LINGERING: AtomicUsize = AtomicUsize::new(0);

/// Counts as lingering while it lives.
struct Lingering;

impl Lingering {
    fn new() -> Lingering {
        // Relaxed: a count that is only polled.
        LINGERING.fetch_add(1, Ordering::Relaxed);
        Lingering
    }
}

impl Drop for Lingering {
    fn drop(&mut self) {
        LINGERING.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Closes a connection once its queue is out and the peer's system has everything, or after
/// [`LINGER`].
///
/// The system answers input that nobody has read, or that comes later, by resetting the connection,
/// and then forgets what it has not sent yet. So the socket stays open, its output ended and its
/// input thrown away, until there is nothing left to forget.
pub fn linger(connection: Connection) {
    connection.close();
    let is_drained = connection.writer().is_drained();
    if is_drained {
        connection.stream().discard();
        if connection.is_unix() || connection.stream().is_delivered() {
            return;
        }
    }
    let counted = Lingering::new();
    rt::spawn(async move {
        let work = pin!(finish(&connection, counted));
        if let Either::Right(_) = select(work, pin!(rt::sleep(LINGER))).await {
            connection.writer().abandon(Code::TIMED_OUT);
        }
    });
}

/// Writes the queue out, ends the output, and waits until it has arrived.
async fn finish(connection: &Connection, counted: Lingering) {
    let stream = connection.stream();
    let mut had_input = false;
    poll_fn(|cx| {
        // A peer may read on only once what it writes itself has found room. Readiness that turns
        // out to be old news is asked for again.
        for _ in 0..2 {
            if stream.poll_readable(cx).is_pending() {
                break;
            }
            if stream.discard() {
                had_input = true;
                cx.waker().wake_by_ref();
                break;
            }
        }
        connection.writer().poll_drained(cx)
    })
    .await;
    stream.end_output();
    // Without input there is no reset, and the process need not wait: the system goes on by itself.
    let _counted = Some(counted).filter(|_| stream.discard() || had_input);
    let mut pause = PAUSE_MIN;
    while !connection.is_unix() && !stream.is_delivered() {
        rt::sleep(pause).await;
        pause = PAUSE_MAX.min(2 * pause);
        stream.discard();
    }
}

/// Waits, blocking, until no connection lingers, or `patience` is over.
pub fn wait_for_lingering(patience: Duration) {
    let deadline = rt::now() + patience.as_nanos() as u64;
    while LINGERING.load(Ordering::Relaxed) > 0 && rt::now() < deadline {
        rt::drive(Duration::from_millis(1));
    }
}
