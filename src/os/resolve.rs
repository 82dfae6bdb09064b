//! Lookups of names.

use std::io;
use std::net::SocketAddr;

/// Resolves `host` off the calling thread.
///
/// # Errors
/// Whatever the system's resolver reports; an empty answer is an error too.
pub(crate) async fn resolve(host: String, port: u16) -> io::Result<Vec<SocketAddr>> {
    use async_std::net::ToSocketAddrs;
    let addresses: Vec<SocketAddr> = (host.as_str(), port).to_socket_addrs().await?.collect();
    if addresses.is_empty() {
        return Err(io::Error::new(io::ErrorKind::NotFound, "no address for the name"));
    }
    Ok(addresses)
}
