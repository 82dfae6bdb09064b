//! Decides which context runs next, and on which worker.
//!
//! Every worker has a queue of its own and a slot for the context to run next; others steal from
//! the queue. A context made ready during a turn goes to the slot of the worker that made it ready,
//! so that question and answer stay on one core, without a system call. Another worker is woken
//! only if one is idle and there is work that the busy ones do not get to.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, OnceLock, PoisonError, Weak};
use std::task::{Poll, Wake, Waker};

use crossbeam_deque::{Injector, Stealer, Worker as Deque};

use super::affinity::Affinity;
use super::cluster::{Cluster, Joined};
use super::context::Context;
use super::exits::Exits;
use super::idle::Idle;
use super::late::{Held, Late};
use super::metrics::Limits;
use super::names::Names;
use super::parked::{Job, Parked};
use super::program::{End, Program};
use super::registry::Registry;
use super::supply::EXTRA_MAX;
use super::topics::Topics;
use super::watch::Watch;
use super::watchdog::Alarm;
use super::worker::Worker;
use crate::error::Code;
use crate::hint::rarely;
use crate::message::{Event, Failure, Id, Value};
use crate::os::thread;
use crate::sync::lock;

/// What other threads see of a worker.
pub(super) struct Remote {
    pub(super) stealer: Stealer<Arc<Context>>,
    pub(super) waker: Mutex<Option<Waker>>,
    pub(super) watch: Arc<Watch>,
}

impl Remote {
    fn new(deque: &Deque<Arc<Context>>) -> Remote {
        Remote { stealer: deque.stealer(), waker: Mutex::new(None), watch: Arc::default() }
    }
}

/// The run queues, the workers' sleep, and the life of contexts.
///
/// # Examples
/// ```
/// use std::sync::Arc;
///
/// use node_lua::sched::{Context, End, Outcome, Program, Scheduler};
///
/// struct Nothing;
///
/// impl Program for Nothing {
///     fn turn(&mut self, _: &Arc<Context>) -> (Outcome, usize) {
///         (Outcome::Ended, 1)
///     }
///
///     fn end(self: Box<Self>, _: &Arc<Context>, _: &End) {}
/// }
///
/// let scheduler = Scheduler::new(2);
/// let context = scheduler.spawn(None, Default::default(), Box::new(Nothing)).unwrap();
/// assert_eq!(context.state(), "ready"); // it runs once there are workers
/// assert!(scheduler.registry().get(context.id()).is_some());
/// ```
pub struct Scheduler {
    registry: Registry,
    names: Names,
    topics: Topics,
    cluster: Joined,
    endings: Exits,
    pub(super) injector: Injector<Arc<Context>>,
    /// Contexts that run after the others.
    pub(super) late: Late,
    /// How many workers are in turns that count as long, and so can be cut.
    pub(super) long: AtomicUsize,
    /// Contexts that are bound to a worker.
    pub(super) affinity: Affinity,
    /// What others see of each worker, filled from the front.
    remotes: Box<[OnceLock<Remote>]>,
    /// How many of these are filled.
    remote_count: AtomicUsize,
    /// How many workers there are while none is stuck.
    workers: usize,
    /// Deques of workers that have not started yet.
    deques: Mutex<Vec<Option<Deque<Arc<Context>>>>>,
    /// Indices and deques of workers that have retired.
    spares: Mutex<Vec<(usize, Deque<Arc<Context>>)>>,
    /// Workers that run and are not stuck, and how many of these there are to be.
    active: AtomicUsize,
    target: AtomicUsize,
    pub(super) parked: Parked,
    pub(super) alarm: Alarm,
    pub(super) idle: Idle,
    /// Woken by the reactor when a socket is ready and no worker polls.
    socket_waker: Waker,
    is_closing: AtomicBool,
    done: AtomicBool,
    finished: (Mutex<bool>, Condvar),
}

/// Wakes a worker to poll the sockets.
struct SocketAlarm(Weak<Scheduler>);

impl Wake for SocketAlarm {
    fn wake(self: Arc<Self>) {
        let Some(scheduler) = self.0.upgrade() else { return };
        // The thread that drives the reactor, if it is a worker: it is awake already.
        if !Worker::wake_local(&scheduler) {
            scheduler.wake_one();
        }
    }
}

impl std::fmt::Debug for Scheduler {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Scheduler").field("workers", &self.workers).finish_non_exhaustive()
    }
}

impl Scheduler {
    /// A scheduler for `workers` threads, at least 1, none of which runs yet.
    pub fn new(workers: usize) -> Arc<Scheduler> {
        let workers = workers.max(1);
        let deques: Vec<_> = (0..workers).map(|_| Deque::new_fifo()).collect();
        let mut remotes: Vec<OnceLock<Remote>> =
            deques.iter().map(|deque| OnceLock::from(Remote::new(deque))).collect();
        remotes.resize_with(workers + EXTRA_MAX, OnceLock::new);
        Arc::new_cyclic(|scheduler| Scheduler {
            socket_waker: Arc::new(SocketAlarm(Weak::clone(scheduler))).into(),
            registry: Registry::default(),
            names: Names::default(),
            topics: Topics::default(),
            cluster: Joined::new(),
            endings: Exits::default(),
            injector: Injector::new(),
            late: Late::default(),
            long: AtomicUsize::new(0),
            affinity: Affinity::new(workers),
            remotes: remotes.into(),
            remote_count: AtomicUsize::new(workers),
            workers,
            deques: Mutex::new(deques.into_iter().map(Some).collect()),
            spares: Mutex::new(Vec::new()),
            active: AtomicUsize::new(workers),
            target: AtomicUsize::new(workers),
            parked: Parked::default(),
            alarm: Alarm::new(),
            idle: Idle::new(),
            is_closing: AtomicBool::new(false),
            done: AtomicBool::new(false),
            finished: (Mutex::new(false), Condvar::new()),
        })
    }

    /// The living contexts.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// How the last contexts have ended.
    pub fn endings(&self) -> &Exits {
        &self.endings
    }

    /// The names of contexts.
    pub fn names(&self) -> &Names {
        &self.names
    }

    /// The subscriptions to topics.
    pub fn topics(&self) -> &Topics {
        &self.topics
    }

    /// The cluster, if this process is part of one.
    #[inline]
    pub fn cluster(&self) -> Option<&Arc<dyn Cluster>> {
        self.cluster.get()
    }

    /// Makes this process part of a cluster, before any worker runs.
    pub fn join(&self, cluster: Arc<dyn Cluster>) {
        for joined in [&self.names.cluster, &self.topics.cluster, &self.cluster] {
            let _ = joined.set(Arc::clone(&cluster));
        }
    }

    /// How many workers there are while none is stuck.
    pub fn workers(&self) -> usize {
        self.workers
    }

    /// How many workers run and are not stuck.
    pub fn running(&self) -> usize {
        self.active.load(Ordering::Relaxed)
    }

    /// What others see of the workers, retired ones included.
    pub(super) fn remotes(&self) -> impl Iterator<Item = &Remote> + Clone {
        // Acquire: pairs with the store in `start_extra`.
        let count = self.remote_count.load(Ordering::Acquire);
        self.remotes[..count].iter().filter_map(OnceLock::get)
    }

    /// What others see of one worker.
    pub(super) fn remote(&self, index: usize) -> &Remote {
        self.remotes[index].get().expect("workers have their place before they run")
    }

    /// Creates a context that any worker runs; `None` if no address is free.
    pub fn spawn(
        self: &Arc<Self>,
        parent: Option<Id>,
        limits: Limits,
        program: Box<dyn Program>,
    ) -> Option<Arc<Context>> {
        self.spawn_on(None, None, parent, limits, program)
    }

    /// As [`Scheduler::spawn`], with a name for people, and bound to the worker with this index,
    /// below [`Scheduler::workers`], if these are given.
    pub fn spawn_on(
        self: &Arc<Self>,
        worker: Option<usize>,
        name: Option<&str>,
        parent: Option<Id>,
        limits: Limits,
        program: Box<dyn Program>,
    ) -> Option<Arc<Context>> {
        let worker = worker.filter(|&worker| worker < self.workers);
        let make =
            |id, birth| Context::new(id, parent, birth, Arc::clone(self), worker, limits, program);
        let context = self.registry.insert(make)?;
        if let Some(name) = name {
            context.set_name(name);
        }
        self.enqueue(Arc::clone(&context));
        if self.is_closing.load(Ordering::SeqCst) {
            context.destroy(End::Destroyed(None));
        }
        Some(context)
    }

    /// Ends all contexts, those that are created meanwhile included.
    pub fn destroy_all(&self, reason: &End) {
        self.is_closing.store(true, Ordering::SeqCst);
        for context in self.registry.all() {
            context.destroy(reason.clone());
        }
    }

    /// Runs one worker, from 0 to one less than there are, until the last context has ended, or
    /// until it is replaced; and others on the same thread after that.
    ///
    /// # Panics
    /// This worker was run before.
    pub fn run_worker(self: &Arc<Self>, index: usize) {
        let deque = lock(&self.deques)[index].take();
        self.serve(Some((index, deque.expect("each worker is run once"))));
    }

    /// Runs workers on this thread, as long as it is needed.
    fn serve(self: &Arc<Self>, mut job: Option<Job>) {
        while let Some((index, deque)) = job {
            let may_stay = self.run_with(index, deque);
            job = may_stay.then(|| self.parked.come_back()).flatten();
        }
    }

    /// The only worker, which shares its thread with those of other schedulers.
    pub(super) fn only_worker(self: &Arc<Self>) -> Worker {
        let deque = lock(&self.deques)[0].take();
        let deque = deque.expect("each worker is run once");
        let mut worker = Worker::new(Arc::clone(self), 0, deque);
        worker.is_one_of_many = true;
        worker
    }

    pub(super) fn watch_of_worker(&self) -> &Watch {
        &self.remote(0).watch
    }

    /// Runs a worker; whether its thread is good for others afterwards.
    fn run_with(self: &Arc<Self>, index: usize, deque: Deque<Arc<Context>>) -> bool {
        let watch = &self.remote(index).watch;
        let worker = Worker::new(Arc::clone(self), index, deque);
        let deque = watch.enter(|| crate::rt::block_on(worker));
        watch.end_long(&self.long);
        let may_stay = !watch.has_yielded();
        if let Some(deque) = deque {
            lock(&self.spares).push((index, deque));
            // The watchdog may need it.
            self.alarm.ring();
        }
        may_stay
    }

    /// Starts a thread that waits to be a worker.
    ///
    /// # Errors
    /// If the system refuses it.
    pub(super) fn park(self: &Arc<Self>) -> std::io::Result<()> {
        let scheduler = Arc::clone(self);
        let wait = move || scheduler.serve(scheduler.parked.wait());
        self.parked.add(|| thread::spawn("worker", wait))
    }

    /// Starts one more worker, on a thread that waits, or on a new one. False if there are as many
    /// as there may be, or no thread waits.
    ///
    /// # Errors
    /// If the system refuses a new thread.
    pub(super) fn start_extra(self: &Arc<Self>, is_parked: bool) -> std::io::Result<bool> {
        let spare = lock(&self.spares).pop();
        // Only the watchdog starts workers: nobody else changes the count.
        let (index, deque) =
            spare.unwrap_or_else(|| (self.remote_count.load(Ordering::Relaxed), Deque::new_fifo()));
        let Some(remote) = self.remotes.get(index) else { return Ok(false) };
        remote.get_or_init(|| Remote::new(&deque));
        self.remote_count.fetch_max(index + 1, Ordering::Release);
        if is_parked {
            if let Err(job) = self.parked.give((index, deque)) {
                lock(&self.spares).push(job);
                return Ok(false);
            }
        } else {
            let scheduler = Arc::clone(self);
            // A thread that was refused is asked for again with less of a stack.
            let job = Arc::new(Mutex::new(Some((index, deque))));
            let mine = Arc::clone(&job);
            let run = move || scheduler.serve(lock(&mine).take());
            if let Err(error) = thread::spawn("worker", run) {
                lock(&self.spares).extend(lock(&job).take());
                return Err(error);
            }
        }
        self.active.fetch_add(1, Ordering::Relaxed);
        Ok(true)
    }

    /// Whether an idle worker is surplus: then it counts as ended, and has to end.
    pub(super) fn may_retire(&self) -> bool {
        let target = self.target.load(Ordering::Relaxed);
        let surplus = |active| (active > target).then(|| active - 1);
        // Relaxed: a count, nothing else.
        self.active.fetch_update(Ordering::Relaxed, Ordering::Relaxed, surplus).is_ok()
    }

    /// Counts workers out that were given up.
    pub(super) fn note_given_up(&self, workers: usize) {
        self.active.fetch_sub(workers, Ordering::Relaxed);
    }

    /// Sets how many workers there are to be that are not stuck.
    pub(super) fn set_target(&self, workers: usize) {
        self.target.store(workers, Ordering::Relaxed);
    }

    /// How many workers may be started beside those that run or are stuck.
    pub(super) fn room(&self) -> usize {
        let opened = self.remote_count.load(Ordering::Relaxed);
        self.remotes.len() - opened + lock(&self.spares).len()
    }

    /// Blocks until the last context has ended.
    pub fn wait_until_done(&self) {
        let (is_finished, condition) = &self.finished;
        let mut finished = lock(is_finished);
        while !*finished {
            finished = condition.wait(finished).unwrap_or_else(PoisonError::into_inner);
        }
    }

    pub(super) fn is_done(&self) -> bool {
        self.done.load(Ordering::Acquire)
    }

    /// Queues a context to run. The caller has set its `scheduled` flag.
    pub(super) fn enqueue(&self, context: Arc<Context>) {
        if let Some(context) = Worker::enqueue_local(self, context) {
            self.share(context);
        }
    }

    /// Queues a context where all workers that may run it find it.
    pub(super) fn share(&self, context: Arc<Context>) {
        if let Some(index) = context.worker() {
            if let Some(holder) = self.affinity.push(index, context) {
                self.call(holder);
            }
            return;
        }
        match context.is_prompt() {
            true => self.injector.push(context),
            false => self.late.push(context),
        }
        self.wake_one();
    }

    /// Whether a context that is about to run is to wait instead, while many threads are stuck; see
    /// [`Held`].
    #[inline]
    pub(super) fn is_to_be_late(&self, context: &Context) -> bool {
        rarely(self.late.is_for_few(context.metrics().turns())) && self.must_wait(context)
    }

    #[cold]
    fn must_wait(&self, context: &Context) -> bool {
        let may_end = self.late.held() < Held::Others || context.metrics().turns() == 0;
        let is_let_end = may_end && context.end_requested().is_some();
        !self.late.excuses(context) && !is_let_end
    }

    /// Queues a context that must wait.
    #[cold]
    pub(super) fn hold_back(&self, context: Arc<Context>) {
        context.metrics().prove(false);
        if context.end_requested().is_none() {
            return self.share(context);
        }
        context.suspend_anyway();
        match context.worker() {
            Some(index) => self.affinity.push_late(index, context),
            None => self.late.push(context),
        }
    }

    /// Queues a context whose turn was cut; see [`Late::push_cut`].
    pub(super) fn share_cut(&self, context: Arc<Context>) {
        if let Some(index) = context.worker() {
            if let Some(holder) = self.affinity.push_cut(index, context) {
                self.call(holder);
            }
            return;
        }
        self.late.push_cut(context);
        // Nobody's turn is cut for it.
        if let Some(index) = self.idle.take() {
            self.wake_worker(index);
        }
    }

    /// Whether contexts whose turns have been short are queued for all workers.
    pub(super) fn has_ready(&self) -> bool {
        !self.injector.is_empty() || self.remotes().any(|remote| !remote.stealer.is_empty())
    }

    /// About how many of those there are.
    pub(super) fn ready(&self) -> usize {
        self.remotes().fold(self.injector.len(), |sum, remote| sum + remote.stealer.len())
    }

    /// Whether every context is to end.
    pub(super) fn is_closing(&self) -> bool {
        self.is_closing.load(Ordering::Relaxed)
    }

    /// Wakes an idle worker, unless one is searching already. If none is idle, has a long turn cut.
    pub(super) fn wake_one(&self) {
        if let Some(index) = self.idle.take() {
            self.wake_worker(index);
        } else if self.long.load(Ordering::Relaxed) > 0 && !self.idle.is_searched() {
            self.demand();
        }
    }

    /// Wakes the worker with this index if it is idle.
    pub(super) fn call(&self, worker: usize) {
        if self.idle.call(worker) {
            self.wake_worker(worker);
        }
    }

    fn wake_worker(&self, index: usize) {
        let remote = self.remote(index);
        let waker = lock(&remote.waker).clone();
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Has the reactor wake a worker when a socket is ready; ready if one may be already.
    pub(super) fn watch_sockets(&self) -> Poll<()> {
        crate::rt::watch_sockets(&self.socket_waker)
    }

    /// Whether a worker that is about to sleep, and counts as idle, has to watch the sockets, since
    /// nobody else does.
    pub(super) fn must_watch(&self) -> bool {
        self.idle.count() >= self.running()
    }

    /// Ends a context: refuses its mail, fails queries that it has not answered, releases what it
    /// holds.
    pub(super) fn finish(self: &Arc<Self>, context: &Arc<Context>, reason: &End) {
        let program = context.program.lock().unwrap_or_else(PoisonError::into_inner).take();
        // Whoever finds it closed finds this.
        let ending = Arc::new(reason.ending());
        self.endings.add(context.id(), &ending);
        let unread = context.close();
        if context.has_ties() {
            self.names.forget(context.id(), &ending);
            self.topics.forget(context.id());
        }
        if let Some(program) = program {
            program.end(context, reason);
        }
        for event in unread {
            if let Event::Message { from, session: session @ 1.., .. } = event {
                self.answer(from, session, Err(Code::NO_REPLY.into()));
            }
        }
        // Whoever finds no such context any more may count on it that it holds nothing.
        let left = self.registry.remove(context.id());
        if let Some(cluster) = self.cluster().filter(|_| context.has_ties()) {
            cluster.ended(context.id(), &ending);
        }
        for watcher in context.end_watch() {
            if let Some(watcher) = self.registry.get(watcher) {
                // A watcher that has ended needs no notice.
                let _ =
                    watcher.deliver(Event::Ended { id: context.id(), ending: Arc::clone(&ending) });
            }
        }
        if left == 0 {
            self.finish_all();
        }
    }

    /// Delivers the answer to a query; false if the asker is gone.
    pub fn answer(&self, asker: Id, session: u64, result: Result<Value, Failure>) -> bool {
        if let Some(cluster) = self.cluster().filter(|_| asker.is_far()) {
            return cluster.send(asker, None, Event::Reply { session, result }).is_ok();
        }
        self.registry
            .get(asker)
            .is_some_and(|asker| asker.deliver(Event::Reply { session, result }).is_ok())
    }

    /// Whether all contexts are in turns that are to end, and wait in system calls.
    pub fn is_stuck(&self) -> bool {
        let is_stuck = |remote: &&Remote| {
            let turn = remote.watch.turn();
            turn % 2 == 1 && remote.watch.is_cancelled(turn) && remote.watch.is_asleep()
        };
        let stuck = self.remotes().filter(is_stuck).count();
        stuck > 0 && stuck == self.registry.len()
    }

    /// Has the process end.
    pub(super) fn finish_all(&self) {
        self.done.store(true, Ordering::Release);
        self.parked.release();
        for index in 0..self.remote_count.load(Ordering::Acquire) {
            self.wake_worker(index);
        }
        *lock(&self.finished.0) = true;
        self.finished.1.notify_all();
    }
}
