//! Several schedulers of one worker each on one thread: the processes of a simulated cluster.

use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context as TaskContext, Poll, Wake, Waker};

use super::local::Local;
use super::scheduler::Scheduler;
use super::worker::Worker;
use crate::sync::lock;

/// Notes which worker is called, and calls the thread.
struct Call {
    is_called: AtomicBool,
    thread: Mutex<Option<Waker>>,
}

impl Wake for Call {
    fn wake(self: Arc<Self>) {
        self.is_called.store(true, Ordering::Relaxed);
        let thread = lock(&self.thread).clone();
        if let Some(thread) = thread {
            thread.wake();
        }
    }
}

/// A worker, and what it finds on its thread while it runs.
struct Place {
    scheduler: Arc<Scheduler>,
    worker: Pin<Box<Worker>>,
    local: Option<Rc<Local>>,
    call: Arc<Call>,
}

impl Place {
    /// One turn, or none; whether the last context has ended.
    fn poll(&mut self) -> bool {
        self.call.is_called.store(false, Ordering::Relaxed);
        Worker::swap_local(&mut self.local);
        let waker = Waker::from(Arc::clone(&self.call));
        let result = self
            .scheduler
            .watch_of_worker()
            .enter(|| self.worker.as_mut().poll(&mut TaskContext::from_waker(&waker)));
        Worker::swap_local(&mut self.local);
        result.is_ready()
    }
}

/// Runs these schedulers, and those that are added meanwhile, until the last context of the last
/// one has ended. In a simulation, which says whose turn it is.
pub fn run_together(added: &Mutex<Vec<Arc<Scheduler>>>) {
    let mut places: Vec<Place> = Vec::new();
    crate::rt::block_on(poll_fn(|cx| {
        loop {
            let new = std::mem::take(&mut *lock(added));
            places.extend(new.into_iter().map(|scheduler| Place {
                worker: Box::pin(scheduler.only_worker()),
                local: None,
                call: Arc::new(Call { is_called: true.into(), thread: Mutex::new(None) }),
                scheduler,
            }));
            for place in &places {
                let mut thread = lock(&place.call.thread);
                *thread = Some(cx.waker().clone());
            }
            if places.is_empty() {
                return Poll::Ready(());
            }
            let called = |index: &usize| places[*index].call.is_called.load(Ordering::Relaxed);
            let ready: Vec<usize> = (0..places.len()).filter(called).collect();
            if ready.is_empty() {
                return Poll::Pending;
            }
            let which = ready[crate::rt::choose(ready.len()).0];
            if places[which].poll() {
                places.remove(which);
            }
        }
    }));
}
