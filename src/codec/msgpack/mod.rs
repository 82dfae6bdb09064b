//! MessagePack, read and written.
//!
//! Text that is not UTF-8 is read as `bytes`, binary data as `borrowed_bytes`; a value of an
//! application's own type as a newtype of its number and its bytes. Bytes are written as text if
//! they are UTF-8, and as binary data if not, or if they are a `some`; those of an application's
//! own type are a variant with its number.
//!
//! ```
//! use node_lua::codec::msgpack::{Reader, Writer};
//! use serde::{Deserialize, Serialize};
//!
//! let mut written = Vec::new();
//! vec![1_u64, 2].serialize(&mut Writer::new(&mut written)).unwrap();
//! assert_eq!(written, [0x92, 1, 2]);
//!
//! let mut reader = Reader::new(&written);
//! assert_eq!(Vec::<u8>::deserialize(&mut reader).unwrap(), [1, 2]);
//! assert_eq!(reader.position(), 3);
//! ```

mod read;
mod write;

pub use read::Reader;
pub use write::Writer;
