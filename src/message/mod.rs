//! What travels between contexts.

pub mod decode;
pub mod encode;
mod event;
mod id;
mod pooled;
pub mod tables;
pub mod value;

pub use decode::{Malformed, Reader};
pub use encode::{Tag, TooLarge, Writer};
pub use event::{Ending, Event};
pub use id::Id;
pub use pooled::Pooled;
pub use tables::Tables;
pub use value::{Encoded, Text, Value};
