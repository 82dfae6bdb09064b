//! Certificates and keys out of PEM, from a file or as text. What is wrong is named by its place.

use std::fs;
use std::path::PathBuf;

use rustls::pki_types::pem::{PemObject, SectionKind};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::certificate::{self, Certificate};
use super::failure::Failure;
use crate::error::Code;
use crate::os::descriptors::with_room;

/// How every section of PEM begins.
const BEGIN: &[u8] = b"-----BEGIN ";

/// The largest file that is read.
const FILE_BYTES_MAX: u64 = 16 << 20;

/// Where PEM comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A file.
    File(PathBuf),
    /// The text itself.
    Text(Vec<u8>),
}

impl Source {
    /// What a script has given: text has a section in it, anything else is a path.
    pub fn new(given: &[u8]) -> Source {
        use std::os::unix::ffi::OsStrExt;
        if given.windows(BEGIN.len()).any(|place| place == BEGIN) {
            Source::Text(given.to_owned())
        } else {
            Source::File(PathBuf::from(std::ffi::OsStr::from_bytes(given)))
        }
    }

    /// What it is called in messages, as the option of this name.
    fn label(&self, option: &str) -> String {
        match self {
            Source::File(path) => format!("{option}: '{}'", path.display()),
            Source::Text(_) => format!("{option}: the text given"),
        }
    }

    /// Reads it, as the value of this option.
    ///
    /// # Errors
    /// The file cannot be read.
    pub(super) fn read(&self, option: &str) -> Result<Pem, Failure> {
        let label = self.label(option);
        let text = match self {
            Source::Text(text) => text.clone(),
            Source::File(path) => read_file(path)
                .map_err(|(code, why)| Failure { code, text: format!("{label}: {why}") })?,
        };
        Ok(Pem { label, text })
    }
}

fn read_file(path: &std::path::Path) -> Result<Vec<u8>, (Code, String)> {
    let told = |error: std::io::Error| {
        let code = Code::from(&error);
        (code, code.text().to_owned())
    };
    let meta = fs::metadata(path).map_err(told)?;
    if !meta.is_file() {
        // Pipes and devices would keep the worker waiting.
        let what = if meta.is_dir() { "a directory" } else { "no regular file" };
        return Err((Code::INVALID, format!("it is {what}")));
    }
    if meta.len() > FILE_BYTES_MAX {
        let text = format!("it has {} bytes, of {FILE_BYTES_MAX} at most", meta.len());
        return Err((Code::INVALID, text));
    }
    with_room(|| fs::read(path)).map_err(told)
}

/// PEM as it was read.
#[derive(Debug)]
pub(super) struct Pem {
    label: String,
    pub(super) text: Vec<u8>,
}

/// A section, by the line that it begins at.
struct Section<'a> {
    line: usize,
    text: &'a [u8],
}

impl Pem {
    /// How it is named in messages.
    pub(super) fn label(&self) -> &str {
        &self.label
    }

    fn sections(&self) -> Vec<Section<'_>> {
        let (mut at, mut starts) = (0, Vec::new());
        for (line, text) in self.text.split(|byte| *byte == b'\n').enumerate() {
            if text.starts_with(BEGIN) {
                starts.push((line + 1, at));
            }
            at += text.len() + 1;
        }
        let ends = starts.iter().skip(1).map(|(_, at)| *at).chain([self.text.len()]);
        let all = starts.iter().zip(ends);
        all.map(|((line, at), end)| Section { line: *line, text: &self.text[*at..end] }).collect()
    }

    /// The kinds of all sections with their content.
    fn items(&self) -> Result<Vec<(usize, SectionKind, Vec<u8>)>, Failure> {
        let mut items = Vec::new();
        for Section { line, text } in self.sections() {
            match <(SectionKind, Vec<u8>)>::from_pem_slice(text) {
                Ok((kind, content)) => items.push((line, kind, content)),
                // A section of another kind.
                Err(rustls::pki_types::pem::Error::NoItemsFound) => {}
                Err(error) => {
                    let label = &self.label;
                    return Err(Failure::certificate(format!("{label}, line {line}: {error}")));
                }
            }
        }
        Ok(items)
    }

    /// All certificates, each with the line that it begins at; at least one.
    ///
    /// # Errors
    /// There is none, or one cannot be read.
    pub(super) fn certificates(&self) -> Result<Vec<(usize, CertificateDer<'static>)>, Failure> {
        let mut found = Vec::new();
        for (line, kind, content) in self.items()? {
            if kind != SectionKind::Certificate {
                continue;
            }
            if Certificate::read(&content).is_none() {
                let (label, index) = (&self.label, found.len() + 1);
                return Err(Failure::certificate(format!(
                    "{label}, line {line}: certificate {index} is not one"
                )));
            }
            found.push((line, CertificateDer::from(content)));
        }
        if found.is_empty() {
            return Err(Failure::certificate(format!(
                "{}: there is no certificate in it (-----BEGIN CERTIFICATE-----)",
                self.label
            )));
        }
        Ok(found)
    }

    /// The first private key.
    ///
    /// # Errors
    /// There is none, or it is encrypted.
    pub(super) fn key(&self) -> Result<PrivateKeyDer<'static>, Failure> {
        let label = &self.label;
        for (_, kind, content) in self.items()? {
            if let Some(key) = PrivateKeyDer::from_pem(kind, content) {
                return Ok(key);
            }
        }
        let encrypted = |section: &Section<'_>| section.text.starts_with(b"-----BEGIN ENCRYPTED");
        Err(Failure::certificate(match self.sections().iter().find(|section| encrypted(section)) {
            Some(section) => format!(
                "{label}, line {}: the key is encrypted; decrypt it first (openssl pkey)",
                section.line
            ),
            None => format!("{label}: there is no private key in it (-----BEGIN PRIVATE KEY-----)"),
        }))
    }

    /// Words for something that is wrong with a certificate.
    pub(super) fn refuse(&self, line: usize, der: &[u8], why: &str) -> Failure {
        let (label, which) = (&self.label, certificate::describe(der));
        Failure::certificate(format!("{label}, line {line}: certificate {which}: {why}"))
    }
}
