//! Connections that any context may write to.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use super::Writer;
use super::shared::{Numbers, Shared, Way};
use crate::frame::Encoder;
use crate::sync::lock;

/// The write side of a connection, as other contexts see it.
pub type SharedWriter = Shared<Writer>;

/// What else they need.
#[derive(Debug, Default)]
pub struct Connected {
    encoder: Mutex<Encoder>,
    is_closed: AtomicBool,
}

impl Way for Writer {
    type More = Connected;

    fn all() -> &'static Numbers<Writer> {
        static ALL: Numbers<Writer> = Numbers::new(0);
        &ALL
    }
}

impl SharedWriter {
    /// The connection with this integer, if it is open.
    pub fn get(fd: u64) -> Option<Arc<SharedWriter>> {
        Writer::all().get(fd).filter(|shared| !shared.is_closed())
    }

    /// How frames look from now on.
    pub fn set_encoder(&self, encoder: Encoder) {
        *lock(&self.more.encoder) = encoder;
    }

    /// How frames look, if others may write.
    pub fn encoder(&self) -> Option<Encoder> {
        self.is_shared().then(|| *lock(&self.more.encoder))
    }

    /// True once the owner has closed the connection.
    pub fn is_closed(&self) -> bool {
        // Acquire: pairs with the store in `close`.
        self.more.is_closed.load(Ordering::Acquire)
    }

    /// The owner closes the connection.
    pub fn close(&self) {
        self.more.is_closed.store(true, Ordering::Release);
    }
}
