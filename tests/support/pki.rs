//! Certificates for tests, made anew each time.

#![allow(clippy::unwrap_used, reason = "a helper that fails is a test that fails")]
#![allow(dead_code, reason = "every test crate uses some of it")]

use std::path::PathBuf;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};

use crate::support::{self, Folder};

/// A CA in a folder, in `ca.pem`, and whoever it has signed.
pub(crate) struct Pki {
    pub(crate) folder: Folder,
    pub(crate) ca: CertifiedIssuer<'static, KeyPair>,
}

impl Pki {
    /// A CA, and certificates of `server` (localhost, 127.0.0.1) and `client` (alice).
    pub(crate) fn new() -> Pki {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "Test CA");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let pki = Pki { folder: Folder::new(), ca };
        pki.folder.write("ca.pem", pki.ca.pem());
        pki.add("server", "localhost", &["localhost", "127.0.0.1"], |_| {});
        pki.add("client", "alice", &["alice"], |_| {});
        pki
    }

    /// Signs a certificate for these names; it is in `file.pem`, its key in `file.key`.
    pub(crate) fn add(
        &self,
        file: &str,
        subject: &str,
        names: &[&str],
        change: impl FnOnce(&mut CertificateParams),
    ) {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, subject);
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        let cert = params.signed_by(&key, &self.ca).unwrap();
        self.folder.write(&format!("{file}.pem"), cert.pem());
        self.folder.write(&format!("{file}.key"), key.serialize_pem());
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path(name)
    }

    /// A command whose working folder has the certificates.
    pub(crate) fn node_lua(&self, script: &str) -> std::process::Command {
        let mut command = support::node_lua();
        command.current_dir(self.folder.path("")).args(["-e", script]);
        command
    }
}
