//! Datagram sockets: many datagrams per system call, both ways, without waiting.
//!
//! What each function does, and its errors: [`rt::UdpSocket`](crate::rt::UdpSocket), which calls
//! it.

use std::io::{self, IoSlice};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::os::fd::AsRawFd;
use std::task::{Context, Poll};

use bytes::BytesMut;
use rustix::io::Errno;
use rustix::net::{self, MMsgHdr, SendAncillaryBuffer, SendFlags, SocketAddrAny, sockopt};
use socket2::{Domain, InterfaceIndexOrAddress, Socket, Type};

use super::epoll::Watched;
use super::socket::option;
use crate::failpoint;

/// Datagrams per system call.
pub const DATAGRAMS_MAX: usize = 32;

/// No datagram is longer than this.
const DATAGRAM_BYTES: usize = 64 * 1024;

/// Room for a datagram, and what was received there last.
#[derive(Debug)]
pub struct Arrival {
    /// The datagram.
    pub bytes: BytesMut,
    /// Who has sent it.
    pub from: SocketAddr,
}

impl Default for Arrival {
    fn default() -> Arrival {
        Arrival { bytes: BytesMut::new(), from: (Ipv4Addr::UNSPECIFIED, 0).into() }
    }
}

/// A datagram on its way out: to whom, unless the socket is connected, and what.
pub type Departure<'a> = (Option<SocketAddr>, &'a [u8]);

/// A switch or number of a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UdpOption {
    /// Whether it may send to all of a network.
    Broadcast(bool),
    /// How many routers a datagram may pass.
    Ttl(u32),
}

/// An interface of this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interface {
    /// As the system chooses.
    Any,
    /// By its number.
    Index(u32),
    /// By an address that it has.
    Address(Ipv4Addr),
}

impl Interface {
    /// The interface of this name.
    pub fn named(name: &str) -> Option<Interface> {
        let any = Socket::new(Domain::UNIX, Type::DGRAM, None).ok()?;
        net::netdevice::name_to_index(any, name).ok().map(Interface::Index)
    }
}

/// A place for nothing yet.
const NO_MESSAGE: libc::mmsghdr = libc::mmsghdr {
    msg_hdr: libc::msghdr {
        msg_name: std::ptr::null_mut(),
        msg_namelen: 0,
        msg_iov: std::ptr::null_mut(),
        msg_iovlen: 0,
        msg_control: std::ptr::null_mut(),
        msg_controllen: 0,
        msg_flags: 0,
    },
    msg_len: 0,
};

/// Address and port as the system writes them: large enough for both families.
#[derive(Clone, Copy)]
#[repr(C, align(4))]
struct RawAddress([u8; size_of::<libc::sockaddr_in6>()]);

impl RawAddress {
    fn decode(&self) -> SocketAddr {
        let part = |at: usize| <[u8; 4]>::try_from(&self.0[at..at + 4]).unwrap_or_default();
        let port = u16::from_be_bytes([self.0[2], self.0[3]]);
        if i32::from(u16::from_ne_bytes([self.0[0], self.0[1]])) != libc::AF_INET6 {
            return (Ipv4Addr::from(part(4)), port).into();
        }
        let ip = Ipv6Addr::from(<[u8; 16]>::try_from(&self.0[8..24]).unwrap_or_default());
        match ip.to_canonical() {
            // What comes over IPv4 to a socket for both.
            IpAddr::V4(ip) => (ip, port).into(),
            IpAddr::V6(ip) => SocketAddrV6::new(ip, port, 0, u32::from_ne_bytes(part(24))).into(),
        }
    }
}

/// A datagram socket.
#[derive(Debug)]
pub(crate) struct UdpSocket {
    socket: Watched,
    is_ip6: bool,
}

impl UdpSocket {
    pub(crate) fn bind(address: SocketAddr) -> io::Result<UdpSocket> {
        failpoint::check_socket()?;
        let socket = Socket::new(Domain::for_address(address), Type::DGRAM.nonblocking(), None)?;
        if address.ip().is_multicast() {
            socket.set_reuse_address(true)?;
        }
        socket.bind(&address.into())?;
        Ok(UdpSocket { socket: Watched::new_datagram(socket)?, is_ip6: address.is_ipv6() })
    }

    fn socket(&self) -> &Socket {
        self.socket.socket()
    }

    pub(crate) fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.socket.poll_read_ready(cx)
    }

    pub(crate) fn poll_write_ready(&self, cx: &mut Context<'_>) -> Poll<()> {
        let poll = self.socket.poll_write_ready(cx);
        // Whatever leaves makes room, and would be told: only while somebody waits for it.
        if poll.is_pending() && self.socket.watch_writable(true).is_err() {
            return Poll::Ready(());
        }
        poll
    }

    pub(crate) fn rest_writing(&self) {
        // A registration that stays costs wake-ups, and no more.
        let _ = self.socket.watch_writable(false);
    }

    pub(crate) fn clear_read_ready(&self) {
        self.socket.clear_read_ready();
    }

    /// One `recvmmsg(2)`.
    pub(crate) fn receive(&self, arrivals: &mut [Arrival]) -> io::Result<usize> {
        failpoint::check_socket()?;
        let count = arrivals.len().min(DATAGRAMS_MAX);
        let mut addresses = [RawAddress([0; size_of::<RawAddress>()]); DATAGRAMS_MAX];
        let mut places =
            [libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 }; DATAGRAMS_MAX];
        let mut messages = [NO_MESSAGE; DATAGRAMS_MAX];
        for (at, arrival) in arrivals[..count].iter_mut().enumerate() {
            arrival.bytes.clear();
            arrival.bytes.reserve(DATAGRAM_BYTES);
            places[at].iov_base = arrival.bytes.spare_capacity_mut().as_mut_ptr().cast();
            places[at].iov_len = DATAGRAM_BYTES;
            let header = &mut messages[at].msg_hdr;
            header.msg_name = (&raw mut addresses[at]).cast();
            header.msg_namelen = size_of::<RawAddress>() as libc::socklen_t;
            header.msg_iov = &raw mut places[at];
            header.msg_iovlen = 1;
        }
        let (socket, first) = (self.socket().as_raw_fd(), messages.as_mut_ptr());
        let received = loop {
            // SAFETY: `count` headers, each with room for one address and one datagram, all of
            // which are borrowed until the call is over; it does not wait.
            match unsafe { libc::recvmmsg(socket, first, count as u32, 0, std::ptr::null_mut()) } {
                received @ 0.. => break received as usize,
                _ => {
                    let error = io::Error::last_os_error();
                    if error.kind() != io::ErrorKind::Interrupted {
                        return Err(error);
                    }
                }
            }
        };
        for (at, arrival) in arrivals[..received].iter_mut().enumerate() {
            let length = messages[at].msg_len as usize;
            // SAFETY: this many bytes were written to the room of this datagram, which has no less.
            unsafe { arrival.bytes.set_len(length.min(DATAGRAM_BYTES)) };
            arrival.from = addresses[at].decode();
        }
        Ok(received)
    }

    /// One `sendmmsg(2)`, or `sendto(2)`.
    pub(crate) fn send(&self, datagrams: &[Departure<'_>]) -> io::Result<usize> {
        failpoint::check_socket()?;
        loop {
            let result = match datagrams {
                [] => return Ok(0),
                [one] => self.send_one(one),
                _ => self.send_many(&datagrams[..datagrams.len().min(DATAGRAMS_MAX)]),
            };
            match result {
                Ok(count) => return Ok(count),
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn send_one(&self, &(to, bytes): &Departure<'_>) -> Result<usize, Errno> {
        match to {
            Some(to) => {
                net::sendto(self.socket(), bytes, SendFlags::NOSIGNAL, &self.reachable(to))?
            }
            None => net::send(self.socket(), bytes, SendFlags::NOSIGNAL)?,
        };
        Ok(1)
    }

    fn send_many(&self, datagrams: &[Departure<'_>]) -> Result<usize, Errno> {
        let addresses: Vec<_> = datagrams
            .iter()
            .map(|(to, _)| to.map(|to| SocketAddrAny::from(self.reachable(to))))
            .collect();
        let pieces: Vec<_> = datagrams.iter().map(|(_, bytes)| [IoSlice::new(bytes)]).collect();
        let mut nothing: Vec<_> =
            datagrams.iter().map(|_| SendAncillaryBuffer::default()).collect();
        let mut messages: Vec<_> = addresses
            .iter()
            .zip(&pieces)
            .zip(&mut nothing)
            .map(|((to, piece), nothing)| match to {
                Some(to) => MMsgHdr::new_with_addr(to, piece, nothing),
                None => MMsgHdr::new(piece, nothing),
            })
            .collect();
        net::sendmmsg(self.socket(), &mut messages, SendFlags::NOSIGNAL)
    }

    /// An IPv4 address as a socket for both families has it.
    fn reachable(&self, to: SocketAddr) -> SocketAddr {
        match to {
            SocketAddr::V4(to) if self.is_ip6 => {
                SocketAddrV6::new(to.ip().to_ipv6_mapped(), to.port(), 0, 0).into()
            }
            to => to,
        }
    }

    pub(crate) fn connect(&self, to: SocketAddr) -> io::Result<()> {
        failpoint::check_socket()?;
        self.socket().connect(&self.reachable(to).into())
    }

    pub(crate) fn set(&self, option: UdpOption) -> io::Result<()> {
        let socket = self.socket();
        match option {
            UdpOption::Broadcast(on) => socket.set_broadcast(on),
            UdpOption::Ttl(count) if self.is_ip6 => {
                socket.set_unicast_hops_v6(count)?;
                socket.set_multicast_hops_v6(count)
            }
            UdpOption::Ttl(count) => {
                socket.set_ttl_v4(count)?;
                socket.set_multicast_ttl_v4(count)
            }
        }
    }

    pub(crate) fn join(&self, group: IpAddr, interface: Interface, on: bool) -> io::Result<()> {
        let socket = self.socket();
        match (group, interface) {
            (IpAddr::V4(_), _) if self.is_ip6 => Err(other_family()),
            (IpAddr::V6(_), _) if !self.is_ip6 => Err(other_family()),
            (IpAddr::V6(_), Interface::Address(_)) => Err(other_family()),
            (IpAddr::V4(group), interface) => {
                let at = match interface {
                    Interface::Any => InterfaceIndexOrAddress::Address(Ipv4Addr::UNSPECIFIED),
                    Interface::Index(index) => InterfaceIndexOrAddress::Index(index),
                    Interface::Address(address) => InterfaceIndexOrAddress::Address(address),
                };
                if !on {
                    return socket.leave_multicast_v4_n(&group, &at);
                }
                socket.join_multicast_v4_n(&group, &at)?;
                match interface {
                    Interface::Any => Ok(()),
                    Interface::Address(address) => socket.set_multicast_if_v4(&address),
                    Interface::Index(index) => {
                        let any = Ipv4Addr::UNSPECIFIED;
                        Ok(sockopt::set_ip_multicast_if_with_ifindex(socket, &any, &any, index)?)
                    }
                }
            }
            (IpAddr::V6(group), interface) => {
                let index = if let Interface::Index(index) = interface { index } else { 0 };
                if !on {
                    return socket.leave_multicast_v6(&group, index);
                }
                socket.join_multicast_v6(&group, index)?;
                if index > 0 { socket.set_multicast_if_v6(index) } else { Ok(()) }
            }
        }
    }

    pub(crate) fn dropped(&self) -> u64 {
        // Asked for when somebody wants to know, it counts those after the last one received too,
        // and nothing is added to what is received, as by SO_RXQ_OVFL.
        const FIELDS: usize = 9;
        const DROPS: usize = 8;
        let fields = option::<FIELDS>(self.socket(), libc::SOL_SOCKET, libc::SO_MEMINFO);
        fields.map_or(0, |fields| u64::from(fields[DROPS]))
    }

    pub(crate) fn local_address(&self) -> Option<SocketAddr> {
        self.socket().local_addr().ok()?.as_socket()
    }

    pub(crate) fn peer_address(&self) -> Option<SocketAddr> {
        let peer = self.socket().peer_addr().ok()?.as_socket()?;
        Some(SocketAddr::new(peer.ip().to_canonical(), peer.port()))
    }
}

fn other_family() -> io::Error {
    io::Error::from_raw_os_error(libc::EAFNOSUPPORT)
}
