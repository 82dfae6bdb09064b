//! Formats of values. Each is read by a deserializer of serde's over bytes that are all there, and
//! written by a serializer: of JSON our own, which looks at many bytes of a text at once; of
//! MessagePack `rmp-serde`'s.
//!
//! They know neither a VM nor sockets, borrow text where they can, allocate only for text with
//! escapes, and can say which byte is wrong.

mod error;
#[cfg(feature = "json")]
pub mod json;
#[cfg(feature = "msgpack")]
pub mod msgpack;

pub use error::Error;
