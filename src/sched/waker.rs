//! The wakers of a context's sockets and timers.

use std::sync::Arc;
use std::task::Wake;

use super::context::Context;
use crate::message::Event;

/// Wakes a context because something it owns is ready: a socket, or its timer.
#[derive(Debug)]
pub struct ReadyWaker {
    context: Arc<Context>,
    source: u64,
}

impl ReadyWaker {
    /// A waker that delivers [`Event::Ready`] with `source`.
    pub fn waker(context: &Arc<Context>, source: u64) -> std::task::Waker {
        Arc::new(ReadyWaker { context: Arc::clone(context), source }).into()
    }
}

impl Wake for ReadyWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        // A context that has ended needs no waking.
        let _ = self.context.deliver(Event::Ready { source: self.source });
    }
}
