//! Failures of TLS, in words for people.

use std::cell::Cell;
use std::fmt;

use rustls::{AlertDescription, CertificateError, Error, InvalidMessage, PeerIncompatible};

use crate::error::Code;

/// A code, and the reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The code that scripts see.
    pub code: Code,
    /// The text beside it.
    pub text: String,
}

thread_local! {
    /// The reason that a verifier or resolver has found, which the error that it returns cannot
    /// carry; taken by the session that has called it.
    static NOTED: Cell<Option<Failure>> = const { Cell::new(None) };
}

/// Keeps the reason of a failure for the session that runs into it.
pub(super) fn note(failure: Failure) {
    NOTED.set(Some(failure));
}

/// Forgets the reason that another session has not taken.
pub(super) fn forget() {
    NOTED.set(None);
}

impl Failure {
    pub(super) fn handshake(text: impl Into<String>) -> Failure {
        Failure { code: Code::TLS_FAILED, text: text.into() }
    }

    pub(super) fn certificate(text: impl Into<String>) -> Failure {
        Failure { code: Code::CERTIFICATE_REFUSED, text: text.into() }
    }

    /// The failure for an error of rustls, or the one that was noted.
    pub(super) fn new(error: &Error, is_server: bool) -> Failure {
        if let Some(noted) = NOTED.take() {
            return noted;
        }
        let peer = if is_server { "client" } else { "server" };
        match error {
            Error::InvalidCertificate(error) => {
                Failure::certificate(format!("certificate of the {peer} refused: {error}"))
            }
            Error::NoCertificatesPresented => Failure::certificate(format!(
                "the {peer} has sent no certificate, and one is wanted (client_ca)"
            )),
            Error::AlertReceived(alert) => alert_failure(*alert, peer),
            Error::InvalidMessage(message) => Failure::handshake(invalid_text(message, peer)),
            Error::PeerIncompatible(PeerIncompatible::Tls12NotOffered) => Failure::handshake(
                format!("the {peer} offers no version of TLS that is allowed (min_version)"),
            ),
            Error::NoApplicationProtocol => Failure::handshake(format!(
                "no application protocol (alpn) that the {peer} offers is one of ours"
            )),
            error => Failure::handshake(error.to_string()),
        }
    }
}

fn invalid_text(message: &InvalidMessage, peer: &str) -> String {
    match message {
        InvalidMessage::InvalidContentType
        | InvalidMessage::UnknownProtocolVersion
        | InvalidMessage::InvalidEmptyPayload
        | InvalidMessage::MessageTooLarge => {
            format!("what the {peer} has sent is not TLS ({message:?})")
        }
        message => format!("the {peer} has sent a message that is malformed ({message:?})"),
    }
}

fn alert_failure(alert: AlertDescription, peer: &str) -> Failure {
    let what = match alert {
        AlertDescription::BadCertificate
        | AlertDescription::UnsupportedCertificate
        | AlertDescription::CertificateRevoked
        | AlertDescription::CertificateExpired
        | AlertDescription::CertificateUnknown
        | AlertDescription::UnknownCA
        | AlertDescription::DecryptError => "refuses our certificate",
        AlertDescription::CertificateRequired | AlertDescription::NoCertificate => {
            "wants a certificate from us (cert, key)"
        }
        AlertDescription::ProtocolVersion => {
            return Failure::handshake(format!(
                "the {peer} accepts no version of TLS that we offer ({alert:?})"
            ));
        }
        AlertDescription::NoApplicationProtocol => {
            return Failure::handshake(format!(
                "the {peer} accepts none of the application protocols that we offer (alpn)"
            ));
        }
        AlertDescription::UnrecognisedName => {
            return Failure::handshake(format!("the {peer} has no certificate for this name"));
        }
        alert => {
            return Failure::handshake(format!("the {peer} has ended the handshake ({alert:?})"));
        }
    };
    Failure::certificate(format!("the {peer} {what} ({alert:?})"))
}

/// What is wrong with a certificate, as the end of a sentence about it.
pub(super) fn wrong_with(error: &CertificateError) -> String {
    match error {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            "it has expired".to_owned()
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "it is not valid yet".to_owned()
        }
        CertificateError::UnknownIssuer => "its issuer is not trusted (ca)".to_owned(),
        CertificateError::NotValidForNameContext { expected, presented } => {
            let expected = expected.to_str();
            if presented.is_empty() {
                format!("it names nobody, and so not '{expected}'")
            } else {
                format!("it is for {}, not for '{expected}'", list(presented))
            }
        }
        CertificateError::NotValidForName => "it is for another name".to_owned(),
        CertificateError::Revoked => "it has been revoked".to_owned(),
        CertificateError::BadSignature => "its signature is wrong".to_owned(),
        CertificateError::BadEncoding => "it cannot be read".to_owned(),
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
            "it is not made for this side of a connection (extended key usage)".to_owned()
        }
        error if is_of_authority(error) => {
            "it is one of an authority (CA:TRUE), which is not trusted itself (ca)".to_owned()
        }
        CertificateError::Other(error) => error.0.to_string(),
        error => error.to_string(),
    }
}

/// Whether a certificate was refused because it is that of an authority.
pub(super) fn is_of_authority(error: &CertificateError) -> bool {
    // Rustls has no case for this error of webpki, which is no dependency of ours.
    matches!(error, CertificateError::Other(why) if why.0.to_string() == "CaUsedAsEndEntity")
}

/// Names as rustls presents them: `DnsName("a.example")`, `IpAddress(127.0.0.1)`.
fn list(presented: &[String]) -> String {
    let plain = |name: &String| match name.split_once('(') {
        Some((_, rest)) => rest.trim_matches(['"', ')']).to_owned(),
        None => name.clone(),
    };
    let names: Vec<String> = presented.iter().map(plain).collect();
    names.join(", ")
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.text)
    }
}

impl std::error::Error for Failure {}
