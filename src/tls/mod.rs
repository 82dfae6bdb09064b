//! TLS without I/O: configurations, which contexts share, and sessions, which turn the bytes of a
//! connection into those of its script and back.
//!
//! What sends and receives is `net::secure`; nobody else knows rustls. In a simulation the protocol
//! is the same, but nothing is encrypted and nothing is random (`simulated`).
//!
//! # Examples
//! ```
//! use node_lua::tls::{Client, Config, Options};
//!
//! let client = Client { ca: None, verify: false, identity: None };
//! let alpn = vec![b"h2".to_vec()];
//! let options = Options { alpn, only_tls13: true, servers_remembered: None };
//! let config = Config::client(client, options, &|| ()).unwrap();
//! let session = config.session("example.org".try_into().ok()).unwrap();
//! assert!(config.offers(b"h2") && session.is_handshaking());
//! ```

mod certificate;
mod config;
mod failure;
mod names;
mod options;
mod pem;
mod remembered;
mod session;
mod simulated;
#[cfg(test)]
mod tests;
mod trust;

pub use certificate::Certificate;
pub use config::{Config, Parcel};
pub use failure::Failure;
pub use options::{Client, Identity, Options, Server};
pub use pem::Source;
pub use rustls::pki_types::ServerName;
pub use session::{Details, Rest, Session};
