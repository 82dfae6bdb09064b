//! Datagram sockets, of the system or of the simulation that is on.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::task::{Context, Poll};

use super::backend::delegate;
use crate::os::{self, Arrival, Departure, Interface, UdpOption};
use crate::sim::{self, is_on};

/// A datagram socket.
#[derive(Debug)]
pub struct UdpSocket(Kind);

#[derive(Debug)]
enum Kind {
    System(os::udp::UdpSocket),
    Simulated(sim::UdpSocket),
}

impl UdpSocket {
    /// Binds to an address. One of a group is shared with others who bind to it.
    ///
    /// # Errors
    /// Those of `socket(2)` and `bind(2)`.
    pub fn bind(address: SocketAddr) -> io::Result<UdpSocket> {
        Ok(UdpSocket(match is_on() {
            true => Kind::Simulated(sim::UdpSocket::bind(address)?),
            false => Kind::System(os::udp::UdpSocket::bind(address)?),
        }))
    }

    /// Nobody waits for [`UdpSocket::poll_write_ready`] any more.
    pub fn rest_writing(&self) {
        if let Kind::System(socket) = &self.0 {
            socket.rest_writing();
        }
    }
}

delegate! { UdpSocket: Kind
    /// Ready when datagrams may be there; otherwise wakes `cx` once there are some.
    fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<()>;

    /// Ready when the system may take a datagram; otherwise wakes `cx` once it does. To be called
    /// after it has taken none; then [`UdpSocket::rest_writing`].
    fn poll_write_ready(&self, cx: &mut Context<'_>) -> Poll<()>;

    /// Clears the readiness that [`UdpSocket::poll_read_ready`] has reported. Call before
    /// receiving, so that what arrives later wakes again.
    fn clear_read_ready(&self);

    /// Receives up to [`os::DATAGRAMS_MAX`] datagrams into the first of `arrivals`; returns how
    /// many.
    ///
    /// # Errors
    /// `WouldBlock` when nothing is there; otherwise the socket's error, which is then forgotten.
    fn receive(&self, arrivals: &mut [Arrival]) -> io::Result<usize>;

    /// Sends up to [`os::DATAGRAMS_MAX`] datagrams; returns how many, from the first on, the system
    /// has taken.
    ///
    /// # Errors
    /// Why the first was not taken: `WouldBlock` when there is no room.
    fn send(&self, datagrams: &[Departure<'_>]) -> io::Result<usize>;

    /// Has it send to, and receive from, one address alone.
    ///
    /// # Errors
    /// Those of `connect(2)`.
    fn connect(&self, to: SocketAddr) -> io::Result<()>;

    /// Changes an option.
    ///
    /// # Errors
    /// Those of `setsockopt(2)`.
    fn set(&self, option: UdpOption) -> io::Result<()>;

    /// Receives what is sent to a group, on an interface, by which the socket sends to groups too
    /// from now on, if one is named; or does so no more.
    ///
    /// # Errors
    /// Those of `setsockopt(2)`; that the families differ.
    fn join(&self, group: IpAddr, interface: Interface, on: bool) -> io::Result<()>;

    /// Datagrams that came and found no room, or were damaged.
    fn dropped(&self) -> u64;

    /// Our address.
    fn local_address(&self) -> Option<SocketAddr>;

    /// The address that it is connected to.
    fn peer_address(&self) -> Option<SocketAddr>;
}
