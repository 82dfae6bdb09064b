//! The other processes: meeting them, learning their names, noticing that they are gone.

use std::collections::BTreeSet;

use super::state::{Effects, Name, Peer, Phase, QUERY_BYTES, State, TICK, Who, gone};
use super::wire::{FIRST, Frame, LAST};
use crate::failpoint;
use crate::logging::Seldom;
use crate::message::{Ending, Id};
use crate::sched::names::NAME_MAX;

/// Nanoseconds of silence after which a process is asked for a sign of life; it is gone if the
/// server says that nobody got that.
const SILENT: u64 = 1_100_000_000;

/// Nanoseconds of silence after which a process is gone.
const LOST: u64 = 2_400_000_000;

/// Nanoseconds that a process waits for the names of others before it counts as joined.
const JOIN_MAX: u64 = 1_000_000_000;

/// The most processes that are known.
const PEERS_MAX: usize = 4096;

/// The name of a process, cut if it is too long.
fn shown(name: &[u8]) -> String {
    String::from_utf8_lossy(&name[..name.len().min(NAME_MAX)]).into_owned()
}

impl State {
    /// There is a connection, to a server with this `max_payload`, in bytes.
    pub(super) fn connected(&mut self, max_payload: usize, now: u64) {
        if matches!(self.phase, Phase::Over) {
            return;
        }
        self.phase = Phase::Joining(now);
        self.max_payload = max_payload;
        self.expected.clear();
        self.last_tick = now;
        let node = self.node.clone();
        let (state, node) = (self.changes, node.as_bytes());
        self.tell_all(&Frame::Alive { state, node, is_new: true });
        self.out.ask_all();
    }

    /// There is no connection.
    pub(super) fn disconnected(&mut self, why: &str, to: &mut Effects) {
        if matches!(self.phase, Phase::Over) {
            return;
        }
        self.phase = Phase::Away(why.to_owned());
        self.out.clear();
        for peer in self.peers.values_mut() {
            // Parcels that are still under way have the number of the old connection.
            peer.sent = (peer.sent.0.wrapping_add(1), 0);
            peer.is_asked = false;
        }
        let all = self.pending.keys().copied().collect();
        self.fail_pending(all, to);
    }

    /// Ends joining once all known processes have told their names, or time is up.
    pub(super) fn check_joined(&mut self, now: u64) {
        let Phase::Joining(since) = self.phase else { return };
        let is_told = !self.peers.is_empty() && self.expected.is_empty();
        if is_told || now.saturating_sub(since) > JOIN_MAX {
            self.phase = Phase::Here;
        }
    }

    /// The server says that no other process is connected to it.
    pub(super) fn is_alone(&mut self) {
        // Only while joining: processes that are known may be reconnecting.
        if matches!(self.phase, Phase::Joining(_)) {
            self.phase = Phase::Here;
        }
    }

    /// Whether a process is known, or there is room for one more.
    pub(super) fn may_meet(&self, node: u64) -> bool {
        self.peers.len() < PEERS_MAX || self.peers.contains_key(&node)
    }

    /// Notes that something has come from a process, known or not.
    pub(super) fn meet(&mut self, node: u64, now: u64) -> &mut Peer {
        let is_joining = matches!(self.phase, Phase::Joining(_));
        let peer = self.peers.entry(node).or_insert_with(|| {
            if is_joining {
                self.expected.insert(node);
            }
            // Distinct from the numbers that were used before it was lost.
            Peer { sent: ((now >> 20) as u32, 0), ..Peer::default() }
        });
        (peer.heard, peer.is_unreachable) = (now, false);
        peer
    }

    /// Handles frames about processes and their queries; returns others.
    pub(super) fn react<'a>(
        &mut self,
        node: u64,
        frame: Frame<'a>,
        now: u64,
        to: &mut Effects,
    ) -> Option<Frame<'a>> {
        match frame {
            Frame::Alive { state, node: name, is_new } => {
                self.on_alive(node, name, state, now);
                if is_new {
                    self.tell_names(node);
                    self.check_pending(node);
                }
            }
            Frame::Came { state, name } => {
                if self.follows(node, state, now) {
                    self.add_holder(node, name.into());
                }
            }
            Frame::Went { state, name, ending } => {
                if self.follows(node, state, now) {
                    self.remove_holder(node, name, ending, to);
                }
            }
            Frame::Bye => self.lose(node, "it has ended", to),
            Frame::Ended { context, ending } => {
                if let Some(id) = self.known(node, context) {
                    self.forget_asker(id);
                    self.forget_far(id, ending, to);
                }
            }
            Frame::Ask => self.tell_names(node),
            Frame::Names { part, state, node: name, nodes, names } => {
                let peer = self.meet(node, now);
                peer.name = shown(name);
                self.add_part(node, part & FIRST != 0, names);
                if part & LAST != 0 {
                    self.set_names(node, state, to);
                    self.expect(node, nodes);
                    self.check_joined(now);
                }
            }
            Frame::Poll => self.tell(node, &Frame::Pong),
            Frame::Pong => {}
            Frame::Gap => self.check_pending(node),
            Frame::Check(queries) => self.report_unknown(node, queries),
            Frame::Unknown(queries) => {
                let of_it = |(context, session): (u64, u64)| {
                    let key = (Id::from_number(context as f64)?, session);
                    (self.pending.get(&key) == Some(&node)).then_some(key)
                };
                let lost = queries.into_iter().filter_map(of_it).collect();
                self.fail_pending(lost, to);
            }
            frame => return Some(frame),
        }
        None
    }

    /// A process tells its name, and how often its names have changed.
    fn on_alive(&mut self, node: u64, name: &[u8], state: u64, now: u64) {
        static NAMESAKES: Seldom = Seldom::new();
        let own = self.node.clone();
        let peer = self.meet(node, now);
        if peer.name.is_empty() && *name == *own.as_bytes() && NAMESAKES.is_due() {
            log::warn!("cluster: another process is called {own} too ({node:016x})");
        }
        peer.name = shown(name);
        // While joining its list also tells which others there are.
        if peer.state != state || self.expected.contains(&node) {
            self.ask_names(node);
        }
    }

    /// While joining: a process has told its names, and which others there are.
    fn expect(&mut self, node: u64, others: Vec<u64>) {
        self.expected.remove(&node);
        if matches!(self.phase, Phase::Joining(_)) {
            let is_new = |node: &u64| *node != self.own && !self.peers.contains_key(node);
            let room = PEERS_MAX.saturating_sub(self.expected.len());
            self.expected.extend(others.into_iter().filter(is_new).take(room));
        }
    }

    /// Tells a process which of these queries of its contexts this one does not have, or no more.
    fn report_unknown(&mut self, node: u64, queries: Vec<(u64, u64)>) {
        let is_open = |&(context, session): &(u64, u64)| {
            let asker = self.known(node, context);
            asker.is_some_and(|asker| self.open.contains_key(&(asker, session)))
        };
        let unknown: Vec<_> = queries.into_iter().filter(|query| !is_open(query)).collect();
        if !unknown.is_empty() {
            let bytes = QUERY_BYTES * (unknown.len() + 1);
            self.write(node, bytes, |out| Frame::Unknown(unknown).put(out));
        }
    }

    /// Whether a change of a process's names follows on what is known of them. Every process begins
    /// without names, so that its first one follows on nothing.
    fn follows(&mut self, node: u64, state: u64, now: u64) -> bool {
        let peer = self.meet(node, now);
        if peer.state.wrapping_add(1) == state {
            peer.state = state;
            return true;
        }
        if peer.state < state {
            self.ask_names(node);
        }
        false
    }

    /// Takes a complete list of names in place of those that a process was known to have, unless
    /// changes that were told after it are known already: what all are told is read first.
    fn set_names(&mut self, node: u64, state: u64, to: &mut Effects) {
        let now: BTreeSet<Name> = self.take_parts(node).into_iter().collect();
        let Some(peer) = self.peers.get_mut(&node) else { return };
        peer.is_asked = false;
        if state < peer.state {
            return;
        }
        peer.state = state;
        let gone: Vec<Name> = peer.names.difference(&now).cloned().collect();
        for name in gone {
            self.remove_holder(node, &name, Ending { reason: "gone", detail: None }, to);
        }
        for name in now {
            self.add_holder(node, name);
        }
    }

    /// Notes the number of a parcel from a process; if it is not the one that was due, parcels were
    /// lost.
    pub(super) fn count_parcel(&mut self, node: u64, number: (u32, u32), now: u64) {
        let peer = self.meet(node, now);
        let is_due = match peer.due {
            Some(due) => due == number,
            None => number.1 == 0,
        };
        peer.due = Some((number.0, number.1.wrapping_add(1)));
        if !is_due && !failpoint::fails(failpoint::Point::Gap) {
            self.tell(node, &Frame::Gap);
            self.check_pending(node);
        }
    }

    /// A process did not get what was sent to it: it has lost its connection.
    pub(super) fn miss(&mut self, node: u64, now: u64, to: &mut Effects) {
        let Some(peer) = self.peers.get_mut(&node) else { return };
        if now.saturating_sub(peer.heard) > SILENT {
            return self.lose(node, "its connection has ended", to);
        }
        // It may reconnect.
        peer.is_unreachable = true;
        let which = self.pending_at(node);
        self.fail_pending(which, to);
    }

    /// Forgets the queries of a context elsewhere that has ended.
    fn forget_asker(&mut self, asker: Id) {
        let asked: Vec<_> =
            self.open.range((asker, 0)..=(asker, u64::MAX)).map(|(key, _)| *key).collect();
        for (asker, session) in asked {
            self.close_open(asker, session);
        }
    }

    /// A process is gone, or cannot be reached.
    pub(super) fn lose(&mut self, node: u64, why: &str, to: &mut Effects) {
        let which = self.pending_at(node);
        self.fail_pending(which, to);
        self.take_parts(node);
        let Some(peer) = self.peers.remove(&node) else { return };
        self.expected.remove(&node);
        let detail = format!("node {} is gone: {why}", peer.name);
        log::info!("cluster: {detail}");
        for name in peer.names {
            self.leave(node, &name, gone(&detail), to);
        }
        let first = Who::Context(node, 0);
        let of_it = |who: &&Who| matches!(who, Who::Context(of, _) if *of == node);
        let known = self.handles.range(first..).take_while(|(who, _)| of_it(who));
        for id in known.map(|(_, id)| *id).collect::<Vec<_>>() {
            self.forget_asker(id);
            self.forget_far(id, gone(&detail), to);
        }
        self.contacts.lose(node, |node| self.peers.contains_key(&node));
    }

    /// To be called every [`TICK`], at the time `now` in nanoseconds: gives up silent processes.
    pub(super) fn tick(&mut self, now: u64, to: &mut Effects) {
        // A process that was suspended has heard nobody, which says nothing of the others.
        let was_stopped = now.saturating_sub(self.last_tick) > 3 * TICK;
        self.last_tick = now;
        let (state, node) = (self.changes, self.node.clone());
        self.tell_all(&Frame::Alive { state, node: node.as_bytes(), is_new: false });
        let is_here = self.check_here().is_ok();
        for node in self.peers.keys().copied().collect::<Vec<_>>() {
            let Some(peer) = self.peers.get_mut(&node) else { continue };
            if was_stopped {
                peer.heard = now;
            }
            peer.is_asked = false;
            let silence = now.saturating_sub(peer.heard);
            let is_slow = peer.asked > 0;
            let was_slow = std::mem::replace(&mut peer.is_slow, is_slow);
            if silence > LOST {
                self.lose(node, "nothing was heard of it for 2.4 s", to);
            } else if is_here && (silence > SILENT || is_slow && was_slow) {
                self.tell(node, &Frame::Poll);
            }
            self.renew_costly(node);
        }
        self.check_joined(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_name_of_a_process_is_known_at_once_and_no_older_list_takes_it() {
        let (mut state, mut effects) = (State::new(1, "own".to_owned()), Effects::new());
        state.connected(1 << 20, 0);
        state.is_alone();
        let alive = |state| Frame::Alive { state, node: b"new", is_new: true };
        let names = |state, names| {
            let (part, node, nodes) = (FIRST | LAST, &b"new"[..], Vec::new());
            Frame::Names { part, state, node, nodes, names }
        };
        for frame in [alive(0), Frame::Came { state: 1, name: b"a" }, names(0, vec![])] {
            assert_eq!(state.react(2, frame, 0, &mut effects), None);
        }
        assert!(state.is_held(b"a"));
        for frame in [alive(3), names(3, vec![&b"b"[..]])] {
            assert_eq!(state.react(2, frame, 0, &mut effects), None);
        }
        assert_eq!([&b"a"[..], b"b"].map(|name| state.is_held(name)), [false, true]);
    }
}
