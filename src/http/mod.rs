//! HTTP/1.1 and HTTP/2 on a context's sockets: hyper, polled in its own turns. No VM.
//!
//! A turn polls the connections that were woken ([`Ready`]), which put the requests they receive
//! into an [`Inbox`]. A response wakes its connection; the turn ends once nothing is woken any
//! more.
//!
//! # Examples
//! ```
//! use node_lua::http::Scan;
//!
//! let sound = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
//! let doubtful = "GET / HTTP/1.1\r\nHost : a\r\n\r\n";
//! let scanned = Scan::new(8192, 100).scan(sound.as_bytes());
//! assert_eq!((scanned.sound, scanned.refusal), (sound.len(), None));
//! assert!(Scan::new(8192, 100).scan(doubtful.as_bytes()).refusal.is_some());
//! ```

mod body;
mod client;
mod connection;
mod count;
mod date;
mod file;
mod pace;
mod plain;
mod ready;
mod response;
mod scan;
mod server;
mod tasks;
mod wire;

pub use body::{Channel, Outgoing, Written, WrongLength};
pub use client::{Client, PendingResponse};
pub use connection::{CONNECTION_BYTES, Connection};
pub use count::{BODY_BYTES, HEADER_BYTES, counted, head_bytes};
pub use date::date;
pub use file::{Chosen, choose};
pub use pace::{Due, Pace};
pub use plain::{HeadWriter, PlainHead, has_no_body, write_response};
pub use ready::{Item, Ready, waker};
pub use response::ResponseSlot;
pub use scan::{NEVER_TRAILERS, Refusal, Scan, Scanned, is_host};
pub use server::{Arrived, Inbox, Limits, Server, refusal_response};
pub use wire::TURN_TIME;
