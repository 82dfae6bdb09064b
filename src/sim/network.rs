//! The network of a simulation: one machine with its loopback addresses and unix sockets.
//!
//! Follows what Linux does on loopback: connections stand before they are accepted, a full backlog
//! makes connecting slow, closing with unread input resets, and bytes keep their order but arrive
//! when they like. All that wakes anybody happens in [`World::apply`], never in a call.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;

use super::pipe::{Direction, End, State};
use super::udp::Port;
use super::world::World;

/// Ports for those who do not care.
const PORT_MIN: u64 = 32768;
const PORT_MAX: u64 = 60999;

/// Attempts to reach a listener whose backlog is full, and the first pause between two.
const ATTEMPTS: u32 = 6;
const RETRY: u64 = 1_000_000_000;

/// What happens to the network, and to which socket of it.
#[derive(Debug)]
pub(super) struct Change {
    pub(super) end: u64,
    pub(super) what: What,
}

#[derive(Debug)]
pub(super) enum What {
    /// A connection attempt arrives, after `count` others.
    Attempt { to: SocketAddr, count: u32 },
    /// The answer arrives.
    Established,
    /// An attempt has failed, for a reason as in `errno`.
    Failed(i32),
    /// A socket tells what it has to say to begin with.
    Registered,
    /// This many bytes arrive.
    Arrive(usize),
    /// The peer's end of its output arrives.
    Fin,
    /// There is room for more output.
    WriteReady,
    /// A reset arrives.
    Reset,
    /// A connection breaks, for both ends.
    Cut,
    /// Both directions are over at this end.
    Over,
    /// A datagram arrives where the socket has sent it.
    Datagram { from: SocketAddr, to: SocketAddr, bytes: Vec<u8> },
    /// The answer arrives that nobody takes datagrams at this address.
    Unreachable(SocketAddr),
    /// There is room for more datagrams.
    Room,
}

impl Change {
    /// For the trace.
    pub(super) fn fingerprint(&self) -> u64 {
        let (kind, more) = match &self.what {
            What::Attempt { to, .. } => (1, u64::from(to.port())),
            What::Established => (2, 0),
            What::Failed(error) => (3, *error as u64),
            What::Registered => (4, 0),
            What::Arrive(count) => (5, *count as u64),
            What::Fin => (6, 0),
            What::WriteReady => (7, 0),
            What::Reset => (8, 0),
            What::Cut => (9, 0),
            What::Over => (10, 0),
            What::Datagram { bytes, .. } => (11, bytes.len() as u64),
            What::Unreachable(to) => (12, u64::from(to.port())),
            What::Room => (13, 0),
        };
        kind << 56 | self.end << 24 | more
    }
}

/// Where a listener listens.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Place {
    Ip(SocketAddr),
    Unix(PathBuf),
}

#[derive(Debug)]
pub(super) struct Backlog {
    pub(super) place: Place,
    /// Ends nobody has accepted, oldest first, and how many there may be.
    pub(super) waiting: VecDeque<u64>,
    max: usize,
    shares_port: bool,
    pub(super) read: Direction,
}

impl Backlog {
    /// Connections that wait, and how many may.
    pub(super) fn fill(&self) -> (usize, usize) {
        (self.waiting.len(), self.max)
    }
}

#[derive(Debug, Default)]
pub(super) struct Network {
    /// Each by its number.
    pub(super) ends: BTreeMap<u64, End>,
    pub(super) listeners: BTreeMap<u64, Backlog>,
    pub(super) datagrams: BTreeMap<u64, Port>,
    /// Socket files, those of listeners that are gone included.
    files: BTreeSet<PathBuf>,
    /// Ports of the connecting side.
    ports: BTreeSet<u16>,
    count: u64,
}

pub(super) fn failure(number: i32) -> io::Error {
    io::Error::from_raw_os_error(number)
}

/// An IPv4 address in an IPv6 one counts as itself.
pub(super) fn plain(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// Nobody's address is this machine's.
pub(super) fn here(to: SocketAddr) -> SocketAddr {
    match to.ip().is_unspecified() {
        true => SocketAddr::new(localhost(to), to.port()),
        false => to,
    }
}

/// The address of this machine, in the family of another.
pub(super) fn localhost(to: SocketAddr) -> IpAddr {
    if to.is_ipv4() { Ipv4Addr::LOCALHOST.into() } else { Ipv6Addr::LOCALHOST.into() }
}

/// Whether a listener on `bound` takes connections to `to`.
pub(super) fn takes(bound: SocketAddr, to: SocketAddr) -> bool {
    let any = match bound.ip() {
        IpAddr::V4(ip) => ip.is_unspecified() && to.is_ipv4(),
        // As the system has it unless told otherwise, both families.
        IpAddr::V6(ip) => ip.is_unspecified(),
    };
    bound.port() == to.port() && (any || plain(bound).ip() == to.ip())
}

/// Whether two sockets could be meant by one address.
pub(super) fn overlap(one: SocketAddr, other: SocketAddr) -> bool {
    takes(one, plain(other)) || takes(other, plain(one))
}

impl Network {
    pub(super) fn new_id(&mut self) -> u64 {
        self.count += 1;
        self.count
    }

    /// Whether a listener, of those that this is `asked` of, has an address, or a part of it.
    fn is_taken(&self, address: SocketAddr, asked: impl Fn(&Backlog) -> bool) -> bool {
        self.listeners.values().filter(|other| asked(other)).any(|other| match other.place {
            Place::Ip(bound) => overlap(bound, address),
            Place::Unix(_) => false,
        })
    }

    fn listener_at(&self, path: &PathBuf) -> Option<u64> {
        let mut found = self.listeners.iter();
        found.find(|(_, other)| matches!(&other.place, Place::Unix(at) if at == path)).map(|l| *l.0)
    }

    /// Bytes written at this end that have not arrived at the other yet.
    pub(super) fn undelivered(&self, end: u64) -> usize {
        let Some(end) = self.ends.get(&end).filter(|end| end.state == State::Open) else {
            return 0;
        };
        self.ends.get(&end.peer).map_or(0, End::under_way)
    }
}

impl World {
    /// Any port of an address that is free.
    pub(super) fn new_port(
        &mut self,
        ip: IpAddr,
        is_free: impl Fn(&Network, SocketAddr) -> bool,
    ) -> io::Result<u16> {
        let count = PORT_MAX - PORT_MIN + 1;
        let first = self.random.below(count);
        (0..count)
            .map(|step| (PORT_MIN + (first + step) % count) as u16)
            .find(|&port| is_free(&self.network, SocketAddr::new(ip, port)))
            .ok_or_else(|| failure(libc::EADDRINUSE))
    }

    fn new_stream_port(&mut self, ip: IpAddr) -> io::Result<u16> {
        self.new_port(ip, |network, address| {
            !network.ports.contains(&address.port()) && !network.is_taken(address, |_| true)
        })
    }

    fn new_end(&mut self, state: State, is_unix: bool) -> u64 {
        let capacity = self.faults.capacity(&mut self.random);
        let id = self.network.new_id();
        self.network.ends.insert(id, End::new(state, is_unix, capacity));
        id
    }

    pub(super) fn check_descriptors(&mut self) -> io::Result<()> {
        match self.faults.lacks_descriptor(&mut self.random) {
            true => Err(failure(libc::EMFILE)),
            false => Ok(()),
        }
    }

    /// Starts to listen; returns the listener.
    pub(super) fn listen(
        &mut self,
        address: SocketAddr,
        backlog: i32,
        shares_port: bool,
    ) -> io::Result<(u64, SocketAddr)> {
        self.check_descriptors()?;
        let ip = address.ip();
        if !(ip.is_unspecified() || ip.to_canonical().is_loopback()) {
            return Err(failure(libc::EADDRNOTAVAIL));
        }
        let mut address = address;
        if address.port() == 0 {
            address.set_port(self.new_stream_port(ip)?);
        // SO_REUSEADDR: connections that use the port do not matter, listeners do.
        } else if self.network.is_taken(address, |other| !(shares_port && other.shares_port)) {
            return Err(failure(libc::EADDRINUSE));
        }
        let id = self.add_listener(Place::Ip(address), backlog, shares_port);
        Ok((id, address))
    }

    /// Starts to listen on a unix socket.
    pub(super) fn listen_unix(&mut self, path: PathBuf, backlog: i32) -> io::Result<u64> {
        self.check_descriptors()?;
        if self.network.listener_at(&path).is_some() {
            return Err(failure(libc::EADDRINUSE));
        }
        self.network.files.insert(path.clone());
        Ok(self.add_listener(Place::Unix(path), backlog, false))
    }

    /// Removes a socket file; false if there is none of that name. Who listens on it goes on, and
    /// cannot be reached any more.
    pub(super) fn remove_file(&mut self, path: &PathBuf) -> bool {
        let listener = self.network.listener_at(path);
        if let Some(listener) = listener.and_then(|id| self.network.listeners.get_mut(&id)) {
            listener.place = Place::Unix(PathBuf::new());
        }
        self.network.files.remove(path)
    }

    fn add_listener(&mut self, place: Place, backlog: i32, shares_port: bool) -> u64 {
        let id = self.network.new_id();
        let max = backlog.max(0) as usize + 1;
        let (waiting, read) = (VecDeque::new(), Direction::default());
        self.network.listeners.insert(id, Backlog { place, waiting, max, shares_port, read });
        id
    }

    /// Starts to connect to an address.
    pub(super) fn connect(&mut self, to: SocketAddr) -> io::Result<u64> {
        self.check_descriptors()?;
        let to = here(plain(to));
        if !to.ip().is_loopback() {
            return Err(failure(libc::ENETUNREACH));
        }
        let ip = match to {
            SocketAddr::V4(_) => IpAddr::V4(Ipv4Addr::LOCALHOST),
            SocketAddr::V6(_) => to.ip(),
        };
        let port = self.new_stream_port(ip)?;
        self.network.ports.insert(port);
        let end = self.new_end(State::Connecting, false);
        if let Some(made) = self.network.ends.get_mut(&end) {
            made.local = Some(SocketAddr::new(ip, port));
            made.remote = Some(to);
            made.owns_port = true;
        }
        let delay = self.faults.latency(&mut self.random);
        self.later(delay, end, What::Attempt { to, count: 0 });
        Ok(end)
    }

    /// Connects to a unix socket, which takes no time.
    pub(super) fn connect_unix(&mut self, path: PathBuf) -> io::Result<u64> {
        self.check_descriptors()?;
        if !self.network.files.contains(&path) {
            return Err(failure(libc::ENOENT));
        }
        let refused = self.faults.refuses_connection(&mut self.random);
        let Some(listener) = self.network.listener_at(&path).filter(|_| !refused) else {
            return Err(failure(libc::ECONNREFUSED));
        };
        if self.is_full(listener) {
            return Err(failure(libc::EAGAIN));
        }
        let end = self.new_end(State::Open, true);
        self.join(end, listener, true);
        self.later(0, end, What::Registered);
        Ok(end)
    }

    fn is_full(&self, listener: u64) -> bool {
        let backlog = self.network.listeners.get(&listener);
        backlog.is_none_or(|backlog| backlog.waiting.len() >= backlog.max)
    }

    /// Makes the other end of a connection, and has it wait to be accepted.
    fn join(&mut self, end: u64, listener: u64, is_unix: bool) {
        let other = self.new_end(State::Open, is_unix);
        let Some(first) = self.network.ends.get_mut(&end) else { return };
        first.peer = other;
        let (local, remote) = (first.remote, first.local);
        if let Some(second) = self.network.ends.get_mut(&other) {
            (second.peer, second.local, second.remote) = (end, local, remote);
        }
        if let Some(backlog) = self.network.listeners.get_mut(&listener) {
            backlog.waiting.push_back(other);
            backlog.read.fire(&mut self.woken);
        }
        if let Some(delay) = self.faults.reset_after(&mut self.random) {
            self.later(delay, end, What::Cut);
        }
    }

    /// A connection attempt arrives.
    fn attempt(&mut self, end: u64, to: SocketAddr, count: u32) {
        let mut found = Vec::new();
        for (&id, other) in &self.network.listeners {
            if let Place::Ip(bound) = other.place
                && takes(bound, to)
            {
                found.push((bound.ip().is_unspecified(), id));
            }
        }
        // What is bound to the very address goes first; those that share a port take turns.
        let exact = found.iter().any(|(is_any, _)| !is_any);
        found.retain(|(is_any, _)| *is_any != exact);
        let refused = self.faults.refuses_connection(&mut self.random);
        let chosen = self.random.below(found.len() as u64) as usize;
        let delay = self.faults.latency(&mut self.random);
        let Some(&(_, listener)) = found.get(chosen).filter(|_| !refused) else {
            self.later(delay, end, What::Failed(libc::ECONNREFUSED));
            return;
        };
        if self.is_full(listener) {
            if count + 1 == ATTEMPTS {
                self.later(delay, end, What::Failed(libc::ETIMEDOUT));
            } else {
                self.later(RETRY << count, end, What::Attempt { to, count: count + 1 });
            }
            return;
        }
        self.join(end, listener, false);
        let time = self.later(delay, end, What::Established);
        if let Some(end) = self.network.ends.get_mut(&end) {
            end.last_arrival = time;
        }
    }

    /// Something happens.
    pub(super) fn apply(&mut self, change: Change) {
        let (id, woken) = (change.end, &mut self.woken);
        let Some(end) = self.network.ends.get_mut(&id) else {
            return self.apply_to_port(id, change.what);
        };
        match change.what {
            What::Attempt { to, count } => self.attempt(id, to, count),
            What::Established if end.state == State::Connecting => {
                end.state = State::Open;
                end.write.fire(woken);
            }
            What::Failed(error) => end.break_off(error, woken),
            What::Registered => {
                end.write.fire(woken);
                if end.visible() > 0 {
                    end.read.fire(woken);
                }
            }
            What::Arrive(count) if end.state != State::Dead => {
                end.arrive(count);
                end.read.fire(woken);
            }
            What::Fin if end.state == State::Open => {
                end.has_fin = true;
                end.arrive_all();
                end.end_read(woken);
                if end.output_ended {
                    end.write.end(woken);
                }
            }
            What::WriteReady => {
                end.is_starved = false;
                end.write.fire(woken);
            }
            What::Over => {
                end.end_read(woken);
                end.write.end(woken);
            }
            What::Reset => self.reset(id),
            What::Cut => {
                let peer = end.peer;
                self.reset(id);
                self.send_reset(peer);
            }
            // Too late; and what happens to no stream.
            What::Established | What::Arrive(_) | What::Fin => {}
            What::Datagram { .. } | What::Unreachable(_) | What::Room => {}
        }
    }

    fn reset(&mut self, end: u64) {
        let Some(end) = self.network.ends.get_mut(&end) else { return };
        // A connection that has ended in both directions cannot be reset any more.
        if end.state != State::Dead && !(end.has_fin && end.output_ended) {
            end.break_off(libc::ECONNRESET, &mut self.woken);
        }
    }

    /// Sends a reset on its way to an end. It may overtake what was sent before.
    pub(super) fn send_reset(&mut self, end: u64) {
        let delay = self.faults.latency(&mut self.random);
        self.later(delay, end, What::Reset);
    }

    /// Sends the end of the output on its way, to `end`, behind what was sent before.
    pub(super) fn send_fin(&mut self, end: u64) {
        let delay = self.faults.latency(&mut self.random);
        let now = self.now;
        let Some(found) = self.network.ends.get_mut(&end) else { return };
        if !std::mem::replace(&mut found.fin_sent, true) {
            let time = found.last_arrival.max(now + delay);
            self.later(time - now, end, What::Fin);
        }
    }

    /// Closes an end, as when nobody has its descriptor any more.
    pub(super) fn close_end(&mut self, id: u64) {
        let Some(end) = self.network.ends.remove(&id) else { return };
        if let Some(local) = end.local.filter(|_| end.owns_port) {
            self.network.ports.remove(&local.port());
        }
        if end.state == State::Open || end.state == State::Connecting {
            if end.is_empty() {
                if !end.output_ended {
                    self.send_fin(end.peer);
                }
            } else {
                self.send_reset(end.peer);
            }
        }
        self.dropped.extend(end.read.into_waker());
        self.dropped.extend(end.write.into_waker());
        self.dropped.extend(end.watcher);
    }

    /// Closes a listener; connections nobody has accepted are reset.
    pub(super) fn close_listener(&mut self, id: u64) {
        let Some(listener) = self.network.listeners.remove(&id) else { return };
        for end in listener.waiting {
            self.drop_unaccepted(end);
        }
        self.dropped.extend(listener.read.into_waker());
    }

    /// Resets a connection that nobody has accepted.
    pub(super) fn drop_unaccepted(&mut self, end: u64) {
        if let Some(end) = self.network.ends.remove(&end) {
            self.send_reset(end.peer);
        }
    }
}
