//! What closed connections of contexts with a memory limit, and datagram sockets, have not sent
//! yet. It outlives its context, which therefore cannot bound it: whoever starts one after the
//! other would hold any amount. So all of it together has a bound, and what was closed first goes
//! first.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context as TaskContext, Poll};

use futures::future::poll_fn;
use futures::task::AtomicWaker;

use crate::sync::lock;

/// Bytes in all.
const BYTES_MAX: usize = 128 << 20;

/// Less of a socket does not count: there are no more of these than descriptors.
const LEAST: usize = 64 << 10;

/// What one socket has not sent.
pub(super) struct Leftover {
    bytes: usize,
    /// Lets go of it.
    abandon: Box<dyn Fn() + Send + Sync>,
    is_dropped: AtomicBool,
    waker: AtomicWaker,
}

/// Counts one while it lives.
pub(super) struct Counted(Arc<Leftover>);

/// All of them, those first that were closed first, and their bytes.
struct All {
    leftovers: VecDeque<Arc<Leftover>>,
    bytes: usize,
}

static ALL: Mutex<All> = Mutex::new(All { leftovers: VecDeque::new(), bytes: 0 });

impl All {
    /// Adds one; returns it, and those that are to be dropped.
    fn add(
        &mut self,
        bytes: usize,
        abandon: Box<dyn Fn() + Send + Sync>,
        most: usize,
    ) -> (Arc<Leftover>, Vec<Arc<Leftover>>) {
        let (is_dropped, waker) = (AtomicBool::new(false), AtomicWaker::new());
        let leftover = Arc::new(Leftover { bytes, abandon, is_dropped, waker });
        self.leftovers.push_back(Arc::clone(&leftover));
        self.bytes += bytes;
        let mut dropped = Vec::new();
        while self.bytes > most && self.leftovers.len() > 1 {
            let Some(first) = self.leftovers.pop_front() else { break };
            self.bytes -= first.bytes;
            dropped.push(first);
        }
        (leftover, dropped)
    }

    fn remove(&mut self, leftover: &Arc<Leftover>) {
        let at = self.leftovers.iter().position(|other| Arc::ptr_eq(other, leftover));
        if let Some(at) = at {
            self.leftovers.remove(at);
            self.bytes -= leftover.bytes;
        }
    }
}

impl Leftover {
    /// Lets go of it at once, and has the socket closed.
    fn drop_all(&self) {
        (self.abandon)();
        // Release: pairs with the load of who waits.
        self.is_dropped.store(true, Ordering::Release);
        self.waker.wake();
    }
}

/// Counts what a closed socket has not sent, if that is much; `abandon` lets go of it, and tells
/// who waits for it.
pub(super) fn count(bytes: usize, abandon: impl Fn() + Send + Sync + 'static) -> Option<Counted> {
    if bytes < LEAST {
        return None;
    }
    let (leftover, dropped) = lock(&ALL).add(bytes, Box::new(abandon), BYTES_MAX);
    dropped.iter().for_each(|one| one.drop_all());
    Some(Counted(leftover))
}

impl Counted {
    fn poll(&self, cx: &TaskContext<'_>) -> Poll<()> {
        self.0.waker.register(cx.waker());
        // Acquire: pairs with the store in `drop_all`.
        if self.0.is_dropped.load(Ordering::Acquire) { Poll::Ready(()) } else { Poll::Pending }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        lock(&ALL).remove(&self.0);
    }
}

/// Ends once there is too much; never for what does not count.
pub(super) async fn until_too_much(counted: Option<&Counted>) {
    poll_fn(|cx| counted.map_or(Poll::Pending, |counted| counted.poll(cx))).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_closed_first_goes_first() {
        let mut all = All { leftovers: VecDeque::new(), bytes: 0 };
        let mut add = |bytes| {
            let (added, dropped) = all.add(bytes, Box::new(|| ()), 100);
            dropped.iter().for_each(|one| one.drop_all());
            added
        };
        let [first, second, third] = [40, 50, 20].map(&mut add);
        let dropped = |one: &Arc<Leftover>| one.is_dropped.load(Ordering::Relaxed);
        assert_eq!([&first, &second, &third].map(dropped), [true, false, false]);
        // One alone may be as large as it is.
        let large = add(1000);
        assert_eq!([&second, &third, &large].map(dropped), [true, true, false]);
        all.remove(&first);
        assert_eq!((all.leftovers.len(), all.bytes), (1, 1000));
        all.remove(&large);
        assert_eq!((all.leftovers.len(), all.bytes), (0, 0));
    }
}
