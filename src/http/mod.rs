//! HTTP/1.1 and HTTP/2 on a context's sockets: hyper, polled in its own turns. No VM.
//!
//! A turn polls the connections that were woken ([`Ready`]); these hand requests out ([`Arrived`]).
//! Whoever answers wakes the connection, and the turn ends once nobody is woken any more.
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

mod answer;
mod body;
mod client;
mod connection;
mod count;
mod date;
mod file;
mod lines;
mod ready;
mod scan;
mod server;
mod tasks;
mod wire;

pub use answer::Answer;
pub use body::{Channel, Out, Written};
pub use client::{Client, Response1};
pub use connection::{CONNECTION_BYTES, Connection, Due};
pub use count::{counted, head_bytes};
pub use date::date;
pub use file::{Chosen, choose};
pub use lines::{Head, Lines, write};
pub use ready::{Item, Ready, waker};
pub use scan::{NOT_BEHIND, Refusal, Scan, Scanned};
pub use server::{Arrived, Inbox, Limits, Server, refusal_of};
