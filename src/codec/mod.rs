//! Formats of values, read: each is a deserializer of serde's over bytes that are all there.
//!
//! They know neither a VM nor sockets, borrow text where they can, allocate only for text with
//! escapes, and can say which byte is wrong. What is written, `serde_json` and `rmp-serde` write.

mod error;
#[cfg(feature = "json")]
pub mod json;
#[cfg(feature = "msgpack")]
pub mod msgpack;

pub use error::Error;
