//! The Rust side of the C declarations in `ffi/`, and the functions scripts call.
