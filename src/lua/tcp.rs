//! Sockets.

use std::ffi::{CStr, OsStr, c_int};
use std::net::{IpAddr, SocketAddr};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use mlua::ffi;

use super::quota::{ALL_LOOKUPS_MAX, LOOKUPS_MAX};
use super::sockets::Socket;
use crate::error::Code;
use crate::logging::Seldom;
use crate::lua::host::{self, Host};
use crate::message::{Event, Id};
use crate::net::SharedWriter;
use crate::os;
use crate::rt::{self, Listener};
use crate::vm::stack::{Results, Stack, function};

/// Registry fields of the metatables of sockets, by their kinds: 0 for connections, 1 for listen
/// sockets, 2 for websockets, 3 for datagrams. A socket's content is its key.
const SOCKETS: [&CStr; 4] =
    [c"node-lua.socket", c"node-lua.listener", c"node-lua.websocket", c"node-lua.udp"];

/// That of sockets that have become websockets.
#[cfg(feature = "websocket")]
pub(super) const WEBSOCKET: &CStr = SOCKETS[2];

pub(super) const FUNCTIONS: super::native::Functions = &[
    (c"socket_object", function(socket_object)),
    (c"detach_socket", function(detach)),
    (c"set_socket_methods", function(set_socket_methods)),
    (c"listen", function(listen)),
    (c"resolve", function(resolve)),
    (c"connect", function(connect)),
    (c"cancel_connect", function(cancel_connect)),
    (c"accept", function(accept)),
    (c"close", function(close)),
    (c"set_nodelay", function(set_nodelay)),
    (c"fd", function(fd)),
    (c"set_wshared", function(set_wshared)),
    (c"fd_src", function(fd_src)),
    (c"address", function(address)),
    (c"socket_stat", function(socket_stat)),
    (c"listener_stat", function(listener_stat)),
    (c"set_write_limit", function(set_write_limit)),
    (c"watch_end", function(watch_end)),
    (c"forget_end", function(forget_end)),
    (c"socket_state", function(socket_state)),
    (c"shutdown", function(shutdown)),
    (c"abort", function(abort)),
    (c"set_keepalive", function(set_keepalive)),
    (c"set_rwopt", function(super::rwopt::set_rwopt)),
    (c"get_rwopt", function(super::rwopt::get_rwopt)),
];

/// Families, as lua/tcp/connect.lua numbers them.
const UNIX: f64 = 1.0;
const IP6: f64 = 6.0;

/// What a socket counts for when the collector is paced: its userdata is small, but it holds a
/// descriptor, so that some hundred of them are worth a cycle.
const PACE_BYTES: usize = 16 * 1024;

/// native.socket_object(key, kind): the userdata that stands for a socket; when it is collected,
/// the socket is closed.
fn socket_object(lua: Stack<'_>) -> c_int {
    let (key, kind) = (lua.key(1), lua.number(2));
    lua.pace(PACE_BYTES);
    lua.push_key(key, SOCKETS[kind as usize]);
    1
}

/// native.detach_socket(socket): its finaliser closes nothing any more.
fn detach(lua: Stack<'_>) {
    lua.push_nil();
    lua.set_metatable(1);
}

/// The finaliser of sockets.
fn collect(lua: Stack<'_>) {
    if let Some((_, key)) = lua.key_of(1, &SOCKETS).filter(|_| host::is_entered()) {
        host::with(|host| host.sockets.close(key, &host.context, &mut host.turn.notices));
    }
}

/// native.set_socket_methods(kind, methods, describe): before there are sockets of a kind, the
/// table of their methods, and what makes the text of one.
fn set_socket_methods(lua: Stack<'_>) {
    let kind = SOCKETS[lua.number(1) as usize];
    lua.make_metatable(kind, function(collect), || {});
    lua.field(ffi::LUA_REGISTRYINDEX, kind);
    for (index, name) in [(2, c"__index"), (3, c"__tostring")] {
        lua.push_copy(index);
        lua.set_field(-2, name);
    }
}

fn numeric(address: &[u8]) -> Option<IpAddr> {
    std::str::from_utf8(address).ok()?.parse().ok()
}

/// native.listen(family, address, port, backlog, reuse_port): a key; `false, code`; nothing if the
/// address is not numeric.
fn listen(lua: Stack<'_>) -> Option<Result<u64, Code>> {
    let (family, address, port) = (lua.number(1), lua.text(2).unwrap_or_default(), lua.number(3));
    let (backlog, reuse_port) = ((lua.number(4) as i32).max(1), lua.boolean(5));
    let bound = if family == UNIX {
        Listener::bind_unix(Path::new(OsStr::from_bytes(address)), backlog)
    } else {
        match numeric(address)? {
            IpAddr::V4(_) if family == IP6 => return Some(Err(Code::ADDRESS_FAMILY)),
            ip => Listener::bind(SocketAddr::new(ip, port as u16), backlog, reuse_port),
        }
    };
    let listener = bound.map_err(|error| Code::from(&error));
    Some(listener.map(|one| host::with(|host| host.sockets.add_listener(one, &host.context))))
}

/// The longest name of a host, and label in it, in bytes.
const NAME_MAX: usize = 253;
const LABEL_MAX: usize = 63;

/// Limits the warnings about refused lookups.
static LOOKUPS_REFUSED: Seldom = Seldom::new();

/// Looks a name up off the workers; the outcome comes as an event under `token`.
fn look_up(host: &mut Host, token: u64, name: &[u8], port: u16, only_ip6: bool) {
    // What cannot be is not asked for: resolvers would be sent something else.
    let Some(name) = std::str::from_utf8(name).ok().filter(|name| is_possible(name)) else {
        host.sockets.cancel_connect(token);
        return host.turn.notices.fail(token, Code::NAME_NOT_RESOLVED);
    };
    let name = name.to_owned();
    // Relaxed: only the thread that runs the context writes it.
    let own = &host.context.metrics().lookups;
    let count = own.load(Ordering::Relaxed);
    let may_be_more = count < LOOKUPS_MAX;
    let begun = may_be_more.then(|| host.quota.begin_lookup(&host.context)).flatten();
    let Some(lookup) = begun else {
        host.sockets.cancel_connect(token);
        if LOOKUPS_REFUSED.is_due() {
            log::warn!(
                "{}: too many host names are being looked up (214): {LOOKUPS_MAX} for a context, \
                 {ALL_LOOKUPS_MAX} in all, at most",
                host.context.label()
            );
        }
        return host.turn.notices.fail(token, Code::LOOKUPS_FULL);
    };
    own.store(count + 1, Ordering::Relaxed);
    let context = Arc::clone(&host.context);
    rt::spawn(async move {
        let asker = Arc::clone(&context);
        let result = match rt::resolve(name, port, move || !asker.is_closed()).await {
            Ok(mut addresses) => {
                addresses.retain(|address| !only_ip6 || address.is_ipv6());
                if addresses.is_empty() { Err(Code::NAME_NOT_RESOLVED) } else { Ok(addresses) }
            }
            Err(_) => Err(look_up_failure()),
        };
        drop(lookup);
        // A context that has ended does not wait any more.
        let _ = context.deliver(Event::Resolved { token, result });
    });
}

/// Why a lookup has failed. Resolvers do not tell that they lacked descriptors.
fn look_up_failure() -> Code {
    match std::fs::File::open("/").map_err(|error| Code::from(&error)) {
        Err(code @ (Code::TOO_MANY_FILES | Code::FILE_TABLE_FULL)) => code,
        _ => Code::NAME_NOT_RESOLVED,
    }
}

/// native.resolve(token, family, name, port).
fn resolve(lua: Stack<'_>) {
    let (token, family, port) = (lua.key(1), lua.number(2), lua.number(4) as u16);
    let name = lua.text(3).unwrap_or_default();
    host::with(|host| look_up(host, token, name, port, family == IP6));
}

/// native.connect(token, family, address, port): starts; the outcome comes under the token.
fn connect(lua: Stack<'_>) -> c_int {
    let (token, family, address, port) =
        (lua.key(1), lua.number(2), lua.text(3).unwrap_or_default(), lua.number(4) as u16);
    host::with(|host| {
        if family == UNIX {
            // A path that is too long leaves no address, which fails as invalid.
            let path = os::unix_address(Path::new(OsStr::from_bytes(address)));
            return begin_connect(host, token, path.into_iter().collect());
        }
        match numeric(address) {
            Some(IpAddr::V4(_)) if family == IP6 => {
                host.turn.notices.fail(token, Code::ADDRESS_FAMILY)
            }
            Some(ip) => begin_connect(host, token, vec![SocketAddr::new(ip, port).into()]),
            None => {
                host.sockets.begin_resolving(token);
                look_up(host, token, address, port, family == IP6);
            }
        }
    });
    0
}

fn begin_connect(host: &mut Host, token: u64, addresses: Vec<os::Address>) {
    host.sockets.connect(token, addresses, &host.context, &mut host.turn.notices);
}

/// native.cancel_connect(token).
fn cancel_connect(lua: Stack<'_>) {
    let token = lua.key(1);
    host::with(|host| host.sockets.cancel_connect(token));
}

/// native.accept(key): the key of a connection; `false, code`; nothing if none waits.
fn accept(lua: Stack<'_>) -> Option<Result<u64, Code>> {
    let key = lua.key(1);
    host::with(|host| {
        let Some(Socket::Listener(listener)) = host.sockets.all.get_mut(key) else {
            return Some(Err(Code::LISTENER_CLOSED));
        };
        listener
            .accept()
            .map(|result| result.map(|stream| host.sockets.add_stream(stream, &host.context)))
    })
}

/// native.close(key).
fn close(lua: Stack<'_>) {
    let key = lua.key(1);
    host::with(|host| host.sockets.close(key, &host.context, &mut host.turn.notices));
}

/// native.set_nodelay(key, on).
fn set_nodelay(lua: Stack<'_>) {
    let (key, on) = (lua.key(1), lua.boolean(2));
    host::with(|host| host.sockets.stream(key).map(|stream| stream.set_nodelay(on)));
}

/// native.set_keepalive(key, idle, interval, count): in seconds, the last two may be nil; nothing
/// but the key for none.
fn set_keepalive(lua: Stack<'_>) {
    let key = lua.key(1);
    let given = |at| lua.is_number(at).then(|| lua.number(at));
    let keepalive = given(2).map(|idle| os::Keepalive {
        idle: Duration::from_secs_f64(idle),
        interval: given(3).map(Duration::from_secs_f64),
        count: given(4).map(|count| count as u32),
    });
    host::with(|host| host.sockets.stream(key).map(|stream| stream.set_keepalive(keepalive)));
}

/// native.shutdown(key): whether the stream had not been ended before.
fn shutdown(lua: Stack<'_>) -> bool {
    let key = lua.key(1);
    host::with(|host| host.sockets.shutdown(key, &host.context, &mut host.turn.notices))
}

/// native.abort(key).
fn abort(lua: Stack<'_>) {
    let key = lua.key(1);
    host::with(|host| host.sockets.abort(key, &mut host.turn.notices));
}

/// native.fd(key): the integer by which other contexts may write.
fn fd(lua: Stack<'_>) -> Option<u64> {
    let key = lua.key(1);
    host::with(|host| {
        let owner = host.context.id();
        match host.sockets.all.get_mut(key)? {
            Socket::Stream(stream) => Some(stream.shared(owner, key).fd()),
            Socket::Udp(socket) => Some(socket.shared(owner, key).fd()),
            _ => None,
        }
    })
}

/// native.set_wshared(key, on).
fn set_wshared(lua: Stack<'_>) {
    let (key, on) = (lua.key(1), lua.boolean(2));
    host::with(|host| {
        let owner = host.context.id();
        match host.sockets.all.get_mut(key) {
            Some(Socket::Stream(stream)) => stream.set_shared(owner, key, on),
            Some(Socket::Udp(socket)) => socket.set_shared(owner, key, on),
            _ => {}
        }
    });
}

/// native.fd_src(fd): the handle of the owner, or nothing.
fn fd_src(lua: Stack<'_>) -> Option<Id> {
    SharedWriter::get(lua.key(1)).map(|shared| shared.owner())
}

/// native.address(key, which): 1 local address, 2 local port, 3 and 4 the peer's, 5 both of them as
/// one text, 6 the peer's; nothing for unix sockets.
fn address(lua: Stack<'_>) -> Option<c_int> {
    let (key, which) = (lua.key(1), lua.number(2) as u8);
    let is_local = matches!(which, 1 | 2 | 5);
    let address = host::with(|host| match host.sockets.all.get(key)? {
        Socket::Stream(stream) => {
            let (local, peer) = stream.addresses();
            if is_local { local } else { peer }
        }
        Socket::Listener(listener) => listener.local_address(),
        Socket::Udp(socket) => {
            let (local, peer) = socket.addresses();
            if is_local { local } else { peer }
        }
        Socket::Connecting(_) => None,
        #[cfg(feature = "http")]
        Socket::Http(connection) => connection.with_net(|net| net.addresses().1),
        #[cfg(feature = "http")]
        Socket::HttpClient(client) => client.with_net(|net| net.addresses().1),
    });
    let address = address?;
    Some(match which {
        1 | 3 => address.ip().to_string().give(lua),
        2 | 4 => address.port().give(lua),
        _ => SocketAddr::new(address.ip(), address.port()).to_string().give(lua),
    })
}

/// native.socket_stat(key): bytes in the write queue, the most there ever were, the limit, bytes
/// received ahead, and those of a frame that the stream ended in.
fn socket_stat(lua: Stack<'_>) -> Option<[usize; 5]> {
    let key = lua.key(1);
    host::with(|host| {
        host.sockets.stream(key).map(|stream| {
            let (waiting, high) = stream.writer().waiting();
            let waiting = waiting + stream.staged.bytes();
            let (ahead, truncated) = (stream.read_ahead(), stream.truncated());
            [waiting, high.max(waiting), stream.writer().limit(), ahead, truncated]
        })
    })
}

/// native.listener_stat(key): connections that wait, how many may, and how many were accepted. The
/// first two are nil for unix sockets.
fn listener_stat(lua: Stack<'_>) -> [Option<u64>; 3] {
    let key = lua.key(1);
    let (backlog, accepted) = host::with(|host| match host.sockets.all.get_mut(key) {
        Some(Socket::Listener(listener)) => (listener.backlog(), listener.accepted()),
        _ => (None, 0),
    });
    let (waiting, most) = backlog.unzip();
    [waiting.map(|count| count as u64), most.map(|count| count as u64), Some(accepted)]
}

/// native.set_write_limit(key, bytes).
fn set_write_limit(lua: Stack<'_>) {
    let (key, bytes) = (lua.key(1), lua.number(2) as usize);
    host::with(|host| host.sockets.stream(key).map(|stream| stream.writer().set_limit(bytes)));
}

/// native.watch_end(key): the code of why the connection can no longer be written or its peer has
/// gone; nothing if neither is so: then an event tells once it is.
fn watch_end(lua: Stack<'_>) -> Option<u16> {
    let key = lua.key(1);
    host::with(|host| host.sockets.watch_end(key, &host.context)).map(|code| code.0)
}

/// native.forget_end(key): no event tells any more.
fn forget_end(lua: Stack<'_>) {
    let key = lua.key(1);
    host::with(|host| host.sockets.stream(key).map(|stream| stream.forget_end()));
}

/// native.socket_state(key): the codes that writes meet, and that reads have come to; nil where
/// there is none.
fn socket_state(lua: Stack<'_>) -> [Option<u16>; 2] {
    let key = lua.key(1);
    let state = host::with(|host| host.sockets.stream(key).map(|stream| stream.state()));
    let (failed, ended) = state.unwrap_or_default();
    [failed, ended].map(|code| code.map(|code| code.0))
}

/// Whether there can be a host of this name: labels of 1 to 63 bytes, 253 in all, text without
/// spaces. A point may follow the last label.
pub(super) fn is_possible(name: &str) -> bool {
    let name = name.strip_suffix('.').unwrap_or(name);
    name.len() <= NAME_MAX
        && name.split('.').all(|label| (1..=LABEL_MAX).contains(&label.len()))
        && !name.contains(|char: char| char.is_whitespace() || char.is_control())
}

/// What is said of a socket in messages.
pub(super) fn describe(lua: Stack<'_>, index: c_int) -> Option<&'static str> {
    let (which, key) = lua.key_of(index, &SOCKETS)?;
    Some(match (which, host::is_open(key)) {
        (0, true) => "a tcp socket",
        (0, false) => "a closed tcp socket",
        #[cfg(feature = "websocket")]
        (2, is_open) => super::websocket::describe(is_open),
        (3, true) => "a udp socket",
        (3, false) => "a closed udp socket",
        (_, true) => "a tcp listen socket",
        (_, false) => "a closed tcp listen socket",
    })
}
