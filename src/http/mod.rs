//! HTTP/1.1 and HTTP/2 on a context's sockets: hyper, polled in its own turns. No VM.
//!
//! A turn polls the connections that were woken ([`Ready`]); these hand requests out ([`Arrived`]).
//! Whoever answers wakes the connection, and the turn ends once nobody is woken any more.

mod answer;
mod body;
mod client;
mod connection;
mod count;
mod date;
mod file;
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
pub use ready::{Item, Ready, waker};
pub use scan::{NOT_BEHIND, Refusal, Scan, Scanned};
pub use server::{Arrived, Inbox, Limits, Server, refusal_of};
