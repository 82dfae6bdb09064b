//! The timers of a script: who waits for which, and the functions that set and cancel them.

use std::ffi::c_int;
use std::task::{Context, Waker};

use super::native::nanoseconds;
use crate::lua::host;
use crate::rt;
use crate::timer::{TimerId, TimerQueue};
use crate::vm::native::prefetch;
use crate::vm::stack::{Stack, function};

/// The resolution of timers, in nanoseconds: those that end in the same tick share a wake-up.
const TICK: u64 = 1_000_000;

/// The same for those started at least [`LONG`] ahead: waking up costs more than calling them, and
/// of so long a time half a millisecond is little.
const LONG_TICK: u64 = 1_500_000;
const LONG: u64 = 100_000_000;

/// How many timers are called one after the other before anything else is looked at, at most.
pub(super) const TIMERS_MAX: usize = 64;

/// The timers of a context. What the queue calls a token is the period, and one bit that says
/// whether the timer's ticks are long.
pub(super) struct Timers {
    queue: TimerQueue,
    timer: rt::Timer,
    waker: Waker,
    /// The deadline the reactor knows of, if it has one.
    armed: Option<u64>,
    /// The clock at the last look.
    now: u64,
}

impl Timers {
    /// None; `waker` is woken when some are due.
    pub(super) fn new(waker: Waker) -> Timers {
        let timer = rt::Timer::new();
        Timers { queue: TimerQueue::new(), timer, waker, armed: None, now: rt::now() }
    }

    pub(super) fn len(&self) -> usize {
        self.queue.len()
    }

    /// Looks at the clock, if there is reason to.
    pub(super) fn look(&mut self) {
        if !self.queue.is_empty() {
            self.now = rt::now();
        }
    }

    /// The reactor has woken the context.
    pub(super) fn on_ready(&mut self) {
        self.now = rt::now();
        self.armed = None;
    }

    /// True if some are due, or were taken and not all of them called.
    pub(super) fn has_due(&self) -> bool {
        self.queue.has_taken() || self.queue.peek().is_some_and(|deadline| deadline <= self.now)
    }

    /// Ends those that were taken last, and takes others that are due: the slots of up to `count`,
    /// each with whether it repeats.
    pub(super) fn take_due(&mut self, count: usize) -> impl Iterator<Item = (u32, bool)> {
        let now = self.now;
        // The next call is due one period after this one was; what is hopelessly late is not made
        // up for.
        self.queue.release(|deadline, token| {
            let period = token >> 1;
            (period > 0).then(|| deadline.saturating_add(period).max(now.saturating_add(1)))
        });
        let take = move || self.queue.take_due(now).map(|(slot, token)| (slot, token >> 1 > 0));
        std::iter::from_fn(take).take(count)
    }

    /// Starts a timer; times in nanoseconds. `None` if there are too many.
    pub(super) fn start(&mut self, delay: u64, period: u64) -> Option<TimerId> {
        let deadline = rt::now().saturating_add(delay);
        let least = if period > 0 { delay.min(period) } else { delay };
        let token = period.min(u64::MAX >> 1) << 1 | u64::from(least >= LONG);
        self.queue.insert(deadline, token)
    }

    /// Stops a timer; false if it was over.
    pub(super) fn cancel(&mut self, id: TimerId) -> bool {
        self.queue.cancel(id).is_some()
    }

    /// Tells the reactor of the next deadline.
    pub(super) fn arm(&mut self) {
        let Some(deadline) = self.queue.peek() else { return };
        // Rounded up: timers are never early.
        let is_long = self.queue.peek_token().is_some_and(|token| token & 1 == 1);
        let tick = if is_long { LONG_TICK } else { TICK };
        let deadline = deadline.div_ceil(tick).saturating_mul(tick);
        if self.armed.is_none_or(|armed| deadline < armed) {
            self.armed = Some(deadline);
            self.timer.set(deadline);
            if self.timer.poll(&mut Context::from_waker(&self.waker)).is_ready() {
                self.armed = None;
                self.waker.wake_by_ref();
            }
        }
    }
}

/// Functions for the table of natives.
pub(super) const FUNCTIONS: super::native::Functions = &[
    (c"timer_start", function(timer_start)),
    (c"timer_cancel", function(timer_cancel)),
    (c"take_due", function(take_due)),
];

/// native.timer_start(delay, period): seconds; returns the timer's id, and its slot: a number from
/// 1 on, as small as there are timers, which no other timer has until this one has been called or
/// cancelled. The period is 0 for a timer that fires once. Raises if there are too many timers.
fn timer_start(lua: Stack<'_>) -> (f64, f64) {
    let (delay, period) = (lua.number(1), lua.number(2));
    let (delay, period) = (nanoseconds(delay), nanoseconds(period));
    let account = lua.account();
    let started = host::with(|host| {
        let id = host.turn.timers.start(delay, period);
        host.charge_resources(account);
        id
    });
    let Some(id) = started else { lua.raise("too many timers: 67108864 are pending") };
    (id.get() as f64, f64::from(id.slot()) + 1.0)
}

/// native.timer_cancel(id): its slot if it was pending, otherwise nothing.
fn timer_cancel(lua: Stack<'_>) -> Option<f64> {
    let (id, given) = (TimerId::from_raw(lua.key(1)), lua.number(1));
    let is_one = id.get() as f64 == given && host::with(|host| host.turn.timers.cancel(id));
    is_one.then(|| f64::from(id.slot()) + 1.0)
}

/// native.take_due(list, jobs): puts the slots of timers that are due into the list, those that
/// repeat as negative numbers, and returns how many. Those it gave before have been called. Of
/// `jobs`, by slot, those are about to be called.
fn take_due(lua: Stack<'_>) -> f64 {
    let mut slots = [(0, false); TIMERS_MAX];
    let count = host::with(|host| {
        slots.iter_mut().zip(host.turn.take_due()).map(|(place, due)| *place = due).count()
    });
    for ((slot, repeats), index) in slots[..count].iter().zip(1..) {
        let slot = *slot as c_int + 1;
        lua.entry(2, slot.into());
        prefetch(lua.address(-1));
        lua.push_number(f64::from(if *repeats { -slot } else { slot }));
        lua.set_entry(1, index);
        lua.set_top(2);
    }
    count as f64
}
