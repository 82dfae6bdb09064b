//! What travels between contexts.

mod allowance;
pub mod decode;
pub mod encode;
mod event;
mod id;
mod numbers;
pub mod seen;
pub mod value;

pub(crate) use value::PIECE_BYTES;

pub use allowance::{Allowance, Held, Making};
pub use decode::{Malformed, Reader, check};
pub use encode::{Packed, Tag, TooLarge, Writer};
pub use event::{Ending, Event, Failure, Published, SESSION_BITS};
pub use id::Id;
pub use numbers::{ByNumber, Ids};
pub use seen::Seen;
pub use value::{Counted, Encoded, Text, Value};
