//! TLS: configurations as scripts hold them, and connections that begin it.

use std::ffi::{CStr, c_int};
use std::sync::Arc;

use super::buffer::values;
use super::confine::Deny;
use super::sockets::advance_tls;
use crate::buf::Piece;
use crate::error::Code;
use crate::lua::host::{self, Host};
use crate::tls::{
    Certificate, Client, Config, Details, Failure, Identity, Options, Server, ServerName, Source,
};
use crate::vm::blame::{self, Wrong};
use crate::vm::stack::{Nil, Results, Stack, function};

/// The registry field of the metatable of configurations, which hold a key.
const CONFIGS: [&CStr; 1] = [c"node-lua.tls"];

pub(super) const FUNCTIONS: super::native::Functions = &[
    (c"tls_client", function(client)),
    (c"tls_server", function(server)),
    (c"tls_is_server", function(is_server)),
    (c"tls_is_name", function(is_name)),
    (c"tls_start", function(start)),
    (c"tls_cancel", function(cancel)),
    (c"tls_has", function(has)),
    (c"tls_failure", function(failure)),
    (c"tls_details", function(details)),
];

/// In a context with a memory limit, the most servers whose sessions a client remembers, and bytes
/// of the limit for each of them.
const REMEMBERED_MAX: usize = 32;
const REMEMBERED_PART: usize = 32 << 20;

/// Lets configurations be sent in messages and described in errors.
pub(super) fn init() {
    blame::describe_with(describe);
    values::travel(values::Other { take: parcel_at, push: push_parcel });
}

/// Pushes a configuration, counted against the context's memory limit; false if there is no room
/// for it. May raise if memory runs out.
fn push(lua: Stack<'_>, config: Arc<Config>) -> bool {
    if !lua.charge(config.bytes()) {
        return false;
    }
    lua.make_metatable(CONFIGS[0], function(collect), || {
        lua.push_function(function(to_text));
        lua.set_field(-2, c"__tostring");
        lua.push_table(0, 1);
        lua.push_function(function(reload));
        lua.set_field(-2, c"reload");
        lua.set_field(-2, c"__index");
    });
    let key = host::with(|host| host.sockets.tls.get_or_insert_default().insert(|_| config));
    lua.push_key(key, CONFIGS[0]);
    true
}

pub(super) fn config_at(lua: Stack<'_>, index: c_int) -> Option<Arc<Config>> {
    let (_, key) = lua.key_of(index, &CONFIGS).filter(|_| host::is_entered())?;
    host::with(|host| host.sockets.tls.as_ref()?.get(key).map(Arc::clone))
}

/// The piece that represents the configuration at `index` in a message, if it is one.
#[cold]
fn parcel_at(lua: Stack<'_>, index: c_int) -> Option<Piece> {
    config_at(lua, index).map(|config| config.parcel())
}

/// Pushes the configuration that a piece of a message represents; false if it represents none.
fn push_parcel(lua: Stack<'_>, piece: &Piece) -> bool {
    let Some(config) = Config::from_parcel(piece) else { return false };
    if !push(lua, config) {
        lua.push_nil();
    }
    true
}

/// The finaliser of configurations.
fn collect(lua: Stack<'_>) {
    if let Some((_, key)) = lua.key_of(1, &CONFIGS).filter(|_| host::is_entered()) {
        let gone = host::with(|host| host.sockets.tls.as_mut()?.remove(key));
        lua.discharge(gone.map_or(0, |config| config.bytes()));
    }
}

/// What errors call a configuration.
fn describe(lua: Stack<'_>, index: c_int) -> Option<&'static str> {
    lua.key_of(index, &CONFIGS)?;
    let is_server = config_at(lua, index).is_some_and(|config| config.is_server());
    Some(if is_server { "a TLS configuration for servers" } else { "a TLS configuration" })
}

fn to_text(lua: Stack<'_>) -> String {
    let what = match config_at(lua, 1).map(|config| config.is_server()) {
        Some(true) => "tls server configuration",
        Some(false) => "tls client configuration",
        None => "tls configuration",
    };
    format!("{what}: {:p}", lua.userdata(1))
}

/// config:reload(): `true`, or `false, code, text`.
fn reload(lua: Stack<'_>) -> Result<bool, (bool, Failure)> {
    let Some(config) = config_at(lua, 1) else {
        let expected = "TLS configuration (tls.client, tls.server)";
        lua.bad(Wrong::Argument(1), "reload", expected, Some(1))
    };
    let result = may_read().and_then(|()| config.reload(&|| tick(lua)));
    result.map(|()| true).map_err(|failure| (false, failure))
}

/// The code and the text of a failure.
impl Results for Failure {
    fn give(self, lua: Stack<'_>) -> c_int {
        (self.code.0, self.text).give(lua)
    }
}

/// The failure of reading a file, if files are withheld from the context.
fn may_read() -> Result<(), Failure> {
    let code = Code::NOT_PERMITTED;
    let text = "files are withheld from this context (deny \"io\"): give the text".to_owned();
    match host::with(|host| host.deny.withholds(Deny::IO)) {
        true => Err(Failure { code, text }),
        false => Ok(()),
    }
}

fn source(lua: Stack<'_>, index: c_int) -> Option<Source> {
    lua.text(index).map(Source::new)
}

fn identity(lua: Stack<'_>, cert: c_int, key: c_int) -> Option<Identity> {
    Some(Identity { cert: source(lua, cert)?, key: source(lua, key)? })
}

/// Reads the options of both sides: protocols, each after a byte with its length, and whether only
/// TLS 1.3 is allowed.
fn options(lua: Stack<'_>, alpn: c_int, only_tls13: c_int) -> Options {
    let (mut rest, mut protocols) = (lua.text(alpn).unwrap_or_default(), Vec::new());
    while let [length, more @ ..] = rest {
        let (protocol, others) = more.split_at(usize::from(*length).min(more.len()));
        protocols.push(protocol.to_vec());
        rest = others;
    }
    let max = |limit: usize| (limit / REMEMBERED_PART).clamp(1, REMEMBERED_MAX);
    let servers_remembered = lua.account().limit().map(max);
    Options { alpn: protocols, only_tls13: lua.boolean(only_tls13), servers_remembered }
}

/// Raises if the context is to end.
fn tick(lua: Stack<'_>) {
    lua.tick(&mut 0);
}

/// The results of making a configuration: it, or nil, a code and a text.
type Made = Result<c_int, (Nil, Failure)>;

fn push_made(lua: Stack<'_>, made: Result<Arc<Config>, Failure>) -> Made {
    let made = made.and_then(|config| match push(lua, config) {
        true => Ok(1),
        false => Err(Failure {
            code: Code::NO_MEMORY,
            text: "the memory limit leaves no room for it".to_owned(),
        }),
    });
    made.map_err(|failure| (Nil, failure))
}

/// The failure of reading these, if files are withheld from the context and one is a file.
fn check_sources<'a>(mut sources: impl Iterator<Item = &'a Source>) -> Result<(), Failure> {
    if sources.any(|source| matches!(source, Source::File(_))) { may_read() } else { Ok(()) }
}

fn files(identity: &Identity) -> [&Source; 2] {
    [&identity.cert, &identity.key]
}

/// native.tls_client(ca, cert, key, alpn, only_tls13, verify): a configuration; or nil, a code and
/// a text.
fn client(lua: Stack<'_>) -> Made {
    let client =
        Client { ca: source(lua, 1), identity: identity(lua, 2, 3), verify: lua.boolean(6) };
    let options = options(lua, 4, 5);
    let sources = client.identity.iter().flat_map(files).chain(&client.ca);
    let made = check_sources(sources).and_then(|()| Config::client(client, options, &|| tick(lua)));
    push_made(lua, made)
}

/// native.tls_server(client_ca, cert, key, alpn, only_tls13, client_optional, …): three more for
/// each name, which comes first, then its certificate and key. Returns as native.tls_client.
fn server(lua: Stack<'_>) -> Made {
    let mut sni = Vec::new();
    for index in (7..lua.top()).step_by(3) {
        let name = String::from_utf8_lossy(lua.text(index).unwrap_or_default()).into_owned();
        sni.extend(identity(lua, index + 1, index + 2).map(|identity| (name, identity)));
    }
    let server = Server {
        identity: identity(lua, 2, 3),
        sni,
        client_ca: source(lua, 1),
        client_optional: lua.boolean(6),
    };
    let options = options(lua, 4, 5);
    let identities = server.identity.iter().chain(server.sni.iter().map(|(_, one)| one));
    let sources = identities.flat_map(files).chain(&server.client_ca);
    let made = check_sources(sources).and_then(|()| Config::server(server, options, &|| tick(lua)));
    push_made(lua, made)
}

/// native.tls_is_server(config): whether a configuration is for servers; nothing for other values.
fn is_server(lua: Stack<'_>) -> Option<bool> {
    config_at(lua, 1).map(|config| config.is_server())
}

fn name_at(lua: Stack<'_>, index: c_int) -> Option<ServerName<'static>> {
    let text = std::str::from_utf8(lua.text(index)?).ok()?;
    ServerName::try_from(text.to_owned()).ok()
}

/// native.tls_is_name(text): whether a text is a host name or an IP address.
fn is_name(lua: Stack<'_>) -> bool {
    name_at(lua, 1).is_some()
}

/// native.tls_start(key, token, config, name): begins a handshake, whose outcome completes the
/// token; a code and a text if it cannot begin.
fn start(lua: Stack<'_>) -> Option<Failure> {
    let (key, token) = (lua.key(1), lua.key(2));
    let config = config_at(lua, 3)?;
    let name = name_at(lua, 4);
    let begin = |host: &mut Host| {
        let context = Arc::clone(&host.context);
        let Host { sockets, turn, .. } = host;
        let connection = sockets.stream(key).ok_or_else(|| Failure {
            code: Code::SOCKET_CLOSED,
            text: Code::SOCKET_CLOSED.text().to_owned(),
        })?;
        connection.flush(&context, |token, result| turn.notices.done(token, result));
        let session = config.session(name)?;
        connection
            .start_tls(session, token)
            .map_err(|text| Failure { code: Code::TLS_FAILED, text: text.to_owned() })?;
        advance_tls(connection, &mut turn.notices);
        Ok(())
    };
    host::with(begin).err()
}

/// native.tls_cancel(key): abandons a handshake.
fn cancel(lua: Stack<'_>) {
    let key = lua.key(1);
    host::with(|host| host.sockets.stream(key).map(|stream| stream.cancel_tls()));
}

/// native.tls_has(key): whether a connection has TLS.
fn has(lua: Stack<'_>) -> bool {
    let key = lua.key(1);
    host::with(|host| host.sockets.stream(key).is_some_and(|one| one.tls().is_some()))
}

/// native.tls_failure(key): why TLS has failed; nothing if it has not.
fn failure(lua: Stack<'_>) -> Option<String> {
    let key = lua.key(1);
    host::with(|host| host.sockets.stream(key)?.tls()?.1)
}

/// native.tls_details(key): a table about the handshake; nothing without TLS.
fn details(lua: Stack<'_>) -> Option<c_int> {
    let key = lua.key(1);
    host::with(|host| host.sockets.stream(key)?.tls()).map(|state| push_state(lua, &state))
}

/// Pushes a table of the outcome of a handshake, and of why TLS has failed.
pub(super) fn push_state(lua: Stack<'_>, state: &(Option<Details>, Option<String>)) -> c_int {
    let (details, failure) = state;
    lua.push_table(0, 8);
    let set = |name: &CStr, text: Option<&[u8]>| {
        if let Some(text) = text {
            lua.push_text(text);
            lua.set_field(-2, name);
        }
    };
    set(c"failure", failure.as_deref().map(str::as_bytes));
    let Some(details) = details else { return 1 };
    set(c"version", Some(details.version.as_bytes()));
    set(c"cipher", Some(details.cipher.as_bytes()));
    set(c"alpn", details.alpn.as_deref());
    set(c"server_name", details.server_name.as_deref().map(str::as_bytes));
    lua.push_boolean(details.resumed);
    lua.set_field(-2, c"resumed");
    if let Some(peer) = &details.peer {
        push_certificate(lua, peer);
        lua.set_field(-2, c"peer");
    }
    1
}

fn push_certificate(lua: Stack<'_>, peer: &Certificate) {
    lua.push_table(0, 8);
    let texts = [
        (c"subject", &peer.subject),
        (c"issuer", &peer.issuer),
        (c"sha256", &peer.sha256),
        (c"pem", &peer.pem),
    ];
    for (name, text) in texts {
        lua.push_text(text.as_bytes());
        lua.set_field(-2, name);
    }
    for (name, time) in [(c"not_before", peer.valid.0), (c"not_after", peer.valid.1)] {
        lua.push_number(time as f64);
        lua.set_field(-2, name);
    }
    lua.push_table(peer.names.len(), 0);
    for (name, index) in peer.names.iter().zip(1..) {
        lua.push_text(name.as_bytes());
        lua.set_entry(-2, index);
    }
    lua.set_field(-2, c"names");
}
