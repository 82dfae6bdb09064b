//! What travels between contexts.

pub mod decode;
pub mod encode;
pub mod tables;
pub mod value;

pub use decode::{Malformed, Reader};
pub use encode::{Tag, TooLarge, Writer};
pub use tables::Tables;
pub use value::{Encoded, Text, Value};
