//! TLS without I/O: configurations, which contexts share, and sessions, which turn the bytes of a
//! connection into those of its script and back.
//!
//! What sends and receives is `net::secure`; nobody else knows rustls. In a simulation the protocol
//! is the same, but nothing is encrypted and nothing is random (`simulated`).

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
