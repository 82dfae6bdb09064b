//! Simulated datagram sockets, with the interface of the real ones.
//!
//! Follows Linux on loopback: what one socket sends to another keeps its order, nothing is lost but
//! what finds no room, and a connected socket is told that nobody is there. With faults datagrams
//! are lost, come twice, and overtake each other.

use std::collections::{BTreeSet, VecDeque};
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::task::{Context, Poll, Waker};

use super::network::{Network, What, failure, here, localhost, overlap, plain, takes};
use super::pipe::Direction;
use super::world::{Step, World, with};
use crate::os::{Arrival, DATAGRAMS_MAX, Departure, Interface, UdpOption};

/// What the system's buffer holds, and what each datagram takes beside its bytes.
const BUFFER_BYTES: usize = 208 * 1024;
const OVERHEAD_BYTES: usize = 768;

/// The longest datagram over each family.
const LONGEST: usize = 65_507;
const LONGEST_IP6: usize = 65_527;

/// A socket, as the network has it.
#[derive(Debug)]
pub(super) struct Port {
    bound: SocketAddr,
    peer: Option<SocketAddr>,
    groups: BTreeSet<IpAddr>,
    may_broadcast: bool,
    arrived: VecDeque<(SocketAddr, Vec<u8>)>,
    bytes: usize,
    dropped: u64,
    error: Option<i32>,
    /// When what was sent last arrives.
    last_arrival: u64,
    pub(super) read: Direction,
    write: Direction,
}

impl Port {
    /// Whether it takes what `from` sends to `to`.
    fn takes(&self, from: SocketAddr, to: SocketAddr) -> bool {
        let is_for_all = to.ip().is_multicast() || is_broadcast(to.ip());
        let is_here = match is_for_all {
            true => {
                self.bound.port() == to.port()
                    && (self.groups.contains(&to.ip())
                        || is_broadcast(to.ip()) && self.bound.ip().is_unspecified())
            }
            false => takes(self.bound, to),
        };
        is_here && self.peer.is_none_or(|peer| plain(peer) == from)
    }

    /// How closely it is meant: what is bound or connected to the very address goes first.
    fn closeness(&self) -> u8 {
        u8::from(self.peer.is_some()) * 2 + u8::from(!self.bound.ip().is_unspecified())
    }
}

fn is_broadcast(ip: IpAddr) -> bool {
    ip == IpAddr::from(Ipv4Addr::BROADCAST) || ip == IpAddr::from([127, 255, 255, 255])
}

/// A datagram socket.
#[derive(Debug)]
pub(crate) struct UdpSocket(u64);

impl UdpSocket {
    fn with<R>(&self, absent: R, body: impl FnOnce(&mut Port, &mut Vec<Waker>) -> R) -> R {
        with(|world| match world.network.datagrams.get_mut(&self.0) {
            Some(port) => body(port, &mut world.dropped),
            None => absent,
        })
    }

    pub(crate) fn bind(address: SocketAddr) -> io::Result<UdpSocket> {
        with(|world| world.bind_datagrams(address)).map(UdpSocket)
    }

    pub(crate) fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.with(Poll::Ready(()), |port, dropped| port.read.poll(cx, dropped))
    }

    pub(crate) fn poll_write_ready(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.with(Poll::Ready(()), |port, dropped| port.write.poll(cx, dropped))
    }

    pub(crate) fn clear_read_ready(&self) {
        self.with((), |port, _| port.read.forget());
    }

    pub(crate) fn receive(&self, arrivals: &mut [Arrival]) -> io::Result<usize> {
        with(|world| world.receive(self.0, arrivals))
    }

    pub(crate) fn send(&self, datagrams: &[Departure<'_>]) -> io::Result<usize> {
        with(|world| world.send_datagrams(self.0, datagrams))
    }

    pub(crate) fn connect(&self, to: SocketAddr) -> io::Result<()> {
        self.with(Err(failure(libc::EBADF)), |port, _| {
            let to = here(plain(to));
            if !to.ip().is_loopback() {
                return Err(failure(libc::ENETUNREACH));
            }
            port.peer = Some(to);
            if port.bound.ip().is_unspecified() {
                port.bound.set_ip(localhost(to));
            }
            Ok(())
        })
    }

    pub(crate) fn set(&self, option: UdpOption) -> io::Result<()> {
        self.with((), |port, _| {
            if let UdpOption::Broadcast(on) = option {
                port.may_broadcast = on;
            }
        });
        Ok(())
    }

    pub(crate) fn join(&self, group: IpAddr, interface: Interface, on: bool) -> io::Result<()> {
        if let Interface::Address(address) = interface
            && !(address.is_loopback() || address.is_unspecified())
        {
            return Err(failure(libc::ENODEV));
        }
        self.with(Ok(()), |port, _| {
            if group.is_ipv6() != port.bound.is_ipv6() {
                return Err(failure(libc::EAFNOSUPPORT));
            }
            match on {
                true if !port.groups.insert(group) => Err(failure(libc::EADDRINUSE)),
                false if !port.groups.remove(&group) => Err(failure(libc::EADDRNOTAVAIL)),
                _ => Ok(()),
            }
        })
    }

    pub(crate) fn dropped(&self) -> u64 {
        self.with(0, |port, _| port.dropped)
    }

    pub(crate) fn local_address(&self) -> Option<SocketAddr> {
        self.with(None, |port, _| Some(port.bound))
    }

    pub(crate) fn peer_address(&self) -> Option<SocketAddr> {
        self.with(None, |port, _| port.peer)
    }
}

impl Drop for UdpSocket {
    fn drop(&mut self) {
        with(|world| {
            if let Some(port) = world.network.datagrams.remove(&self.0) {
                world.dropped.extend(port.read.into_waker());
                world.dropped.extend(port.write.into_waker());
            }
        });
    }
}

impl World {
    fn bind_datagrams(&mut self, address: SocketAddr) -> io::Result<u64> {
        self.check_descriptors()?;
        let ip = address.ip();
        if !(ip.is_unspecified() || ip.to_canonical().is_loopback() || ip.is_multicast()) {
            return Err(failure(libc::EADDRNOTAVAIL));
        }
        let is_free = |network: &Network, address: SocketAddr| {
            let is_shared = |other: &Port| ip.is_multicast() && other.bound == address;
            let mut others = network.datagrams.values();
            !others.any(|other| !is_shared(other) && overlap(other.bound, address))
        };
        let mut bound = address;
        if address.port() == 0 {
            bound.set_port(self.new_port(ip, is_free)?);
        } else if !is_free(&self.network, address) {
            return Err(failure(libc::EADDRINUSE));
        }
        let id = self.network.new_id();
        let port = Port {
            bound,
            peer: None,
            groups: BTreeSet::new(),
            may_broadcast: false,
            arrived: VecDeque::new(),
            bytes: 0,
            dropped: 0,
            error: None,
            last_arrival: 0,
            read: Direction::default(),
            write: Direction::default(),
        };
        self.network.datagrams.insert(id, port);
        Ok(id)
    }

    fn receive(&mut self, id: u64, arrivals: &mut [Arrival]) -> io::Result<usize> {
        let Some(port) = self.network.datagrams.get_mut(&id) else {
            return Err(failure(libc::EBADF));
        };
        if let Some(error) = port.error.take() {
            return Err(failure(error));
        }
        let mut count = 0;
        while count < arrivals.len().min(DATAGRAMS_MAX) {
            let Some((from, bytes)) = port.arrived.pop_front() else { break };
            port.bytes -= bytes.len() + OVERHEAD_BYTES;
            arrivals[count].bytes.clear();
            arrivals[count].bytes.extend_from_slice(&bytes);
            arrivals[count].from = from;
            count += 1;
        }
        if count == 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        self.note(Step::Read, id << 24 | count as u64);
        Ok(count)
    }

    fn send_datagrams(&mut self, id: u64, datagrams: &[Departure<'_>]) -> io::Result<usize> {
        let mut count = 0;
        for &(to, bytes) in datagrams.iter().take(DATAGRAMS_MAX) {
            match self.send_datagram(id, to, bytes) {
                Ok(()) => count += 1,
                Err(error) if count == 0 => return Err(error),
                Err(_) => break,
            }
        }
        Ok(count)
    }

    fn send_datagram(&mut self, id: u64, to: Option<SocketAddr>, bytes: &[u8]) -> io::Result<()> {
        let refused = self.faults.refuses_write(&mut self.random);
        let Some(port) = self.network.datagrams.get_mut(&id) else {
            return Err(failure(libc::EBADF));
        };
        if let Some(error) = port.error.take() {
            return Err(failure(error));
        }
        let to = to.or(port.peer).ok_or_else(|| failure(libc::EDESTADDRREQ))?;
        let to = here(plain(to));
        if to.is_ipv6() && port.bound.is_ipv4() {
            return Err(failure(libc::EAFNOSUPPORT));
        }
        if to.port() == 0 {
            return Err(failure(libc::EINVAL));
        }
        if bytes.len() > if to.is_ipv6() { LONGEST_IP6 } else { LONGEST } {
            return Err(failure(libc::EMSGSIZE));
        }
        if is_broadcast(to.ip()) && !port.may_broadcast {
            return Err(failure(libc::EACCES));
        }
        if !(to.ip().is_loopback() || to.ip().is_multicast() || is_broadcast(to.ip())) {
            return Err(failure(libc::ENETUNREACH));
        }
        if refused {
            let delay = self.faults.latency(&mut self.random);
            self.later(delay, id, What::Room);
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let ip = port.bound.ip().to_canonical();
        let ip = if ip.is_unspecified() || ip.is_multicast() { localhost(to) } else { ip };
        let (from, last) = (SocketAddr::new(ip, port.bound.port()), port.last_arrival);
        self.note(Step::Write, id << 24 | bytes.len() as u64);
        for _ in 0..self.faults.copies(&mut self.random) {
            let delay = self.faults.latency(&mut self.random);
            let overtakes = self.faults.overtakes(&mut self.random);
            let time = if overtakes { self.now + delay } else { last.max(self.now + delay) };
            let what = What::Datagram { from, to, bytes: bytes.to_vec() };
            let time = self.later(time - self.now, id, what);
            if let Some(port) = self.network.datagrams.get_mut(&id).filter(|_| !overtakes) {
                port.last_arrival = time;
            }
        }
        Ok(())
    }

    /// Something happens to a datagram socket, which may be gone already.
    pub(super) fn apply_to_port(&mut self, id: u64, what: What) {
        match what {
            What::Datagram { from, to, bytes } => self.deliver(id, from, to, &bytes),
            What::Unreachable(to) => self.refuse_datagrams(id, to),
            What::Room => self.make_room(id),
            _ => {}
        }
    }

    /// A datagram arrives.
    fn deliver(&mut self, sender: u64, from: SocketAddr, to: SocketAddr, bytes: &[u8]) {
        let is_for_all = to.ip().is_multicast() || is_broadcast(to.ip());
        let ports = self.network.datagrams.iter();
        let mut takers: Vec<(u8, u64)> = ports
            .filter(|(_, port)| port.takes(from, to))
            .map(|(&id, port)| (port.closeness(), id))
            .collect();
        if !is_for_all {
            let closest = takers.iter().max().copied();
            takers = closest.into_iter().collect();
        }
        if takers.is_empty() && !is_for_all {
            let delay = self.faults.latency(&mut self.random);
            self.later(delay, sender, What::Unreachable(to));
        }
        for (_, id) in takers {
            let Some(port) = self.network.datagrams.get_mut(&id) else { continue };
            let size = bytes.len() + OVERHEAD_BYTES;
            if port.bytes + size > BUFFER_BYTES {
                port.dropped += 1;
                continue;
            }
            port.bytes += size;
            port.arrived.push_back((from, bytes.to_vec()));
            port.read.fire(&mut self.woken);
        }
    }

    /// The answer arrives that nobody takes what was sent to an address: who is connected is told.
    fn refuse_datagrams(&mut self, id: u64, to: SocketAddr) {
        let Some(port) = self.network.datagrams.get_mut(&id) else { return };
        if port.peer.is_some_and(|peer| here(plain(peer)) == to) {
            port.error = Some(libc::ECONNREFUSED);
            port.read.fire(&mut self.woken);
            port.write.fire(&mut self.woken);
        }
    }

    /// There is room for datagrams again.
    fn make_room(&mut self, id: u64) {
        if let Some(port) = self.network.datagrams.get_mut(&id) {
            port.write.fire(&mut self.woken);
        }
    }
}
