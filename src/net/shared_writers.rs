//! Write handles to connections owned by other contexts.

use std::sync::{Arc, Weak};

use super::shared_writer::SharedWriter;
use super::{Body, WriteBatch};
use crate::error::Code;
use crate::frame::{Encoder, FrameError};
use crate::message::{ByNumber, Held};
use crate::sched::Context;

/// Connections that are remembered before closed ones among them are looked for.
const SWEEP_MIN: usize = 64;

/// One of them.
#[derive(Debug)]
struct Remote {
    writer: Weak<SharedWriter>,
    encoder: Encoder,
    staged: WriteBatch,
    is_dirty: bool,
}

/// What a context has written to connections of others in its present turn, by their integers.
#[derive(Debug, Default)]
pub struct SharedWriters {
    by_fd: ByNumber<Remote>,
    /// With as many, those that are closed are looked for.
    sweep: usize,
    dirty: Vec<u64>,
}

impl SharedWriters {
    /// True if nothing is staged.
    pub fn is_clean(&self) -> bool {
        self.dirty.is_empty()
    }

    /// The connection with this integer, if it is open and remembered.
    pub fn get(&self, fd: u64) -> Option<Arc<SharedWriter>> {
        self.by_fd.get(&fd)?.writer.upgrade().filter(|shared| !shared.is_closed())
    }

    /// True if something is staged for the connection with this integer.
    #[inline]
    pub fn is_dirty(&self, fd: u64) -> bool {
        self.by_fd.get(&fd).is_some_and(|remote| remote.is_dirty)
    }

    /// Begins to stage for a connection.
    pub fn begin(&mut self, fd: u64, shared: &Arc<SharedWriter>, encoder: Encoder) {
        if self.by_fd.len() >= self.sweep.max(SWEEP_MIN) {
            self.by_fd.retain(|_, remote| remote.is_dirty || remote.writer.strong_count() > 0);
            self.sweep = 2 * self.by_fd.len();
        }
        let remote = self.by_fd.entry(fd).or_insert_with(|| Remote {
            writer: Arc::downgrade(shared),
            encoder,
            staged: WriteBatch::default(),
            is_dirty: false,
        });
        // The owner may have changed it.
        remote.encoder = encoder;
        if !std::mem::replace(&mut remote.is_dirty, true) {
            self.dirty.push(fd);
        }
    }

    /// Stages a frame for a connection that was begun with: see [`WriteBatch::write`]. `None` if it
    /// was not.
    #[inline]
    pub fn write(
        &mut self,
        fd: u64,
        body: Body<'_>,
        token: u64,
    ) -> Option<Result<bool, FrameError>> {
        let remote = self.by_fd.get_mut(&fd)?;
        Some(remote.staged.write(&remote.encoder, body, token))
    }

    /// What has just been staged for a connection was counted before.
    pub fn keep_held(&mut self, fd: u64, held: Held) {
        if let Some(remote) = self.by_fd.get_mut(&fd) {
            remote.staged.keep_held(held);
        }
    }

    /// Writes what is staged, or queues it; see [`Writer::flush`](super::Writer::flush).
    pub fn flush(&mut self, context: &Arc<Context>, mut notify: impl FnMut(u64, Result<(), Code>)) {
        for fd in self.dirty.drain(..) {
            let Some(remote) = self.by_fd.get_mut(&fd) else { continue };
            remote.is_dirty = false;
            match remote.writer.upgrade() {
                Some(shared) => shared.writer().flush(&mut remote.staged, context, &mut notify),
                None => {
                    remote.staged.refuse(Code::SOCKET_CLOSED, &mut notify);
                    self.by_fd.remove(&fd);
                }
            }
        }
    }
}
