//! This process in the cluster: between its contexts and the bus.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context as TaskContext, Poll, Waker};
use std::time::{Duration, Instant};

use super::contacts::EVERYBODY;
use super::outbox::Parcel;
use super::state::{Effects, OPEN_MAX, PAYLOAD_MIN, Phase, State, Who};
use super::wire::{self, Frame, Reader, Target};
use crate::error::Code;
use crate::logging::Seldom;
use crate::message::{Event, Failure, Held, Id, Malformed, Published, Value};
use crate::rt;
use crate::sched::{Refused, Scheduler, topics};
use crate::sync::lock;

#[derive(Debug, Default)]
pub(super) struct Bus {
    waker: Option<Waker>,
    /// It is running, and looks for more to send before it waits again.
    is_awake: bool,
    /// The process ends, and everything has been sent.
    is_done: bool,
    /// An attempt to connect has failed; the process has joined once.
    has_failed: bool,
    has_joined: bool,
}

/// This process in the cluster.
#[derive(Debug)]
pub struct Node {
    id: u64,
    pub(super) name: String,
    pub(super) scheduler: Arc<Scheduler>,
    state: Mutex<(State, Bus)>,
    changed: Condvar,
}

impl Node {
    /// A process of this name, which is not connected yet.
    pub fn new(name: String, scheduler: &Arc<Scheduler>) -> Arc<Node> {
        let [id, ..] = rt::random_words().unwrap_or_default();
        let id = id.max(EVERYBODY + 1);
        let state = Mutex::new((State::new(id, name.clone()), Bus::default()));
        let scheduler = Arc::clone(scheduler);
        let node = Node { id, name, scheduler, state, changed: Condvar::new() };
        Arc::new(node)
    }

    /// Its number, which no other process has or will have.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, (State, Bus)> {
        lock(&self.state)
    }

    /// Calls `body` with the state, then wakes the bus if it is to send something, and delivers.
    pub(super) fn with<R>(&self, body: impl FnOnce(&mut State, &mut Effects) -> R) -> R {
        let mut effects = Effects::new();
        let (result, waker) = {
            let mut all = self.lock();
            let (state, bus) = &mut *all;
            let result = body(state, &mut effects);
            let has_more = !state.out.is_empty() && state.check_here().is_ok();
            let is_called = has_more && !std::mem::replace(&mut bus.is_awake, true);
            (result, if is_called { bus.waker.take() } else { None })
        };
        if let Some(waker) = waker {
            waker.wake();
        }
        for (id, event) in effects {
            if let Some(context) = self.scheduler.registry().get(id) {
                // A context that has ended needs no reply.
                let _ = context.deliver(event);
            }
        }
        result
    }

    // For the bus ---------------------------------------------------------------------------------

    /// What is to be sent, and what counts until it is; none once the process ends and all was.
    pub fn poll_parcels(&self, cx: &TaskContext<'_>) -> Poll<Option<(Vec<Parcel>, Vec<Held>)>> {
        let mut all = self.lock();
        let (state, bus) = &mut *all;
        let is_over = matches!(state.phase, Phase::Over);
        if !state.out.is_empty() && (is_over || state.check_here().is_ok()) {
            return Poll::Ready(Some(state.out.take()));
        }
        if is_over {
            return Poll::Ready(None);
        }
        bus.is_awake = false;
        bus.waker = Some(cx.waker().clone());
        Poll::Pending
    }

    /// The bus has no subscriptions: those of this process are made once there is a connection.
    pub fn subscribe_anew(&self) {
        self.lock().0.subscribe_anew();
    }

    /// Everything has been sent.
    pub fn finish(&self) {
        self.lock().1.is_done = true;
        self.changed.notify_all();
    }

    /// There is a connection, to a server that takes `max_payload` bytes at once.
    pub fn on_connected(&self, max_payload: usize) {
        log::info!("cluster: connected, as {} ({:016x})", self.name, self.id);
        if max_payload < PAYLOAD_MIN {
            return self.on_away(&format!(
                "max_payload of nats-server is {max_payload} bytes, and at least {PAYLOAD_MIN} \
                 are needed"
            ));
        }
        self.with(|state, _| state.connected(max_payload, rt::now()));
    }

    /// There is no connection, or no more.
    pub fn on_away(&self, why: &str) {
        let is_new = self.with(|state, effects| {
            let is_new = state.check_here().is_ok();
            state.disconnected(why, effects);
            is_new
        });
        self.lock().1.has_failed = true;
        if is_new {
            log::warn!("cluster: away: {why}");
        }
        self.changed.notify_all();
    }

    /// Nobody has got what the process `node` was told, or, with `None`, what all were.
    pub fn on_nobody(&self, node: Option<u64>) {
        self.with(|state, effects| match node {
            None => state.is_alone(),
            Some(node) => state.miss(node, rt::now(), effects),
        });
        self.note_joined();
    }

    /// To be called every half second.
    pub fn on_tick(&self) {
        self.with(|state, effects| state.tick(rt::now(), effects));
        self.note_joined();
    }

    fn note_joined(&self) {
        let mut all = self.lock();
        if matches!(all.0.phase, Phase::Here) && !std::mem::replace(&mut all.1.has_joined, true) {
            self.changed.notify_all();
        }
    }

    /// A parcel for everybody has come.
    pub fn on_all(&self, bytes: &[u8]) {
        let Some((node, mut reader)) = self.open(bytes) else { return };
        self.with(|state, effects| {
            while !reader.is_empty() {
                match reader.frame() {
                    Ok(frame) => drop(state.react(node, frame, rt::now(), effects)),
                    Err(error) => return self.complain(node, &error),
                }
            }
        });
        self.note_joined();
    }

    /// A parcel for this process has come.
    pub fn on_node(&self, bytes: &[u8]) {
        let Some((node, mut reader)) = self.open(bytes) else { return };
        let (Ok(epoch), Ok(number)) = (reader.take(), reader.take()) else { return };
        let number = (u32::from_le_bytes(epoch), u32::from_le_bytes(number));
        self.with(|state, _| state.count_parcel(node, number, rt::now()));
        let mut is_joining = false;
        while !reader.is_empty() {
            match reader.frame() {
                Ok(Frame::Message { from, session, to, value }) => {
                    self.on_message(node, (from, session), to, value);
                }
                Ok(frame) => {
                    is_joining |= matches!(frame, Frame::Names { .. });
                    self.with(|state, effects| {
                        let left = state.react(node, frame, rt::now(), effects);
                        match left {
                            Some(Frame::Reply { to, session, result }) => {
                                state.on_reply(node, to, session, result, effects);
                            }
                            Some(Frame::Forget { from, session }) => {
                                if let Some(asker) = state.known(node, from) {
                                    state.close_open(asker, session);
                                }
                            }
                            _ => {}
                        }
                    });
                }
                Err(error) => return self.complain(node, &error),
            }
        }
        if is_joining {
            self.note_joined();
        }
    }

    /// A publication to a topic that fits a pattern of this process has come.
    pub fn on_topic(&self, pattern: &[u8], bytes: &[u8]) {
        let Some((node, mut reader)) = self.open(bytes) else { return };
        let (Ok(_), Ok(topic)) = (reader.take::<8>(), reader.bytes()) else { return };
        if topics::check(topic, false).is_err() {
            return self.complain(node, &Malformed::Key);
        }
        let subscribers = self.scheduler.topics().exactly(pattern);
        while !reader.is_empty() {
            let (from, value) = match (reader.number(), reader.value()) {
                (Ok(from), Ok(value)) => (from, value),
                (_, Err(error)) | (Err(error), _) => return self.complain(node, &error),
            };
            let from = self.with(|state, _| {
                state.meet(node, rt::now());
                state.handle(Who::Context(node, from))
            });
            let Some(from) = from else { continue };
            let published = Arc::new(Published { from, topic: topic.into(), value });
            for (subscription, context) in &subscribers {
                let (subscription, published) = (*subscription, Arc::clone(&published));
                // A full mailbox counts what it misses.
                let _ = context.deliver(Event::Publication { subscription, published });
            }
        }
    }

    /// What follows the head; the log has a word on those of other versions, once.
    fn open<'a>(&self, bytes: &'a [u8]) -> Option<(u64, Reader<'a>)> {
        match Reader::new(bytes) {
            Ok((node, reader)) => {
                let is_other = node != self.id && node != EVERYBODY;
                (is_other && self.lock().0.may_meet(node)).then_some((node, reader))
            }
            Err(None) => None,
            Err(Some((version, node))) => {
                let refused = &mut self.lock().0.refused;
                if refused.len() < 1024 && refused.insert(node) {
                    log::error!(
                        "cluster: process {node:016x} speaks version {version} of the protocol, \
                         and this one version {}: they do not deal with each other",
                        wire::VERSION
                    );
                }
                None
            }
        }
    }

    fn complain(&self, node: u64, error: &Malformed) {
        static COMPLAINTS: Seldom = Seldom::new();
        if COMPLAINTS.is_due() {
            log::error!("cluster: process {node:016x} has sent what cannot be read: {error}");
        }
    }

    /// Delivers a message or query of a context elsewhere.
    fn on_message(
        &self,
        node: u64,
        (from, session): (u64, u64),
        to: Target<'_>,
        value: Result<Value, Malformed>,
    ) {
        let result = match value {
            Ok(value) => self.pass_on(node, (from, session), to, value),
            Err(error) => {
                self.complain(node, &error);
                let text = Some(format!("it cannot be read there: {error}").into());
                Err(Failure { code: Code::VALUE_TYPE, text })
            }
        };
        if let Err(failure) = result
            && session != 0
        {
            self.with(|state, _| state.refuse(node, from, session, &failure));
        }
    }

    fn pass_on(
        &self,
        node: u64,
        (from, session): (u64, u64),
        to: Target<'_>,
        mut value: Value,
    ) -> Result<(), Failure> {
        let holders = match to {
            Target::Name(name) => self.scheduler.names().next(name),
            Target::Context(number) => Id::from_number(number as f64).into_iter().collect(),
        };
        let asker = self.with(|state, _| {
            // A number, which can be guessed, reaches only contexts that the process has heard of.
            let is_known = |holder: &Id| state.contacts.knows(node, *holder);
            if matches!(to, Target::Context(_)) && !holders.iter().all(is_known) {
                return Err(Code::NO_CONTEXT);
            }
            state.handle(Who::Context(node, from)).ok_or(Code::MAILBOX_FULL)
        })?;
        let mut failure = Code::NO_CONTEXT;
        for (left, holder) in (0..holders.len()).rev().zip(holders) {
            let Some(context) = self.scheduler.registry().get(holder) else { continue };
            let one = if left == 0 { std::mem::take(&mut value) } else { value.clone() };
            if session != 0 {
                // Before it gets the query, so that its end is reported in any case.
                context.note_ties();
                let has_room = self.with(|state, _| {
                    let has_room = state.open.len() < OPEN_MAX;
                    if has_room {
                        state.open.insert((asker, session), holder);
                        state.served.insert((holder, asker, session));
                    }
                    has_room
                });
                if !has_room {
                    return Err(Code::MAILBOX_FULL.into());
                }
            }
            match context.deliver(Event::Message { from: asker, session, value: one }) {
                Ok(()) => return Ok(()),
                Err(refused) => {
                    if session != 0 && !self.with(|state, _| state.close_open(asker, session)) {
                        // It has ended meanwhile, and the asker was told.
                        return Ok(());
                    }
                    if refused == Refused::Full {
                        failure = Code::MAILBOX_FULL;
                    }
                }
            }
        }
        Err(failure.into())
    }

    // For the process -----------------------------------------------------------------------------

    /// Waits until the process is part of the cluster: for a moment if that fails, since the server
    /// may be about to start too, and longer if it takes its time.
    pub fn wait_until_joined(&self) {
        self.wait(Duration::from_secs(1), |bus| bus.has_joined);
        self.wait(Duration::from_secs(2), |bus| bus.has_joined || bus.has_failed);
        if let Err(Failure { text: Some(text), .. }) = self.lock().0.check_here() {
            log::warn!("cluster: {text}");
        }
    }

    /// Tells the others that the process ends, and waits until what was to be sent is, for
    /// `patience` at most.
    pub fn leave(&self, patience: Duration) {
        let waker = {
            let mut all = self.lock();
            let (state, bus) = &mut *all;
            if state.check_here().is_err() {
                return;
            }
            // Behind everything else that is for them.
            for other in state.peers.keys().copied().collect::<Vec<_>>() {
                state.tell(other, &Frame::Bye);
            }
            state.phase = Phase::Over;
            bus.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
        self.wait(patience, |bus| bus.is_done);
    }

    fn wait(&self, patience: Duration, is_over: impl Fn(&Bus) -> bool) {
        let end = Instant::now() + patience;
        let mut all = self.lock();
        while !is_over(&all.1) {
            let Some(left) = end.checked_duration_since(Instant::now()) else { return };
            let waited = self.changed.wait_timeout(all, left);
            all = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl State {
    fn on_reply(
        &mut self,
        node: u64,
        to: u64,
        session: u64,
        result: Result<Value, Failure>,
        effects: &mut Effects,
    ) {
        let Some(asker) = Id::from_number(to as f64) else { return };
        // Only the process that was asked may reply.
        if self.pending.get(&(asker, session)) == Some(&node) {
            self.close_pending(asker, session);
            effects.push((asker, Event::Reply { session, result }));
        }
    }
}
