//! Sockets: framed connections, listeners, connection attempts, and the write queue; datagrams.

mod acceptor;
mod connection;
mod connector;
mod leftovers;
pub(crate) mod linger;
#[cfg_attr(not(feature = "tls"), path = "no_secure.rs")]
mod secure;
mod shared;
mod shared_writer;
mod shared_writers;
mod slot_map;
mod transport;
mod udp;
mod writer;

pub use acceptor::Acceptor;
#[cfg(feature = "websocket")]
pub use connection::websocket::{Incoming, WebSocketOptions};
pub use connection::{Connection, OptionsRefused, Read};
pub use connector::{Connector, Progress};
pub use linger::{linger, wait_for_lingering};
pub use shared_writer::SharedWriter;
pub use shared_writers::SharedWriters;
pub use slot_map::SlotMap;
pub use udp::{
    Received, SharedUdp, SharedUdpBatches, UdpBatch, UdpSocket, UdpWriter, linger_datagrams,
};
pub use writer::{Body, QUEUE_BYTES_MAX, WriteBatch, Writer};
