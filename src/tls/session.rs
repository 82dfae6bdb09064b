//! Sessions, which decrypt what the peer sends and encrypt what the script writes.

use std::io::{self, BufRead, IoSlice, Read, Write};
use std::mem::MaybeUninit;
use std::sync::Arc;

use rustls::pki_types::ServerName;
use rustls::{
    ClientConfig, ClientConnection, Connection, ProtocolVersion, ServerConfig, ServerConnection,
};

use super::certificate::Certificate;
use super::failure::{Failure, forget};
use crate::error::Code;

/// Plaintext that is encrypted at once.
const WRITE_BYTES: usize = 64 * 1024;

/// Pieces that are encrypted at once.
const PIECES_MAX: usize = 64;

/// How many bytes of a peer that does not speak TLS are shown.
const SHOWN_BYTES: usize = 16;

/// Bytes of rustls's input buffer, unless it has grown.
const INPUT_BYTES: usize = 4096;

/// About how many bytes a session takes beside what waits in it, and how many more during its
/// handshake.
const SESSION_BYTES: usize = 12 * 1024;
const HANDSHAKE_BYTES: usize = 8 * 1024;

/// The most bytes of a message of the handshake.
const MESSAGE_BYTES: usize = 64 * 1024;

/// The outcome of a handshake, as scripts see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Details {
    /// `TLSv1.2` or `TLSv1.3`.
    pub version: &'static str,
    /// The cipher suite, by the name that the standard gives it.
    pub cipher: String,
    /// The application protocol, if one was agreed on.
    pub alpn: Option<Vec<u8>>,
    /// The name that the client has asked for.
    pub server_name: Option<String>,
    /// The certificate of the peer, if it has shown one.
    pub peer: Option<Certificate>,
    /// Whether an earlier session was resumed.
    pub resumed: bool,
}

/// TLS of one connection, without I/O: [`Session::feed`] takes what was received, [`Session::read`]
/// gives its plaintext; [`Session::write`] takes plaintext, [`Session::flush`] gives what is to be
/// sent.
#[derive(Debug)]
pub struct Session {
    tls: Connection,
    /// The server that a client wants to reach.
    name: Option<Box<str>>,
    /// Why it has failed.
    failure: Option<Box<Failure>>,
    /// What was received and rustls had no room for.
    unfed: Vec<u8>,
    /// The first bytes of the peer, to show them if they are not TLS.
    first: [u8; SHOWN_BYTES],
    first_len: u8,
    /// The peer's system has ended the stream.
    has_ended: bool,
    /// Rustls's input buffer has grown.
    has_grown: bool,
    /// Received bytes that rustls may still hold, of the handshake and for the script.
    kept: usize,
}

/// What follows the bytes of [`Session::read`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rest {
    /// Nothing more for now.
    Nothing,
    /// There may be more.
    More,
    /// The peer has ended its output (close_notify).
    Closed,
    /// The session, or the connection under it, has ended otherwise.
    Failed(Code),
}

impl Session {
    pub(super) fn client(
        config: Arc<ClientConfig>,
        name: ServerName<'static>,
    ) -> Result<Session, Failure> {
        let text = name.to_str().into_owned().into_boxed_str();
        let tls = ClientConnection::new(config, name).map_err(failed(false))?;
        Ok(Session::new(Connection::Client(tls), Some(text)))
    }

    pub(super) fn server(config: Arc<ServerConfig>) -> Result<Session, Failure> {
        let tls = ServerConnection::new(config).map_err(failed(true))?;
        Ok(Session::new(Connection::Server(tls), None))
    }

    fn new(mut tls: Connection, name: Option<Box<str>>) -> Session {
        // Each write is bounded, and the write queue above waits until it has left.
        tls.set_buffer_limit(None);
        Session {
            tls,
            name,
            failure: None,
            unfed: Vec::new(),
            first: [0; SHOWN_BYTES],
            first_len: 0,
            has_ended: false,
            has_grown: false,
            kept: 0,
        }
    }

    /// Whether the handshake is not over.
    pub fn is_handshaking(&self) -> bool {
        self.tls.is_handshaking()
    }

    /// Why the session has failed.
    pub fn failure(&self) -> Option<&Failure> {
        self.failure.as_deref()
    }

    /// About how many bytes of memory it takes, with `owed` bytes encrypted and not sent.
    pub fn held_bytes(&self, owed: usize) -> usize {
        let handshake = if self.is_handshaking() { HANDSHAKE_BYTES } else { 0 };
        SESSION_BYTES + handshake + self.unfed.capacity() + self.kept + owed
    }

    /// Takes bytes that were received.
    pub fn feed(&mut self, bytes: &[u8]) {
        if self.failure.is_some() {
            return;
        }
        let started = usize::from(self.first_len);
        if started < SHOWN_BYTES {
            let more = bytes.len().min(SHOWN_BYTES - started);
            self.first[started..started + more].copy_from_slice(&bytes[..more]);
            self.first_len += more as u8;
        }
        self.has_grown |= bytes.len() > INPUT_BYTES;
        if self.is_handshaking() {
            self.kept = MESSAGE_BYTES.min(self.kept + bytes.len());
        }
        if self.unfed.is_empty() {
            let taken = self.take(bytes);
            self.unfed.extend_from_slice(&bytes[taken..]);
        } else {
            self.unfed.extend_from_slice(bytes);
            self.take_unfed();
        }
    }

    fn take_unfed(&mut self) {
        let unfed = std::mem::take(&mut self.unfed);
        let taken = self.take(&unfed);
        if taken < unfed.len() {
            self.unfed = unfed[taken..].to_vec();
        }
    }

    /// Has rustls take as many bytes as it has room for; returns how many.
    fn take(&mut self, bytes: &[u8]) -> usize {
        let mut rest = bytes;
        while !rest.is_empty() {
            match self.tls.read_tls(&mut rest) {
                // After close_notify everything is ignored.
                Ok(0) => return bytes.len(),
                Ok(_) => {
                    if !self.process() {
                        return bytes.len();
                    }
                }
                // No room until plaintext is read.
                Err(_) => return bytes.len() - rest.len(),
            }
        }
        bytes.len()
    }

    fn process(&mut self) -> bool {
        forget();
        let is_server = matches!(self.tls, Connection::Server(_));
        let error = match self.tls.process_new_packets() {
            Ok(state) if !self.is_handshaking() => {
                self.kept = state.plaintext_bytes_to_read();
                return true;
            }
            Ok(_) => return true,
            Err(error) => error,
        };
        let mut failure = Failure::new(&error, is_server);
        let is_first = self.is_handshaking() && failure.text.contains("is not TLS");
        if is_first {
            let shown = &self.first[..usize::from(self.first_len)];
            failure.text = format!("{}: it begins with \"{}\"", failure.text, shown.escape_ascii());
        }
        self.failure = Some(Box::new(failure));
        self.unfed = Vec::new();
        false
    }

    /// The peer's system has ended the stream.
    pub fn end(&mut self) {
        self.has_ended = true;
        // Rustls learns of the end of the stream by a read of nothing.
        let _ = self.tls.read_tls(&mut io::empty());
        if self.failure.is_none() && self.is_handshaking() {
            let text = "the peer has closed the connection during the handshake";
            self.failure = Some(Box::new(Failure::handshake(text)));
        }
    }

    /// Copies plaintext to `space`; returns how many bytes, and what follows them.
    pub fn read(&mut self, space: &mut [MaybeUninit<u8>]) -> (usize, Rest) {
        let mut filled = 0;
        loop {
            let mut reader = self.tls.reader();
            let found = match reader.fill_buf() {
                Ok([]) if !self.unfed.is_empty() && self.failure.is_none() => {
                    self.unfed = Vec::new();
                    return (filled, Rest::Closed);
                }
                Ok([]) => return (filled, Rest::Closed),
                Ok(chunk) => {
                    let room = &mut space[filled..];
                    if room.is_empty() {
                        return (filled, Rest::More);
                    }
                    let count = chunk.len().min(room.len());
                    for (place, byte) in room.iter_mut().zip(chunk) {
                        place.write(*byte);
                    }
                    count
                }
                Err(error) => {
                    if let Some(failure) = &self.failure {
                        return (filled, Rest::Failed(failure.code));
                    }
                    if !self.unfed.is_empty() {
                        self.take_unfed();
                        continue;
                    }
                    // Rustls has not learnt of the end if it had no room for input then.
                    let is_end = self.has_ended || error.kind() == io::ErrorKind::UnexpectedEof;
                    let code = Code::TLS_TRUNCATED;
                    return (filled, if is_end { Rest::Failed(code) } else { Rest::Nothing });
                }
            };
            reader.consume(found);
            filled += found;
            self.kept = self.kept.saturating_sub(found);
        }
    }

    /// Whether there are bytes to send.
    pub fn wants_flush(&self) -> bool {
        self.tls.wants_write()
    }

    /// Writes bytes that are to be sent to `output`, in one call.
    ///
    /// # Errors
    /// Those of `output`.
    pub fn flush(&mut self, output: &mut dyn Write) -> io::Result<usize> {
        self.tls.write_tls(output)
    }

    /// Encrypts bytes of the pieces behind the first `skip`, up to a bound; returns how many.
    pub fn write(&mut self, pieces: &[IoSlice<'_>], mut skip: usize) -> usize {
        let (mut some, mut count, mut left) = ([IoSlice::new(&[]); PIECES_MAX], 0, WRITE_BYTES);
        for piece in pieces {
            let skipped = skip.min(piece.len());
            skip -= skipped;
            let part = &piece[skipped..];
            let part = &part[..left.min(part.len())];
            if !part.is_empty() && count < PIECES_MAX {
                (some[count], count, left) = (IoSlice::new(part), count + 1, left - part.len());
            }
        }
        // Nothing is refused: there is no limit.
        self.tls.writer().write_vectored(&some[..count]).unwrap_or(0)
    }

    /// Ends our output (close_notify).
    pub fn close(&mut self) {
        if self.failure.is_none() && !self.is_handshaking() {
            self.tls.send_close_notify();
        }
    }

    /// Gives memory back that an idle session does not need.
    pub fn shrink(&mut self) {
        if std::mem::take(&mut self.has_grown) {
            // Rustls resizes its buffer before it reads, and this reads nothing.
            let _ = self.tls.read_tls(&mut Never);
        }
    }

    /// The outcome of the handshake.
    pub fn details(&self) -> Details {
        let suite = self.tls.negotiated_cipher_suite().map(|suite| suite.suite());
        let suite = suite.and_then(|suite| suite.as_str()).unwrap_or("unknown");
        let server_name = match &self.tls {
            Connection::Client(_) => self.name.as_deref().map(str::to_owned),
            Connection::Server(server) => server.server_name().map(str::to_owned),
        };
        let peer = self.tls.peer_certificates().and_then(|chain| chain.first());
        Details {
            version: match self.tls.protocol_version() {
                Some(ProtocolVersion::TLSv1_3) => "TLSv1.3",
                Some(ProtocolVersion::TLSv1_2) => "TLSv1.2",
                _ => "unknown",
            },
            cipher: suite.replacen("TLS13_", "TLS_", 1),
            alpn: self.tls.alpn_protocol().map(<[u8]>::to_vec),
            server_name,
            peer: peer.and_then(|peer| Certificate::read(peer)),
            resumed: self.tls.handshake_kind() == Some(rustls::HandshakeKind::Resumed),
        }
    }
}

fn failed(is_server: bool) -> impl Fn(rustls::Error) -> Failure {
    forget();
    move |error| Failure::new(&error, is_server)
}

/// A reader that has nothing to read yet.
struct Never;

impl Read for Never {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        Err(io::ErrorKind::WouldBlock.into())
    }
}
