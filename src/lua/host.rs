//! The host of a script: its turn, its sockets, its peers, and the state of its context.
//!
//! The native functions (context.rs, tcp.rs, timer.rs) reach the host of the running context
//! through [`with`]; a turn (program.rs) sets it with [`enter`]. Methods that need only one of the
//! parts are there; here are those that need several.

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use mlua::ffi::lua_State;

use super::confine::Deny;
use super::notice::Notice;
use super::peers::Peers;
use super::quota::Quota;
use super::sockets::{KIND_READ, KIND_TIMER, Sockets, source};
use super::timer::Timers;
use super::turn::Turn;
use crate::error::Code;
use crate::hint::rarely;
use crate::lua;
use crate::message::{Allowance, Event, Held, Id, Value};
use crate::os::current::Current;
use crate::sched::{Cluster, Context, ReadyWaker};
use crate::vm::hook;
use crate::vm::state::Account;

/// What a socket's readiness costs, in messages, with the system calls that follow.
const READY_COST: usize = 8;

/// Writes of fewer bytes are staged however much waits already.
const LARGE_BYTES: usize = 1 << 20;

/// About how many bytes a timer, and a socket, take outside of the VM.
const TIMER_BYTES: usize = 96;
const SOCKET_BYTES: usize = 2048;

/// The key of wakers for signals, among those of the timers' kind.
const SIGNALS: u64 = 1;

/// What the script of a context acts on.
pub(super) struct Host {
    pub(super) context: Arc<Context>,
    pub(super) settings: Arc<super::settings::Settings>,
    pub(super) turn: Turn,
    pub(super) sockets: Sockets,
    pub(super) peers: Peers,
    /// What is withheld from the context, and from those it creates.
    pub(super) deny: Deny,
    /// Where its script is.
    pub(super) folder: Option<Arc<Path>>,
    /// Whether it has asked for signals.
    hears_signals: bool,
    pub(super) main_failed: bool,
    /// How the main chunk failed.
    pub(super) failure: Option<Vec<u8>>,
    /// The reason that the script has given for ending its own context.
    pub(super) end_reason: Option<Vec<u8>>,
    /// How much of the context is logged.
    pub(super) quota: Quota,
    /// The traceback of an error that nobody has caught, until it is reported.
    pub(super) trace: Option<Vec<u8>>,
    /// Bytes that were charged for its timers and sockets.
    charged: usize,
}

thread_local! {
    static CURRENT: Current<RefCell<Host>> = const { Current::new() };
}

/// Makes `host` and its state `raw` the running ones while `body` runs.
pub(super) fn enter<R>(host: &RefCell<Host>, raw: *mut lua_State, body: impl FnOnce() -> R) -> R {
    struct Restore(*mut lua_State);
    impl Drop for Restore {
        fn drop(&mut self) {
            hook::set_running(self.0);
        }
    }
    Current::enter(&CURRENT, host, || {
        let _restore = Restore(hook::set_running(raw));
        body()
    })
}

/// Calls `body` with the host of the running context. Native functions are called by a script only
/// inside a turn, so there is one. Should `body` panic, the context ends, with a Lua error: a panic
/// must not cross the frames of the VM.
///
/// `body` must not call into the VM in a way that can run script code (and so another `with`).
#[inline]
pub(super) fn with<R>(body: impl FnOnce(&mut Host) -> R) -> R {
    match try_with(body) {
        Ok(result) => result,
        Err(panic) => lua::fault::fail(&context(), panic),
    }
}

#[cold]
pub(super) fn context() -> Arc<Context> {
    Current::with(&CURRENT, |host| {
        let host = host.expect("native functions run inside a turn");
        Arc::clone(&host.borrow().context)
    })
}

/// As [`with`], but a panic is given to the caller.
#[inline]
pub(super) fn try_with<R>(body: impl FnOnce(&mut Host) -> R) -> std::thread::Result<R> {
    Current::with(&CURRENT, |host| {
        let host = host.expect("native functions run inside a turn");
        catch_unwind(AssertUnwindSafe(|| body(&mut host.borrow_mut())))
    })
}

/// Whether a context is running on this thread.
pub(super) fn is_entered() -> bool {
    Current::is_some(&CURRENT)
}

/// Whether a socket of the running context, by its key, is open.
pub(super) fn is_open(key: u64) -> bool {
    is_entered() && with(|host| host.sockets.all.get(key).is_some())
}

/// Asks a context to collect its garbage.
pub(super) fn ask_to_collect(context: &Arc<Context>) {
    ReadyWaker::waker(context, source(0, KIND_READ)).wake();
}

impl Host {
    pub(super) fn new(
        context: &Arc<Context>,
        settings: &Arc<super::settings::Settings>,
    ) -> Box<RefCell<Host>> {
        Box::new(RefCell::new(Host {
            context: Arc::clone(context),
            settings: Arc::clone(settings),
            turn: Turn::new(Timers::new(ReadyWaker::waker(context, source(0, KIND_TIMER)))),
            sockets: Sockets::new(context.limits().memory),
            peers: Peers::default(),
            deny: Deny::default(),
            folder: None,
            hears_signals: false,
            main_failed: false,
            failure: None,
            end_reason: None,
            quota: Quota::default(),
            trace: None,
            charged: 0,
        }))
    }

    /// Takes the next event of the turn from the mailbox.
    #[inline(always)]
    pub(super) fn next_event(&mut self) -> Option<Event> {
        self.turn.next_event(&mut self.peers.received, &self.context)
    }

    /// Whether the turn has more to do.
    #[inline]
    pub(super) fn has_more(&self) -> bool {
        #[cfg(feature = "http")]
        if self.sockets.http.as_ref().is_some_and(|http| http.is_busy()) {
            return true;
        }
        self.turn.has_more()
    }

    /// Counts a message as received.
    #[inline]
    pub(super) fn receive(&mut self) {
        self.peers.received.receive(&self.context);
    }

    /// Reacts to readiness. Returns the key of a socket that the script is told of, and how many
    /// frames it waits for; what else follows is found in the notices of the turn.
    pub(super) fn on_ready(&mut self, source: u64) -> Option<(u64, usize)> {
        let (key, kind) = (source >> 2, source & 3);
        self.turn.charge(READY_COST);
        match (key, kind) {
            (SIGNALS, KIND_TIMER) => {
                let pending = self.settings.process.take_pending(self.context.id());
                pending.for_each(|signal| self.turn.notices.push(Notice::Signal(signal)));
            }
            (_, KIND_TIMER) => self.turn.timers.on_ready(),
            (0, _) => self.turn.notices.push(Notice::Collect),
            _ => {
                let notices = &mut self.turn.notices;
                let awaited = self.sockets.on_ready(key, kind, &self.context, notices)?;
                return Some((key, awaited));
            }
        }
        None
    }

    pub(super) fn signal_waker(&mut self) -> std::task::Waker {
        self.hears_signals = true;
        ReadyWaker::waker(&self.context, source(SIGNALS, KIND_TIMER))
    }

    /// Ends a turn: writes what was staged, and arms the next deadline.
    pub(super) fn end_turn(&mut self) {
        self.peers.received.unread.forget();
        self.cut_turn();
        // The next turn does not pay for it: it would have nothing left for timers.
        self.turn.take_cost();
    }

    /// The same for a turn that is cut, whose present event is not over.
    pub(super) fn cut_turn(&mut self) {
        self.peers.received.settle(&self.context);
        #[cfg(feature = "http")]
        self.drive_http();
        if !self.sockets.is_clean() {
            self.flush();
        }
        self.turn.timers.arm();
    }

    /// Charges the context with the memory that its timers, sockets, names and subscriptions take
    /// outside of the VM.
    #[inline]
    pub(super) fn charge_resources(&mut self, account: &Account) {
        // Relaxed: only the thread that runs the context writes it.
        let ties = self.context.metrics().ties_bytes.load(Ordering::Relaxed);
        let (timers, sockets) = (self.turn.timers.len(), self.sockets.len());
        let now = timers * TIMER_BYTES + sockets * SOCKET_BYTES + ties;
        if now != self.charged {
            account.recharge(self.charged, now);
            self.charged = now;
        }
    }

    /// A name or a subscription that took this many bytes is gone.
    pub(super) fn untie(&self, bytes: usize) {
        // Relaxed: as above.
        self.context.metrics().ties_bytes.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Publishes how much the context holds, for `context.stat`.
    #[inline]
    pub(super) fn update_metrics(&mut self, account: &Account) {
        self.charge_resources(account);
        let metrics = self.context.metrics();
        // Relaxed: figures for people.
        metrics.lua_bytes.store(account.lua_bytes(), Ordering::Relaxed);
        metrics.buffer_bytes.store(account.external_bytes(), Ordering::Relaxed);
        metrics.timers.store(self.turn.timers.len(), Ordering::Relaxed);
        metrics.sockets.store(self.sockets.len(), Ordering::Relaxed);
    }

    /// Writes what was staged since the last time.
    pub(super) fn flush(&mut self) {
        self.sockets.flush(&self.context, &mut self.turn.notices);
    }

    /// Writes what was staged for sockets of other contexts.
    pub(super) fn flush_shared(&mut self) {
        self.sockets.flush_shared(&self.context, &mut self.turn.notices);
    }

    /// Counts bytes that were staged, and writes everything if they are many.
    #[inline]
    pub(super) fn note_staged(&mut self, bytes: usize) {
        if self.sockets.is_full_with(bytes) {
            self.flush();
        }
    }

    /// Bytes that what the context sends may still hold.
    #[inline]
    pub(super) fn room(&self) -> usize {
        self.context.allowance().map_or(usize::MAX, |allowance| allowance.room())
    }

    /// Whether a datagram would exceed the context's memory limit, with what waits already. Nothing
    /// is copied before it is counted: it lies in a buffer, which counts.
    #[inline]
    pub(super) fn is_too_much(&self, bytes: usize) -> bool {
        bytes >= LARGE_BYTES && bytes > self.room()
    }

    /// Counts a write before it is copied, if it is large and there is a limit; `None` if that
    /// would be exceeded, with what waits already.
    #[inline]
    pub(super) fn hold_large(&self, bytes: usize) -> Option<Option<Held>> {
        match rarely(bytes >= LARGE_BYTES) {
            true => Allowance::hold_of(self.context.allowance(), bytes),
            false => Some(None),
        }
    }

    /// Puts an event into the mailbox of another context.
    #[inline]
    pub(super) fn deliver(&mut self, to: Id, event: Event) -> Result<(), Code> {
        self.begin_delivery();
        self.peers.deliver(to, event, &self.context)
    }

    /// To be called before events are delivered: reports what this context has received, so that
    /// who replies finds room, and writes what was staged for sockets of others, since whoever
    /// hears of it may close the socket.
    #[inline]
    pub(super) fn begin_delivery(&mut self) {
        self.peers.received.settle(&self.context);
        if !self.sockets.shared.is_clean() || !self.sockets.shared_udp.is_clean() {
            self.flush_shared();
        }
    }

    /// Delivers a value to a context with this name: the next in turn in this process that has
    /// room, whose handle it returns, or else one of another process.
    pub(super) fn deliver_named(
        &mut self,
        name: &[u8],
        session: u64,
        mut value: Value,
    ) -> Result<Option<Id>, Code> {
        let from = self.context.id();
        let holders = self.context.scheduler().names().next(name);
        let is_elsewhere = self.cluster().is_some_and(|cluster| cluster.is_held(name));
        let mut failure = Code::NO_CONTEXT;
        for (left, &holder) in (0..holders.len()).rev().zip(&holders) {
            let is_last = left == 0 && !is_elsewhere;
            let value = if is_last { std::mem::take(&mut value) } else { value.clone() };
            match self.deliver(holder, Event::Message { from, session, value }) {
                Ok(()) => return Ok(Some(holder)),
                // Who has ended meanwhile is none of them any more.
                Err(Code::NO_CONTEXT) => {}
                Err(code) => failure = code,
            }
        }
        let cluster = self.cluster().filter(|_| holders.is_empty() || is_elsewhere);
        let cluster = Arc::clone(cluster.ok_or(failure)?);
        let value = value.uncounted();
        let sent = cluster.send_named(name, &self.context, session, &value);
        sent.map(|()| None).map_err(|failure| self.peers.explain(failure))
    }

    /// The cluster, unless the network is withheld.
    pub(super) fn cluster(&self) -> Option<&Arc<dyn Cluster>> {
        self.context.scheduler().cluster().filter(|_| !self.deny.withholds(Deny::NETWORK))
    }

    /// The script ends its own context. The first reason counts, also if others give one.
    pub(super) fn end(&mut self, reason: Option<Vec<u8>>) {
        if !self.turn.is_ending {
            self.end_reason = reason;
        }
        self.turn.is_ending = true;
    }

    /// Closes everything, at the end of the context.
    pub(super) fn close_all(&mut self) {
        self.flush();
        if std::mem::take(&mut self.hears_signals) {
            self.settings.process.forget(self.context.id());
        }
        self.sockets.close_all(&self.context);
    }
}
