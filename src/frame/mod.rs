//! Bytes to frames and back, without I/O.

pub mod length;
pub mod options;

pub use length::{Decoder, Encoder, Head, Step, TooLong};
pub use options::{Endian, HeadOptions, HeadPatch, OptionsError};
