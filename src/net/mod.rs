//! Sockets: framed connections, listeners, connection attempts, and the write queue.

mod connection;
mod connector;
mod table;
mod writer;

pub use connection::{Connection, Read};
pub use connector::{Connector, Progress};
pub use table::Table;
pub use writer::{Staged, Writer};
