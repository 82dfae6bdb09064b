//! Reference-counted bytes.

mod scratch;

pub use scratch::{Scratch, fill_block};
