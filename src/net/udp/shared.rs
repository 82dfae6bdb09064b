//! Datagram sockets that any context may write to.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use super::batch::UdpBatch;
use super::writer::UdpWriter;
use crate::error::Code;
use crate::net::Body;
use crate::net::shared::{Numbers, Shared, Way};
use crate::sched::Context;

/// A socket as other contexts see it.
pub type SharedUdp = Shared<UdpWriter>;

impl Way for UdpWriter {
    type More = ();

    fn all() -> &'static Numbers<UdpWriter> {
        static ALL: Numbers<UdpWriter> = Numbers::new(1);
        &ALL
    }
}

impl SharedUdp {
    /// The socket with this integer, if it is open.
    pub fn get(fd: u64) -> Option<Arc<SharedUdp>> {
        UdpWriter::all().get(fd)
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
