//! How to get to the servers, and to be let in.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_nats::rustls::pki_types::pem::PemObject;
use async_nats::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use async_nats::rustls::{ClientConfig, RootCertStore};
use async_nats::{Auth, AuthError, ConnectOptions, ServerAddr};
use nkeys::KeyPair;
use percent_encoding::percent_decode_str;

use super::Options;

/// What is wrong with the command line, or with a file that it names.
fn wrong(what: impl std::fmt::Display, why: impl std::fmt::Display) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, format!("{what}: {why}"))
}

/// Servers that can be connected to.
///
/// # Errors
/// What is wrong with the text.
pub(super) fn servers(text: &str) -> io::Result<Vec<ServerAddr>> {
    let each = |url: &str| {
        // Logs are no place for passwords.
        let shown = match (url.split_once("://"), url.rsplit_once('@')) {
            (Some((scheme, _)), Some((_, host))) => format!("--cluster: '{scheme}://...@{host}'"),
            _ => format!("--cluster: '{url}'"),
        };
        if !(url.starts_with("nats://") || url.starts_with("tls://")) {
            return Err(wrong(shown, "not nats://host:port, nor tls://host:port"));
        }
        let address: ServerAddr = url.parse().map_err(|error| wrong(&shown, error))?;
        match address.host() {
            "" => Err(wrong(shown, "no host")),
            _ => Ok(address),
        }
    };
    text.split(',').map(|url| each(url.trim())).collect()
}

/// Who this process says it is.
#[derive(Debug, Default)]
struct Identity {
    name: Option<String>,
    password: Option<String>,
    token: Option<String>,
    credentials: Option<PathBuf>,
}

impl Identity {
    /// What stands before the host of the first address that has such: a token if it is one word.
    fn new(servers: &[ServerAddr], credentials: Option<PathBuf>) -> Identity {
        let decode = |word: &str| percent_decode_str(word).decode_utf8_lossy().into_owned();
        let found = servers.iter().find_map(|address| Some((address, address.username()?)));
        let [mut name, mut password, mut token] = [None, None, None];
        match found.map(|(address, first)| (first, address.password())) {
            Some((first, Some(second))) => {
                (name, password) = (Some(decode(first)), Some(decode(second)));
            }
            Some((first, None)) => token = Some(decode(first)),
            None => {}
        }
        Identity { name, password, token, credentials }
    }

    /// The proof that a server wants, which has sent `nonce` to be signed. Files are read anew
    /// each time, so that they can be replaced while the process runs.
    fn prove(&self, nonce: &[u8]) -> io::Result<Auth> {
        let mut auth = Auth::new();
        auth.username.clone_from(&self.name);
        auth.password.clone_from(&self.password);
        auth.token.clone_from(&self.token);
        if let Some(path) = &self.credentials {
            let (statement, key) = read_credentials(path)?;
            if statement.is_none() {
                auth.nkey = Some(key.public_key());
            }
            auth.jwt = statement;
            auth.signature = Some(key.sign(nonce).map_err(|error| wrong(path.display(), error))?);
        }
        Ok(auth)
    }
}

/// A signed statement, if there is one, and the key of whom it is about.
fn read_credentials(path: &Path) -> io::Result<(Option<String>, KeyPair)> {
    let shown = path.display();
    let text = std::fs::read_to_string(path).map_err(|error| wrong(&shown, error))?;
    let block = |what: &str| {
        let mut lines = text.lines().map(str::trim).skip_while(|line| {
            !(line.starts_with("---") && line.contains("BEGIN") && line.contains(what))
        });
        lines.nth(1).map(str::to_owned)
    };
    let statement = block("JWT");
    let alone = || text.lines().map(str::trim).find(|line| line.starts_with("SU"));
    let seed = block("SEED").or_else(|| alone().map(str::to_owned));
    let seed = seed.ok_or_else(|| {
        wrong(&shown, "neither credentials as nsc writes them, nor the seed of a user's nkey")
    })?;
    let key = KeyPair::from_seed(&seed).map_err(|error| wrong(&shown, error))?;
    Ok((statement, key))
}

/// The certificates in a file, of which there must be one.
fn read_certificates(path: &Path) -> io::Result<Vec<CertificateDer<'static>>> {
    let shown = path.display();
    std::fs::File::open(path).map_err(|error| wrong(&shown, error))?;
    let found = CertificateDer::pem_file_iter(path).and_then(Iterator::collect);
    match found {
        Ok(found) if Vec::is_empty(&found) => Err(wrong(&shown, "no certificate in it")),
        found => found.map_err(|error| wrong(&shown, error)),
    }
}

impl Options {
    /// What the client is to do, once all files are such as can be used.
    ///
    /// # Errors
    /// What is wrong with an address or a file.
    pub(super) fn client(&self) -> io::Result<(ConnectOptions, Vec<ServerAddr>)> {
        let servers = servers(&self.servers)?;
        let identity = Arc::new(Identity::new(&servers, self.credentials.clone()));
        identity.prove(b"")?;
        let mut options = ConnectOptions::with_auth_callback(move |nonce| {
            std::future::ready(identity.prove(&nonce).map_err(AuthError::new))
        });
        if let Some(path) = &self.authorities {
            read_certificates(path)?;
            options = options.add_root_certificates(path.clone());
        }
        if let Some(path) = &self.certificates {
            let chain = read_certificates(path)?;
            let at = self.key.as_ref().unwrap_or(path);
            std::fs::File::open(at).map_err(|error| wrong(at.display(), error))?;
            let key = PrivateKeyDer::from_pem_file(at)
                .map_err(|error| wrong(at.display(), format!("no private key in it: {error}")))?;
            let empty = ClientConfig::builder().with_root_certificates(RootCertStore::empty());
            empty
                .with_client_auth_cert(chain, key)
                .map_err(|error| wrong(format!("{}, {}", path.display(), at.display()), error))?;
            options = options.add_client_certificate(path.clone(), at.clone());
        }
        Ok((options, servers))
    }
}
