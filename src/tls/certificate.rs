//! What a certificate says, for people.

use std::fmt::Write;
use std::net::{Ipv4Addr, Ipv6Addr};

use base64::prelude::{BASE64_STANDARD, Engine};
use rustls::crypto::aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer;
use x509_parser::time::ASN1Time;

/// The parts of a certificate that scripts and messages name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    /// Whom it is for.
    pub subject: String,
    /// Who has signed it.
    pub issuer: String,
    /// The host names and addresses that it is for.
    pub names: Vec<String>,
    /// From when on, and until when, it is valid; seconds since 1970.
    pub valid: (i64, i64),
    /// The digest of all of it, in hexadecimal.
    pub sha256: String,
    /// All of it, as text.
    pub pem: String,
    dates: (String, String),
}

impl Certificate {
    /// Reads one in binary form; nothing if it is none.
    pub fn read(der: &[u8]) -> Option<Certificate> {
        let (_, parsed) = X509Certificate::from_der(der).ok()?;
        let names = parsed.subject_alternative_name().ok().flatten();
        let names = names.iter().flat_map(|list| &list.value.general_names);
        let (from, to) = (parsed.validity().not_before, parsed.validity().not_after);
        Some(Certificate {
            subject: parsed.subject().to_string(),
            issuer: parsed.issuer().to_string(),
            names: names.filter_map(name_of).collect(),
            valid: (from.timestamp(), to.timestamp()),
            sha256: hexadecimal(&digest(der)),
            pem: pem_of(der),
            dates: (date(&from), date(&to)),
        })
    }

    /// Which one it is, in a message.
    pub fn describe(&self) -> String {
        let (from, to) = &self.dates;
        let by = if self.issuer == self.subject {
            "self-signed".to_owned()
        } else {
            format!("issued by \"{}\"", self.issuer)
        };
        format!("\"{}\" ({by}, valid from {from} to {to})", self.subject)
    }
}

/// The same of one in binary form, whatever it is.
pub(super) fn describe(der: &[u8]) -> String {
    match Certificate::read(der) {
        Some(certificate) => certificate.describe(),
        None => format!("of {} bytes that cannot be read", der.len()),
    }
}

/// SHA-256.
pub(super) fn digest(bytes: &[u8]) -> Vec<u8> {
    let suite = TLS13_AES_128_GCM_SHA256.tls13().expect("it is one of TLS 1.3");
    suite.common.hash_provider.hash(bytes).as_ref().to_vec()
}

fn name_of(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::DNSName(name) | GeneralName::RFC822Name(name) | GeneralName::URI(name) => {
            Some((*name).to_owned())
        }
        GeneralName::IPAddress(bytes) => match bytes.len() {
            4 => <[u8; 4]>::try_from(*bytes).ok().map(|four| Ipv4Addr::from(four).to_string()),
            _ => <[u8; 16]>::try_from(*bytes).ok().map(|all| Ipv6Addr::from(all).to_string()),
        },
        _ => None,
    }
}

fn date(time: &ASN1Time) -> String {
    let time = time.to_datetime();
    let (year, month, day) = (time.year(), u8::from(time.month()), time.day());
    let (hour, minute, second) = time.to_hms();
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02} UTC")
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a string does not fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn pem_of(der: &[u8]) -> String {
    const LINE_BYTES: usize = 48;
    let lines = der.chunks(LINE_BYTES).map(|line| BASE64_STANDARD.encode(line) + "\n");
    let lines: String = lines.collect();
    format!("-----BEGIN CERTIFICATE-----\n{lines}-----END CERTIFICATE-----\n")
}
