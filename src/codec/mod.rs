//! Formats of values. Each is read by a deserializer of serde's over bytes that are all there, and
//! written by a serializer.
//!
//! Who asks for bytes (`deserialize_bytes`) gets any value, and text as its bytes, which nobody has
//! looked at.
//!
//! They know neither a VM nor sockets, borrow text where they can, allocate only for text with
//! escapes, and can say which byte is wrong.

mod error;
#[cfg(feature = "json")]
pub mod json;
#[cfg(feature = "msgpack")]
pub mod msgpack;
#[cfg(any(feature = "json", feature = "msgpack"))]
mod read;
#[cfg(any(feature = "json", feature = "msgpack"))]
mod write;

pub use error::Error;
#[cfg(any(feature = "json", feature = "msgpack"))]
pub use write::Sink;
