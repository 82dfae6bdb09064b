//! The answer to a request, which comes later.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use http::{Response, StatusCode};

use super::body::Out;
use super::count::Heads;
use super::lines::Lines;
use super::server::refusal_of;
use crate::message::Allowance;
use crate::sync::lock;

/// Requests of one connection. One thread at a time counts.
#[derive(Debug, Default)]
pub(super) struct Traffic {
    called: AtomicU64,
    over: AtomicU64,
    /// Bytes of answers that are there, and hyper has not taken.
    unsent: AtomicU64,
    /// They leave by and by, as the peer opens its windows.
    is_http2: AtomicBool,
    /// What their answers' heads count.
    pub(super) heads: Heads,
}

impl Traffic {
    /// Of a connection that has begun.
    pub(super) fn new(allowance: Option<&Arc<Allowance>>) -> Traffic {
        Traffic { heads: Heads::new(allowance), ..Traffic::default() }
    }

    /// Requests that have come.
    pub(super) fn called(&self) -> u64 {
        self.called.load(Ordering::Relaxed)
    }

    /// Those that are not answered to the end.
    pub(super) fn in_flight(&self) -> u64 {
        self.called() - self.over.load(Ordering::Relaxed)
    }

    /// Bytes of answers that wait to be taken.
    pub(super) fn unsent(&self) -> u64 {
        self.unsent.load(Ordering::Relaxed)
    }

    /// This many more of them wait.
    pub(super) fn owe(&self, bytes: u64) {
        self.unsent.fetch_add(bytes, Ordering::Relaxed);
    }

    /// This many were taken, or are not wanted.
    pub(super) fn pay(&self, bytes: u64) {
        self.unsent.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// The connection speaks HTTP/2.
    pub(super) fn set_http2(&self) {
        self.is_http2.store(true, Ordering::Relaxed);
    }

    /// Whether it does.
    pub(super) fn is_http2(&self) -> bool {
        self.is_http2.load(Ordering::Relaxed)
    }

    /// One more has come.
    pub(super) fn begin(self: &Arc<Self>) -> Guard {
        self.called.fetch_add(1, Ordering::Relaxed);
        Guard(Arc::clone(self))
    }
}

/// A request that is not answered to the end, while it lives.
#[derive(Debug)]
pub(super) struct Guard(pub(super) Arc<Traffic>);

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.over.fetch_add(1, Ordering::Relaxed);
    }
}

/// Where an answer is put.
#[derive(Debug, Default)]
pub struct Answer {
    state: Mutex<State>,
    /// The request's head, if hyper has not seen it.
    lines: Option<Lines>,
}

#[derive(Debug, Default)]
struct State {
    response: Option<Response<Out>>,
    waker: Option<Waker>,
    /// Nobody waits for one any more.
    is_gone: bool,
}

impl Answer {
    /// To a request with this head: who is woken once it is there.
    pub(super) fn to(lines: Lines, waker: Waker) -> Answer {
        let state = State { waker: Some(waker), ..State::default() };
        Answer { lines: Some(lines), state: Mutex::new(state) }
    }

    /// The request's head, if hyper has not seen it.
    pub fn lines(&self) -> Option<&Lines> {
        self.lines.as_ref()
    }

    /// Answers; false if nobody waits for it any more.
    pub fn give(&self, response: Response<Out>) -> bool {
        let mut state = lock(&self.state);
        if state.is_gone {
            return false;
        }
        state.response = Some(response);
        if let Some(waker) = state.waker.take() {
            waker.wake();
        }
        true
    }

    /// Whether nobody waits for one any more.
    pub fn is_gone(&self) -> bool {
        lock(&self.state).is_gone
    }
}

/// What hyper waits for, or its connection in its place.
pub(super) struct Waiting {
    pub(super) answer: Arc<Answer>,
    guard: Option<Guard>,
}

impl Waiting {
    pub(super) fn new(answer: &Arc<Answer>, guard: Guard) -> Waiting {
        Waiting { answer: Arc::clone(answer), guard: Some(guard) }
    }

    /// Looks at what is answered, if something is.
    pub(super) fn look<R>(&self, look: impl FnOnce(&mut Response<Out>) -> R) -> Option<R> {
        lock(&self.answer.state).response.as_mut().map(look)
    }
}

impl Future for Waiting {
    type Output = Result<Response<Out>, Infallible>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let answer = Arc::clone(&self.answer);
        let mut state = lock(&answer.state);
        if let Some(mut response) = state.response.take() {
            state.is_gone = true;
            let has_room = |Guard(traffic): &Guard| traffic.heads.add(response.headers());
            if !self.guard.as_ref().is_none_or(has_room) {
                response = refusal_of(StatusCode::SERVICE_UNAVAILABLE);
            }
            response.body_mut().guard(self.guard.take());
            return Poll::Ready(Ok(response));
        }
        match &mut state.waker {
            Some(waker) => waker.clone_from(cx.waker()),
            none => *none = Some(cx.waker().clone()),
        }
        Poll::Pending
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        // Dropped without the lock: who is in there may wake somebody.
        let gone = {
            let mut state = lock(&self.answer.state);
            state.is_gone = true;
            state.response.take()
        };
        drop(gone);
    }
}
