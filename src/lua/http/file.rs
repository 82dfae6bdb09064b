//! Files as responses.

use std::ffi::{OsStr, c_int};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::UNIX_EPOCH;

use ::http::header::{CONTENT_TYPE, ETAG};
use ::http::{HeaderValue, StatusCode};
use bytes::Bytes;

use super::super::confine::Deny;
use super::answer::refuse_body;
use crate::error::Code;
use crate::http::{Outgoing, choose};
use crate::lua::host;
use crate::os::descriptors::with_room;
use crate::vm::stack::{Nil, Results, Stack};

/// Content types by extension.
const TYPES: &[(&str, &str)] = &[
    ("html htm", "text/html; charset=utf-8"),
    ("css", "text/css; charset=utf-8"),
    ("js mjs", "text/javascript; charset=utf-8"),
    ("txt md log lua", "text/plain; charset=utf-8"),
    ("csv", "text/csv; charset=utf-8"),
    ("xml", "application/xml"),
    ("json map", "application/json"),
    ("svg", "image/svg+xml"),
    ("png", "image/png"),
    ("jpg jpeg", "image/jpeg"),
    ("gif", "image/gif"),
    ("webp", "image/webp"),
    ("avif", "image/avif"),
    ("ico", "image/x-icon"),
    ("wasm", "application/wasm"),
    ("pdf", "application/pdf"),
    ("zip", "application/zip"),
    ("gz", "application/gzip"),
    ("woff", "font/woff"),
    ("woff2", "font/woff2"),
    ("ttf", "font/ttf"),
    ("mp3", "audio/mpeg"),
    ("ogg", "audio/ogg"),
    ("wav", "audio/wav"),
    ("mp4", "video/mp4"),
    ("webm", "video/webm"),
];

fn type_of(path: &Path) -> &'static str {
    let end = path.extension().and_then(OsStr::to_str).unwrap_or_default().to_ascii_lowercase();
    let known = TYPES.iter().find(|(ends, _)| ends.split(' ').any(|one| one == end));
    known.map_or("application/octet-stream", |(_, name)| name)
}

/// Opens a regular file, without waiting for the other end if it turns out to be a pipe.
fn open(path: &Path) -> io::Result<(File, std::fs::Metadata)> {
    let file =
        with_room(|| OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path))?;
    let data = file.metadata()?;
    if !data.is_file() {
        return Err(io::Error::from_raw_os_error(libc::ENOENT));
    }
    Ok((file, data))
}

/// Why a file is not sent.
pub(super) enum Refused {
    Code(Code),
    Text(String),
}

impl Results for Refused {
    fn give(self, lua: Stack<'_>) -> c_int {
        match self {
            Refused::Code(code) => code.give(lua),
            Refused::Text(why) => (Nil, why).give(lua),
        }
    }
}

/// native.http_sendfile(id, path): responds with a file, or a part of it: true; `false, code`, with
/// the status set to match, if it cannot be opened; nothing if the response has begun; `nil, why`
/// if such a response has no file.
pub(super) fn send(lua: Stack<'_>) -> Option<Result<bool, Refused>> {
    let (key, path) = (lua.key(1), Path::new(OsStr::from_bytes(lua.text(2).unwrap_or_default())));
    let may_read = host::with(|host| !host.deny.withholds(Deny::IO));
    let opened = match may_read {
        true => open(path).map_err(|error| Code::from(&error)),
        false => Err(Code::NOT_PERMITTED),
    };
    let allowance = host::with(|host| host.context.allowance().cloned());
    let sent = super::with(key, |exchange, _| {
        if exchange.has_begun {
            return None;
        }
        if !exchange.trailers.is_empty() {
            return Some(Err(Refused::Text("a file is sent without trailers".to_owned())));
        }
        let (file, data) = match opened {
            Ok(opened) => opened,
            Err(code) => {
                exchange.status = match code {
                    Code::NO_SUCH_FILE | Code::NOT_A_DIRECTORY => StatusCode::NOT_FOUND,
                    Code::ACCESS | Code::NOT_PERMITTED => StatusCode::FORBIDDEN,
                    _ => StatusCode::INTERNAL_SERVER_ERROR,
                };
                return Some(Err(Refused::Code(code)));
            }
        };
        let modified = data.modified().unwrap_or(UNIX_EPOCH);
        let mut part = Some((0, data.len()));
        // With another status, as of an error page, the file is just the body.
        if exchange.status == StatusCode::OK {
            let tag = exchange.headers.get(ETAG).and_then(|tag| tag.to_str().ok());
            let tag = tag.map(str::to_owned);
            let parts = exchange.parts();
            let (method, asked) = (&parts.method, &parts.headers);
            let chosen = choose(method, asked, tag.as_deref(), data.len(), modified);
            (exchange.status, part) = (chosen.status, chosen.part);
            for (name, value) in &chosen.headers {
                exchange.headers.insert(name, value.clone());
            }
        }
        let out = match part {
            Some((at, left)) => {
                if let Some(why) = refuse_body(exchange.status, left) {
                    return Some(Err(Refused::Text(why)));
                }
                let usual = HeaderValue::from_static(type_of(path));
                exchange.headers.entry(CONTENT_TYPE).or_insert(usual);
                Outgoing::file(file, at, left, allowance)
            }
            None => Outgoing::whole(Bytes::new(), None),
        };
        exchange.begin(out);
        Some(Ok(true))
    });
    sent.unwrap_or(Some(Err(Refused::Code(Code::SOCKET_CLOSED))))
}
