//! Reference-counted bytes, and the binary formats that scripts pack and unpack.

mod block;
mod piece;
mod read_buffer;

pub use block::{
    FRAME_INLINE_MAX, INLINE_MAX, LIVE, NlBuffer, OWNED, Plan, ROOM_DEFAULT, SHARED, SIZE_MAX,
    STORE_BYTES, TooLarge, UNIQUE, fill_block,
};
pub use piece::Piece;
pub use read_buffer::ReadBuffer;
