//! Out of descriptors: collects sockets and files that nobody refers to.

use std::ffi::c_int;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use crate::logging::Seldom;
use crate::lua::host::{self, Host};
use crate::os::descriptors::{self, descriptors_max, lowest_free};
use crate::rt;
use crate::sched::Context;
use crate::vm::hook;
use crate::vm::stack::{Stack, function};

pub(super) const FUNCTIONS: super::native::Functions =
    &[(c"collect", function(collect)), (c"ask_others", function(ask_others))];

/// Contexts that are asked at a time, and how long before others are.
const ASKED_MAX: usize = 32;
const ASK_EVERY: u64 = 1_000_000_000;

/// How long a file waits for those that were asked.
const PATIENCE: Duration = Duration::from_millis(500);

/// When contexts were last asked; 0 for never.
static ASKED_AT: AtomicU64 = AtomicU64::new(0);

/// How many collections have closed something. Others may have taken its number by the time that
/// whoever waits for it looks.
static USEFUL: AtomicU64 = AtomicU64::new(0);

/// native.collect(): collects all garbage of this state; finalisers run meanwhile.
fn collect(lua: Stack<'_>) {
    let before = lowest_free();
    lua.collect();
    if lowest_free() < before {
        USEFUL.fetch_add(1, Ordering::Release);
    }
    host::with(|host| {
        let metrics = host.context.metrics();
        metrics.collected_in.store(metrics.turns(), Ordering::Relaxed);
    });
}

/// Collections for files in a row that were of no use before there is a pause after each …
const FRUITLESS_MAX: u32 = 64;

/// … as many times as long as it took.
const PAUSES: u64 = 10;

static FRUITLESS: AtomicU32 = AtomicU32::new(0);
static NOT_BEFORE: AtomicU64 = AtomicU64::new(0);

/// Collects the garbage of the state that runs on this thread, which opens a file and lacks a
/// descriptor for it, and if that is of no use has others do so; false if it was of no use, or has
/// been, again and again, a moment ago.
pub(crate) fn relieve() -> bool {
    if !host::is_entered() {
        return false;
    }
    let start = rt::now();
    // Relaxed, everywhere: nothing depends on these but how often files wait for a collection.
    if start < NOT_BEFORE.load(Ordering::Relaxed) {
        return false;
    }
    let (before, useful) = (lowest_free(), USEFUL.load(Ordering::Acquire));
    let is_done = hook::collect_now(function(collect)) != Some(false);
    let is_of_use = |is_free: bool| is_free || USEFUL.load(Ordering::Acquire) != useful;
    if is_of_use(lowest_free() < before) || is_of_use(await_others(before)) {
        FRUITLESS.store(0, Ordering::Relaxed);
        return is_done;
    }
    let end = rt::now();
    host::with(|host| warn(host));
    if FRUITLESS.fetch_add(1, Ordering::Relaxed) >= FRUITLESS_MAX {
        NOT_BEFORE.store(end + PAUSES * (end - start), Ordering::Relaxed);
    }
    false
}

/// Limits the warnings about missing descriptors.
static SHORTAGES: Seldom = Seldom::new();

/// Says that a collection was of no use, now and then.
#[cold]
fn warn(host: &Host) {
    if SHORTAGES.is_due() {
        log::warn!(
            "{}: no descriptor is left: the process may have {} open; its limit is that of whoever \
             starts it (ulimit -Hn, LimitNOFILE= of systemd)",
            host.context.label(),
            descriptors_max()
        );
    }
}

/// native.ask_others(): whether any was asked.
fn ask_others(_: Stack<'_>) -> bool {
    host::with(|host| {
        warn(host);
        !ask(host).is_empty()
    })
}

/// Asks other contexts to do the same, those with the most sockets, once a second at most; returns
/// whom. Who has done nothing since is not asked again.
fn ask(host: &Host) -> Vec<Arc<Context>> {
    let now = rt::now().max(1);
    // Relaxed, everywhere: nothing depends on these but how often contexts are asked.
    let is_due = |last: u64| (last == 0 || now >= last + ASK_EVERY).then_some(now);
    if ASKED_AT.fetch_update(Ordering::Relaxed, Ordering::Relaxed, is_due).is_err() {
        return Vec::new();
    }
    let sockets = |context: &Context| context.metrics().sockets.load(Ordering::Relaxed);
    let mut others = host.context.scheduler().registry().all();
    others.retain(|other| {
        let is_idle = collected_in(other) == other.metrics().turns();
        other.id() != host.context.id() && sockets(other) > 0 && !is_idle
    });
    others.sort_by_key(|other| std::cmp::Reverse(sockets(other)));
    others.truncate(ASKED_MAX);
    others.iter().for_each(host::ask_to_collect);
    others
}

/// The turn in which a context has collected last.
fn collected_in(context: &Context) -> u64 {
    context.metrics().collected_in.load(Ordering::Relaxed)
}

/// Asks others, and who has created this context, if it has just begun: who creates one after the
/// other has the garbage. Waits until a descriptor below this number is free, or they have
/// collected in vain. A file is opened at once or never: its thread waits, as for the disk.
fn await_others(before: c_int) -> bool {
    if rt::is_simulated() {
        return false;
    }
    let asked = host::with(|host| {
        let mut asked = ask(host);
        let has_begun = host.context.metrics().turns() > 1;
        let creator = host.context.parent().filter(|_| !has_begun);
        let creator = creator.and_then(|id| host.context.scheduler().registry().get(id));
        asked.extend(creator.inspect(host::ask_to_collect));
        asked
    });
    let asked: Vec<_> = asked.into_iter().map(|one| (collected_in(&one), one)).collect();
    let is_over = || asked.iter().all(|(turn, one)| collected_in(one) != *turn);
    descriptors::await_free(before, is_over, PATIENCE)
}
