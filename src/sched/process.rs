//! The process as its contexts see it: signals that they are told of, and its end.
//!
//! The first SIGINT or SIGTERM goes to the contexts with a callback for it; if there is none, or
//! they have had their time, all contexts are destroyed. A second one ends the process at once. The
//! other signals are left alone until a script asks for one, and do what they always did once no
//! callback is left.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::task::Waker;
use std::time::Duration;

use super::program::End;
use super::scheduler::Scheduler;
use crate::message::Id;
use crate::os::{self, Signal};
use crate::rt;
use crate::sync::lock;

/// How long the process runs on once it is to end, at most: contexts may be busy, or peers slow.
const PATIENCE: Duration = Duration::from_millis(4500);

/// The process does not wait for contexts that are stuck in system calls, of C functions perhaps,
/// if it has seen no others for this many looks.
const LOOK: Duration = Duration::from_millis(20);
const LOOKS: u32 = 5;

/// A context with callbacks for signals. Of each signal one waits at most.
struct Listener {
    waker: Waker,
    wanted: u8,
    pending: u8,
}

impl Listener {
    /// A signal has come; who is to be woken, unless it was for one that it has not seen: a flood
    /// must not fill the mailbox.
    fn note(&mut self, signal: Signal) -> Option<Waker> {
        let is_first = self.pending == 0;
        self.pending |= bit(signal);
        is_first.then(|| self.waker.clone())
    }
}

#[derive(Default)]
struct Listeners {
    all: BTreeMap<Id, Listener>,
    /// Signals that come here.
    installed: u8,
    /// Those of them that were ignored before that.
    ignored: u8,
}

/// What ends the process, and who hears of signals.
#[derive(Default)]
pub struct Process {
    grace: Option<Duration>,
    exits_with_main: bool,
    status: OnceLock<u8>,
    is_ending: AtomicBool,
    is_interrupted: AtomicBool,
    listeners: Mutex<Listeners>,
}

impl std::fmt::Debug for Process {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Process").field("status", &self.status).finish_non_exhaustive()
    }
}

/// Whether a statement of the prompt runs, of which there is one: SIGINT raises in it.
static STATEMENT: AtomicU8 = AtomicU8::new(NO_STATEMENT);
const NO_STATEMENT: u8 = 0;
const RUNS: u8 = 1;
const IS_BROKEN: u8 = 2;

/// Says that a statement runs now, or none any more; whether one has been broken off and does not
/// know.
pub(crate) fn set_statement(runs: bool) -> bool {
    STATEMENT.swap(if runs { RUNS } else { NO_STATEMENT }, Ordering::SeqCst) == IS_BROKEN
}

/// Whether the statement is to be broken off.
#[inline]
pub(crate) fn is_statement_broken() -> bool {
    STATEMENT.load(Ordering::Relaxed) == IS_BROKEN
}

fn bit(signal: Signal) -> u8 {
    1 << signal as u8
}

impl Process {
    /// A process of which nothing is known yet. `grace` is how long callbacks for INT and TERM
    /// have: nothing for no limit. It may end with the main script's context.
    pub fn new(grace: Option<Duration>, exits_with_main: bool) -> Process {
        Process { grace, exits_with_main, ..Process::default() }
    }

    /// How long callbacks for INT and TERM have; `None` for no limit.
    pub fn grace(&self) -> Option<Duration> {
        self.grace
    }

    /// Whether the process ends with the main script's context.
    pub fn exits_with_main(&self) -> bool {
        self.exits_with_main
    }

    /// The status that was asked for: by a script, or by a signal.
    pub fn status(&self) -> Option<u8> {
        self.status.get().copied()
    }

    /// Ends all contexts, and with them the process: in good time, but in a simulation, which knows
    /// no other time than its own. The first status that is asked for counts.
    pub fn end(&self, scheduler: &Arc<Scheduler>, status: Option<u8>) {
        if let Some(status) = status {
            // Set before: the first counts.
            let _ = self.status.set(status);
        }
        if crate::os::stdio::fork::is_child() {
            // It ends with the turn.
            return;
        }
        if !self.is_ending.swap(true, Ordering::SeqCst) && !rt::is_simulated() {
            let status = self.status().unwrap_or_default();
            let of = Arc::clone(scheduler);
            // By no thread of its own: the system might not start one.
            rt::spawn(async move {
                let (mut left, mut stuck) = (PATIENCE, 0);
                while !left.is_zero() {
                    rt::sleep(LOOK).await;
                    left = left.saturating_sub(LOOK);
                    stuck = if of.is_stuck() { stuck + 1 } else { 0 };
                    if stuck == LOOKS {
                        of.finish_all();
                    }
                }
                log::warn!("contexts are still busy, or peers slow to read: the process ends");
                os::exit::exit_soon(i32::from(status));
            });
        }
        scheduler.destroy_all(&End::Destroyed(None));
    }

    /// Has signals come here that end the process: INT, as in LuaJIT, and TERM, unless the process
    /// was started with that ignored.
    ///
    /// # Errors
    /// If the handlers cannot be installed.
    pub fn start(self: &Arc<Self>, scheduler: &Arc<Scheduler>) -> std::io::Result<()> {
        if !crate::os::signal::is_ignored(Signal::Term.number()) {
            self.install(Signal::Term, scheduler)?;
        }
        self.install(Signal::Int, scheduler)
    }

    fn install(
        self: &Arc<Self>,
        signal: Signal,
        scheduler: &Arc<Scheduler>,
    ) -> std::io::Result<()> {
        let mut listeners = self.listeners();
        if listeners.installed & bit(signal) != 0 || rt::is_simulated() {
            return Ok(());
        }
        let (process, scheduler) = (Arc::clone(self), Arc::clone(scheduler));
        // A shell has what it runs in the background ignore INT, which ends it all the same.
        if signal != Signal::Int && crate::os::signal::is_ignored(signal.number()) {
            listeners.ignored |= bit(signal);
        }
        os::on_signal(signal, move || process.on_signal(signal, &scheduler))?;
        listeners.installed |= bit(signal);
        Ok(())
    }

    fn listeners(&self) -> MutexGuard<'_, Listeners> {
        lock(&self.listeners)
    }

    /// Has `waker` woken when this signal comes, for the context `id`; or not any more.
    ///
    /// # Errors
    /// If the system does not let the process have the signal.
    pub(crate) fn listen(
        self: &Arc<Self>,
        scheduler: &Arc<Scheduler>,
        id: Id,
        signal: Signal,
        waker: Option<Waker>,
    ) -> std::io::Result<()> {
        let Some(waker) = waker else {
            if let Some(listener) = self.listeners().all.get_mut(&id) {
                listener.wanted &= !bit(signal);
                listener.pending &= !bit(signal);
            }
            return Ok(());
        };
        self.install(signal, scheduler)?;
        let new = || Listener { waker, wanted: 0, pending: 0 };
        self.listeners().all.entry(id).or_insert_with(new).wanted |= bit(signal);
        Ok(())
    }

    /// Forgets a context that ends.
    pub(crate) fn forget(&self, id: Id) {
        self.listeners().all.remove(&id);
    }

    /// The signals that have come for a context, since it was last asked.
    pub(crate) fn take_pending(&self, id: Id) -> impl Iterator<Item = Signal> + use<> {
        let mut listeners = self.listeners();
        let pending = listeners.all.get_mut(&id).map(|found| std::mem::take(&mut found.pending));
        let pending = pending.unwrap_or_default();
        Signal::ALL.into_iter().filter(move |&signal| pending & bit(signal) != 0)
    }

    /// Tells those who want to know of a signal; how many do.
    pub fn tell(&self, signal: Signal) -> usize {
        let mut listeners = self.listeners();
        let wants = |listener: &&mut Listener| listener.wanted & bit(signal) != 0;
        let told: Vec<_> =
            listeners.all.values_mut().filter(wants).map(|one| one.note(signal)).collect();
        drop(listeners);
        // Outside the lock: they are put into mailboxes, which have locks of their own.
        told.iter().flatten().for_each(Waker::wake_by_ref);
        told.len()
    }

    /// SIGINT has come: breaks off the statement that runs, if one does, unless some script wants
    /// to hear of it, or it has come before.
    fn breaks_statement(&self, scheduler: &Scheduler) -> bool {
        let mut listeners = self.listeners();
        if listeners.all.values().any(|listener| listener.wanted & bit(Signal::Int) != 0) {
            return false;
        }
        let exchange =
            STATEMENT.compare_exchange(RUNS, IS_BROKEN, Ordering::SeqCst, Ordering::SeqCst);
        if exchange.is_ok() {
            let all = listeners.all.values_mut();
            let told: Vec<_> = all.filter_map(|one| one.note(Signal::Int)).collect();
            drop(listeners);
            scheduler.cut_all();
            // It may wait.
            told.into_iter().for_each(Waker::wake);
        }
        exchange.is_ok()
    }

    fn on_signal(self: &Arc<Self>, signal: Signal, scheduler: &Arc<Scheduler>) {
        if signal == Signal::Int && self.breaks_statement(scheduler) {
            return;
        }
        let told = self.tell(signal);
        if told == 0 && self.listeners().ignored & bit(signal) != 0 {
            return;
        }
        let Some(status) = signal.exit_status() else {
            if told == 0 {
                crate::os::signal::die_of(signal.number());
            }
            return;
        };
        if self.is_interrupted.swap(true, Ordering::SeqCst) {
            crate::os::exit::exit_now(i32::from(status));
        }
        if self.is_ending.load(Ordering::SeqCst) || told == 0 {
            log::info!("terminated by a signal");
            os::stdio::hurry();
            return self.end(scheduler, Some(status));
        }
        let Some(grace) = self.grace else { return };
        let (process, scheduler) = (Arc::clone(self), Arc::clone(scheduler));
        rt::spawn(async move {
            rt::sleep(grace).await;
            os::stdio::hurry();
            process.end(&scheduler, Some(status));
        });
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::collections::VecDeque;

    use super::super::program::Nothing;
    use super::super::waker::ReadyWaker;
    use super::*;

    #[test]
    fn a_flood_of_signals_is_one_event() {
        let scheduler = Scheduler::new(1);
        let context = scheduler.spawn(None, Default::default(), Box::new(Nothing)).unwrap();
        let process = Arc::new(Process::new(None, false));
        let come = || {
            let mut events = VecDeque::new();
            context.take(&mut events);
            events.len()
        };
        for signal in [Signal::Usr1, Signal::Usr2] {
            let waker = ReadyWaker::waker(&context, 1);
            process.listen(&scheduler, context.id(), signal, Some(waker)).unwrap();
        }
        for _ in 0..3 {
            for _ in 0..1000 {
                assert_eq!(process.tell(Signal::Usr1) + process.tell(Signal::Usr2), 2);
            }
            assert_eq!(process.tell(Signal::Hup), 0);
            assert_eq!(come(), 1);
            let told: Vec<_> = process.take_pending(context.id()).collect();
            assert_eq!(told, [Signal::Usr1, Signal::Usr2]);
        }
        process.tell(Signal::Usr1);
        process.listen(&scheduler, context.id(), Signal::Usr1, None).unwrap();
        process.tell(Signal::Usr2);
        assert_eq!(process.take_pending(context.id()).collect::<Vec<_>>(), [Signal::Usr2]);
        assert!(come() > 0);
    }
}
