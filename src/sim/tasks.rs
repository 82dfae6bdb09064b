//! Timers, background tasks, name lookups, and what drives a simulation.

use std::collections::BTreeMap;
use std::future::{Future, poll_fn};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use super::world::{Event, Place, World, with};

type Work = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A task that is to run.
pub(super) struct Job {
    id: u64,
    work: Work,
}

#[derive(Debug, Default)]
struct Alarm {
    deadline: u64,
    place: Option<Place>,
    waker: Option<Waker>,
}

/// Tasks and timers.
#[derive(Default)]
pub(super) struct Jobs {
    /// Tasks that wait; one that runs is missing.
    tasks: BTreeMap<u64, Work>,
    ready: Vec<u64>,
    alarms: BTreeMap<u64, Alarm>,
    count: u64,
}

impl Jobs {
    fn new_id(&mut self) -> u64 {
        self.count += 1;
        self.count
    }

    pub(super) fn ready_count(&self) -> usize {
        self.ready.len()
    }

    /// Takes a task out of those that are to run; nothing if it is over.
    pub(super) fn take_ready(&mut self, index: usize) -> Option<Job> {
        let id = self.ready.remove(index);
        self.tasks.remove(&id).map(|work| Job { id, work })
    }

    fn make_ready(&mut self, id: u64) {
        if !self.ready.contains(&id) {
            self.ready.push(id);
        }
    }
}

struct TaskWaker(u64);

impl Wake for TaskWaker {
    fn wake(self: Arc<Self>) {
        with(|world| world.jobs.make_ready(self.0));
    }
}

impl Job {
    fn run(mut self) {
        let waker = Arc::new(TaskWaker(self.id)).into();
        if self.work.as_mut().poll(&mut Context::from_waker(&waker)).is_pending() {
            with(|world| world.jobs.tasks.insert(self.id, self.work));
        }
    }
}

/// Starts a background task.
pub(crate) fn spawn(work: impl Future<Output = ()> + Send + 'static) {
    let work: Work = Box::pin(work);
    with(|world| {
        let id = world.jobs.new_id();
        world.jobs.tasks.insert(id, work);
        world.jobs.make_ready(id);
    });
}

/// Takes the steps that are due; true if there were any.
pub(crate) fn poll() -> bool {
    let mut any = false;
    while let Some(job) = with(World::step) {
        any = true;
        if let Some(job) = job {
            job.run();
        }
    }
    any
}

/// Lets `duration` pass.
pub(crate) fn drive(duration: Duration) {
    let end = super::world::now().saturating_add(duration.as_nanos() as u64);
    while poll() || with(|world| world.advance(end)) {}
}

struct RootWaker(AtomicBool);

impl Wake for RootWaker {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Runs a future to its end, and the simulation along with it. If nothing can happen any more,
/// calls `on_stall`, and if that does not help, ends the process.
pub(crate) fn block_on<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    let root = Arc::new(RootWaker(AtomicBool::new(true)));
    let waker = Waker::from(Arc::clone(&root));
    let mut cx = Context::from_waker(&waker);
    loop {
        if root.0.swap(false, Ordering::Relaxed)
            && let Poll::Ready(result) = future.as_mut().poll(&mut cx)
        {
            return result;
        }
        while !root.0.load(Ordering::Relaxed) {
            if poll() || with(|world| world.advance(u64::MAX)) {
                continue;
            }
            match with(|world| world.on_stall.take()) {
                Some(on_stall) => on_stall(),
                // It has not helped.
                None => std::process::exit(1),
            }
        }
    }
}

impl World {
    /// A timer is due.
    pub(super) fn fire(&mut self, id: u64) {
        if let Some(alarm) = self.jobs.alarms.get_mut(&id) {
            alarm.place = None;
            self.woken.extend(alarm.waker.take());
        }
    }

    fn poll_alarm(&mut self, id: u64, waker: &Waker) -> Poll<()> {
        let lateness = self.faults.lateness(&mut self.random);
        let now = self.now;
        let Some(alarm) = self.jobs.alarms.get_mut(&id) else { return Poll::Pending };
        if alarm.deadline <= now {
            return Poll::Ready(());
        }
        self.dropped.extend(alarm.waker.replace(waker.clone()));
        if alarm.place.is_none() && alarm.deadline != u64::MAX {
            let time = alarm.deadline.saturating_add(lateness);
            let place = self.at(time, Event::Timer(id));
            if let Some(alarm) = self.jobs.alarms.get_mut(&id) {
                alarm.place = Some(place);
            }
        }
        Poll::Pending
    }

    fn set_alarm(&mut self, id: u64, deadline: u64) {
        let Some(alarm) = self.jobs.alarms.get_mut(&id) else { return };
        alarm.deadline = deadline;
        if let Some(place) = alarm.place.take() {
            self.forget(place);
        }
    }

    fn drop_alarm(&mut self, id: u64) {
        self.set_alarm(id, u64::MAX);
        let alarm = self.jobs.alarms.remove(&id);
        self.dropped.extend(alarm.and_then(|alarm| alarm.waker));
    }
}

/// One deadline at a time, in virtual nanoseconds.
#[derive(Debug)]
pub(crate) struct Timer(u64);

impl Timer {
    pub(crate) fn new() -> Timer {
        Timer(with(|world| {
            let id = world.jobs.new_id();
            world.jobs.alarms.insert(id, Alarm { deadline: u64::MAX, ..Alarm::default() });
            id
        }))
    }

    pub(crate) fn set(&mut self, deadline: u64) {
        with(|world| world.set_alarm(self.0, deadline));
    }

    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        with(|world| world.poll_alarm(self.0, cx.waker()))
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        with(|world| world.drop_alarm(self.0));
    }
}

/// Waits for `duration`.
pub(crate) async fn sleep(duration: Duration) {
    let mut timer = Timer::new();
    let delay = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
    timer.set(super::world::now().saturating_add(delay));
    poll_fn(|cx| timer.poll(cx)).await;
}

/// Knows numbers and `localhost`.
pub(crate) async fn resolve(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    let (delay, is_lost) = with(|world| {
        let delay = world.faults.latency(&mut world.random);
        (delay, world.faults.loses_name(&mut world.random))
    });
    sleep(Duration::from_nanos(delay)).await;
    let addresses: Vec<IpAddr> = match host.parse() {
        Ok(address) => vec![address],
        Err(_) if host == "localhost" && !is_lost => {
            vec![Ipv6Addr::LOCALHOST.into(), Ipv4Addr::LOCALHOST.into()]
        }
        Err(_) => return Err(io::ErrorKind::NotFound.into()),
    };
    Ok(addresses.into_iter().map(|address| SocketAddr::new(address, port)).collect())
}
