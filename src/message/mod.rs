//! What travels between contexts.

mod event;
mod id;
mod value;

pub use event::Event;
pub use id::Id;
pub use value::Value;
