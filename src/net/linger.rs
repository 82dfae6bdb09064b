//! Connections that are closed but not yet written out.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use futures::future::{Either, poll_fn, select};

use super::Connection;
use super::leftovers::{self, until_too_much};
use crate::error::Code;
use crate::rt;

/// How long a peer may be idle, neither taking what was written before its connection was closed
/// nor writing itself, and how long it may take for all of it.
const LINGER: Duration = Duration::from_secs(30);
const LINGER_MAX: Duration = Duration::from_secs(600);

/// The pause between two looks at whether the peer does something.
const LOOK: Duration = Duration::from_secs(3);

/// The first and the longest pause between two looks at whether the peer has everything.
const PAUSE_MIN: Duration = Duration::from_millis(2);
const PAUSE_MAX: Duration = Duration::from_millis(100);

static LINGERING: AtomicUsize = AtomicUsize::new(0);

/// Counts as lingering while it lives.
pub(super) struct Lingering;

impl Lingering {
    pub(super) fn new() -> Lingering {
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

/// Closes a connection once its queue is out and the peer's system has everything, or the peer has
/// been idle for [`LINGER`], or there is too much of it (leftovers.rs): then it is reset, so that
/// what is missing is not taken for the end.
///
/// The system answers input that nobody has read, or that comes later, by resetting the connection,
/// and then forgets what it has not sent yet. So the socket stays open, its output ended and its
/// input thrown away, until there is nothing left to forget.
pub fn linger(connection: Connection) {
    connection.close();
    let is_drained = connection.writer().is_drained();
    if is_drained {
        connection.stream().discard();
        if connection.is_unix() || connection.stream().undelivered() == 0 {
            return;
        }
    }
    let counted = Lingering::new();
    let limited = connection.is_limited().then(|| Arc::clone(connection.writer()));
    let leftover = limited.and_then(|writer| {
        leftovers::count(writer.held_bytes(), move || writer.abandon(Code::TIMED_OUT))
    });
    rt::spawn(async move {
        // Relaxed throughout: one task sets it, and clears it when it looks.
        let had_input = AtomicBool::new(false);
        let work = pin!(finish(&connection, counted, &had_input));
        let idle = pin!(idle(&connection, &had_input));
        let enough = pin!(until_too_much(leftover.as_ref()));
        if let Either::Right(_) = select(work, select(idle, enough)).await {
            connection.writer().abandon(Code::TIMED_OUT);
            connection.stream().reset();
        }
    });
}

/// Ends once the peer has been idle for [`LINGER`], or [`LINGER_MAX`] is over.
async fn idle(connection: &Connection, had_input: &AtomicBool) {
    let left = || connection.writer().waiting().0 + connection.stream().undelivered();
    let (mut least, mut time, mut last) = (left(), Duration::ZERO, Duration::ZERO);
    while time < LINGER_MAX && time - last < LINGER {
        rt::sleep(LOOK).await;
        time += LOOK;
        let now = left();
        if now < least || had_input.swap(false, Ordering::Relaxed) {
            (least, last) = (least.min(now), time);
        }
    }
}

/// Writes the queue out, ends the output, and waits until it has arrived.
async fn finish(connection: &Connection, counted: Lingering, had_input: &AtomicBool) {
    let stream = connection.stream();
    let mut had_any = false;
    let discard = || {
        let some = stream.discard();
        had_input.fetch_or(some, Ordering::Relaxed);
        some
    };
    poll_fn(|cx| {
        // A peer may read on only once what it writes itself has found room. Readiness that turns
        // out to be old news is asked for again.
        for _ in 0..2 {
            if stream.poll_read_ready(cx).is_pending() {
                break;
            }
            if discard() {
                had_any = true;
                cx.waker().wake_by_ref();
                break;
            }
        }
        connection.writer().poll_drained(cx)
    })
    .await;
    stream.end_output();
    // Without input there is no reset, and the process need not wait: the system goes on by itself.
    let _counted = Some(counted).filter(|_| discard() || had_any);
    let mut pause = PAUSE_MIN;
    while !connection.is_unix() && stream.undelivered() > 0 {
        rt::sleep(pause).await;
        pause = PAUSE_MAX.min(2 * pause);
        discard();
    }
}

/// Waits, blocking, until no connection lingers, or `patience` is over.
pub fn wait_for_lingering(patience: Duration) {
    let deadline = rt::now() + patience.as_nanos() as u64;
    while LINGERING.load(Ordering::Relaxed) > 0 && rt::now() < deadline {
        rt::drive(Duration::from_millis(1));
    }
}
