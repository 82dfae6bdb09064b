//! Which cluster to be part of: what `--cluster` and its like ask for.

use std::path::PathBuf;

/// How to connect.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// `--cluster`: `nats://` or `tls://`, one or several with commas between them.
    pub servers: String,
    /// `--cluster-creds`: a file of credentials, as `nsc` writes it, or with the seed of an nkey
    /// alone.
    pub credentials: Option<PathBuf>,
    /// `--cluster-ca`: certificates of authorities in place of those that the system trusts.
    pub authorities: Option<PathBuf>,
    /// `--cluster-cert`: the certificates that this process shows.
    pub certificates: Option<PathBuf>,
    /// `--cluster-key`: their key, if it is not in the same file.
    pub key: Option<PathBuf>,
}
