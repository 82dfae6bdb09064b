//! Responses that come later: where a script puts one, and what hyper waits for.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use http::{Response, StatusCode};

use super::body::Outgoing;
use super::count::{Bodies, Heads};
use super::plain::PlainHead;
use super::server::refusal_response;
use crate::message::Allowance;
use crate::sync::lock;

/// The requests of one connection, and what of their responses is unsent. Only one thread at a time
/// changes it, so its atomics order nothing.
#[derive(Debug, Default)]
pub(super) struct Traffic {
    begun: AtomicU64,
    ended: AtomicU64,
    /// Bytes of bodies that hyper has not taken yet.
    unsent: AtomicU64,
    /// Bodies leave piece by piece then, as the peer opens its windows.
    is_http2: AtomicBool,
    /// What the heads of responses count for the context.
    pub(super) heads: Heads,
    /// The same of the bodies of requests of HTTP/2.
    pub(super) bodies: Bodies,
}

impl Traffic {
    /// Of a new connection.
    pub(super) fn new(allowance: Option<&Arc<Allowance>>) -> Traffic {
        Traffic { heads: Heads::new(allowance), ..Traffic::default() }
    }

    /// How many requests were received.
    pub(super) fn begun(&self) -> u64 {
        self.begun.load(Ordering::Relaxed)
    }

    /// How many requests are without a complete response.
    pub(super) fn in_flight(&self) -> u64 {
        self.begun() - self.ended.load(Ordering::Relaxed)
    }

    /// Bytes of bodies that hyper has not taken yet.
    pub(super) fn unsent(&self) -> u64 {
        self.unsent.load(Ordering::Relaxed)
    }

    /// A body has this many more bytes to send.
    pub(super) fn add_unsent(&self, bytes: u64) {
        self.unsent.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Hyper has taken this many bytes, or does not want them.
    pub(super) fn remove_unsent(&self, bytes: u64) {
        self.unsent.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// The connection turns out to speak HTTP/2.
    pub(super) fn set_http2(&self) {
        self.is_http2.store(true, Ordering::Relaxed);
    }

    /// Whether the connection speaks HTTP/2.
    pub(super) fn is_http2(&self) -> bool {
        self.is_http2.load(Ordering::Relaxed)
    }

    /// Counts a request as in flight while the guard lives.
    pub(super) fn begin(self: &Arc<Self>) -> RequestGuard {
        self.begun.fetch_add(1, Ordering::Relaxed);
        RequestGuard(Arc::clone(self))
    }
}

/// A request without a complete response.
#[derive(Debug)]
pub(super) struct RequestGuard(pub(super) Arc<Traffic>);

impl Drop for RequestGuard {
    fn drop(&mut self) {
        self.0.ended.fetch_add(1, Ordering::Relaxed);
    }
}

/// Where the response to a request is put.
#[derive(Debug, Default)]
pub struct ResponseSlot {
    state: Mutex<State>,
    /// The request's head, unless hyper has read it.
    plain: Option<PlainHead>,
}

#[derive(Debug, Default)]
struct State {
    response: Option<Response<Outgoing>>,
    waker: Option<Waker>,
    /// The other side does not wait for a response any more.
    is_abandoned: bool,
}

impl ResponseSlot {
    /// For a plain request; the response wakes `waker`.
    pub(super) fn for_plain(head: PlainHead, waker: Waker) -> ResponseSlot {
        let state = State { waker: Some(waker), ..State::default() };
        ResponseSlot { plain: Some(head), state: Mutex::new(state) }
    }

    /// The head of a plain request.
    pub fn plain_head(&self) -> Option<&PlainHead> {
        self.plain.as_ref()
    }

    /// Puts the response in; false if nobody waits for it any more.
    pub fn respond(&self, response: Response<Outgoing>) -> bool {
        let mut state = lock(&self.state);
        if state.is_abandoned {
            return false;
        }
        state.response = Some(response);
        if let Some(waker) = state.waker.take() {
            waker.wake();
        }
        true
    }

    /// Whether nobody waits for a response any more.
    pub fn is_abandoned(&self) -> bool {
        lock(&self.state).is_abandoned
    }
}

/// What hyper waits for, or its connection where there is no hyper.
pub(super) struct ResponseFuture {
    pub(super) slot: Arc<ResponseSlot>,
    guard: Option<RequestGuard>,
}

impl ResponseFuture {
    pub(super) fn new(slot: &Arc<ResponseSlot>, guard: RequestGuard) -> ResponseFuture {
        ResponseFuture { slot: Arc::clone(slot), guard: Some(guard) }
    }

    /// Calls `body` with the response if it is there; `None` if it is not.
    pub(super) fn peek<R>(&self, body: impl FnOnce(&mut Response<Outgoing>) -> R) -> Option<R> {
        lock(&self.slot.state).response.as_mut().map(body)
    }
}

impl Future for ResponseFuture {
    type Output = Result<Response<Outgoing>, Infallible>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let slot = Arc::clone(&self.slot);
        let mut state = lock(&slot.state);
        if let Some(mut response) = state.response.take() {
            state.is_abandoned = true;
            let has_room =
                |RequestGuard(traffic): &RequestGuard| traffic.heads.add(response.headers());
            if !self.guard.as_ref().is_none_or(has_room) {
                response = refusal_response(StatusCode::SERVICE_UNAVAILABLE);
            }
            response.body_mut().keep_in_flight(self.guard.take());
            return Poll::Ready(Ok(response));
        }
        match &mut state.waker {
            Some(waker) => waker.clone_from(cx.waker()),
            none => *none = Some(cx.waker().clone()),
        }
        Poll::Pending
    }
}

impl Drop for ResponseFuture {
    fn drop(&mut self) {
        let unwanted = {
            let mut state = lock(&self.slot.state);
            state.is_abandoned = true;
            state.response.take()
        };
        // Without the lock: its body may wake somebody.
        drop(unwanted);
    }
}
