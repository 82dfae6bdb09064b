//! Selects the certificate of a server by the name that the client asks for (SNI).

use std::collections::HashMap;
use std::sync::Arc;

use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use super::failure::{Failure, note};

#[derive(Debug)]
pub(super) struct CertificatesByName {
    names: HashMap<String, Arc<CertifiedKey>>,
    default: Option<Arc<CertifiedKey>>,
}

impl CertificatesByName {
    pub(super) fn new(
        names: HashMap<String, Arc<CertifiedKey>>,
        default: Option<Arc<CertifiedKey>>,
    ) -> CertificatesByName {
        CertificatesByName { names, default }
    }

    /// The certificate for a name, or for the same with `*` as its first label.
    fn find(&self, name: &str) -> Option<&Arc<CertifiedKey>> {
        let name = name.trim_end_matches('.').to_ascii_lowercase();
        self.names.get(&name).or_else(|| {
            let (_, parent) = name.split_once('.')?;
            self.names.get(&format!("*.{parent}"))
        })
    }
}

impl ResolvesServerCert for CertificatesByName {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let wanted = hello.server_name();
        let found = wanted.and_then(|name| self.find(name)).or(self.default.as_ref());
        if found.is_none() {
            note(Failure::handshake(match wanted {
                Some(name) => format!("there is no certificate for '{name}' (cert, sni)"),
                None => "the client names no host, and there is no certificate for that (cert)"
                    .to_owned(),
            }));
        }
        found.map(Arc::clone)
    }
}
