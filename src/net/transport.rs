//! What carries the bytes of a connection.

use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::ops::Deref;
use std::sync::OnceLock;

use super::secure::Secure;
use crate::rt::Stream;

/// A connected socket whose bytes are those of the connection, or, with TLS, stand for them. Frames
/// and queues are above it.
#[derive(Debug)]
pub(super) struct Transport {
    stream: Stream,
    secure: OnceLock<Box<Secure>>,
}

impl Transport {
    pub(super) fn new(stream: Stream) -> Transport {
        Transport { stream, secure: OnceLock::new() }
    }

    /// TLS, if there is some.
    #[inline]
    pub(super) fn secure(&self) -> Option<&Secure> {
        self.secure.get().map(|secure| &**secure)
    }

    /// From now on bytes are encrypted; false if they are already.
    #[cfg(feature = "tls")]
    pub(super) fn set_secure(&self, secure: Secure) -> bool {
        self.secure.set(Box::new(secure)).is_ok()
    }

    /// Whether nothing can be read or written yet.
    #[inline]
    pub(super) fn is_handshaking(&self) -> bool {
        self.secure().is_some_and(Secure::is_handshaking)
    }

    /// Whether bytes are kept until then, however many the system would take.
    pub(super) fn is_held(&self) -> bool {
        self.secure().is_some_and(Secure::is_held)
    }

    /// Receives bytes; none at the end of the stream.
    ///
    /// # Errors
    /// `WouldBlock` when there are none for now; otherwise the socket's error, or a [`Code`].
    ///
    /// [`Code`]: crate::error::Code
    pub(super) fn receive(&self, space: &mut [MaybeUninit<u8>]) -> io::Result<usize> {
        match self.secure() {
            None => self.stream.read(space),
            Some(secure) => secure.receive(&self.stream, space),
        }
    }

    /// Whether there is something to receive without asking the kernel.
    #[inline]
    pub(super) fn has_more(&self) -> bool {
        self.secure().is_some_and(Secure::has_more)
    }

    /// Sends as much of these pieces as goes; nothing if the system takes no more for now.
    ///
    /// # Errors
    /// The socket's, or a [`Code`].
    ///
    /// [`Code`]: crate::error::Code
    #[inline]
    pub(super) fn send(&self, pieces: &[IoSlice<'_>]) -> io::Result<Option<usize>> {
        if let Some(secure) = self.secure() {
            return secure.send(&self.stream, pieces);
        }
        match self.stream.write(pieces) {
            Ok(count) => Ok(Some(count)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Tells the peer that nothing follows, if that takes more than closing; true once it has left.
    /// A connection that is closed does not wait for its handshake.
    #[inline]
    pub(super) fn finish(&self, is_closed: bool) -> bool {
        self.secure().is_none_or(|secure| secure.finish(&self.stream, is_closed))
    }

    /// Gives memory back that an idle connection does not need.
    #[inline]
    pub(super) fn shrink(&self) {
        if let Some(secure) = self.secure() {
            secure.shrink();
        }
    }
}

impl Deref for Transport {
    type Target = Stream;

    fn deref(&self) -> &Stream {
        &self.stream
    }
}
