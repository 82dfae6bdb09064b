//! Which certificates a configuration trusts, and why it refuses others.

use std::fs::File;
use std::io;
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
use crate::error::Code;
use crate::os::descriptors::with_room;
use crate::rt;
use crate::sync::lock;

/// The verifier of the system's authorities, which takes time to read.
static SYSTEM: LazyLock<Mutex<Option<Arc<dyn ServerCertVerifier>>>> = LazyLock::new(Mutex::default);

/// Opens as much at once as whoever reads the system's certificates does: a folder, and a file in
/// it.
fn try_room() -> io::Result<(File, File)> {
    Ok((File::open("/")?, File::open("/")?))
}

fn no_room(error: &io::Error) -> Failure {
    let code = Code::from(error);
    let text = format!("ca: the system's certificates cannot be read: {}", code.text());
    Failure { code, text }
}

/// Trusts servers with certificates of the system's authorities.
///
/// # Errors
/// The system has none, or they cannot be read now.
pub(super) fn system(
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn ServerCertVerifier>, Failure> {
    if let Some(known) = &*lock(&SYSTEM) {
        return Ok(Arc::clone(known));
    }
    // Not under the lock: finalisers may run, which may come here.
    with_room(try_room).map_err(|error| no_room(&error))?;
    let mut system = lock(&SYSTEM);
    let found = rustls_platform_verifier::Verifier::new(Arc::clone(provider));
    // What others have opened meanwhile may have cost some of the certificates, or all.
    try_room().map_err(|error| no_room(&error))?;
    let found = found.map_err(|error| {
        Failure::certificate(format!(
            "ca: the system has no certificates that are trusted: {error} (install \
             ca-certificates, or name a file)"
        ))
    })?;
    let made: Arc<dyn ServerCertVerifier> = Arc::new(Explaining::new(Arc::new(found)));
    *system = Some(Arc::clone(&made));
    Ok(made)
}

/// How many certificates are parsed between two ticks.
const UNINTERRUPTED: usize = 16;

/// Parses certificates that are trusted; returns their digests too.
fn roots(pem: &Pem, tick: &dyn Fn()) -> Result<(Arc<RootCertStore>, Vec<Vec<u8>>), Failure> {
    let (mut roots, mut digests) = (RootCertStore::empty(), Vec::new());
    for (count, (line, certificate)) in pem.certificates()?.into_iter().enumerate() {
        if count % UNINTERRUPTED == 0 {
            tick();
        }
        roots
            .add(certificate.clone())
            .map_err(|error| pem.refuse(line, &certificate, &error.to_string()))?;
        digests.push(digest(&certificate));
    }
    Ok((Arc::new(roots), digests))
}

/// Trusts servers with certificates of these authorities.
pub(super) fn servers_of(
    pem: &Pem,
    provider: &Arc<CryptoProvider>,
    tick: &dyn Fn(),
) -> Result<Arc<dyn ServerCertVerifier>, Failure> {
    let (roots, trusted) = roots(pem, tick)?;
    let verifier = WebPkiServerVerifier::builder_with_provider(roots, Arc::clone(provider)).build();
    let verifier =
        verifier.map_err(|error| Failure::certificate(format!("{}: {error}", pem.label())))?;
    Ok(Arc::new(Explaining { inner: verifier as Arc<dyn ServerCertVerifier>, trusted }))
}

/// Trusts clients with certificates of these authorities.
pub(super) fn clients_of(
    pem: &Pem,
    is_optional: bool,
    provider: &Arc<CryptoProvider>,
    tick: &dyn Fn(),
) -> Result<Arc<dyn ClientCertVerifier>, Failure> {
    let (roots, trusted) = roots(pem, tick)?;
    let builder = WebPkiClientVerifier::builder_with_provider(roots, Arc::clone(provider));
    let builder = if is_optional { builder.allow_unauthenticated() } else { builder };
    let verifier = builder
        .build()
        .map_err(|error| Failure::certificate(format!("{}: {error}", pem.label())))?;
    Ok(Arc::new(Explaining { inner: verifier, trusted }))
}

/// Trusts any server that has the key of its certificate.
pub(super) fn accept_any(provider: &Arc<CryptoProvider>) -> Arc<dyn ServerCertVerifier> {
    Arc::new(Explaining::new(
        Arc::new(AcceptAny(Arc::clone(provider))) as Arc<dyn ServerCertVerifier>
    ))
}

#[derive(Debug)]
struct AcceptAny(Arc<CryptoProvider>);

impl ServerCertVerifier for AcceptAny {
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

/// Notes in detail why `inner` refuses a certificate. In a simulation, where nothing is signed, all
/// signatures pass.
#[derive(Debug)]
struct Explaining<V: ?Sized> {
    inner: Arc<V>,
    /// Digests of the certificates that are trusted.
    trusted: Vec<Vec<u8>>,
}

impl<V: ?Sized> Explaining<V> {
    fn new(inner: Arc<V>) -> Explaining<V> {
        Explaining { inner, trusted: Vec::new() }
    }

    /// Whether the peer's certificate was only refused as that of an authority, which webpki takes
    /// from no peer, but is itself among the trusted ones (as those of `openssl req -x509` may be).
    fn is_trusted_itself(&self, leaf: &CertificateDer<'_>, error: &Error, now: UnixTime) -> bool {
        let Error::InvalidCertificate(error) = error else { return false };
        let now = now.as_secs() as i64;
        is_of_authority(error)
            && self.trusted.contains(&digest(leaf))
            && Certificate::read(leaf).is_some_and(|one| one.valid.0 <= now && now <= one.valid.1)
    }
}

/// Notes which certificate is refused, and why. A date may be that of any certificate in the chain.
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

/// The methods that verifiers of servers and of clients have in common.
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

impl<V: ServerCertVerifier + ?Sized> ServerCertVerifier for Explaining<V> {
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
                if !self.is_trusted_itself(end_entity, &error, now) {
                    return Err(error);
                }
                verify_server_name(&ParsedCertificate::try_from(end_entity)?, server_name)?;
                Ok(ServerCertVerified::assertion())
            })
            .inspect_err(|error| refuse("server", end_entity, intermediates, error))
    }

    signatures!();
}

impl ClientCertVerifier for Explaining<dyn ClientCertVerifier> {
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
            .or_else(|error| match self.is_trusted_itself(end_entity, &error, now) {
                true => Ok(ClientCertVerified::assertion()),
                false => Err(error),
            })
            .inspect_err(|error| refuse("client", end_entity, intermediates, error))
    }

    signatures!();
}
