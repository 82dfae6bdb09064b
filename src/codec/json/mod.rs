//! JSON (RFC 8259), read and written.
//!
//! # Examples
//! ```
//! use node_lua::codec::json::Reader;
//! use serde::Deserialize;
//!
//! let mut reader = Reader::new("[1, 2.5]");
//! assert_eq!(Vec::<f64>::deserialize(&mut reader).unwrap(), [1.0, 2.5]);
//! assert!(reader.end().is_ok());
//! ```

mod read;
mod scan;
mod write;

pub use read::{Place, Reader};
pub use write::{Style, Writer};
