//! The state of a simulation: time, what is going to happen, and who is to be told.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::Waker;
use std::time::Duration;

use super::faults::Faults;
use super::network::{Change, Network, What};
use super::random::{Random, Trace};
use super::tasks::{Job, Jobs};
use crate::hint::rarely;

use crate::sync::lock;

/// What the wall clock shows when a simulation starts: a day in September 2001.
const WALL_CLOCK_START: Duration = Duration::from_secs(1_000_000_000);

/// What is called when nothing can happen any more.
pub type OnStall = Box<dyn FnOnce() + Send>;

/// What a simulation starts with.
pub struct Config {
    /// The seed of everything; any number.
    pub seed: u64,
    /// How much goes wrong, from 0 to 1.
    pub faults: f64,
    /// How many of the slices of turns are cut, from 0 to 1.
    pub cuts: f64,
    /// Called once if nothing can happen any more although something is waited for.
    pub on_stall: OnStall,
}

/// What a simulation has come to so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Report {
    /// A fingerprint of all steps.
    pub trace: u64,
    /// Steps taken.
    pub steps: u64,
    /// Virtual nanoseconds that have passed.
    pub time: u64,
}

/// What the simulation that is on has come to so far.
pub fn report() -> Report {
    with(|world| {
        let (trace, steps) = world.fingerprint();
        Report { trace, steps, time: world.now }
    })
}

/// The longest slice of a turn that is cut has below 2 to the power of this many instructions.
const CUT_BITS_MAX: u64 = 16;

/// Kinds of steps, for the trace.
#[derive(Clone, Copy, Debug)]
pub(super) enum Step {
    Turn = 1,
    Freeze,
    Task,
    Timer,
    Change,
    Read,
    Write,
    Accept,
    Cut,
}

/// Something that is going to happen.
#[derive(Debug)]
pub(super) enum Event {
    Timer(u64),
    Network(Change),
}

/// A place in the order of events.
pub(super) type Place = (u64, u64);

/// How contexts that could run are chosen from.
#[derive(Clone, Copy, Debug)]
enum Order {
    Any,
    MostlyFirst,
    MostlyLast,
}

pub(super) struct World {
    /// Virtual nanoseconds that have passed.
    pub(super) now: u64,
    pub(super) random: Random,
    /// What [`secret`] goes by.
    secret: u64,
    pub(super) faults: Faults,
    cuts: f64,
    order: Order,
    trace: Trace,
    events: BTreeMap<Place, Event>,
    event_count: u64,
    pub(super) jobs: Jobs,
    pub(super) network: Network,
    /// Wakers to be woken, and dropped, after the lock is released: they may lock anything.
    pub(super) woken: Vec<Waker>,
    pub(super) dropped: Vec<Waker>,
    pub(super) on_stall: Option<OnStall>,
}

static ON: AtomicBool = AtomicBool::new(false);
/// A copy of the world's time, for those that have its lock.
static NOW: AtomicU64 = AtomicU64::new(0);
static WORLD: Mutex<Option<World>> = Mutex::new(None);

/// Whether the outside is simulated.
#[inline]
pub fn is_on() -> bool {
    // Relaxed: set before any other thread exists, and never again.
    rarely(ON.load(Ordering::Relaxed))
}

/// Starts the simulation, for the rest of the process. Call before anything else of `rt` is used;
/// one thread at a time may take part.
pub fn start(config: Config) {
    let world = World::new(config.seed, config.faults, config.cuts, Some(config.on_stall));
    *lock(&WORLD) = Some(world);
    ON.store(true, Ordering::Relaxed);
}

/// Calls `body` with the world, then wakes who is to be woken. `body` must not come back here.
pub(super) fn with<R>(body: impl FnOnce(&mut World) -> R) -> R {
    let (result, woken, dropped) = {
        let mut world = lock(&WORLD);
        let world = world.as_mut().expect("a simulation was started");
        let result = body(world);
        NOW.store(world.now, Ordering::Relaxed);
        (result, std::mem::take(&mut world.woken), std::mem::take(&mut world.dropped))
    };
    woken.into_iter().for_each(Waker::wake);
    drop(dropped);
    result
}

/// Virtual nanoseconds since the start.
pub(crate) fn now() -> u64 {
    // Relaxed: one thread at a time takes part.
    NOW.load(Ordering::Relaxed)
}

/// Virtual time since 1970.
pub(crate) fn wall_clock() -> Duration {
    WALL_CLOCK_START + Duration::from_nanos(now())
}

/// Numbers for seeding.
pub(crate) fn random_words() -> [u64; 4] {
    with(|world| std::array::from_fn(|_| world.random.next()))
}

/// A number that follows from the seed and these two.
pub(crate) fn secret(which: (u64, u64)) -> u64 {
    with(|world| {
        let first = Random::new(world.secret ^ which.0).next();
        Random::new(first ^ which.1).next()
    })
}

/// Which of `count` contexts that could run does so next, where `count` is at least 1; or, for how
/// many nanoseconds it is held up instead. Some time passes.
pub(crate) fn choose(count: usize) -> (usize, Option<u64>) {
    with(|world| world.choose(count))
}

/// After how many instructions the slice of a turn that begins is cut, if it is.
pub(crate) fn cut_after() -> Option<i32> {
    with(World::cut_after)
}

impl World {
    pub(super) fn new(seed: u64, faults: f64, cuts: f64, on_stall: Option<OnStall>) -> World {
        let mut random = Random::new(seed);
        let order = match random.below(4) {
            0 => Order::MostlyFirst,
            1 => Order::MostlyLast,
            _ => Order::Any,
        };
        World {
            now: 0,
            random,
            secret: Random::new(!seed).next(),
            faults: Faults::new(faults),
            cuts,
            order,
            trace: Trace::new(seed),
            events: BTreeMap::new(),
            event_count: 0,
            jobs: Jobs::default(),
            network: Network::default(),
            woken: Vec::new(),
            dropped: Vec::new(),
            on_stall,
        }
    }

    pub(super) fn note(&mut self, step: Step, what: u64) {
        self.trace.add(step as u64, what, self.now);
        log::trace!("{step:?} {what:x}");
    }

    /// A fingerprint of all steps so far, and their number.
    pub(super) fn fingerprint(&self) -> (u64, u64) {
        self.trace.result()
    }

    fn choose(&mut self, count: usize) -> (usize, Option<u64>) {
        let count = count as u64;
        let is_any = self.random.chance(0.1);
        let index = match self.order {
            Order::MostlyFirst if !is_any => 0,
            Order::MostlyLast if !is_any => count - 1,
            _ => self.random.below(count),
        };
        self.now += self.faults.turn_time(&mut self.random);
        let frozen = self.faults.freeze(&mut self.random);
        let step = if frozen.is_some() { Step::Freeze } else { Step::Turn };
        self.note(step, index << 32 | count);
        (index as usize, frozen)
    }

    fn cut_after(&mut self) -> Option<i32> {
        if self.cuts == 0.0 || !self.random.chance(self.cuts) {
            return None;
        }
        // As many short slices as long ones.
        let most = 1 << self.random.below(CUT_BITS_MAX);
        let instructions = self.random.between(1, most);
        self.note(Step::Cut, instructions);
        Some(instructions as i32)
    }

    /// Has something happen at a time, or now if that has passed.
    pub(super) fn at(&mut self, time: u64, event: Event) -> Place {
        self.event_count += 1;
        let place = (time.max(self.now), self.event_count);
        self.events.insert(place, event);
        place
    }

    /// Has something happen to a socket after a while; returns when.
    pub(super) fn later(&mut self, delay: u64, end: u64, what: What) -> u64 {
        let change = Change { end, what };
        self.at(self.now.saturating_add(delay), Event::Network(change)).0
    }

    pub(super) fn forget(&mut self, place: Place) {
        self.events.remove(&place);
    }

    /// When the next event is due, if there is one.
    pub(super) fn next_time(&self) -> Option<u64> {
        self.events.keys().next().map(|place| place.0)
    }

    /// Takes one step of the simulation, if one is due: an event, or the choice of a task that is
    /// to run, which the caller then does.
    pub(super) fn step(&mut self) -> Option<Option<Job>> {
        let is_due = self.next_time().is_some_and(|time| time <= self.now);
        let tasks = self.jobs.ready_count() as u64;
        if tasks > 0 && (!is_due || self.random.chance(0.5)) {
            let index = self.random.below(tasks) as usize;
            let job = self.jobs.take_ready(index);
            self.note(Step::Task, index as u64);
            return Some(job);
        }
        if !is_due {
            return None;
        }
        match self.events.pop_first()?.1 {
            Event::Timer(id) => {
                self.note(Step::Timer, id);
                self.fire(id);
            }
            Event::Network(change) => {
                self.note(Step::Change, change.fingerprint());
                self.apply(change);
            }
        }
        Some(None)
    }

    /// Lets time pass up to the next event, `end` at most; false if there is none before `end`.
    pub(super) fn advance(&mut self, end: u64) -> bool {
        match self.next_time() {
            Some(time) if time <= end => {
                self.now = self.now.max(time);
                true
            }
            _ => {
                if end != u64::MAX {
                    self.now = self.now.max(end);
                }
                false
            }
        }
    }
}
