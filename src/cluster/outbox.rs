//! What is to be sent, gathered until the bus takes it: messages to one process become one parcel.

use std::collections::{BTreeMap, VecDeque};

use super::wire;
use crate::message::Held;

/// The most bytes that wait for the bus before senders are refused.
pub(super) const BYTES_MAX: usize = 64 << 20;

/// The most bytes that wait in all: replies to other processes are not refused with the senders,
/// but they have a bound too.
const BYTES_MOST: usize = BYTES_MAX + (16 << 20);

/// The most bytes of a parcel of several messages.
const PARCEL_BYTES: usize = 64 << 10;

/// A command for the bus.
#[derive(Debug, PartialEq, Eq)]
pub enum Parcel {
    /// Send to all processes, and maybe report if nobody gets it.
    All(Vec<u8>, bool),
    /// Send to one process, and report if it does not get it.
    Node(u64, Vec<u8>),
    /// Publish to a topic.
    Topic(Box<[u8]>, Vec<u8>),
    /// Subscribe to a pattern, or unsubscribe.
    Interest(Box<[u8]>, bool),
}

/// The parcels that are open.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    all: VecDeque<(Vec<u8>, bool)>,
    nodes: BTreeMap<u64, VecDeque<Vec<u8>>>,
    topics: VecDeque<(Box<[u8]>, Vec<u8>)>,
    /// Patterns to subscribe to or to unsubscribe from; doing both cancels out.
    interests: BTreeMap<Box<[u8]>, bool>,
    bytes: usize,
    /// Counts what waits against the limits of its senders.
    held: Vec<Held>,
}

impl Outbox {
    pub(super) fn is_empty(&self) -> bool {
        self.all.is_empty()
            && self.nodes.is_empty()
            && self.topics.is_empty()
            && self.interests.is_empty()
    }

    /// Whether senders are to be refused.
    pub(super) fn is_full(&self) -> bool {
        self.bytes >= BYTES_MAX
    }

    /// Whether replies are to be dropped too.
    pub(super) fn is_overfull(&self) -> bool {
        self.bytes >= BYTES_MOST
    }

    /// Keeps `held` until the bus has sent what was written.
    pub(super) fn hold(&mut self, held: Option<Held>) {
        self.held.extend(held);
    }

    /// Writes a frame for all processes.
    pub(super) fn all(&mut self, own: u64, max: usize, write: impl FnOnce(&mut Vec<u8>)) {
        let limit = PARCEL_BYTES.min(max) / 2;
        if self.all.back().is_none_or(|(last, _)| last.len() > limit) {
            let mut parcel = Vec::new();
            wire::put_head(&mut parcel, own);
            self.all.push_back((parcel, false));
        }
        if let Some((parcel, _)) = self.all.back_mut() {
            let before = parcel.len();
            write(parcel);
            self.bytes += parcel.len() - before;
        }
    }

    /// Wants to know if nobody gets what all processes are sent.
    pub(super) fn ask_all(&mut self) {
        if let Some((_, asks)) = self.all.back_mut() {
            *asks = true;
        }
    }

    /// Writes about this many bytes for a process; `head` begins a parcel.
    pub(super) fn node(
        &mut self,
        node: u64,
        (bytes, max): (usize, usize),
        head: impl FnOnce(&mut Vec<u8>),
        write: impl FnOnce(&mut Vec<u8>),
    ) {
        let parcels = self.nodes.entry(node).or_default();
        let limit = PARCEL_BYTES.min(max);
        if parcels.back().is_none_or(|last| last.len() + bytes > limit) {
            let mut parcel = Vec::with_capacity(bytes + 32);
            head(&mut parcel);
            parcels.push_back(parcel);
        }
        if let Some(parcel) = parcels.back_mut() {
            let before = parcel.len();
            write(parcel);
            self.bytes += parcel.len() - before;
        }
    }

    /// Writes about this many bytes for a topic.
    pub(super) fn topic(
        &mut self,
        topic: &[u8],
        (bytes, max): (usize, usize),
        head: impl FnOnce(&mut Vec<u8>),
        write: impl FnOnce(&mut Vec<u8>),
    ) {
        let limit = PARCEL_BYTES.min(max);
        let fits = |(last, parcel): &(Box<[u8]>, Vec<u8>)| {
            **last == *topic && parcel.len() + bytes <= limit
        };
        if !self.topics.back().is_some_and(fits) {
            let mut parcel = Vec::with_capacity(bytes + 32);
            head(&mut parcel);
            self.topics.push_back((topic.into(), parcel));
        }
        if let Some((_, parcel)) = self.topics.back_mut() {
            let before = parcel.len();
            write(parcel);
            self.bytes += parcel.len() - before;
        }
    }

    /// Subscribes to a pattern, or unsubscribes.
    pub(super) fn interest(&mut self, pattern: &[u8], begins: bool) {
        match self.interests.get(pattern) {
            Some(&before) if before != begins => drop(self.interests.remove(pattern)),
            _ => drop(self.interests.insert(pattern.into(), begins)),
        }
    }

    /// Forgets which subscriptions begin or end.
    pub(super) fn forget_interests(&mut self) {
        self.interests.clear();
    }

    /// Drops everything but subscriptions, since it would come too late.
    pub(super) fn clear(&mut self) {
        let interests = std::mem::take(&mut self.interests);
        *self = Outbox { interests, ..Outbox::default() };
    }

    /// Takes everything, in the order in which it is to be sent: who takes a name, publishes
    /// something, and then sends, or ends, is heard in this order; and what counts until the bus
    /// has taken it.
    pub(super) fn take(&mut self) -> (Vec<Parcel>, Vec<Held>) {
        let Outbox { mut all, nodes, topics, interests, held, .. } = std::mem::take(self);
        let begin = all.iter().position(|(bytes, _)| wire::ends_a_name(bytes));
        let last = all.split_off(begin.unwrap_or(all.len()));
        let interests = interests.into_iter();
        let mut parcels: Vec<Parcel> =
            interests.map(|(pattern, begins)| Parcel::Interest(pattern, begins)).collect();
        let to_all = |(bytes, asks)| Parcel::All(bytes, asks);
        parcels.extend(all.into_iter().map(to_all));
        parcels.extend(topics.into_iter().map(|(topic, bytes)| Parcel::Topic(topic, bytes)));
        parcels.extend(last.into_iter().map(to_all));
        for (node, list) in nodes {
            parcels.extend(list.into_iter().map(|bytes| Parcel::Node(node, bytes)));
        }
        (parcels, held)
    }
}
