//! Configurations: certificates, keys and options, parsed once and shared by all contexts.

use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasherDefault, DefaultHasher};
use std::sync::{Arc, LazyLock, Mutex, Once, OnceLock, RwLock, Weak};

use bytes::Bytes;
use rustls::client::Resumption;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::ServerName;
use rustls::server::NoServerSessionStorage;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ClientConfig, Error, ServerConfig, SupportedProtocolVersion, version};

use super::certificate::digest;
use super::failure::Failure;
use super::names::CertificatesByName;
use super::options::{Client, Identity, Options, Server};
use super::pem::{Pem, Source};
use super::remembered::{BoundedSessions, SESSION_BYTES};
use super::session::Session;
use super::simulated::{self, Clock};
use super::trust;
use crate::buf::Piece;
use crate::rt;
use crate::sync::{lock, read, write};

/// Servers whose sessions a client remembers in a context without a memory limit.
const SESSIONS_USUAL: usize = 256;

/// The cryptography of this process.
static PROVIDER: LazyLock<Arc<CryptoProvider>> = LazyLock::new(|| {
    Arc::new(if rt::is_simulated() { simulated::provider() } else { aws_lc_rs::default_provider() })
});

/// A map whose order does not vary from run to run.
type Map<K, V> = HashMap<K, V, BuildHasherDefault<DefaultHasher>>;

/// The configurations in use, by a digest of everything they are made of: contexts that make equal
/// ones share one, and so resume each other's sessions.
struct Shared<T>(LazyLock<Mutex<Map<Vec<u8>, Weak<T>>>>);

static CLIENTS: Shared<ClientConfig> = Shared(LazyLock::new(Mutex::default));
static SERVERS: Shared<ServerConfig> = Shared(LazyLock::new(Mutex::default));

impl<T> Shared<T> {
    /// The configuration made of these parts, which `make` makes if nobody uses it.
    fn get(
        &self,
        parts: &Parts<'_>,
        make: impl FnOnce() -> Result<T, Failure>,
    ) -> Result<Arc<T>, Failure> {
        let digest = digest(&parts.bytes);
        let mut in_use = lock(&self.0);
        if let Some(known) = in_use.get(&digest).and_then(Weak::upgrade) {
            return Ok(known);
        }
        let config = Arc::new(make()?);
        in_use.retain(|_, known| known.strong_count() > 0);
        in_use.insert(digest, Arc::downgrade(&config));
        Ok(config)
    }
}

/// Configurations that were sent to other contexts, by the address of their mark.
static SENT: Mutex<BTreeMap<usize, Weak<Config>>> = Mutex::new(BTreeMap::new());

/// Bytes of the mark that represents a configuration in a message.
const MARK_BYTES: usize = 24;

/// About how many bytes a configuration takes beside its certificates and keys. Also tells pieces
/// that represent configurations from others: no block has this size.
const PARCEL_BYTES: usize = 8209;

/// Bytes of memory for each byte of the texts of certificates and keys, which are kept both as text
/// and parsed.
const READ_PART: usize = 4;

/// What a script has made with `tls.client` or `tls.server`.
#[derive(Debug)]
pub struct Config {
    side: Side,
    options: Options,
    current: RwLock<Current>,
    /// About how many bytes of memory it takes.
    bytes: usize,
    mark: [u8; MARK_BYTES],
}

#[derive(Debug)]
enum Side {
    Client(Client),
    Server(Server),
}

/// What new connections use, until the next reload.
#[derive(Clone, Debug)]
enum Current {
    Client(Arc<ClientConfig>),
    /// And the same with the protocols that its user speaks, if it has none itself; made on demand.
    Server(Arc<ServerConfig>, Arc<OnceLock<Arc<ServerConfig>>>),
}

/// A configuration in a message, which keeps it alive.
#[derive(Debug)]
pub struct Parcel(Arc<Config>);

impl AsRef<[u8]> for Parcel {
    fn as_ref(&self) -> &[u8] {
        &self.0.mark
    }
}

impl Config {
    /// For connections that this side opens. `tick` is called between certificates, and may unwind.
    ///
    /// # Errors
    /// Which file, certificate or key is of no use, and why.
    pub fn client(
        client: Client,
        options: Options,
        tick: &dyn Fn(),
    ) -> Result<Arc<Config>, Failure> {
        Config::new(Side::Client(client), options, tick)
    }

    /// For connections that others open; see [`Config::client`].
    ///
    /// # Errors
    /// Which file, certificate or key is of no use, and why.
    pub fn server(
        server: Server,
        options: Options,
        tick: &dyn Fn(),
    ) -> Result<Arc<Config>, Failure> {
        Config::new(Side::Server(server), options, tick)
    }

    fn new(side: Side, options: Options, tick: &dyn Fn()) -> Result<Arc<Config>, Failure> {
        let (current, read) = load(&side, &options, tick)?;
        let remembered = match side {
            Side::Client(_) => options.servers_remembered.unwrap_or(0),
            Side::Server(_) => 0,
        };
        let bytes = PARCEL_BYTES + READ_PART * read + SESSION_BYTES * remembered;
        let current = RwLock::new(current);
        Ok(Arc::new(Config { side, options, current, bytes, mark: *b"a configuration of TLS.\n" }))
    }

    /// About how many bytes of memory it takes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether it offers this application protocol.
    pub fn offers(&self, protocol: &[u8]) -> bool {
        self.options.alpn.iter().any(|known| known == protocol)
    }

    /// Whether it has a list of application protocols.
    pub fn has_protocols(&self) -> bool {
        !self.options.alpn.is_empty()
    }

    /// Reads all files again, for connections that begin from now on.
    ///
    /// # Errors
    /// As when it was made; nothing has changed then.
    pub fn reload(&self, tick: &dyn Fn()) -> Result<(), Failure> {
        let (fresh, _) = load(&self.side, &self.options, tick)?;
        *write(&self.current) = fresh;
        Ok(())
    }

    /// Whether it is for connections that others open.
    pub fn is_server(&self) -> bool {
        matches!(self.side, Side::Server(_))
    }

    /// Begins a session; `name` is the server that a client wants to reach.
    ///
    /// # Errors
    /// A client has no name, or rustls refuses the configuration.
    pub fn session(&self, name: Option<ServerName<'static>>) -> Result<Session, Failure> {
        let current = read(&self.current).clone();
        match (current, name) {
            (Current::Server(config, _), _) => Session::server(config),
            (Current::Client(config), Some(name)) => Session::client(config, name),
            (Current::Client(_), None) => Err(Failure::handshake("there is no name to verify")),
        }
    }

    /// Begins a server's session, which offers `protocols`, the same ones in every call, unless the
    /// configuration has its own.
    ///
    /// # Errors
    /// Rustls refuses the configuration.
    pub fn session_offering(&self, protocols: &[&[u8]]) -> Result<Session, Failure> {
        let current = read(&self.current).clone();
        let Current::Server(config, offering) = current else { return self.session(None) };
        if !config.alpn_protocols.is_empty() {
            return Session::server(config);
        }
        let offering = offering.get_or_init(|| {
            let mut offering = ServerConfig::clone(&config);
            offering.alpn_protocols = protocols.iter().map(|one| one.to_vec()).collect();
            Arc::new(offering)
        });
        Session::server(Arc::clone(offering))
    }

    /// A piece that represents it in a message.
    pub fn parcel(self: &Arc<Config>) -> Piece {
        let place = self.mark.as_ptr().addr();
        let mut sent = lock(&SENT);
        sent.entry(place).or_insert_with(|| Arc::downgrade(self));
        Piece::new(Bytes::from_owner(Parcel(Arc::clone(self))), PARCEL_BYTES)
    }

    /// The configuration that a piece represents, if it does.
    pub fn from_parcel(piece: &Piece) -> Option<Arc<Config>> {
        if piece.len() != MARK_BYTES || piece.block_bytes() != PARCEL_BYTES {
            return None;
        }
        let sent = lock(&SENT);
        sent.get(&piece.as_ptr().addr())?.upgrade()
    }
}

impl Drop for Config {
    fn drop(&mut self) {
        let mut sent = lock(&SENT);
        sent.remove(&self.mark.as_ptr().addr());
    }
}

/// Everything that a configuration is made of, for its digest.
struct Parts<'a> {
    bytes: Vec<u8>,
    tick: &'a dyn Fn(),
}

impl Parts<'_> {
    fn add(&mut self, part: &[u8]) {
        self.bytes.extend_from_slice(&part.len().to_le_bytes());
        self.bytes.extend_from_slice(part);
    }

    fn read(&mut self, source: &Source, option: &str) -> Result<Pem, Failure> {
        (self.tick)();
        let pem = source.read(option)?;
        self.add(option.as_bytes());
        self.add(&pem.text);
        Ok(pem)
    }
}

/// Reads a configuration; returns it, and how many bytes it is made of.
fn load(side: &Side, options: &Options, tick: &dyn Fn()) -> Result<(Current, usize), Failure> {
    let mut parts = Parts { bytes: Vec::new(), tick };
    parts.add(&[u8::from(options.only_tls13)]);
    for protocol in &options.alpn {
        parts.add(protocol);
    }
    let current = match side {
        Side::Client(client) => load_client(client, options, &mut parts).map(Current::Client),
        Side::Server(server) => load_server(server, options, &mut parts)
            .map(|config| Current::Server(config, Arc::default())),
    };
    Ok((current?, parts.bytes.len()))
}

fn load_client(
    client: &Client,
    options: &Options,
    parts: &mut Parts<'_>,
) -> Result<Arc<ClientConfig>, Failure> {
    let provider = &*PROVIDER;
    parts.add(&[u8::from(client.verify)]);
    parts.add(&options.servers_remembered.unwrap_or(usize::MAX).to_le_bytes());
    let verifier = match &client.ca {
        _ if !client.verify => {
            warn_unverified();
            trust::accept_any(provider)
        }
        None => trust::system(provider)?,
        Some(source) => trust::servers_of(&parts.read(source, "ca")?, provider, parts.tick)?,
    };
    let key = match &client.identity {
        Some(identity) => Some(certified(identity, "", parts)?),
        None => None,
    };
    CLIENTS.get(parts, || {
        let builder = ClientConfig::builder_with_details(Arc::clone(provider), Arc::new(Clock));
        let builder = builder.with_protocol_versions(versions(options)).map_err(unusable)?;
        let builder = builder.dangerous().with_custom_certificate_verifier(verifier);
        let mut config = match key {
            Some(key) => builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(key))),
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols.clone_from(&options.alpn);
        config.resumption = match options.servers_remembered {
            _ if rt::is_simulated() => Resumption::disabled(),
            Some(max) => Resumption::store(Arc::new(BoundedSessions::new(max))),
            None => Resumption::in_memory_sessions(SESSIONS_USUAL),
        };
        Ok(config)
    })
}

fn load_server(
    server: &Server,
    options: &Options,
    parts: &mut Parts<'_>,
) -> Result<Arc<ServerConfig>, Failure> {
    let provider = &*PROVIDER;
    let default = match &server.identity {
        Some(identity) => Some(Arc::new(certified(identity, "", parts)?)),
        None => None,
    };
    let mut names = HashMap::new();
    for (name, identity) in &server.sni {
        let key = certified(identity, &format!("sni['{name}'] "), parts)?;
        names.insert(name.trim_end_matches('.').to_ascii_lowercase(), Arc::new(key));
    }
    parts.add(&[u8::from(server.client_optional)]);
    let verifier = match &server.client_ca {
        Some(source) => {
            let pem = parts.read(source, "client_ca")?;
            Some(trust::clients_of(&pem, server.client_optional, provider, parts.tick)?)
        }
        None => None,
    };
    SERVERS.get(parts, || {
        let builder = ServerConfig::builder_with_details(Arc::clone(provider), Arc::new(Clock));
        let builder = builder.with_protocol_versions(versions(options)).map_err(unusable)?;
        let builder = match verifier {
            Some(verifier) => builder.with_client_cert_verifier(verifier),
            None => builder.with_no_client_auth(),
        };
        let mut config =
            builder.with_cert_resolver(Arc::new(CertificatesByName::new(names, default)));
        config.alpn_protocols.clone_from(&options.alpn);
        if rt::is_simulated() {
            config.send_tls13_tickets = 0;
            config.session_storage = Arc::new(NoServerSessionStorage {});
        } else {
            config.ticketer = aws_lc_rs::Ticketer::new().map_err(unusable)?;
        }
        Ok(config)
    })
}

fn versions(options: &Options) -> &'static [&'static SupportedProtocolVersion] {
    const ONLY_TLS13: &[&SupportedProtocolVersion] = &[&version::TLS13];
    if options.only_tls13 || rt::is_simulated() { ONLY_TLS13 } else { rustls::ALL_VERSIONS }
}

fn unusable(error: Error) -> Failure {
    Failure::handshake(error.to_string())
}

/// Reads a chain and its key, and checks that they belong together. `of` precedes the names of the
/// options in errors.
fn certified(
    identity: &Identity,
    of: &str,
    parts: &mut Parts<'_>,
) -> Result<CertifiedKey, Failure> {
    let certs = parts.read(&identity.cert, &format!("{of}cert"))?;
    let keys = parts.read(&identity.key, &format!("{of}key"))?;
    let chain = certs.certificates()?;
    let key = keys.key()?;
    let key = PROVIDER.key_provider.load_private_key(key).map_err(|error| {
        Failure::certificate(format!(
            "{}: the key is of no use, those are of ECDSA, Ed25519, and RSA of 2,048 bits and \
             more: {error}",
            keys.label()
        ))
    })?;
    let (line, leaf) = chain.first().cloned().expect("there is at least one");
    let certified = CertifiedKey::new(chain.into_iter().map(|(_, one)| one).collect(), key);
    match certified.keys_match() {
        Ok(()) | Err(Error::InconsistentKeys(rustls::InconsistentKeys::Unknown)) => Ok(certified),
        Err(Error::InconsistentKeys(_)) => {
            let why = format!("the key does not belong to it ({})", keys.label());
            Err(certs.refuse(line, &leaf, &why))
        }
        Err(error) => Err(certs.refuse(line, &leaf, &error.to_string())),
    }
}

fn warn_unverified() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        log::warn!(
            "TLS: certificates of servers are not verified (verify = false): whoever is in between \
             can read and change everything"
        );
    });
}
