//! The bus of a simulation: several processes in one, whose messages take time, and whose
//! connections break, as follows from the seed. What it does is what NATS does.

use std::collections::{BTreeMap, BTreeSet};
use std::future::poll_fn;
use std::sync::{Arc, Mutex};
use std::task::{Poll, Waker};
use std::time::Duration;

use super::node::Node;
use super::outbox::Parcel;
use super::state::TICK;
use crate::rt;
use crate::sync::lock;

/// What its servers take at once.
const MAX_PAYLOAD: usize = 1 << 20;

const MICROSECOND: u64 = 1_000;
const SECOND: u64 = 1_000_000_000;

/// Something on its way to a process.
#[derive(Debug)]
enum Delivery {
    All(Arc<[u8]>),
    Node(Vec<u8>),
    Topic(Box<[u8]>, Arc<[u8]>),
    Nobody(Option<u64>),
}

/// A process, and its connection.
#[derive(Debug)]
struct Link {
    node: Arc<Node>,
    is_up: bool,
    /// Those of another group do not hear it: their servers have lost each other.
    group: u64,
    patterns: BTreeSet<Box<[u8]>>,
    /// By time, and in the order in which they were sent.
    coming: BTreeMap<(u64, u64), Delivery>,
    /// When the last thing of each other process comes.
    last: BTreeMap<u64, u64>,
    waker: Option<Waker>,
}

#[derive(Debug, Default)]
struct Links {
    all: BTreeMap<u64, Link>,
    count: u64,
}

/// The servers between the processes of a simulation.
#[derive(Debug)]
pub struct Bus {
    links: Mutex<Links>,
    faults: f64,
}

/// A number below `count`, which is above 0.
fn below(count: u64) -> u64 {
    let [number, ..] = rt::random_words().unwrap_or_default();
    ((u128::from(number) * u128::from(count)) >> 64) as u64
}

fn chance(probability: f64) -> bool {
    (below(1 << 53) as f64) < probability * (1u64 << 53) as f64
}

fn fits(pattern: &[u8], topic: &[u8]) -> bool {
    let (mut words, mut wanted) =
        (topic.split(|&byte| byte == b'.'), pattern.split(|&byte| byte == b'.'));
    loop {
        match (wanted.next(), words.next()) {
            (None, None) => return true,
            (Some(b">"), Some(_)) => return true,
            (Some(b"*"), Some(_)) => {}
            (Some(one), Some(other)) if one == other => {}
            _ => return false,
        }
    }
}

impl Bus {
    /// Servers to which so much happens, from 0 to 1.
    pub fn new(faults: f64) -> Arc<Bus> {
        Arc::new(Bus { links: Mutex::default(), faults })
    }

    fn latency(&self) -> u64 {
        let usual = 10 * MICROSECOND + below(190 * MICROSECOND);
        if chance(0.05 * self.faults) { usual + below(SECOND / 2) } else { usual }
    }

    /// Connects a process.
    pub fn connect(self: &Arc<Self>, node: &Arc<Node>) {
        let id = node.id();
        let link = Link {
            node: Arc::clone(node),
            is_up: true,
            group: 0,
            patterns: BTreeSet::new(),
            coming: BTreeMap::new(),
            last: BTreeMap::new(),
            waker: None,
        };
        lock(&self.links).all.insert(id, link);
        node.on_connected(MAX_PAYLOAD);
        let (bus, sender) = (Arc::clone(self), Arc::clone(node));
        rt::spawn(async move {
            while let Some((parcels, _)) = poll_fn(|cx| sender.poll_parcels(cx)).await {
                parcels.into_iter().for_each(|parcel| bus.route(id, parcel));
            }
            lock(&bus.links).all.remove(&id);
        });
        let (bus, receiver) = (Arc::clone(self), Arc::clone(node));
        rt::spawn(async move {
            while let Some(delivery) = bus.next(id).await {
                match delivery {
                    Delivery::All(bytes) => receiver.on_all(&bytes),
                    Delivery::Node(bytes) => receiver.on_node(&bytes),
                    Delivery::Topic(pattern, bytes) => receiver.on_topic(&pattern, &bytes),
                    Delivery::Nobody(node) => receiver.on_nobody(node),
                }
            }
        });
        let (bus, ticking) = (Arc::clone(self), Arc::clone(node));
        rt::spawn(async move {
            while lock(&bus.links).all.contains_key(&id) {
                rt::sleep(Duration::from_nanos(TICK)).await;
                ticking.on_tick();
            }
        });
    }

    /// The process is no more, from one moment to the next.
    pub fn kill(&self, node: &Node) {
        let killed = lock(&self.links).all.remove(&node.id());
        // What it still does goes nowhere.
        node.on_away("killed");
        if let Some(waker) = killed.and_then(|link| link.waker) {
            waker.wake();
        }
    }

    /// The next thing that comes to a process, once it is there; none if the process is no more.
    async fn next(&self, id: u64) -> Option<Delivery> {
        let mut timer = rt::Timer::new();
        poll_fn(|cx| {
            loop {
                let due = {
                    let mut links = lock(&self.links);
                    let Some(link) = links.all.get_mut(&id) else { return Poll::Ready(None) };
                    let Some(first) = link.coming.first_entry() else {
                        link.waker = Some(cx.waker().clone());
                        return Poll::Pending;
                    };
                    let due = first.key().0;
                    if due <= rt::now() {
                        let delivery = first.remove();
                        match link.is_up {
                            true => return Poll::Ready(Some(delivery)),
                            // What comes to a broken connection is lost.
                            false => continue,
                        }
                    }
                    link.waker = Some(cx.waker().clone());
                    due
                };
                timer.set(due);
                if timer.poll(cx).is_pending() {
                    return Poll::Pending;
                }
            }
        })
        .await
    }

    /// Has something come to a process.
    fn bring(&self, links: &mut Links, from: u64, to: u64, delivery: Delivery) {
        links.count += 1;
        let count = links.count;
        let Some(link) = links.all.get_mut(&to) else { return };
        let last = link.last.entry(from).or_default();
        // Of one process everything comes in the order in which it was sent.
        *last = (rt::now() + self.latency()).max(*last);
        link.coming.insert((*last, count), delivery);
        if let Some(waker) = link.waker.take() {
            waker.wake();
        }
    }

    fn route(&self, from: u64, parcel: Parcel) {
        let mut links = lock(&self.links);
        let Some(sender) = links.all.get_mut(&from).filter(|link| link.is_up) else { return };
        let group = sender.group;
        if let Parcel::Interest(pattern, begins) = parcel {
            match begins {
                true => drop(sender.patterns.insert(pattern)),
                false => drop(sender.patterns.remove(&pattern)),
            }
            return;
        }
        let hears = |(id, link): (&u64, &Link)| {
            (*id != from && link.is_up && link.group == group).then_some(*id)
        };
        let others: Vec<u64> = links.all.iter().filter_map(hears).collect();
        match parcel {
            Parcel::All(bytes, asks) => {
                let bytes: Arc<[u8]> = bytes.into();
                for &to in &others {
                    self.bring(&mut links, from, to, Delivery::All(Arc::clone(&bytes)));
                }
                if asks && others.is_empty() {
                    self.bring(&mut links, from, from, Delivery::Nobody(None));
                }
            }
            Parcel::Node(to, bytes) => match others.contains(&to) {
                true => self.bring(&mut links, from, to, Delivery::Node(bytes)),
                // A server may think that somebody is there whom it has lost.
                false if chance(0.3 * self.faults) => {}
                false => self.bring(&mut links, from, from, Delivery::Nobody(Some(to))),
            },
            Parcel::Topic(topic, bytes) => {
                let bytes: Arc<[u8]> = bytes.into();
                for to in others {
                    let patterns = links.all.get(&to).map(|link| &link.patterns);
                    let fit = patterns.into_iter().flatten().filter(|one| fits(one, &topic));
                    for pattern in fit.cloned().collect::<Vec<_>>() {
                        let delivery = Delivery::Topic(pattern, Arc::clone(&bytes));
                        self.bring(&mut links, from, to, delivery);
                    }
                }
            }
            Parcel::Interest(..) => {}
        }
    }

    /// Breaks something, and mends it after a while: the connection of a process, which may take
    /// time to notice; all of them, as if the server began anew; or what connects the servers.
    pub async fn disturb(self: &Arc<Self>) {
        let ids: Vec<u64> = lock(&self.links).all.keys().copied().collect();
        let length = match below(3) {
            0 => below(SECOND / 10),
            1 => below(2 * SECOND),
            _ => below(8 * SECOND),
        };
        match below(3) {
            0 => {
                lock(&self.links).all.values_mut().for_each(|link| link.group = below(2));
                rt::sleep(Duration::from_nanos(length)).await;
                lock(&self.links).all.values_mut().for_each(|link| link.group = 0);
            }
            1 if !ids.is_empty() => {
                let which = ids[below(ids.len() as u64) as usize];
                self.interrupt(vec![which], length).await;
            }
            _ => self.interrupt(ids, length).await,
        }
    }

    async fn interrupt(&self, which: Vec<u64>, length: u64) {
        let nodes: Vec<Arc<Node>> = {
            let mut links = lock(&self.links);
            let found = which.iter().filter_map(|id| {
                let link = links.all.get_mut(id)?;
                link.is_up = false;
                Some(Arc::clone(&link.node))
            });
            found.collect()
        };
        // A connection that is cut without a word is noticed by the silence.
        let unnoticed = if chance(0.5) { 0 } else { below(2 * SECOND).min(length) };
        rt::sleep(Duration::from_nanos(unnoticed)).await;
        nodes.iter().for_each(|node| node.on_away("the connection has ended"));
        rt::sleep(Duration::from_nanos(length - unnoticed)).await;
        for node in nodes {
            let is_back = {
                let mut links = lock(&self.links);
                let link = links.all.get_mut(&node.id());
                link.map(|link| (link.is_up, link.group) = (true, 0)).is_some()
            };
            if is_back {
                rt::sleep(Duration::from_nanos(below(SECOND / 10))).await;
                node.on_connected(MAX_PAYLOAD);
            }
        }
    }
}
