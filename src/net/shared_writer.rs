//! Connections that any context may write to, by an integer.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use super::Writer;
use super::numbers::Numbers;
use crate::frame::Encoder;
use crate::message::Id;
use crate::sync::lock;

/// The write side of a connection, as other contexts see it. The connection holds it; others keep
/// weak references, so that closing the connection closes the socket at once.
#[derive(Debug)]
pub struct SharedWriter {
    owner: Id,
    key: u64,
    fd: u64,
    writer: Arc<Writer>,
    encoder: Mutex<Encoder>,
    is_shared: AtomicBool,
    is_closed: AtomicBool,
}

static ALL: Numbers<SharedWriter> = Numbers::new(0);

impl SharedWriter {
    /// Gives a connection of `owner`, which knows it as `key`, its integer.
    pub fn new(owner: Id, key: u64, writer: &Arc<Writer>) -> Arc<SharedWriter> {
        ALL.add(owner, key, |fd| {
            Arc::new(SharedWriter {
                owner,
                key,
                fd,
                writer: Arc::clone(writer),
                encoder: Mutex::default(),
                is_shared: AtomicBool::new(false),
                is_closed: AtomicBool::new(false),
            })
        })
    }

    /// The connection with this integer, if it is open.
    pub fn get(fd: u64) -> Option<Arc<SharedWriter>> {
        ALL.get(fd).filter(|shared| !shared.is_closed())
    }

    /// The integer, which the process gives to no other connection.
    pub fn fd(&self) -> u64 {
        self.fd
    }

    /// The context the connection belongs to.
    pub fn owner(&self) -> Id {
        self.owner
    }

    /// The key under which its owner knows the connection.
    pub fn key(&self) -> u64 {
        self.key
    }

    /// The write queue.
    pub fn writer(&self) -> &Writer {
        &self.writer
    }

    /// Lets others write, or stops that.
    pub fn set_shared(&self, on: bool) {
        // Release: pairs with the load in `encoder`; the encoder is set before.
        self.is_shared.store(on, Ordering::Release);
    }

    /// How frames look from now on.
    pub fn set_encoder(&self, encoder: Encoder) {
        *lock(&self.encoder) = encoder;
    }

    /// How frames look, if others may write.
    pub fn encoder(&self) -> Option<Encoder> {
        // Acquire: pairs with the store in `set_shared`.
        let is_shared = self.is_shared.load(Ordering::Acquire);
        is_shared.then(|| *lock(&self.encoder))
    }

    /// True once the owner has closed the connection.
    pub fn is_closed(&self) -> bool {
        // Acquire: pairs with the store in `close`.
        self.is_closed.load(Ordering::Acquire)
    }

    /// The owner closes the connection.
    pub fn close(&self) {
        self.is_closed.store(true, Ordering::Release);
    }
}

impl Drop for SharedWriter {
    fn drop(&mut self) {
        ALL.remove(self.fd);
    }
}
