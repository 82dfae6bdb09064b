//! Models for loom: the mailbox, the slot, the idle list and the watchdog's alarm, as they are,
//! under every interleaving of a few threads. tests/README.md says how to run them.
//!
//! Timers are touched by the thread that runs their context only; what is concurrent is that they
//! wake it, which is a delivery like others.
//!
//! Queues of crossbeam are used as they are: loom does not look into them.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::VecDeque;
use std::sync::Arc;

use crossbeam_deque::Steal;
use loom::sync::Notify;
use loom::thread;

use super::affinity::Affinity;
use super::idle::Idle;
use super::program::Nothing;
use super::slot::Slot;
use super::watchdog::Alarm;
use super::*;
use crate::message::{Event, Id, Value};
use crate::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// A context on a scheduler without workers, and not queued.
fn context(mailbox: usize) -> Arc<Context> {
    let scheduler = Scheduler::new(1);
    let limits = Limits { mailbox, ..Limits::default() };
    let context = scheduler.spawn(None, limits, Box::new(Nothing)).unwrap();
    assert!(next(&context).is_some() && context.rest());
    context
}

/// Takes the context off the queue, if it is there.
fn next(context: &Arc<Context>) -> Option<Arc<Context>> {
    loop {
        match context.scheduler().injector.steal() {
            Steal::Success(found) => return Some(found),
            // Those that have never run have a queue of their own.
            Steal::Empty => return context.scheduler().late.take(false),
            Steal::Retry => {}
        }
    }
}

/// What a worker does with a queued context, until it rests. Returns the events.
fn run(context: &Arc<Context>) -> Vec<Event> {
    run_until_end(context).0
}

/// The same, and whether it was asked to end.
fn run_until_end(context: &Arc<Context>) -> (Vec<Event>, bool) {
    let mut all = Vec::new();
    if next(context).is_some() {
        loop {
            let mut batch = VecDeque::new();
            let _ = context.take(&mut batch);
            all.extend(batch);
            assert!(next(context).is_none(), "queued while it runs");
            if context.end_requested().is_some() {
                return (all, true);
            }
            if context.rest() {
                break;
            }
        }
    }
    (all, false)
}

fn message(number: f64) -> Event {
    let from = Id::from_number(1.0).unwrap();
    Event::Message { from, session: 0, value: Value::Number(number) }
}

fn model(body: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(2);
    builder.check(body);
}

#[test]
fn what_is_delivered_is_run_once() {
    model(|| {
        let context = context(10);
        let senders: Vec<_> = [1.0, 2.0]
            .map(|number| {
                let context = Arc::clone(&context);
                thread::spawn(move || context.deliver(message(number)).unwrap())
            })
            .into();
        let worker = Arc::clone(&context);
        let worker = thread::spawn(move || run(&worker).len());
        senders.into_iter().for_each(|sender| sender.join().unwrap());
        let before = worker.join().unwrap();
        assert_eq!(before + run(&context).len(), 2);
        assert!(next(&context).is_none());
    });
}

#[test]
fn a_timers_wake_up_is_not_lost_when_the_context_goes_to_rest() {
    model(|| {
        let context = context(10);
        let waker = ReadyWaker::waker(&context, 7);
        let reactor = thread::spawn(move || waker.wake());
        // The context has something else to do meanwhile, such as cancelling that timer.
        context.deliver(message(1.0)).unwrap();
        let mut events = run(&context);
        reactor.join().unwrap();
        events.extend(run(&context));
        let ready = |event: &&Event| matches!(event, Event::Ready { source: 7 });
        assert_eq!(events.iter().filter(ready).count(), 1);
        assert_eq!(events.len(), 2);
    });
}

/// Who ends a context whose turn is being cut, the worker that cuts it, and the one that goes on
/// with it: one of them has it.
#[test]
fn a_cut_turn_goes_on_or_ends_once() {
    model(|| {
        let context = context(10);
        context.deliver(message(1.0)).unwrap();
        assert!(next(&context).is_some());
        let ending = Arc::clone(&context);
        let other = thread::spawn(move || ending.destroy(End::Normal));
        context.metrics().cut();
        let has_ended = !context.suspend();
        if !has_ended {
            context.scheduler().share_cut(Arc::clone(&context));
        }
        let first = next(&context).is_some();
        other.join().unwrap();
        let second = next(&context).is_some();
        assert_eq!([has_ended, first, second].iter().filter(|it| **it).count(), 1);
        assert!(next(&context).is_none());
    });
}

#[test]
fn the_bound_of_a_mailbox_holds() {
    model(|| {
        let context = context(1);
        let sender = Arc::clone(&context);
        let sender = thread::spawn(move || sender.deliver(message(1.0)).is_ok());
        let worker = Arc::clone(&context);
        // What was taken, but not received, counts.
        let worker = thread::spawn(move || run(&worker).len());
        let first = context.deliver(message(2.0)).is_ok();
        let second = sender.join().unwrap();
        worker.join().unwrap();
        assert_ne!(first, second);
        assert_eq!(context.waiting(), 1);
        context.received(1);
        run(&context);
        context.received(1);
        assert!(context.deliver(message(3.0)).is_ok());
    });
}

#[test]
fn what_is_accepted_is_taken_or_returned_by_the_end() {
    model(|| {
        let context = context(10);
        let sender = Arc::clone(&context);
        let sender = thread::spawn(move || {
            let first = sender.deliver(message(1.0)).is_ok();
            usize::from(first) + usize::from(sender.deliver(message(2.0)).is_ok())
        });
        let mut batch = VecDeque::new();
        let _ = context.take(&mut batch);
        let left = context.close();
        let accepted = sender.join().unwrap();
        assert_eq!(batch.len() + left.len(), accepted);
        assert_eq!(context.deliver(message(3.0)), Err(Refused::Closed));
    });
}

#[test]
fn a_request_to_end_is_seen() {
    model(|| {
        let context = context(10);
        context.deliver(message(1.0)).unwrap();
        let killer = Arc::clone(&context);
        let killer = thread::spawn(move || killer.destroy(End::Destroyed(None)));
        let (_, was_seen) = run_until_end(&context);
        killer.join().unwrap();
        assert!(was_seen || next(&context).is_some(), "nobody will look");
        assert!(context.end_requested().is_some());
    });
}

#[test]
fn what_is_given_up_is_collected_by_one() {
    model(|| {
        let (one, two) = (context(1), context(1));
        let slot = Arc::new(Slot::default());
        let others: Vec<_> = (0..2)
            .map(|_| {
                let slot = Arc::clone(&slot);
                thread::spawn(move || slot.collect().map(|context| context.id()))
            })
            .collect();
        let mut found: Vec<Option<Id>> = Vec::new();
        // The owner, its kick handler included.
        slot.replace(Some(Arc::clone(&one)));
        slot.give_up();
        found.push(slot.replace(Some(Arc::clone(&two))).map(|context| context.id()));
        slot.give_up();
        found.push(slot.replace(None).map(|context| context.id()));
        found.extend(others.into_iter().map(|other| other.join().unwrap()));
        found.push(slot.collect().map(|context| context.id()));
        assert_eq!(found.iter().flatten().count(), 2, "{found:?}");
        drop(slot);
        // The registry of its scheduler has the other.
        assert_eq!((Arc::strong_count(&one), Arc::strong_count(&two)), (2, 2));
    });
}

/// Work that is queued and taken, with no more order than real queues promise.
struct Work {
    idle: Idle,
    queued: AtomicUsize,
    done: AtomicUsize,
    is_over: AtomicBool,
    wakers: [Notify; 2],
    total: usize,
}

impl Work {
    fn is_empty(&self) -> bool {
        self.queued.load(Ordering::Relaxed) == 0
    }

    /// As `Scheduler::enqueue` for a thread that is no worker.
    fn push(&self) {
        self.queued.fetch_add(1, Ordering::Relaxed);
        self.wake_one();
    }

    fn wake_one(&self) {
        if let Some(worker) = self.idle.take() {
            self.wakers[worker].notify();
        }
    }

    fn pop(&self) -> bool {
        let less = |queued: usize| queued.checked_sub(1);
        self.queued.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less).is_ok()
    }

    /// The order of things in `Worker::poll`.
    fn run_worker(&self, index: usize) {
        let mut searching = false;
        loop {
            let found = self.pop();
            if std::mem::take(&mut searching) {
                self.idle.stop_searching();
            }
            if found {
                if self.idle.may_have() && !self.is_empty() {
                    self.wake_one();
                }
                if self.done.fetch_add(1, Ordering::SeqCst) + 1 == self.total {
                    self.is_over.store(true, Ordering::SeqCst);
                    self.wakers.iter().for_each(Notify::notify);
                }
                continue;
            }
            let is_over = || self.is_over.load(Ordering::SeqCst);
            if is_over() {
                return;
            }
            // A sleep that nobody ends is a deadlock, which loom reports.
            if !self.idle.rest(index, || !self.is_empty() || is_over()) {
                self.wakers[index].wait();
            }
            searching = !self.idle.leave(index);
        }
    }
}

fn wake_ups(workers: usize, producers: usize, total: usize) {
    model(move || {
        let work = Arc::new(Work {
            idle: Idle::new(),
            queued: AtomicUsize::new(0),
            done: AtomicUsize::new(0),
            is_over: AtomicBool::new(false),
            wakers: [Notify::new(), Notify::new()],
            total,
        });
        let mut threads: Vec<_> = (0..workers)
            .map(|index| {
                let work = Arc::clone(&work);
                thread::spawn(move || work.run_worker(index))
            })
            .collect();
        for _ in 1..producers {
            let work = Arc::clone(&work);
            threads.push(thread::spawn(move || work.push()));
        }
        for _ in producers..=total {
            work.push();
        }
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        assert_eq!(work.done.load(Ordering::SeqCst), total);
        assert!(work.is_empty());
    });
}

#[test]
fn a_sleeping_worker_is_woken_for_work() {
    wake_ups(1, 1, 2);
}

#[test]
fn a_sleeping_worker_is_woken_whoever_queues_work() {
    wake_ups(1, 2, 2);
}

#[test]
fn one_of_two_sleeping_workers_is_woken_for_work() {
    wake_ups(2, 1, 1);
}

#[test]
fn a_worker_is_woken_for_what_only_it_may_do() {
    model(|| {
        let idle = Arc::new(Idle::new());
        let (queued, bell) = (Arc::new(AtomicUsize::new(0)), Arc::new(Notify::new()));
        let worker = {
            let (idle, queued, bell) = (Arc::clone(&idle), Arc::clone(&queued), Arc::clone(&bell));
            thread::spawn(move || {
                let mut woken = 0;
                while queued.load(Ordering::Relaxed) == 0 {
                    if !idle.rest(0, || queued.load(Ordering::Relaxed) > 0) {
                        bell.wait();
                    }
                    woken += usize::from(!idle.leave(0));
                }
                woken
            })
        };
        let other = {
            let (idle, bell) = (Arc::clone(&idle), Arc::clone(&bell));
            // Somebody else queues work that any worker may do.
            thread::spawn(move || idle.take().inspect(|_| bell.notify()).is_some())
        };
        queued.store(1, Ordering::Relaxed);
        if idle.call(0) {
            bell.notify();
        }
        let was_taken = other.join().unwrap();
        // Who was called does not count as searching: whoever queues work goes on to wake others.
        assert_eq!(worker.join().unwrap(), usize::from(was_taken));
        assert_eq!(idle.count(), 0);
        idle.rest(0, || true);
        assert_eq!(idle.take().is_some(), !was_taken);
    });
}

/// A worker that begins to run turns, woken or by itself, wakes the watchdog if that sleeps.
#[test]
fn the_watchdog_does_not_sleep_while_a_worker_is_awake() {
    for is_woken in [false, true] {
        model(move || {
            let both = Arc::new((Idle::new(), Alarm::new()));
            both.0.rest(0, || false);
            let worker = Arc::clone(&both);
            let worker = thread::spawn(move || {
                assert_eq!(is_woken.then(|| worker.0.take()).is_some(), is_woken);
                worker.0.leave(0);
                worker.1.ring()
            });
            let sleeps = both.1.arm(|| both.0.count() == 1);
            let is_rung = worker.join().unwrap();
            assert!(is_rung || !sleeps);
        });
    }
}

#[test]
fn what_is_queued_for_a_stuck_worker_is_found_by_the_next_or_called_for() {
    model(|| {
        let affinity = Arc::new(Affinity::new(1));
        let context = context(1);
        affinity.vacate(0);
        let next = {
            let affinity = Arc::clone(&affinity);
            thread::spawn(move || {
                assert_eq!(affinity.adopt(1), Some(0));
                affinity.take_late(0, false).is_some()
            })
        };
        let holder = affinity.push(0, context);
        let was_found = next.join().unwrap();
        assert!(was_found || holder == Some(1));
    });
}
