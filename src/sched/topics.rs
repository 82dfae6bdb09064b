//! Who is told what is published.
//!
//! Topics are words with dots between them. A subscription may have `*` in the place of a word, and
//! `>` in the place of all that follow, one at least. What is published is compared word by word:
//! the cost is that of the subscriptions that begin as it does, not of all there are.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::Ordering;
use std::sync::{Arc, RwLock};

use super::cluster::Joined;
use super::context::Context;
use super::names::NAME_MAX;
use crate::error::Code;
use crate::message::Id;
use crate::sync::{read, write};

/// Subscriptions that one context may have, at most.
pub const SUBSCRIPTIONS_MAX: usize = 4096;

/// About what a subscription takes beside its bytes: an edge, and another where it branches off.
const SUBSCRIPTION_BYTES: usize = 1280;

/// Subscribers by the number of their subscription: in the order in which they came.
type Subscribers = BTreeMap<u64, Arc<Context>>;

/// What may follow on the words so far. Words that nothing branches off between are one edge: what
/// there is, and what a search looks at, is no more than the subscriptions and their bytes,
/// however many words they have.
#[derive(Debug, Default)]
struct Node {
    /// By their first word.
    edges: HashMap<Box<[u8]>, Edge>,
    /// Subscriptions to the words so far, and to those with more behind them.
    here: Subscribers,
    rest: Subscribers,
}

/// One word, or several, of which each may be `*`, and what follows on them.
#[derive(Debug, Default)]
struct Edge {
    label: Box<[u8]>,
    node: Node,
}

/// The first word of some, and those behind it; no bytes are no words.
fn split_first(topic: &[u8]) -> (&[u8], &[u8]) {
    match topic.iter().position(|&byte| byte == b'.') {
        Some(dot) => (&topic[..dot], &topic[dot + 1..]),
        None => (topic, &[]),
    }
}

/// How many bytes of the first words are the same in both, with the dots between them.
fn common_words(one: &[u8], other: &[u8]) -> usize {
    let same = one.iter().zip(other).take_while(|(a, b)| a == b).count();
    let ends = |words: &[u8]| words.get(same).is_none_or(|&byte| byte == b'.');
    if ends(one) && ends(other) {
        return same;
    }
    one[..same].iter().rposition(|&byte| byte == b'.').unwrap_or(0)
}

/// What is behind the first bytes of some words, and the dot that follows.
fn behind(words: &[u8], length: usize) -> &[u8] {
    words.get(length + 1..).unwrap_or_default()
}

/// What is behind the words of a topic that fit a label; nothing if they do not.
fn strip<'a>(mut topic: &'a [u8], label: &[u8]) -> Option<&'a [u8]> {
    for wanted in words(label) {
        let (word, left) = split_first(topic);
        if word.is_empty() || wanted != b"*" && wanted != word {
            return None;
        }
        topic = left;
    }
    Some(topic)
}

impl Node {
    fn is_empty(&self) -> bool {
        self.edges.is_empty() && self.here.is_empty() && self.rest.is_empty()
    }

    fn insert(&mut self, mut pattern: &[u8], number: u64, context: &Arc<Context>) {
        let mut node = self;
        loop {
            let (word, _) = split_first(pattern);
            match word {
                b"" => drop(node.here.insert(number, Arc::clone(context))),
                b">" => drop(node.rest.insert(number, Arc::clone(context))),
                _ => {
                    let edge = node.edges.entry(word.into()).or_default();
                    if edge.label.is_empty() {
                        edge.label = pattern.strip_suffix(b".>").unwrap_or(pattern).into();
                    }
                    let common = common_words(&edge.label, pattern);
                    edge.split(common);
                    pattern = behind(pattern, common);
                    node = &mut edge.node;
                    continue;
                }
            }
            return;
        }
    }

    /// As deep as topics have words.
    fn remove(&mut self, pattern: &[u8], number: u64) {
        let (word, _) = split_first(pattern);
        match word {
            b"" => drop(self.here.remove(&number)),
            b">" => drop(self.rest.remove(&number)),
            _ => {
                let Some(edge) = self.edges.get_mut(word) else { return };
                let common = common_words(&edge.label, pattern);
                if common < edge.label.len() {
                    return;
                }
                edge.node.remove(behind(pattern, common), number);
                if edge.node.is_empty() {
                    self.edges.remove(word);
                } else {
                    edge.join();
                }
            }
        }
    }

    /// Adds the subscriptions that a topic fits. As deep as topics have words.
    fn collect(&self, topic: &[u8], found: &mut Vec<(u64, Arc<Context>)>) {
        let mut add = |subscribers: &Subscribers| {
            found.extend(subscribers.iter().map(|(&number, who)| (number, Arc::clone(who))));
        };
        if topic.is_empty() {
            add(&self.here);
            return;
        }
        add(&self.rest);
        for first in [b"*", split_first(topic).0] {
            if let Some(edge) = self.edges.get(first)
                && let Some(left) = strip(topic, &edge.label)
            {
                edge.node.collect(left, found);
            }
        }
    }
}

impl Edge {
    /// Has a node behind this many bytes of the label.
    fn split(&mut self, length: usize) {
        if length < self.label.len() {
            let tail = behind(&self.label, length);
            let first = split_first(tail).0.into();
            let lower = Edge { label: tail.into(), node: std::mem::take(&mut self.node) };
            self.label = self.label[..length].into();
            self.node.edges.insert(first, lower);
        }
    }

    /// Makes one of two edges between which there is nothing.
    fn join(&mut self) {
        let is_alone =
            self.node.edges.len() == 1 && self.node.here.is_empty() && self.node.rest.is_empty();
        let lower = if is_alone { self.node.edges.drain().next() } else { None };
        if let Some((_, lower)) = lower {
            self.label = [&*self.label, &lower.label].join(&b'.').into();
            self.node = lower.node;
        }
    }
}

#[derive(Debug, Default)]
struct Tables {
    root: Node,
    by_context: HashMap<Id, HashMap<Box<[u8]>, u64>>,
    last: u64,
}

/// All subscriptions of the process.
#[derive(Debug, Default)]
pub struct Topics {
    tables: RwLock<Tables>,
    pub(super) cluster: Joined,
}

/// What is wrong with a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Malformed {
    /// It is empty, or longer than [`NAME_MAX`].
    Length,
    /// There is nothing before, between or behind two dots.
    EmptyWord,
    /// A space or control character is in it.
    Character,
    /// `*` or `>` where it stands for nothing.
    Wildcard,
}

fn words(topic: &[u8]) -> impl Iterator<Item = &[u8]> + Clone {
    topic.split(|&byte| byte == b'.')
}

/// Checks what is published to, or, with wildcards, subscribed to.
///
/// # Errors
/// Says what is wrong.
pub fn check(topic: &[u8], with_wildcards: bool) -> Result<(), Malformed> {
    if !(1..=NAME_MAX).contains(&topic.len()) {
        return Err(Malformed::Length);
    }
    if topic.iter().any(|byte| *byte <= b' ' || *byte == 0x7f) {
        return Err(Malformed::Character);
    }
    let mut all = words(topic).peekable();
    while let Some(word) = all.next() {
        let is_wildcard = match word {
            b"" => return Err(Malformed::EmptyWord),
            b"*" => with_wildcards,
            b">" => with_wildcards && all.peek().is_none(),
            _ => false,
        };
        if !is_wildcard && word.iter().any(|byte| matches!(byte, b'*' | b'>')) {
            return Err(Malformed::Wildcard);
        }
    }
    Ok(())
}

impl Topics {
    /// About what a subscription takes; its bytes are in a label, the key of that, and by context.
    pub fn cost(pattern: &[u8]) -> usize {
        SUBSCRIPTION_BYTES + 3 * pattern.len()
    }

    /// Subscribes a context to a topic that [`check`] has passed. Returns the number of the
    /// subscription, that of before if it has one.
    ///
    /// # Errors
    /// [`Code::TOO_MANY_NAMES`]; [`Code::NO_CONTEXT`] if it has ended.
    pub fn subscribe(&self, context: &Arc<Context>, pattern: &[u8]) -> Result<u64, Code> {
        let mut tables = write(&self.tables);
        context.note_ties();
        // Whoever closes it forgets its subscriptions after that. The inbox is locked within.
        if context.is_closed() {
            return Err(Code::NO_CONTEXT);
        }
        let Tables { root, by_context, last } = &mut *tables;
        let own = by_context.entry(context.id()).or_default();
        if let Some(&number) = own.get(pattern) {
            return Ok(number);
        }
        if own.len() >= SUBSCRIPTIONS_MAX {
            return Err(Code::TOO_MANY_NAMES);
        }
        *last += 1;
        // Relaxed: a figure that the thread which runs the context writes.
        context.metrics().ties_bytes.fetch_add(Topics::cost(pattern), Ordering::Relaxed);
        own.insert(pattern.into(), *last);
        root.insert(pattern, *last, context);
        if let Some(cluster) = self.cluster.get() {
            cluster.topic_came(pattern);
        }
        Ok(*last)
    }

    /// Ends a subscription; false if there is none.
    pub fn unsubscribe(&self, id: Id, pattern: &[u8]) -> bool {
        let mut tables = write(&self.tables);
        let Tables { root, by_context, .. } = &mut *tables;
        let Some(own) = by_context.get_mut(&id) else { return false };
        let Some(number) = own.remove(pattern) else { return false };
        if own.is_empty() {
            by_context.remove(&id);
        }
        root.remove(pattern, number);
        if let Some(cluster) = self.cluster.get() {
            cluster.topic_went(pattern);
        }
        true
    }

    /// Forgets all subscriptions of a context that has ended.
    pub(super) fn forget(&self, id: Id) {
        let mut tables = write(&self.tables);
        let Tables { root, by_context, .. } = &mut *tables;
        for (pattern, number) in by_context.remove(&id).unwrap_or_default() {
            root.remove(&pattern, number);
            if let Some(cluster) = self.cluster.get() {
                cluster.topic_went(&pattern);
            }
        }
    }

    /// The subscriptions to this very pattern, and whose they are, oldest first.
    pub fn exactly(&self, pattern: &[u8]) -> Vec<(u64, Arc<Context>)> {
        let tables = read(&self.tables);
        let (mut node, mut left) = (&tables.root, pattern);
        loop {
            let found = match split_first(left).0 {
                b"" => &node.here,
                b">" => &node.rest,
                word => match node.edges.get(word) {
                    Some(edge) if common_words(&edge.label, left) == edge.label.len() => {
                        left = behind(left, edge.label.len());
                        node = &edge.node;
                        continue;
                    }
                    _ => return Vec::new(),
                },
            };
            return found.iter().map(|(&number, who)| (number, Arc::clone(who))).collect();
        }
    }

    /// The subscriptions that a topic fits, and whose they are, oldest first.
    pub fn matching(&self, topic: &[u8]) -> Vec<(u64, Arc<Context>)> {
        let mut found = Vec::new();
        let tables = read(&self.tables);
        tables.root.collect(topic, &mut found);
        drop(tables);
        found.sort_unstable_by_key(|(number, _)| *number);
        found
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::super::program::Nothing;
    use super::super::scheduler::Scheduler;
    use super::*;
    use proptest::prelude::*;

    fn context() -> Arc<Context> {
        Scheduler::new(1).spawn(None, Default::default(), Box::new(Nothing)).unwrap()
    }

    /// What the words say, one after the other.
    fn fits(pattern: &str, topic: &str) -> bool {
        let (pattern, topic): (Vec<_>, Vec<_>) =
            (pattern.split('.').collect(), topic.split('.').collect());
        for (at, word) in pattern.iter().enumerate() {
            match (*word, topic.get(at)) {
                (">", found) => return found.is_some(),
                (_, None) => return false,
                ("*", _) => {}
                (word, Some(found)) if word == *found => {}
                _ => return false,
            }
        }
        pattern.len() == topic.len()
    }

    #[test]
    fn malformed_topics_are_refused() {
        for (topic, wrong) in [
            ("", Malformed::Length),
            (&"a".repeat(NAME_MAX + 1), Malformed::Length),
            (".", Malformed::EmptyWord),
            ("a.", Malformed::EmptyWord),
            (".a", Malformed::EmptyWord),
            ("a..b", Malformed::EmptyWord),
            ("a b", Malformed::Character),
            ("a\0", Malformed::Character),
            ("a.>.b", Malformed::Wildcard),
            ("a*", Malformed::Wildcard),
            ("a.b>", Malformed::Wildcard),
            (">>", Malformed::Wildcard),
        ] {
            assert_eq!(check(topic.as_bytes(), true), Err(wrong), "{topic:?}");
            assert_eq!(check(topic.as_bytes(), false), Err(wrong), "{topic:?}");
        }
        for topic in ["*", ">", "a.*", "*.b.>", "a.*.c"] {
            assert_eq!(check(topic.as_bytes(), true), Ok(()), "{topic}");
            assert_eq!(check(topic.as_bytes(), false), Err(Malformed::Wildcard), "{topic}");
        }
        assert_eq!(check("a.b-c_d.\u{e4}".as_bytes(), false), Ok(()));
    }

    fn nodes(node: &Node) -> usize {
        1 + node.edges.values().map(|edge| nodes(&edge.node)).sum::<usize>()
    }

    /// Half a million nodes took 250 MiB, and 0.2 s of everybody who published.
    #[test]
    fn subscriptions_of_many_words_are_no_larger_than_others() {
        const PATTERNS: usize = 512;
        let (all, me) = (Topics::default(), context());
        for index in 0..PATTERNS {
            let word = |at: usize| if at < 9 && index >> at & 1 == 0 { "*" } else { "a" };
            let mut pattern: Vec<_> = (0..126).map(word).collect();
            pattern.push("z");
            all.subscribe(&me, pattern.join(".").as_bytes()).unwrap();
        }
        let count = nodes(&all.tables.read().unwrap().root);
        assert!(count <= 2 * PATTERNS + 1, "{count}");
        assert!(all.matching(&["a"; 127].join(".").into_bytes()).is_empty());
        assert_eq!(all.matching([&["a"; 126].join("."), "z"].join(".").as_bytes()).len(), PATTERNS);
        all.forget(me.id());
        assert!(all.tables.read().unwrap().root.is_empty());
    }

    proptest! {
        #[test]
        fn each_subscription_that_fits_is_found_in_order(
            patterns in prop::collection::vec("(a|ab|b|\\*)(\\.(a|ab|b|\\*)){0,5}(\\.>)?|>", 0..40),
            gone in prop::collection::vec(any::<prop::sample::Index>(), 0..20),
            topics in prop::collection::vec("(a|ab|b|c)(\\.(a|ab|b|c)){0,6}", 1..20),
        ) {
            let (all, me) = (Topics::default(), context());
            let mut model: BTreeMap<u64, String> = BTreeMap::new();
            for pattern in patterns {
                prop_assert_eq!(check(pattern.as_bytes(), true), Ok(()));
                model.insert(all.subscribe(&me, pattern.as_bytes()).unwrap(), pattern);
            }
            for index in gone {
                if !model.is_empty() {
                    let number = *model.keys().nth(index.index(model.len())).unwrap();
                    let pattern = model.remove(&number).unwrap();
                    prop_assert!(all.unsubscribe(me.id(), pattern.as_bytes()));
                    prop_assert!(!all.unsubscribe(me.id(), pattern.as_bytes()));
                }
            }
            for topic in topics {
                let found: Vec<u64> =
                    all.matching(topic.as_bytes()).into_iter().map(|(number, _)| number).collect();
                let wanted: Vec<u64> = model
                    .iter()
                    .filter(|(_, pattern)| fits(pattern, &topic))
                    .map(|(number, _)| *number)
                    .collect();
                prop_assert_eq!(found, wanted, "{}", topic);
            }
            for (number, pattern) in &model {
                let found = all.exactly(pattern.as_bytes());
                prop_assert_eq!(found.iter().map(|it| it.0).collect::<Vec<_>>(), [*number]);
            }
            all.forget(me.id());
            let tables = all.tables.read().unwrap();
            prop_assert!(tables.root.is_empty() && tables.by_context.is_empty());
        }
    }
}
