//! What a context's script acts on: its mailbox's events, timers and sockets.
//!
//! The native functions (context.rs, tcp.rs, timer.rs) reach the host of the running context
//! through [`with`]; a turn (program.rs) sets it with [`enter`].

#![allow(unsafe_code, reason = "not behind a safe face yet")]

use std::cell::Cell;
use std::collections::{HashMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use mlua::ffi::lua_State;

use super::attempts::Attempt;
pub(super) use super::notice::{Completion, Notice};
use super::quota::Quota;
use super::sessions::Sessions;
use super::timer::{TIMERS_MAX, Timers};
use super::unread::Unread;
use crate::error::Code;
use crate::lua;
use crate::message::{Event, Id, Published, Value};
use crate::net::{Acceptor, Connection, Connector, SharedWriters, SlotMap, linger};
use crate::rt::{self, Listener};
use crate::sched::{Context, ReadyWaker};
use crate::vm::hook;
use crate::vm::state::Account;

/// What one turn may cost, in messages' worth of work, before other contexts run.
pub(super) const COST_PER_TURN: usize = 1024;

/// What a socket's readiness costs, with the system calls that follow.
const READY_COST: usize = 8;

/// Answers that leave together: so many, or so many bytes.
const ANSWERS_MAX: usize = 64;
const ANSWER_BYTES_MAX: usize = 256 * 1024;

/// Peers whose contexts are remembered, to spare the lookup. A power of two.
const PEERS: usize = 8;

/// Writes of less are staged whatever waits already.
const LARGE_BYTES: usize = 1 << 20;

/// About what a timer, and a socket, take outside of the VM.
const TIMER_BYTES: usize = 96;
const SOCKET_BYTES: usize = 2048;

/// The kinds of readiness that wakers carry, beside the key of a socket.
const KIND_TIMER: u64 = 0;
const KIND_READ: u64 = 1;
pub(super) const KIND_WRITE: u64 = 2;
const KIND_END: u64 = 3;

/// The key of the signals that a context hears, among those of the timers' kind.
const SIGNALS: u64 = 1;

/// A socket of the context.
#[derive(Debug)]
pub(super) enum Socket {
    Stream(Box<Connection>),
    Listener(Acceptor),
    Connecting(Connector),
}

/// What is staged: answers that leave together, or more.
#[derive(Debug)]
struct Answers {
    /// The connection that the script was last told of, and has done nothing else since.
    key: u64,
    /// Connections with something staged, before that.
    dirty: usize,
    /// Nothing else is staged.
    are_all: bool,
    bytes: usize,
}

impl Default for Answers {
    fn default() -> Answers {
        Answers { key: 0, dirty: 0, are_all: true, bytes: 0 }
    }
}

/// The running context's side of the world.
pub(super) struct Host {
    pub(super) context: Arc<Context>,
    pub(super) settings: Arc<super::settings::Settings>,
    pub(super) batch: VecDeque<Event>,
    /// Whether anything in the batch holds bytes, and how many had come to the mailbox with it.
    batch_holds: bool,
    come_bytes: usize,
    pub(super) notices: VecDeque<Notice>,
    pub(super) timers: Timers,
    pub(super) sockets: SlotMap<Socket>,
    pub(super) attempts: HashMap<u64, Attempt>,
    pub(super) dirty: Vec<u64>,
    answers: Answers,
    pub(super) remotes: SharedWriters,
    peers: [Option<Arc<Context>>; PEERS],
    /// Queries that wait for an answer.
    pub(super) sessions: Sessions,
    /// The publication that is being delivered.
    pub(super) published: Option<Arc<Published>>,
    pub(super) is_ending: bool,
    /// What is withheld from the context, and from those it creates.
    pub(super) deny: super::confine::Deny,
    /// Where its script is.
    pub(super) folder: Option<Arc<Path>>,
    /// Whether it has asked for signals.
    hears_signals: bool,
    pub(super) main_failed: bool,
    /// How the main chunk failed.
    pub(super) failure: Option<Vec<u8>>,
    /// Why the script ends its own context, if it says so.
    pub(super) end_reason: Option<Vec<u8>>,
    /// What is logged of it.
    pub(super) quota: Quota,
    /// The traceback of an error that nobody has caught, until it is reported.
    pub(super) trace: Option<Vec<u8>>,
    /// What the turn has cost so far, in messages' worth of work.
    cost: usize,
    /// Messages received that the mailbox still counts; the bytes that these and answers held, and
    /// how many of them the context has sent itself.
    pub(super) received: usize,
    pub(super) received_bytes: usize,
    pub(super) own_bytes: usize,
    pub(super) unread: Unread,
    /// Bytes that its timers and sockets are charged with.
    charged: usize,
    /// Bytes that have been staged since the last flush; with so many it does not wait for the end
    /// of the turn.
    staged: usize,
    staged_max: usize,
}

thread_local! {
    static CURRENT: Cell<*mut Host> = const { Cell::new(std::ptr::null_mut()) };
}

/// Makes `host` and its state `raw` the running ones while `body` runs.
pub(super) fn enter<R>(host: &mut Box<Host>, raw: *mut lua_State, body: impl FnOnce() -> R) -> R {
    struct Restore(*mut Host, *mut lua_State);
    impl Drop for Restore {
        fn drop(&mut self) {
            CURRENT.set(self.0);
            hook::set_running(self.1);
        }
    }
    let host = CURRENT.replace(&raw mut **host);
    let _restore = Restore(host, hook::set_running(raw));
    body()
}

/// Calls `body` with the host of the running context. Native functions are called by a script only
/// inside a turn, so there is one. Should `body` panic, the context ends, with a Lua error: a panic
/// must not cross the frames of the VM.
///
/// `body` must not call into the VM in a way that can run script code (and so another `with`).
#[inline]
pub(super) fn with<R>(body: impl FnOnce(&mut Host) -> R) -> R {
    let host = CURRENT.get();
    assert!(!host.is_null(), "native functions run inside a turn");
    // SAFETY: `enter` has set it to a host that it borrows mutably for the duration, and lends to
    // nobody else; calls of `with` do not nest (see above).
    let host = unsafe { &mut *host };
    match catch_unwind(AssertUnwindSafe(|| body(host))) {
        Ok(result) => result,
        Err(panic) => lua::fault::fail(&host.context, panic),
    }
}

/// Whether a context is running on this thread.
pub(super) fn is_entered() -> bool {
    !CURRENT.get().is_null()
}

/// Whether a socket of the running context, by its key, is open.
pub(super) fn is_open(key: u64) -> bool {
    is_entered() && with(|host| host.sockets.get_mut(key).is_some())
}

pub(super) fn source(key: u64, kind: u64) -> u64 {
    key << 2 | kind
}

/// Asks a context to collect its garbage.
pub(super) fn ask_to_collect(context: &Arc<Context>) {
    ReadyWaker::waker(context, source(0, KIND_READ)).wake();
}

impl Host {
    pub(super) fn new(
        context: &Arc<Context>,
        settings: &Arc<super::settings::Settings>,
    ) -> Box<Host> {
        Box::new(Host {
            context: Arc::clone(context),
            settings: Arc::clone(settings),
            batch: VecDeque::new(),
            batch_holds: false,
            come_bytes: 0,
            notices: VecDeque::new(),
            timers: Timers::new(ReadyWaker::waker(context, source(0, KIND_TIMER))),
            sockets: SlotMap::default(),
            attempts: HashMap::new(),
            dirty: Vec::new(),
            answers: Answers::default(),
            remotes: SharedWriters::default(),
            peers: [const { None }; PEERS],
            sessions: Sessions::default(),
            published: None,
            is_ending: false,
            deny: super::confine::Deny::default(),
            folder: None,
            hears_signals: false,
            main_failed: false,
            failure: None,
            end_reason: None,
            quota: Quota::default(),
            trace: None,
            cost: 0,
            received: 0,
            received_bytes: 0,
            own_bytes: 0,
            unread: Unread::default(),
            charged: 0,
            staged: 0,
            staged_max: match context.limits().memory {
                0 => usize::MAX,
                limit => limit / 8,
            },
        })
    }

    /// The context with this address, and this one; may be one that has just ended.
    #[inline(always)]
    pub(super) fn peer(&mut self, id: Id) -> (Option<&Arc<Context>>, &Context) {
        let peer = &mut self.peers[id.index() % PEERS];
        if peer.as_ref().is_none_or(|peer| peer.id() != id) {
            // The one before is kept if there is none.
            match self.context.scheduler().registry().get(id) {
                None => return (None, &self.context),
                found => *peer = found,
            }
        }
        (peer.as_ref(), &self.context)
    }

    /// Takes the next event of the turn from the mailbox.
    #[inline]
    pub(super) fn next_event(&mut self) -> Option<Event> {
        let event = self.batch.pop_front()?;
        self.unread.bytes = if self.batch_holds { self.note_bytes(&event) } else { 0 };
        Some(event)
    }

    /// Takes what is in the mailbox, once the last batch is used up.
    #[inline]
    fn take(&mut self) {
        let come = self.context.take(&mut self.batch);
        self.batch_holds = come != self.come_bytes;
        self.come_bytes = come;
    }

    /// Takes the next event if it is a message from `wanted` (0 for any), and nothing else is to be
    /// done before it.
    pub(super) fn next_message(&mut self, wanted: f64) -> Option<(Id, u64, Value)> {
        if !self.charge(1) || self.is_ending || !self.notices.is_empty() {
            return None;
        }
        if self.batch.is_empty() {
            if self.timers.has_due() {
                return None;
            }
            self.take();
        }
        match self.batch.front()? {
            Event::Message { from, .. } if wanted == 0.0 || from.to_number() == wanted => {}
            _ => return None,
        }
        match self.next_event()? {
            Event::Message { from, session, value } => {
                self.receive();
                Some((from, session, value))
            }
            _ => None,
        }
    }

    /// Begins a turn: takes what is in the mailbox, unless some of the last batch is left.
    pub(super) fn begin_turn(&mut self) {
        if self.batch.is_empty() {
            self.take();
        }
        self.timers.look();
    }

    /// Adds to the cost of the turn; false once it has used up its share.
    pub(super) fn charge(&mut self, cost: usize) -> bool {
        self.cost += cost;
        self.cost <= COST_PER_TURN
    }

    /// The cost of the turn that ends.
    pub(super) fn take_cost(&mut self) -> usize {
        std::mem::take(&mut self.cost)
    }

    /// True if events wait that came before this turn.
    pub(super) fn has_older(&self) -> bool {
        !self.batch.is_empty()
    }

    /// True if the turn was cut short.
    pub(super) fn has_more(&self) -> bool {
        self.has_older() || !self.notices.is_empty() || self.timers.has_due()
    }

    /// The slots of timers that are due, each with whether it repeats; those taken before are over.
    pub(super) fn take_due(&mut self) -> impl Iterator<Item = (u32, bool)> {
        let may_run = self.charge(0) && !self.is_ending;
        let cost = &mut self.cost;
        self.timers.take_due(if may_run { TIMERS_MAX } else { 0 }).inspect(move |_| *cost += 1)
    }

    /// Reacts to readiness: what follows is found in `notices`.
    pub(super) fn on_ready(&mut self, ready: u64) {
        let (key, kind) = (ready >> 2, ready & 3);
        self.cost += READY_COST;
        match kind {
            KIND_TIMER if key == SIGNALS => {
                let pending = self.settings.process.take_pending(self.context.id());
                return self.notices.extend(pending.map(Notice::Signal));
            }
            KIND_TIMER => return self.timers.on_ready(),
            _ => {}
        }
        if key == 0 {
            return self.notices.push_back(Notice::Collect);
        }
        match self.sockets.get_mut(key) {
            None => {}
            Some(Socket::Listener(listener)) => {
                listener.on_readable();
                self.notices.push_back(Notice::Acceptable(key));
            }
            Some(Socket::Connecting(_)) => self.advance(key),
            Some(Socket::Stream(connection)) if kind == KIND_READ => {
                connection.on_readable();
                self.notices.push_back(Notice::Readable(key));
            }
            Some(Socket::Stream(_)) if kind == KIND_END => {
                self.notices.push_back(Notice::Gone(key));
            }
            Some(Socket::Stream(connection)) => {
                connection.writer().resume();
            }
        }
    }

    /// What is to be woken when a signal comes.
    pub(super) fn signal_waker(&mut self) -> std::task::Waker {
        self.hears_signals = true;
        ReadyWaker::waker(&self.context, source(SIGNALS, KIND_TIMER))
    }

    /// Ends a turn: writes what was staged, and tells the reactor of the next deadline.
    pub(super) fn end_turn(&mut self) {
        self.unread.forget();
        self.cut_turn();
    }

    /// The same for a turn that is cut: what it deals with at this moment goes on.
    pub(super) fn cut_turn(&mut self) {
        self.settle();
        if !self.dirty.is_empty() || !self.remotes.is_clean() {
            self.flush();
        }
        self.timers.arm();
    }

    /// Charges the context with the memory that its timers, sockets, names and subscriptions take
    /// outside of the VM.
    #[inline]
    pub(super) fn charge_resources(&mut self, account: &Account) {
        // Relaxed: only the thread that runs the context writes it.
        let ties = self.context.metrics().ties_bytes.load(Ordering::Relaxed);
        let now = self.timers.len() * TIMER_BYTES + self.sockets.len() * SOCKET_BYTES + ties;
        if now != self.charged {
            account.recharge(self.charged, now);
            self.charged = now;
        }
    }

    /// A name or a subscription that took so many bytes is gone.
    pub(super) fn untie(&self, bytes: usize) {
        // Relaxed: as above.
        self.context.metrics().ties_bytes.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Tells others what the context holds.
    #[inline]
    pub(super) fn update_metrics(&mut self, account: &Account) {
        self.charge_resources(account);
        let metrics = self.context.metrics();
        // Relaxed: figures for people.
        metrics.lua_bytes.store(account.lua_bytes(), Ordering::Relaxed);
        metrics.buffer_bytes.store(account.external_bytes(), Ordering::Relaxed);
        metrics.timers.store(self.timers.len(), Ordering::Relaxed);
        metrics.sockets.store(self.sockets.len(), Ordering::Relaxed);
    }

    /// The script has dealt with the last event. While all it writes are answers on the connections
    /// it is told of, so many of them leave together: their bytes are still in the caches, and who
    /// receives them is woken for the first of many instead of for each. Whatever else was written
    /// stays until the end of the turn, since more may follow to the same sockets.
    #[inline]
    pub(super) fn flush_answers(&mut self) {
        let answers = &mut self.answers;
        let key = std::mem::take(&mut answers.key);
        if self.dirty.len() == answers.dirty {
            return;
        }
        if key == 0 || self.dirty.len() != answers.dirty + 1 || self.dirty.last() != Some(&key) {
            answers.are_all = false;
        }
        answers.dirty = self.dirty.len();
        if !answers.are_all || !self.remotes.is_clean() {
            return;
        }
        if let Some(Socket::Stream(connection)) = self.sockets.get(key) {
            answers.bytes += connection.staged.bytes();
        }
        if answers.dirty >= ANSWERS_MAX || answers.bytes >= ANSWER_BYTES_MAX {
            self.flush();
        }
    }

    /// Notes that the script is told of this connection.
    #[inline]
    pub(super) fn begin_answer(&mut self, key: u64) {
        self.answers.key = key;
    }

    /// Writes what was staged since the last time.
    pub(super) fn flush(&mut self) {
        let notices = &mut self.notices;
        let mut notify = |token, result: Result<(), Code>| {
            notices.push_back(Notice::Complete(token, result.map(|()| Completion::Done)));
        };
        for key in self.dirty.drain(..) {
            if let Some(Socket::Stream(connection)) = self.sockets.get_mut(key) {
                connection.is_dirty = false;
                connection.flush(&self.context, &mut notify);
            }
        }
        self.answers = Answers::default();
        self.staged = 0;
        self.flush_remotes();
    }

    /// Counts bytes that were staged, and writes all that was if these are many.
    #[inline]
    pub(super) fn note_staged(&mut self, bytes: usize) {
        self.staged += bytes;
        if self.staged >= self.staged_max {
            self.flush();
        }
    }

    /// Whether a write would hold more than the context may, with what waits already.
    #[inline]
    pub(super) fn is_too_much(&self, bytes: usize) -> bool {
        bytes >= LARGE_BYTES && bytes > self.room()
    }

    /// Writes what was staged for sockets of other contexts.
    pub(super) fn flush_remotes(&mut self) {
        let notices = &mut self.notices;
        let notify = |token, result: Result<(), Code>| {
            notices.push_back(Notice::Complete(token, result.map(|()| Completion::Done)));
        };
        self.remotes.flush(&self.context, notify);
    }

    /// The script ends its own context. The first reason counts, as it does when others end it.
    pub(super) fn end(&mut self, reason: Option<Vec<u8>>) {
        if !self.is_ending {
            self.end_reason = reason;
        }
        self.is_ending = true;
    }

    /// Stores a new socket under the key it is made for.
    pub(super) fn add_stream(&mut self, stream: rt::Stream) -> u64 {
        let context = Arc::clone(&self.context);
        let stored = self.sockets.try_insert(|key| {
            let connection =
                Connection::new(stream, &context, source(key, KIND_READ), source(key, KIND_WRITE));
            Ok::<_, std::convert::Infallible>(Socket::Stream(Box::new(connection)))
        });
        match stored {
            Ok(key) => key,
            Err(never) => match never {},
        }
    }

    /// Stores a new listen socket.
    pub(super) fn add_listener(&mut self, listener: Listener) -> u64 {
        let context = Arc::clone(&self.context);
        let stored = self.sockets.try_insert(|key| {
            let acceptor = Acceptor::new(listener, &context, source(key, KIND_READ));
            Ok::<_, std::convert::Infallible>(Socket::Listener(acceptor))
        });
        match stored {
            Ok(key) => key,
            Err(never) => match never {},
        }
    }

    /// Ends an operation with a failure.
    pub(super) fn fail(&mut self, token: u64, code: Code) {
        self.notices.push_back(Notice::Complete(token, Err(code)));
    }

    /// See [`Connection::watch_end`]; the script is told by a notice.
    pub(super) fn watch_end(&mut self, key: u64) -> Option<Code> {
        let waker = ReadyWaker::waker(&self.context, source(key, KIND_END));
        self.stream(key)?.watch_end(&waker)
    }

    /// Closes a socket; what was written to it still leaves.
    pub(super) fn close(&mut self, key: u64) {
        match self.sockets.remove(key) {
            Some(Socket::Stream(mut connection)) => {
                let notices = &mut self.notices;
                connection.flush(&self.context, |token, result| {
                    let result = result.map(|()| Completion::Done);
                    notices.push_back(Notice::Complete(token, result));
                });
                linger(*connection);
            }
            Some(Socket::Connecting(connector)) => {
                self.attempts.remove(&connector.token);
            }
            Some(Socket::Listener(..)) | None => {}
        }
    }

    /// Closes everything, at the end of the context.
    pub(super) fn close_all(&mut self) {
        self.flush();
        if std::mem::take(&mut self.hears_signals) {
            self.settings.process.forget(self.context.id());
        }
        let streams: Vec<_> = self.sockets.drain().collect();
        for socket in streams {
            if let Socket::Stream(connection) = socket {
                linger(*connection);
            }
        }
    }

    /// The connection under this key, if it is one.
    #[inline]
    pub(super) fn stream(&mut self, key: u64) -> Option<&mut Connection> {
        match self.sockets.get_mut(key) {
            Some(Socket::Stream(connection)) => Some(connection),
            _ => None,
        }
    }
}
