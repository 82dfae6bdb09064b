//! Datagram sockets.

use std::cell::Cell;
use std::ffi::c_int;
use std::io::{self, Write};
use std::net::{IpAddr, SocketAddr, SocketAddrV6};

use super::buffer::userdata::{charge_frames, collect, push_frames};
use super::confine::Deny;
use super::frames::body;
use super::tcp::is_possible;
use crate::buf::{FRAME_INLINE_MAX, Piece};
use crate::error::Code;
use crate::lua::host::{self, Host};
use crate::message::Id;
use crate::net::{Body, Received, SharedUdp, UdpSocket, UdpWriter};
use crate::os::{Arrival, DATAGRAMS_MAX, Interface, UdpOption};
use crate::rt;
use crate::vm::stack::{Nil, Results, Stack, function};

pub(super) const FUNCTIONS: super::native::Functions = &[
    (c"udp_open", function(bind)),
    (c"udp_read", function(read)),
    (c"udp_write", function(write)),
    (c"udp_count_failed", function(count_failed)),
    (c"udp_connect", function(connect)),
    (c"udp_fd_src", function(fd_src)),
    (c"udp_stat", function(stat)),
    (c"udp_set", function(set)),
    (c"udp_join", function(join)),
];

/// The most that a datagram holds, over each family.
const LONGEST: usize = 65_507;
const LONGEST_IP6: usize = 65_527;

/// Options, as lua/udp/options.lua numbers them; the other is `TTL`.
const BROADCAST: f64 = 1.0;

type Arrivals = [Arrival; DATAGRAMS_MAX];

thread_local! {
    /// Where this worker receives datagrams.
    static ARRIVALS: Cell<Option<Box<Arrivals>>> = const { Cell::new(None) };
}

/// A numeric address; of a link, with the interface behind a percent sign.
fn numeric(text: &[u8], port: u16) -> Option<SocketAddr> {
    let text = std::str::from_utf8(text).ok()?;
    let Some((address, zone)) = text.split_once('%') else {
        return Some(SocketAddr::new(text.parse().ok()?, port));
    };
    let scope = match (zone.parse(), Interface::named(zone)) {
        (Ok(index), _) | (_, Some(Interface::Index(index))) => index,
        _ => return None,
    };
    Some(SocketAddrV6::new(address.parse().ok()?, port, 0, scope).into())
}

/// native.udp_open(address, port, is_ip6): a key; `false, code`; nothing if the address is a name.
fn bind(lua: Stack<'_>) -> Option<Result<u64, Code>> {
    let (port, is_ip6) = (lua.number(2) as u16, lua.boolean(3));
    let address = numeric(lua.text(1).unwrap_or_default(), port)?;
    if is_ip6 && address.is_ipv4() {
        return Some(Err(Code::ADDRESS_FAMILY));
    }
    let socket = rt::UdpSocket::bind(address).map_err(|error| Code::from(&error));
    Some(socket.map(|socket| host::with(|host| host.sockets.add_udp(socket, &host.context))))
}

/// Receives what there is, if the turn has time for it.
fn receive(key: u64, arrivals: &mut Arrivals) -> Received {
    host::with(|host| {
        let has_time = host.turn.charge(1);
        let Some(socket) = host.sockets.udp(key) else {
            return Received::Failed(Code::SOCKET_CLOSED);
        };
        if !has_time {
            socket.read_later();
            return Received::Nothing;
        }
        let received = socket.receive(arrivals);
        if let Received::Some(count, _) = received {
            host.turn.charge(count - 1);
        }
        received
    })
}

/// native.udp_read(key, stock): how many datagrams are now in the table `stock`, each as a buffer,
/// an address and a port, and whether there are no more until the next event; `nil, code`; nothing
/// if there is nothing yet.
fn read(lua: Stack<'_>) -> c_int {
    let key = lua.key(1);
    let mut arrivals = ARRIVALS.take().unwrap_or_default();
    let results = match receive(key, &mut arrivals) {
        Received::Nothing => 0,
        Received::Failed(code) => (Nil, code.0).give(lua),
        Received::Some(count, is_all) => {
            // Finalisers that run meanwhile find other room to receive into.
            collect(lua, |work| work());
            let mut last = None;
            for (arrival, at) in arrivals[..count].iter_mut().zip((1..).step_by(3)) {
                push_datagram(lua, arrival);
                lua.set_entry(2, at);
                // Often they are of one peer.
                if last == Some(arrival.from.ip()) {
                    lua.entry(2, at - 2);
                } else {
                    push_ip(lua, arrival.from);
                }
                lua.set_entry(2, at + 1);
                lua.push_number(f64::from(arrival.from.port()));
                lua.set_entry(2, at + 2);
                last = Some(arrival.from.ip());
            }
            (count, is_all).give(lua)
        }
    };
    ARRIVALS.set(Some(arrivals));
    results
}

/// Pushes a buffer with a datagram: small ones by copy, large ones in the block that they were
/// received into.
fn push_datagram(lua: Stack<'_>, arrival: &mut Arrival) {
    let all = 0..arrival.bytes.len();
    let place = std::slice::from_ref(&all);
    if all.len() <= FRAME_INLINE_MAX {
        return push_frames(lua, 2, place, &arrival.bytes, None);
    }
    let block_bytes = arrival.bytes.capacity();
    let piece = Piece::new(arrival.bytes.split().freeze(), block_bytes);
    charge_frames(lua, place, Some(&piece), |work| work());
    push_frames(lua, 2, place, &piece, Some(&piece));
}

fn push_ip(lua: Stack<'_>, address: SocketAddr) {
    let mut text = io::Cursor::new([0; 64]);
    // There is room for the longest.
    let _ = match address {
        SocketAddr::V6(address) if address.scope_id() > 0 => {
            write!(text, "{}%{}", address.ip(), address.scope_id())
        }
        address => write!(text, "{}", address.ip()),
    };
    let length = text.position() as usize;
    lua.push_text(&text.get_ref()[..length]);
}

/// Where a datagram goes.
enum To<'a> {
    /// To the one that the socket is connected to.
    Peer,
    /// To this address and port, of IPv6 alone if that is said.
    Address(&'a [u8], u16, bool),
}

/// Why a datagram is not sent.
enum Unsent {
    Code(Code),
    /// The address is a name.
    Name,
}

/// For native.udp_write.
impl Results for Unsent {
    fn give(self, lua: Stack<'_>) -> c_int {
        match self {
            Unsent::Code(code) => code.0.give(lua),
            Unsent::Name => false.give(lua),
        }
    }
}

/// Where that is, for a socket of one family or of both, and whether this many bytes may go there.
fn address_of(to: To<'_>, is_ip6: bool, length: usize) -> Result<Option<SocketAddr>, Unsent> {
    let to = match to {
        To::Peer => None,
        To::Address(text, port, wants_ip6) => {
            let address = numeric(text, port).ok_or_else(|| {
                match std::str::from_utf8(text).is_ok_and(is_possible) {
                    true => Unsent::Name,
                    false => Unsent::Code(Code::NAME_NOT_RESOLVED),
                }
            })?;
            let address = match address.ip().to_canonical() {
                ip @ IpAddr::V4(_) if !wants_ip6 => SocketAddr::new(ip, port),
                _ => address,
            };
            if address.is_ipv4() && wants_ip6 || address.is_ipv6() && !is_ip6 {
                return Err(Unsent::Code(Code::ADDRESS_FAMILY));
            }
            Some(address)
        }
    };
    let longest = if to.map_or(is_ip6, |to| to.is_ipv6()) { LONGEST_IP6 } else { LONGEST };
    if length > longest {
        return Err(Unsent::Code(Code::MESSAGE_TOO_LONG));
    }
    Ok(to)
}

/// native.udp_write(target, is_fd, data, token, address, port, is_ip6): stages a datagram; with a
/// token that is not 0, tells when it is out. Returns nothing; or a code; `false` if the address is
/// a name; `nil, true` if the data is nothing that can be sent.
fn write(lua: Stack<'_>) -> Result<Result<(), Unsent>, (Nil, bool)> {
    let (target, is_fd, data, token) = (lua.key(1), lua.boolean(2), body(lua, 3), lua.key(4));
    let to = match lua.text(5) {
        Some(address) => To::Address(address, lua.number(6) as u16, lua.boolean(7)),
        None => To::Peer,
    };
    let data = data.ok_or((Nil, true))?;
    Ok(host::with(|host| match is_fd {
        true => stage_shared(host, target, to, data, token),
        false => stage(host, target, to, data, token),
    }))
}

/// Stages a datagram on a socket of the context's own.
fn stage(host: &mut Host, key: u64, to: To<'_>, data: Body<'_>, token: u64) -> Result<(), Unsent> {
    let bytes = data.held_bytes();
    let is_too_much = host.is_too_much(bytes);
    let socket = host.sockets.udp(key).ok_or(Unsent::Code(Code::SOCKET_CLOSED))?;
    let to = check(socket.writer(), is_too_much, to, data.len())?;
    if host.sockets.write_udp(key, to, data, token) == Some(true) {
        host.flush();
    }
    host.note_staged(bytes);
    Ok(())
}

/// Stages a datagram on a socket of any context.
fn stage_shared(
    host: &mut Host,
    fd: u64,
    to: To<'_>,
    data: Body<'_>,
    token: u64,
) -> Result<(), Unsent> {
    if host.deny.withholds(Deny::NETWORK) {
        return Err(Unsent::Code(Code::NOT_PERMITTED));
    }
    let shared = SharedUdp::get(fd).ok_or(Unsent::Code(Code::SOCKET_CLOSED))?;
    if !shared.is_shared() {
        return Err(Unsent::Code(Code::NOT_PERMITTED));
    }
    if shared.owner() == host.context.id() {
        // Behind what this context has written to it otherwise.
        return stage(host, shared.key(), to, data, token);
    }
    let bytes = data.held_bytes();
    let to = check(shared.writer(), host.is_too_much(bytes), to, data.len())?;
    if host.sockets.shared_udp.push(shared, to, data, token) {
        host.flush_shared();
    }
    host.note_staged(bytes);
    Ok(())
}

/// native.udp_count_failed(target, is_fd): the address of a datagram was not found.
fn count_failed(lua: Stack<'_>) {
    let (target, is_fd) = (lua.key(1), lua.boolean(2));
    host::with(|host| match is_fd {
        true => SharedUdp::get(target).iter().for_each(|shared| shared.writer().count_failed()),
        false => {
            host.sockets.udp(target).iter().for_each(|socket| socket.writer().count_failed());
        }
    });
}

/// Where a datagram is to go, if it may; counts one that may not.
fn check(
    writer: &UdpWriter,
    is_too_much: bool,
    to: To<'_>,
    length: usize,
) -> Result<Option<SocketAddr>, Unsent> {
    let found = match to {
        To::Peer if !writer.is_connected() => Err(Unsent::Code(Code::NOT_CONNECTED)),
        to => address_of(to, writer.is_ip6(), length),
    };
    let checked = match found {
        Ok(_) if is_too_much => Err(Unsent::Code(Code::WRITE_QUEUE_FULL)),
        found => found,
    };
    if let Err(Unsent::Code(_)) = checked {
        writer.count_failed();
    }
    checked
}

/// native.udp_connect(key, address, port): true; `false, code`; nothing if the address is a name.
fn connect(lua: Stack<'_>) -> Option<Result<bool, Code>> {
    let (text, port) = (lua.text(2).unwrap_or_default(), lua.number(3) as u16);
    let result = with_socket(lua, |socket| {
        let to = address_of(To::Address(text, port, false), socket.writer().is_ip6(), 0);
        to.and_then(|to| {
            let done = to.map_or(Ok(()), |to| socket.connect(to));
            done.map_err(|error| Unsent::Code(Code::from(&error)))
        })
    });
    match result.unwrap_or(Err(Unsent::Code(Code::SOCKET_CLOSED))) {
        Ok(()) => Some(Ok(true)),
        Err(Unsent::Name) => None,
        Err(Unsent::Code(code)) => Some(Err(code)),
    }
}

/// Calls `body` with the socket whose key is the first argument, if it is open.
fn with_socket<R>(lua: Stack<'_>, body: impl FnOnce(&mut UdpSocket) -> R) -> Option<R> {
    let key = lua.key(1);
    host::with(|host| host.sockets.udp(key).map(body))
}

/// native.udp_fd_src(fd): the handle of the owner, or nothing.
fn fd_src(lua: Stack<'_>) -> Option<Id> {
    SharedUdp::get(lua.key(1)).map(|shared| shared.owner())
}

/// native.udp_stat(key): datagrams received, dropped, sent and failed.
fn stat(lua: Stack<'_>) -> Option<[u64; 4]> {
    with_socket(lua, |socket| socket.counts())
}

/// The code if something has failed.
fn failure_of(result: Option<io::Result<()>>) -> Option<u16> {
    Some(Code::from(&result?.err()?).0)
}

/// native.udp_set(key, option, value): nothing, or a code.
fn set(lua: Stack<'_>) -> Option<u16> {
    let option = match lua.number(2) {
        BROADCAST => UdpOption::Broadcast(lua.boolean(3)),
        _ => UdpOption::Ttl(lua.number(3) as u32),
    };
    failure_of(with_socket(lua, |socket| socket.set(option)))
}

/// native.udp_join(key, group, interface, on): nothing, or a code; `nil, true` if that is no group.
fn join(lua: Stack<'_>) -> Result<Option<u16>, (Nil, bool)> {
    let text = |index| lua.text(index).and_then(|text| std::str::from_utf8(text).ok());
    let group = text(2).and_then(|text| text.parse::<IpAddr>().ok());
    let group = group.filter(IpAddr::is_multicast).ok_or((Nil, true))?;
    let interface = match text(3) {
        None => Some(Interface::Any),
        Some(text) => match (text.parse(), text.parse()) {
            (Ok(index), _) => Some(Interface::Index(index)),
            (_, Ok(address)) => Some(Interface::Address(address)),
            _ => Interface::named(text),
        },
    };
    let Some(interface) = interface else { return Ok(Some(Code::ADDRESS_NOT_AVAILABLE.0)) };
    let on = lua.boolean(4);
    Ok(failure_of(with_socket(lua, |socket| socket.join(group, interface, on))))
}
