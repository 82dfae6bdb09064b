//! The options of configurations.

use super::pem::Source;

/// A certificate chain and its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The chain, the certificate of this side first.
    pub cert: Source,
    /// The private key of that.
    pub key: Source,
}

/// For the side that connects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Client {
    /// The authorities that are trusted; `None` for the system's.
    pub ca: Option<Source>,
    /// Whether the certificate of the server is verified.
    pub verify: bool,
    /// The certificate for servers that ask for one.
    pub identity: Option<Identity>,
}

/// For the side that was connected to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// For clients that ask for no name, or for one that is not in `sni`.
    pub identity: Option<Identity>,
    /// By the name that clients ask for.
    pub sni: Vec<(String, Identity)>,
    /// The authorities of certificates that clients must have; `None` if they need none.
    pub client_ca: Option<Source>,
    /// Whether clients may have no certificate all the same.
    pub client_optional: bool,
}

/// The options of both sides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Application protocols, in order of preference.
    pub alpn: Vec<Vec<u8>>,
    /// Whether TLS 1.2 is refused.
    pub only_tls13: bool,
    /// The number of servers whose sessions a client remembers, counted as [`Config::bytes`];
    /// `None` for many, which do not count.
    ///
    /// [`Config::bytes`]: super::Config::bytes
    pub servers_remembered: Option<usize>,
}
