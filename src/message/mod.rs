//! What travels between contexts.

mod allowance;
pub mod decode;
pub mod encode;
mod event;
mod id;
mod pooled;
pub mod tables;
pub mod value;

pub use allowance::{Allowance, Held};
pub use decode::{Malformed, Reader};
pub use encode::{Tag, TooLarge, Writer};
pub use event::{Ending, Event, Published};
pub use id::Id;
pub use pooled::Pooled;
pub use tables::Tables;
pub(crate) use value::PIECE_BYTES;
pub use value::{Counted, Encoded, Text, Value};
