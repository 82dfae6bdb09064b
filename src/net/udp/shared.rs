//! Datagram sockets that any context may write to, by an integer.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::batch::UdpBatch;
use super::writer::UdpWriter;
use crate::error::Code;
use crate::message::Id;
use crate::net::Body;
use crate::net::numbers::Numbers;
use crate::sched::Context;

/// A socket as other contexts see it. The socket holds it; others keep weak references.
#[derive(Debug)]
pub struct SharedUdp {
    owner: Id,
    key: u64,
    fd: u64,
    writer: Arc<UdpWriter>,
    is_shared: AtomicBool,
    is_connected: AtomicBool,
    is_ip6: bool,
}

static ALL: Numbers<SharedUdp> = Numbers::new(1);

impl SharedUdp {
    /// Gives a socket of `owner`, which knows it as `key`, its integer.
    pub(super) fn new(
        owner: Id,
        key: u64,
        writer: &Arc<UdpWriter>,
        is_ip6: bool,
    ) -> Arc<SharedUdp> {
        ALL.add(owner, key, |fd| {
            Arc::new(SharedUdp {
                owner,
                key,
                fd,
                writer: Arc::clone(writer),
                is_shared: AtomicBool::new(false),
                is_connected: AtomicBool::new(false),
                is_ip6,
            })
        })
    }

    /// The socket with this integer, if it is open.
    pub fn get(fd: u64) -> Option<Arc<SharedUdp>> {
        ALL.get(fd)
    }

    /// The integer, which the process gives to no other socket.
    pub fn fd(&self) -> u64 {
        self.fd
    }

    /// The context the socket belongs to.
    pub fn owner(&self) -> Id {
        self.owner
    }

    /// The key under which its owner knows the socket.
    pub fn key(&self) -> u64 {
        self.key
    }

    /// The way out.
    pub fn writer(&self) -> &UdpWriter {
        &self.writer
    }

    /// Whether it is for IPv6.
    pub fn is_ip6(&self) -> bool {
        self.is_ip6
    }

    /// Lets others write, or stops that.
    pub(super) fn set_shared(&self, on: bool) {
        // Relaxed, here and below: what it allows is told by other ways.
        self.is_shared.store(on, Ordering::Relaxed);
    }

    /// Whether others may write.
    pub fn is_shared(&self) -> bool {
        self.is_shared.load(Ordering::Relaxed)
    }

    pub(super) fn set_connected(&self) {
        self.is_connected.store(true, Ordering::Relaxed);
    }

    /// Whether it has one peer.
    pub fn is_connected(&self) -> bool {
        self.is_connected.load(Ordering::Relaxed)
    }
}

impl Drop for SharedUdp {
    fn drop(&mut self) {
        ALL.remove(self.fd);
    }
}

/// What a context has written to sockets of others in its present turn, by their integers.
#[derive(Debug, Default)]
pub struct SharedUdpBatches(BTreeMap<u64, (Arc<SharedUdp>, UdpBatch)>);

impl SharedUdpBatches {
    /// True if nothing is staged.
    pub fn is_clean(&self) -> bool {
        self.0.is_empty()
    }

    /// Stages a datagram; true if there are so many now that they are to leave.
    pub fn push(
        &mut self,
        shared: Arc<SharedUdp>,
        to: Option<SocketAddr>,
        body: Body<'_>,
        token: u64,
    ) -> bool {
        let staged = self.0.entry(shared.fd()).or_insert_with(|| (shared, UdpBatch::default()));
        staged.1.push(to, body, token)
    }

    /// Sends what is staged; see [`UdpWriter::flush`].
    pub fn flush(&mut self, context: &Arc<Context>, mut notify: impl FnMut(u64, Result<(), Code>)) {
        for (shared, mut staged) in std::mem::take(&mut self.0).into_values() {
            shared.writer().flush(&mut staged, context, &mut notify);
        }
    }
}
