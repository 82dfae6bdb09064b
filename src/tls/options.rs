//! What scripts configure.

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
    /// Who is trusted; nothing for whom the system trusts.
    pub ca: Option<Source>,
    /// Whether the certificate of the server is looked at.
    pub verify: bool,
    /// What is shown to servers that ask for it.
    pub identity: Option<Identity>,
}

/// For the side that was connected to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// For clients that name nobody, or somebody who is not listed.
    pub identity: Option<Identity>,
    /// By the name that clients ask for.
    pub sni: Vec<(String, Identity)>,
    /// Whose certificates clients must show.
    pub client_ca: Option<Source>,
    /// Whether they may as well show none.
    pub client_optional: bool,
}

/// Of either side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Application protocols, the best first.
    pub alpn: Vec<Vec<u8>>,
    /// Whether TLS 1.2 is refused.
    pub only_tls13: bool,
    /// Servers whose sessions a client remembers; nothing for many, which do not count.
    pub servers_remembered: Option<usize>,
}
