//! Whom a configuration trusts, and words for whom it does not.

use std::sync::{Arc, LazyLock, Mutex};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_name};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ParsedCertificate, WebPkiClientVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, RootCertStore,
    SignatureScheme,
};

use super::certificate::{Certificate, digest};
use super::failure::{Failure, is_of_authority, note, wrong_with};
use super::pem::Pem;
use crate::rt;
use crate::sync::lock;

/// The system's, which takes some time to read and is the same for all.
static SYSTEM: LazyLock<Mutex<Option<Arc<dyn ServerCertVerifier>>>> = LazyLock::new(Mutex::default);

/// Whoever the system trusts.
///
/// # Errors
/// It trusts nobody.
pub(super) fn system(
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn ServerCertVerifier>, Failure> {
    let mut system = lock(&SYSTEM);
    if let Some(known) = &*system {
        return Ok(Arc::clone(known));
    }
    let found = rustls_platform_verifier::Verifier::new(Arc::clone(provider)).map_err(|error| {
        Failure::certificate(format!(
            "ca: the system has no certificates that are trusted: {error} (install \
             ca-certificates, or name a file)"
        ))
    })?;
    let made: Arc<dyn ServerCertVerifier> = Arc::new(Checked::new(Arc::new(found)));
    *system = Some(Arc::clone(&made));
    Ok(made)
}

/// Certificates that are read without a look.
const UNINTERRUPTED: usize = 16;

/// Reads the certificates that are trusted; with their digests.
fn roots(pem: &Pem, look: &dyn Fn()) -> Result<(Arc<RootCertStore>, Vec<Vec<u8>>), Failure> {
    let (mut roots, mut digests) = (RootCertStore::empty(), Vec::new());
    for (count, (line, certificate)) in pem.certificates()?.into_iter().enumerate() {
        if count % UNINTERRUPTED == 0 {
            look();
        }
        roots
            .add(certificate.clone())
            .map_err(|error| pem.refuse(line, &certificate, &error.to_string()))?;
        digests.push(digest(&certificate));
    }
    Ok((Arc::new(roots), digests))
}

/// Servers with certificates of these.
pub(super) fn servers_of(
    pem: &Pem,
    provider: &Arc<CryptoProvider>,
    look: &dyn Fn(),
) -> Result<Arc<dyn ServerCertVerifier>, Failure> {
    let (roots, trusted) = roots(pem, look)?;
    let verifier = WebPkiServerVerifier::builder_with_provider(roots, Arc::clone(provider)).build();
    let verifier =
        verifier.map_err(|error| Failure::certificate(format!("{}: {error}", pem.label())))?;
    Ok(Arc::new(Checked { inner: verifier as Arc<dyn ServerCertVerifier>, trusted }))
}

/// Clients with certificates of these.
pub(super) fn clients_of(
    pem: &Pem,
    is_optional: bool,
    provider: &Arc<CryptoProvider>,
    look: &dyn Fn(),
) -> Result<Arc<dyn ClientCertVerifier>, Failure> {
    let (roots, trusted) = roots(pem, look)?;
    let builder = WebPkiClientVerifier::builder_with_provider(roots, Arc::clone(provider));
    let builder = if is_optional { builder.allow_unauthenticated() } else { builder };
    let verifier = builder
        .build()
        .map_err(|error| Failure::certificate(format!("{}: {error}", pem.label())))?;
    Ok(Arc::new(Checked { inner: verifier, trusted }))
}

/// Anybody; only that the server has the key of its certificate is looked at.
pub(super) fn anybody(provider: &Arc<CryptoProvider>) -> Arc<dyn ServerCertVerifier> {
    Arc::new(Checked::new(Arc::new(Anybody(Arc::clone(provider))) as Arc<dyn ServerCertVerifier>))
}

#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, cert, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, cert, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// A verifier that says more of what it refuses. In a simulation nothing is signed.
#[derive(Debug)]
struct Checked<V: ?Sized> {
    inner: Arc<V>,
    /// Digests of the certificates that are trusted.
    trusted: Vec<Vec<u8>>,
}

impl<V: ?Sized> Checked<V> {
    fn new(inner: Arc<V>) -> Checked<V> {
        Checked { inner, trusted: Vec::new() }
    }

    /// Whether a peer may show this certificate after all, because it is itself one of those that
    /// are trusted: of an authority (as `openssl req -x509` makes them) webpki takes none.
    fn may_show(&self, leaf: &CertificateDer<'_>, error: &Error, now: UnixTime) -> bool {
        let Error::InvalidCertificate(error) = error else { return false };
        let now = now.as_secs() as i64;
        is_of_authority(error)
            && self.trusted.contains(&digest(leaf))
            && Certificate::read(leaf).is_some_and(|one| one.valid.0 <= now && now <= one.valid.1)
    }
}

/// Notes whose certificate is refused, and why. Dates may be those of any in the chain.
fn refuse(peer: &str, leaf: &CertificateDer<'_>, rest: &[CertificateDer<'_>], error: &Error) {
    let Error::InvalidCertificate(error) = error else { return };
    let (mut index, mut found) = (0, Certificate::read(leaf));
    if let CertificateError::ExpiredContext { time, .. }
    | CertificateError::NotValidYetContext { time, .. } = error
    {
        let now = time.as_secs() as i64;
        let is_due = |one: &Certificate| now < one.valid.0 || now > one.valid.1;
        let all = [leaf].into_iter().chain(rest).map(|der| Certificate::read(der));
        if let Some((at, Some(one))) =
            all.enumerate().find(|(_, one)| one.as_ref().is_some_and(is_due))
        {
            (index, found) = (at, Some(one));
        }
    }
    let which = found.map_or("that cannot be read".to_owned(), |one| one.describe());
    let place = match index {
        0 => String::new(),
        _ => format!(" (number {} of its chain)", index + 1),
    };
    let why = wrong_with(error);
    note(Failure::certificate(format!("certificate {which} of the {peer}{place} refused: {why}")));
}

/// What verifiers of servers and of clients have in common.
macro_rules! signatures {
    () => {
        fn verify_tls12_signature(
            &self,
            message: &[u8],
            cert: &CertificateDer<'_>,
            signed: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            self.inner.verify_tls12_signature(message, cert, signed)
        }

        fn verify_tls13_signature(
            &self,
            message: &[u8],
            cert: &CertificateDer<'_>,
            signed: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            if rt::is_simulated() {
                return Ok(HandshakeSignatureValid::assertion());
            }
            self.inner.verify_tls13_signature(message, cert, signed)
        }

        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            self.inner.supported_verify_schemes()
        }
    };
}

impl<V: ServerCertVerifier + ?Sized> ServerCertVerifier for Checked<V> {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.inner
            .verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
            .or_else(|error| {
                if !self.may_show(end_entity, &error, now) {
                    return Err(error);
                }
                verify_server_name(&ParsedCertificate::try_from(end_entity)?, server_name)?;
                Ok(ServerCertVerified::assertion())
            })
            .inspect_err(|error| refuse("server", end_entity, intermediates, error))
    }

    signatures!();
}

impl ClientCertVerifier for Checked<dyn ClientCertVerifier> {
    fn offer_client_auth(&self) -> bool {
        self.inner.offer_client_auth()
    }

    fn client_auth_mandatory(&self) -> bool {
        self.inner.client_auth_mandatory()
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.inner.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.inner
            .verify_client_cert(end_entity, intermediates, now)
            .or_else(|error| match self.may_show(end_entity, &error, now) {
                true => Ok(ClientCertVerified::assertion()),
                false => Err(error),
            })
            .inspect_err(|error| refuse("client", end_entity, intermediates, error))
    }

    signatures!();
}
