//! Bytes to frames and back, without I/O.

pub mod length;
pub mod options;
#[cfg(test)]
mod testing;
pub mod unusual;
#[cfg(feature = "websocket")]
pub mod websocket;

pub use length::{Decoder, Encoder, FrameError, Head, Step};
pub use options::{
    Delimiter, Endian, HeadOptions, HeadPatch, OptionsError, ReadOptions, ReadPatch, Width,
};
pub use unusual::{Field, Packet};
