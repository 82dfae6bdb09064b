//! What carries the bytes of a connection.

use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::ops::Deref;

use crate::rt::Stream;

/// A connected socket whose bytes are those of the connection. Frames and queues are above it; what
/// changes the bytes on their way, as TLS does, belongs here.
#[derive(Debug)]
pub(super) struct Transport(Stream);

impl Transport {
    pub(super) fn new(stream: Stream) -> Transport {
        Transport(stream)
    }

    /// Receives bytes; none at the end of the stream.
    ///
    /// # Errors
    /// `WouldBlock` when there are none for now; otherwise the socket's error.
    pub(super) fn receive(&self, space: &mut [MaybeUninit<u8>]) -> io::Result<usize> {
        self.0.read(space)
    }

    /// Sends as much of these pieces as goes; nothing if the system takes no more for now.
    ///
    /// # Errors
    /// The socket's.
    #[inline]
    pub(super) fn send(&self, pieces: &[IoSlice<'_>]) -> io::Result<Option<usize>> {
        match self.0.write(pieces) {
            Ok(count) => Ok(Some(count)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error),
        }
    }
}

impl Deref for Transport {
    type Target = Stream;

    fn deref(&self) -> &Stream {
        &self.0
    }
}
