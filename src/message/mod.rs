//! What travels between contexts.

pub mod encode;
pub mod tables;
pub mod value;

pub use encode::{Malformed, Reader, Tag, TooLarge, Writer};
pub use tables::Tables;
pub use value::{Encoded, Text, Value};
