//! Lookups of names.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs};

/// Resolves `host` off the calling thread, unless it is not wanted any more once it is its turn:
/// then that is an error.
///
/// # Errors
/// Whatever the system's resolver reports; an empty answer is an error too.
pub(crate) async fn resolve(
    host: String,
    port: u16,
    is_wanted: impl Fn() -> bool + Send + 'static,
) -> io::Result<Vec<SocketAddr>> {
    async_std::task::spawn_blocking(move || {
        if !is_wanted() {
            return Err(io::ErrorKind::Interrupted.into());
        }
        let addresses: Vec<SocketAddr> = (host.as_str(), port).to_socket_addrs()?.collect();
        if addresses.is_empty() {
            return Err(io::Error::new(io::ErrorKind::NotFound, "no address for the name"));
        }
        Ok(addresses)
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::os::runtime::block_on;

    #[test]
    fn what_nobody_wants_is_not_looked_up() {
        let look_up = |is_wanted| block_on(resolve("127.0.0.1".into(), 1, move || is_wanted));
        assert!(look_up(true).is_ok());
        assert!(look_up(false).is_err_and(|error| error.kind() == io::ErrorKind::Interrupted));
    }
}
