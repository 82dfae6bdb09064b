//! What a process knows of the others: who is there, who answers under which name, and which
//! queries are under way. No I/O, and no locks.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use super::contacts::{Contacts, EVERYBODY};
use super::names::Holders;
use super::outbox::Outbox;
use super::wire::{self, FIRST, Frame, LAST};
use crate::error::Code;
use crate::message::{Ending, Event, Failure, Id};

/// Nanoseconds between two signs of life.
pub(super) const TICK: u64 = 500_000_000;

/// The least `max_payload` of a server: more bytes than any frame but messages has.
pub(super) const PAYLOAD_MIN: usize = 16 << 10;

/// The most bytes of a message beside its value and name, with the head of its parcel.
pub(super) const MESSAGE_BYTES: usize = 80;

/// The most bytes of names in one part of a list.
const PART_BYTES: usize = 16 << 10;

/// The most bytes of a query in a list of queries.
pub(super) const QUERY_BYTES: usize = 20;

/// The most contexts and names of other processes that have handles here.
const FAR_MAX: usize = 1 << 20;

/// The most unanswered queries of other processes.
pub(super) const OPEN_MAX: usize = 1 << 20;

/// How often, between two ticks, a process may cause work that is costlier than asking for it: the
/// list of names, and the check of all queries it was asked. More is done once, at the next tick.
const COSTLY_MAX: u32 = 8;

/// What a process gets at the next tick; flags.
pub(super) const NAMES_DUE: u8 = 1;
pub(super) const CHECK_DUE: u8 = 2;

pub(super) type Name = Arc<[u8]>;

/// Events to deliver once the lock is free.
pub(super) type Effects = Vec<(Id, Event)>;

/// Whether the process is part of the cluster.
#[derive(Debug)]
pub(super) enum Phase {
    /// Not connected, and why.
    Away(String),
    /// Connected since this time, in nanoseconds; not all processes have told their names yet.
    Joining(u64),
    Here,
    /// The process ends.
    Over,
}

/// Another process.
#[derive(Debug, Default)]
pub(super) struct Peer {
    pub(super) name: String,
    /// When something last came from it, in nanoseconds of the monotonic clock.
    pub(super) heard: u64,
    /// The server has said that nobody got what was sent to it last.
    pub(super) is_unreachable: bool,
    /// The names that it is known to have, and how often they had changed by then.
    pub(super) state: u64,
    pub(super) names: BTreeSet<Name>,
    /// The parts of a list of names that have come.
    pub(super) parts: Vec<Name>,
    /// It was asked for its list since the last tick.
    pub(super) is_asked: bool,
    /// The number of the next parcel to it: of a connection, and of a parcel.
    pub(super) sent: (u32, u32),
    /// The number that the next parcel from it should have.
    pub(super) due: Option<(u32, u32)>,
    /// How much of [`COSTLY_MAX`] it has used since the last tick, and what it gets at the next.
    pub(super) costly: u32,
    pub(super) deferred: u8,
    /// Queries that it has not answered; and whether there were some at the last tick.
    pub(super) asked: usize,
    pub(super) is_slow: bool,
}

/// What a handle stands for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Who {
    /// A process, and a context of it.
    Context(u64, u64),
    /// Whoever answers under this name.
    Name(Name),
}

#[derive(Debug)]
struct Far {
    who: Who,
    watchers: BTreeSet<Id>,
}

/// What this process knows of the cluster.
#[derive(Debug)]
pub(super) struct State {
    /// The number and the name of this process.
    pub(super) own: u64,
    pub(super) node: String,
    pub(super) phase: Phase,
    /// The server's `max_payload`, in bytes.
    pub(super) max_payload: usize,
    pub(super) out: Outbox,
    /// The names of this process, and how often they have changed.
    pub(super) names: BTreeSet<Name>,
    pub(super) changes: u64,
    /// Parcels of publications so far.
    pub(super) published: u64,
    /// How many subscriptions there are to each pattern.
    patterns: HashMap<Box<[u8]>, usize>,
    /// By number of the process.
    pub(super) peers: BTreeMap<u64, Peer>,
    pub(super) holders: HashMap<Name, Holders>,
    /// Bytes of all names of other processes, with those of incomplete lists.
    pub(super) names_bytes: usize,
    /// While joining: processes that have not told their names yet.
    pub(super) expected: BTreeSet<u64>,
    far: BTreeMap<Id, Far>,
    pub(super) handles: BTreeMap<Who, Id>,
    last_far: u64,
    /// Unanswered queries of this process by asker and session, and the process that was asked.
    pub(super) pending: BTreeMap<(Id, u64), u64>,
    /// Unanswered queries of others by asker and session, and the context that got each; and by
    /// that context.
    pub(super) open: BTreeMap<(Id, u64), Id>,
    pub(super) served: BTreeSet<(Id, Id, u64)>,
    pub(super) contacts: Contacts,
    /// Processes of other versions that were logged.
    pub(super) refused: BTreeSet<u64>,
    /// The time of the last tick, in nanoseconds of the monotonic clock.
    pub(super) last_tick: u64,
}

pub(super) fn gone(detail: &str) -> Ending {
    Ending { reason: "gone", detail: Some(detail.as_bytes().to_vec()) }
}

impl State {
    pub(super) fn new(own: u64, node: String) -> State {
        State {
            own,
            node,
            phase: Phase::Away("not connected yet".to_owned()),
            max_payload: 1 << 20,
            out: Outbox::default(),
            names: BTreeSet::new(),
            changes: 0,
            published: 0,
            patterns: HashMap::new(),
            peers: BTreeMap::new(),
            holders: HashMap::new(),
            names_bytes: 0,
            expected: BTreeSet::new(),
            far: BTreeMap::new(),
            handles: BTreeMap::new(),
            last_far: 0,
            pending: BTreeMap::new(),
            open: BTreeMap::new(),
            served: BTreeSet::new(),
            contacts: Contacts::default(),
            refused: BTreeSet::new(),
            last_tick: 0,
        }
    }

    /// The failure of whatever needs a connection while there is none.
    pub(super) fn check_here(&self) -> Result<(), Failure> {
        let why = match &self.phase {
            Phase::Joining(_) | Phase::Here => return Ok(()),
            Phase::Away(why) => why.clone(),
            Phase::Over => "the process ends".to_owned(),
        };
        let text = format!("{}: {why}", Code::CLUSTER_AWAY.text());
        Err(Failure { code: Code::CLUSTER_AWAY, text: Some(text.into()) })
    }

    /// The failure of a look-up of a name that nobody is known to have.
    pub(super) fn unknown_name(&self) -> Failure {
        match (self.check_here(), &self.phase) {
            (Err(failure), _) => failure,
            (_, Phase::Joining(_)) => Failure {
                code: Code::CLUSTER_AWAY,
                text: Some(format!("{}: it is being joined", Code::CLUSTER_AWAY.text()).into()),
            },
            _ => Code::NO_CONTEXT.into(),
        }
    }

    // Sending -------------------------------------------------------------------------------------

    /// Sends a frame to all processes.
    pub(super) fn tell_all(&mut self, frame: &Frame<'_>) {
        if self.check_here().is_ok() && !self.out.is_full() {
            self.out.all(self.own, self.max_payload, |out| frame.put(out));
        }
    }

    /// Writes about this many bytes for another process. They are lost if far too much waits, which
    /// that finds out by the numbers of parcels.
    pub(super) fn write(&mut self, node: u64, bytes: usize, write: impl FnOnce(&mut Vec<u8>)) {
        if self.check_here().is_err() {
            return;
        }
        let Some(peer) = self.peers.get_mut(&node) else { return };
        if self.out.is_overfull() {
            peer.sent.1 = peer.sent.1.wrapping_add(1);
            return;
        }
        let (own, sent) = (self.own, &mut peer.sent);
        let head = |out: &mut Vec<u8>| {
            wire::put_head(out, own);
            out.extend_from_slice(&sent.0.to_le_bytes());
            out.extend_from_slice(&sent.1.to_le_bytes());
            sent.1 = sent.1.wrapping_add(1);
        };
        self.out.node(node, (bytes, self.max_payload), head, write);
    }

    /// Sends a frame to another process.
    pub(super) fn tell(&mut self, node: u64, frame: &Frame<'_>) {
        if !self.out.is_full() {
            let more = match frame {
                Frame::Ended { ending, .. } => ending.detail.as_ref().map_or(0, Vec::len),
                _ => 0,
            };
            self.write(node, 64 + more, |out| frame.put(out));
        }
    }

    /// Whether a process may cause costly work now; otherwise `due` is done at the next tick.
    fn costly(&mut self, node: u64, due: u8) -> bool {
        let Some(peer) = self.peers.get_mut(&node) else { return false };
        peer.costly += 1;
        let may = peer.costly <= COSTLY_MAX;
        if !may {
            peer.deferred |= due;
        }
        may
    }

    /// Begins another tick for a process, with what was deferred.
    pub(super) fn renew_costly(&mut self, node: u64) {
        let Some(peer) = self.peers.get_mut(&node) else { return };
        peer.costly = 0;
        let due = std::mem::take(&mut peer.deferred);
        if due & NAMES_DUE != 0 {
            self.tell_names(node);
        }
        if due & CHECK_DUE != 0 {
            self.check_pending(node);
        }
    }

    /// Sends another process all names of this one, in parts that fit the server's `max_payload`.
    pub(super) fn tell_names(&mut self, node: u64) {
        if !self.costly(node, NAMES_DUE) {
            return;
        }
        let names: Vec<Name> = self.names.iter().cloned().collect();
        let part_max = PART_BYTES.min(self.max_payload / 4);
        let mut parts: Vec<Vec<&[u8]>> = vec![Vec::new()];
        let mut bytes = 0;
        for name in &names {
            bytes += name.len() + 2;
            if bytes > part_max {
                bytes = 0;
                parts.push(Vec::new());
            }
            if let Some(part) = parts.last_mut() {
                part.push(name);
            }
        }
        let (count, state, own_name) = (parts.len(), self.changes, self.node.clone());
        for (index, names) in parts.into_iter().enumerate() {
            let is_last = index + 1 == count;
            let part = if index == 0 { FIRST } else { 0 } | if is_last { LAST } else { 0 };
            // Processes that are left out are met anyway, a little later.
            let most = if is_last { part_max / 8 } else { 0 };
            let nodes: Vec<u64> = self.peers.keys().take(most).copied().collect();
            let bytes = part_max + 600 + 8 * nodes.len();
            let frame = Frame::Names { part, state, node: own_name.as_bytes(), nodes, names };
            self.write(node, bytes, |out| frame.put(out));
        }
    }

    /// Asks another process for its names, at most once a tick.
    pub(super) fn ask_names(&mut self, node: u64) {
        if let Some(peer) = self.peers.get_mut(&node)
            && !std::mem::replace(&mut peer.is_asked, true)
        {
            self.tell(node, &Frame::Ask);
        }
    }

    /// Asks a process whether it has the queries that it has not answered.
    pub(super) fn check_pending(&mut self, node: u64) {
        let is_asked = self.peers.get(&node).is_some_and(|peer| peer.asked > 0);
        if !is_asked || !self.costly(node, CHECK_DUE) {
            return;
        }
        let asked = self.pending_at(node);
        for some in asked.chunks(self.max_payload / (4 * QUERY_BYTES)) {
            let queries = some.iter().map(|(id, session)| (id.to_bits(), *session)).collect();
            let bytes = QUERY_BYTES * (some.len() + 1);
            self.write(node, bytes, |out| Frame::Check(queries).put(out));
        }
    }

    /// The queries, by asker and session, that a process has not answered.
    pub(super) fn pending_at(&self, node: u64) -> Vec<(Id, u64)> {
        if self.peers.get(&node).is_none_or(|peer| peer.asked == 0) {
            return Vec::new();
        }
        let of_it = self.pending.iter().filter(|(_, asked)| **asked == node);
        of_it.map(|(key, _)| *key).collect()
    }

    // Names ---------------------------------------------------------------------------------------

    /// A context of this process is the first to have a name.
    pub(super) fn name_came(&mut self, name: &[u8]) {
        self.names.insert(name.into());
        self.changes += 1;
        self.tell_all(&Frame::Came { state: self.changes, name });
    }

    /// No context of this process has a name any more.
    pub(super) fn name_went(&mut self, name: &[u8], ending: Option<&Ending>, to: &mut Effects) {
        self.names.remove(name);
        self.changes += 1;
        let ending = ending.map_or(Ending { reason: "gone", detail: None }, |ending| Ending {
            reason: ending.reason,
            detail: ending.detail.clone(),
        });
        self.tell_all(&Frame::Went { state: self.changes, name, ending: copy(&ending) });
        self.check_name(name, ending, to);
    }

    /// This process has one more subscription to a pattern.
    pub(super) fn topic_came(&mut self, pattern: &[u8]) {
        let count = self.patterns.entry(pattern.into()).or_default();
        *count += 1;
        if *count == 1 {
            self.out.interest(pattern, true);
        }
    }

    /// This process has one subscription less to a pattern.
    pub(super) fn topic_went(&mut self, pattern: &[u8]) {
        let Some(count) = self.patterns.get_mut(pattern) else { return };
        *count -= 1;
        if *count == 0 {
            self.patterns.remove(pattern);
            self.out.interest(pattern, false);
        }
    }

    /// Subscribes to everything again, on a new connection.
    pub(super) fn subscribe_anew(&mut self) {
        self.out.forget_interests();
        for pattern in self.patterns.keys() {
            self.out.interest(pattern, true);
        }
    }

    // Handles -------------------------------------------------------------------------------------

    /// The handle of a context or name elsewhere, made if need be; `None` if there are too many.
    pub(super) fn handle(&mut self, who: Who) -> Option<Id> {
        if let Some(&id) = self.handles.get(&who) {
            return Some(id);
        }
        if self.far.len() >= FAR_MAX {
            return None;
        }
        let id = loop {
            self.last_far += 1;
            let id = Id::far(self.last_far);
            if !self.far.contains_key(&id) {
                break id;
            }
        };
        self.handles.insert(who.clone(), id);
        self.far.insert(id, Far { who, watchers: BTreeSet::new() });
        Some(id)
    }

    /// What a handle stands for elsewhere.
    pub(super) fn who(&self, id: Id) -> Option<&Who> {
        self.far.get(&id).map(|far| &far.who)
    }

    /// The handle of a context elsewhere, if it has one.
    pub(super) fn known(&self, node: u64, context: u64) -> Option<Id> {
        self.handles.get(&Who::Context(node, context)).copied()
    }

    /// Has `watcher` told of the end of what a handle stands for; `lives` tells which watchers
    /// live.
    pub(super) fn watch(&mut self, id: Id, watcher: Id, lives: impl Fn(Id) -> bool) -> bool {
        let Some(far) = self.far.get_mut(&id) else { return false };
        far.watchers.insert(watcher);
        if far.watchers.len() >= 64 && far.watchers.len().is_power_of_two() {
            far.watchers.retain(|&watcher| lives(watcher));
        }
        true
    }

    /// What a handle stands for has ended.
    pub(super) fn forget_far(&mut self, id: Id, ending: Ending, to: &mut Effects) {
        let Some(far) = self.far.remove(&id) else { return };
        self.handles.remove(&far.who);
        let ending = Arc::new(ending);
        let told = |watcher| (watcher, Event::Ended { id, ending: Arc::clone(&ending) });
        to.extend(far.watchers.into_iter().map(told));
    }

    // Queries -------------------------------------------------------------------------------------

    /// Tells a context elsewhere why its query will not be answered.
    pub(super) fn refuse(&mut self, node: u64, to: u64, session: u64, failure: &Failure) {
        let bytes = MESSAGE_BYTES + failure.text.as_ref().map_or(0, |text| text.len());
        self.write(node, bytes, |out| wire::put_reply(out, to, session, Err(failure)));
    }

    /// Removes a query that is answered or abandoned; returns the process that was asked.
    pub(super) fn close_pending(&mut self, from: Id, session: u64) -> Option<u64> {
        let node = self.pending.remove(&(from, session))?;
        if let Some(peer) = self.peers.get_mut(&node) {
            peer.asked = peer.asked.saturating_sub(1);
        }
        Some(node)
    }

    pub(super) fn fail_pending(&mut self, which: Vec<(Id, u64)>, to: &mut Effects) {
        for (from, session) in which {
            if self.close_pending(from, session).is_some() {
                to.push((from, Event::Reply { session, result: Err(Code::NO_REPLY.into()) }));
            }
        }
    }

    /// Removes a query of another process that is answered; false if it was answered before.
    pub(super) fn close_open(&mut self, asker: Id, session: u64) -> bool {
        let Some(holder) = self.open.remove(&(asker, session)) else { return false };
        self.served.remove(&(holder, asker, session));
        true
    }

    /// A context of this process has ended.
    pub(super) fn ended(&mut self, id: Id, ending: &Ending) {
        let of_it = |&(from, session): &(Id, u64)| (from, session);
        let asked: Vec<_> =
            self.pending.range((id, 0)..=(id, u64::MAX)).map(|(key, _)| of_it(key)).collect();
        for (from, session) in asked {
            if let Some(node) = self.close_pending(from, session) {
                self.tell(node, &Frame::Forget { from: from.to_bits(), session });
            }
        }
        let first = (id, Id::far(0), 0);
        let served: Vec<_> =
            self.served.range(first..).take_while(|it| it.0 == id).copied().collect();
        for (_, asker, session) in served {
            self.close_open(asker, session);
            if let Some(&Who::Context(node, context)) = self.who(asker) {
                self.refuse(node, context, session, &Code::NO_REPLY.into());
            }
        }
        let frame = Frame::Ended { context: id.to_bits(), ending: copy(ending) };
        let mut known = self.contacts.end(id);
        if known.contains(&EVERYBODY) {
            known = self.peers.keys().copied().collect();
        }
        for node in known {
            self.tell(node, &frame);
        }
    }
}

fn copy(ending: &Ending) -> Ending {
    Ending { reason: ending.reason, detail: ending.detail.clone() }
}
