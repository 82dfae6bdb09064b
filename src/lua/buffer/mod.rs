//! The Rust side of the C declarations in `ffi/`, and the functions scripts call.

mod call;
pub(crate) mod format;
pub mod header;
mod methods;
pub(crate) mod pack;
pub mod userdata;

pub use format::{FormatError, Item, Options, Step};
