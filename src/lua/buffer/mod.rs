//! Buffers, as scripts have them: userdata, and the functions that are called with it.

#![allow(unsafe_code, reason = "buffers are read in place by scripts")]

mod call;
pub(crate) mod format;
pub mod header;
mod methods;
pub(crate) mod pack;
pub mod userdata;
pub mod values;

pub use format::{FormatError, Item, Options, Step};
