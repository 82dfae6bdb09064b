//! Sockets: framed connections, listeners, connection attempts, and the write queue.

mod acceptor;
mod connection;
mod connector;
mod linger;
mod remotes;
mod shared;
mod table;
mod writer;

pub use acceptor::Acceptor;
pub use connection::{Connection, OptionsRefused, Read};
pub use connector::{Connector, Progress};
pub use linger::{linger, wait_for_lingering};
pub use remotes::Remotes;
pub use shared::SharedWriter;
pub use table::Table;
pub use writer::{Body, QUEUE_BYTES_MAX, Staged, Writer};
