//! What a process knows of the others: who is there, who answers under which name, and which
//! queries are under way. No I/O, and no locks.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use super::names::Holders;
use super::outbox::Outbox;
use super::wire::{self, FIRST, Frame, LAST};
use crate::error::Code;
use crate::message::{Ending, Event, Failure, Id};

/// Nanoseconds between two signs of life.
pub(super) const TICK: u64 = 500_000_000;

/// Bytes that a server must take at once, at least: more than any frame that is no message.
pub(super) const PAYLOAD_MIN: usize = 16 << 10;

/// Bytes that a message takes beside its value and name, at most, head of its parcel included.
pub(super) const MESSAGE_BYTES: usize = 80;

/// Bytes of names in one part of a list, at most.
const PART_BYTES: usize = 16 << 10;

/// Bytes that a query takes in a list of some, at most.
pub(super) const QUERY_BYTES: usize = 20;

/// Those elsewhere that have handles here.
const FAR_MAX: usize = 1 << 20;

/// Queries of others that are not answered yet.
pub(super) const OPEN_MAX: usize = 1 << 20;

/// How often, between two ticks, a process gets what costs more than asking for it: the list of
/// names, and looking for all that it was asked. What is due then is done once, at the next.
const FAVOURS_MAX: u32 = 8;

/// What is due at the next tick.
pub(super) const NAMES_DUE: u8 = 1;
pub(super) const CHECK_DUE: u8 = 2;

pub(super) type Name = Arc<[u8]>;

/// What is to be delivered, without the lock.
pub(super) type Effects = Vec<(Id, Event)>;

/// Where the process stands.
#[derive(Debug)]
pub(super) enum Phase {
    /// There is no connection, and why.
    Away(String),
    /// There is one since then, and not all have told their names yet.
    Joining(u64),
    Here,
    /// The process ends.
    Over,
}

/// Another process.
#[derive(Debug, Default)]
pub(super) struct Peer {
    pub(super) name: String,
    /// When it was last heard of, in nanoseconds of the monotonic clock.
    pub(super) heard: u64,
    /// What it was last told it did not get.
    pub(super) is_out: bool,
    /// The number that its list of names has, as far as it is known, and those names.
    pub(super) state: Option<u64>,
    pub(super) names: BTreeSet<Name>,
    /// Names of a list that comes in parts.
    pub(super) parts: Vec<Name>,
    /// It was asked for the list since the last tick.
    pub(super) is_asked: bool,
    /// What the next parcel for it is numbered.
    pub(super) sent: (u32, u32),
    /// What the next parcel from it is to be numbered.
    pub(super) due: Option<(u32, u32)>,
    /// What it has had since the last tick of [`FAVOURS_MAX`], and what is due at the next.
    pub(super) favours: u32,
    pub(super) due_later: u8,
    /// Queries that wait for an answer of it; and whether some did at the last tick.
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
    /// Bytes that the server takes at once.
    pub(super) max_payload: usize,
    pub(super) out: Outbox,
    /// The names of this process, and the number of times that they have changed.
    pub(super) names: BTreeSet<Name>,
    pub(super) changes: u64,
    /// Parcels of publications so far.
    pub(super) published: u64,
    /// How many subscriptions there are to each pattern.
    patterns: HashMap<Box<[u8]>, usize>,
    /// By number of the process.
    pub(super) peers: BTreeMap<u64, Peer>,
    pub(super) holders: HashMap<Name, Holders>,
    /// What the names of all of them take, also those of lists that come in parts.
    pub(super) names_bytes: usize,
    /// While joining: processes that have not told their names yet.
    pub(super) expected: BTreeSet<u64>,
    far: BTreeMap<Id, Far>,
    pub(super) handles: BTreeMap<Who, Id>,
    last_far: u64,
    /// Queries of this process by asker and session, and who was asked.
    pub(super) pending: BTreeMap<(Id, u64), u64>,
    /// Queries of others by asker and session, and who got them; and the other way round.
    pub(super) open: BTreeMap<(Id, u64), Id>,
    pub(super) served: BTreeSet<(Id, Id, u64)>,
    /// Contexts of this process that others know, and which; of 0 it may be all.
    pub(super) contacts: HashMap<Id, Vec<u64>>,
    /// Processes of other versions that the log has told of.
    pub(super) refused: BTreeSet<u64>,
    /// When it last looked who is silent, in nanoseconds of the monotonic clock.
    pub(super) last_tick: u64,
}

/// All who may have heard of a context.
pub(super) const EVERYBODY: u64 = 0;

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
            contacts: HashMap::new(),
            refused: BTreeSet::new(),
            last_tick: 0,
        }
    }

    /// Whether there is a connection.
    pub(super) fn check_here(&self) -> Result<(), Failure> {
        let why = match &self.phase {
            Phase::Joining(_) | Phase::Here => return Ok(()),
            Phase::Away(why) => why.clone(),
            Phase::Over => "the process ends".to_owned(),
        };
        let text = format!("{}: {why}", Code::CLUSTER_AWAY.text());
        Err(Failure { code: Code::CLUSTER_AWAY, text: Some(text.into()) })
    }

    /// What becomes of a name that nobody is known to have.
    pub(super) fn nobody(&self) -> Failure {
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

    /// Tells everybody, if there is anybody.
    pub(super) fn tell_all(&mut self, frame: &Frame<'_>) {
        if self.check_here().is_ok() && !self.out.is_full() {
            self.out.all(self.own, self.max_payload, |out| frame.put(out));
        }
    }

    /// Writes about this many bytes for another process. If far too much waits they are lost, which
    /// it finds out.
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

    /// Tells another process.
    pub(super) fn tell(&mut self, node: u64, frame: &Frame<'_>) {
        if !self.out.is_full() {
            let more = match frame {
                Frame::Ended { ending, .. } => ending.detail.as_ref().map_or(0, Vec::len),
                _ => 0,
            };
            self.write(node, 64 + more, |out| frame.put(out));
        }
    }

    /// Whether a process gets a favour now; otherwise it is due at the next tick.
    fn favours(&mut self, node: u64, due: u8) -> bool {
        let Some(peer) = self.peers.get_mut(&node) else { return false };
        peer.favours += 1;
        let may = peer.favours <= FAVOURS_MAX;
        if !may {
            peer.due_later |= due;
        }
        may
    }

    /// A tick is over: processes get what is due.
    pub(super) fn renew_favours(&mut self, node: u64) {
        let Some(peer) = self.peers.get_mut(&node) else { return };
        peer.favours = 0;
        let due = std::mem::take(&mut peer.due_later);
        if due & NAMES_DUE != 0 {
            self.tell_names(node);
        }
        if due & CHECK_DUE != 0 {
            self.check_pending(node);
        }
    }

    /// Tells another process all names of this one, in parts that the server takes.
    pub(super) fn tell_names(&mut self, node: u64) {
        if !self.favours(node, NAMES_DUE) {
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
            // Who is left out is met anyway, if a moment later.
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

    /// Asks a process about all queries that it has not answered.
    pub(super) fn check_pending(&mut self, node: u64) {
        let is_asked = self.peers.get(&node).is_some_and(|peer| peer.asked > 0);
        if !is_asked || !self.favours(node, CHECK_DUE) {
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

    /// The first context of this process answers under a name.
    pub(super) fn name_came(&mut self, name: &[u8]) {
        self.names.insert(name.into());
        self.changes += 1;
        self.tell_all(&Frame::Came { state: self.changes, name });
    }

    /// None does any more.
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

    /// One more subscription of this process.
    pub(super) fn topic_came(&mut self, pattern: &[u8]) {
        let count = self.patterns.entry(pattern.into()).or_default();
        *count += 1;
        if *count == 1 {
            self.out.interest(pattern, true);
        }
    }

    /// One less.
    pub(super) fn topic_went(&mut self, pattern: &[u8]) {
        let Some(count) = self.patterns.get_mut(pattern) else { return };
        *count -= 1;
        if *count == 0 {
            self.patterns.remove(pattern);
            self.out.interest(pattern, false);
        }
    }

    /// All subscriptions begin anew.
    pub(super) fn subscribe_anew(&mut self) {
        self.out.forget_interests();
        for pattern in self.patterns.keys() {
            self.out.interest(pattern, true);
        }
    }

    // Handles -------------------------------------------------------------------------------------

    /// The handle of somebody elsewhere; none if there are too many.
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

    /// What a handle stands for, if it is one of these.
    pub(super) fn who(&self, id: Id) -> Option<&Who> {
        self.far.get(&id).map(|far| &far.who)
    }

    /// The handle of a context elsewhere, if there is one.
    pub(super) fn known(&self, node: u64, context: u64) -> Option<Id> {
        self.handles.get(&Who::Context(node, context)).copied()
    }

    /// Has somebody told of the end of what a handle stands for; `lives` tells which watchers do.
    pub(super) fn watch(&mut self, id: Id, watcher: Id, lives: impl Fn(Id) -> bool) -> bool {
        let Some(far) = self.far.get_mut(&id) else { return false };
        far.watchers.insert(watcher);
        if far.watchers.len() >= 64 && far.watchers.len().is_power_of_two() {
            far.watchers.retain(|&watcher| lives(watcher));
        }
        true
    }

    /// What a handle stood for has ended.
    pub(super) fn forget_far(&mut self, id: Id, ending: Ending, to: &mut Effects) {
        let Some(far) = self.far.remove(&id) else { return };
        self.handles.remove(&far.who);
        let ending = Arc::new(ending);
        let told = |watcher| (watcher, Event::Ended { id, ending: Arc::clone(&ending) });
        to.extend(far.watchers.into_iter().map(told));
    }

    // Queries -------------------------------------------------------------------------------------

    /// Tells a context elsewhere that its query is not answered, and why.
    pub(super) fn refuse(&mut self, node: u64, to: u64, session: u64, failure: &Failure) {
        let bytes = MESSAGE_BYTES + failure.text.as_ref().map_or(0, |text| text.len());
        self.write(node, bytes, |out| wire::put_reply(out, to, session, Err(failure)));
    }

    /// Notes that a process knows of a context of this one.
    pub(super) fn note_contact(&mut self, id: Id, node: u64) {
        let known = self.contacts.entry(id).or_default();
        if !known.contains(&node) {
            known.push(node);
        }
    }

    /// Whether a process may know of a context of this one.
    pub(super) fn is_contact(&self, id: Id, node: u64) -> bool {
        let known = self.contacts.get(&id);
        known.is_some_and(|known| known.contains(&node) || known.contains(&EVERYBODY))
    }

    /// A query was answered, or nobody waits for it any more: the process that was asked.
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

    /// A query of another process is answered: false if it was before.
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
        let mut known = self.contacts.remove(&id).unwrap_or_default();
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
