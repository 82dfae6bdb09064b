//! Several processes: names, topics and queries over NATS.
//!
//! Each process has a [`Node`]: it knows the others, the names they answer under, and the queries
//! that are under way, and it has a subject of its own that others send to. What it has to send it
//! gathers for the bus, which takes it all at once: [`nats`], the only place that knows NATS and
//! tokio, or [`simulated`]. What is said is in [`wire`], and in `docs/PROTOCOL.md`.
//!
//! # Examples
//! ```
//! use std::sync::Arc;
//!
//! use node_lua::cluster::{Node, Options, nats};
//! use node_lua::sched::Scheduler;
//!
//! let scheduler = Scheduler::new(1);
//! let node = Node::new("one".to_owned(), &scheduler);
//! scheduler.join(Arc::clone(&node) as _);
//! let options = Options { servers: "http://example.org".to_owned(), ..Options::default() };
//! assert!(nats::start(&options, &node).is_err()); // not nats://host:port
//! ```

mod access;
mod contacts;
mod contexts;
mod names;
pub mod nats;
pub mod node;
mod options;
mod outbox;
mod peers;
pub mod simulated;
mod state;
pub mod wire;

pub use node::Node;
pub use options::Options;
pub use outbox::Parcel;
pub use simulated::Bus;
