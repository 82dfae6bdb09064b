//! Reference-counted bytes, and the binary formats that scripts pack and unpack.

mod block;
mod format;
mod piece;
mod scratch;

pub use block::{
    FRAME_INLINE_MAX, INLINE_MAX, LIVE, NlBuffer, OWNED, Plan, ROOM_DEFAULT, SHARED, SIZE_MAX,
    STORE_BYTES, TooLarge, UNIQUE,
};
pub use format::{FormatError, Item, Options, Step};
pub use piece::Piece;
pub use scratch::{Scratch, fill_block};
