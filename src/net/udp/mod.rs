//! Datagram sockets: as their owner uses them, and the way out, which others may share.

mod batch;
mod shared;
mod socket;
mod writer;

pub use batch::UdpBatch;
pub use shared::{SharedUdp, SharedUdpBatches};
pub use socket::{Received, UdpSocket};
pub use writer::{UdpWriter, linger_datagrams};
