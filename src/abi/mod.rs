//! The Rust side of the C declarations in `ffi/`, and the functions scripts call.

pub mod blame;
pub mod buffer;
mod buffer_calls;
mod call;
pub mod layout;
mod pack;
