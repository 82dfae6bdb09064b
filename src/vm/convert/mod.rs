//! Lua values out of one VM and into another.
//!
//! [`to_value`] takes a value off a stack, [`push_value`] puts one on. Tables go through the wire
//! form of [`message::encode`](crate::message::encode); metatables stay behind. What buffers are is
//! for [`Buffers`] to say.
//!
//! Lua reports that memory ran out by unwinding through these functions. They own nothing that
//! matters while Lua runs: what is being built belongs to the caller's [`Scratch`], or to Lua.

mod from_lua;
pub(crate) mod plain;
#[cfg(test)]
mod tests;
mod to_lua;

pub use from_lua::{Scratch, Unsupported, to_large_value, to_small_value, to_value};
pub use to_lua::{Refused, push_value};

use std::ffi::c_int;

use crate::buf::Piece;
use crate::message::Value;
use crate::vm::stack::Stack;

/// Stack slots that must be free when [`to_value`] or [`push_value`] is called. A C function that
/// Lua calls has 20.
pub const STACK_SLOTS: c_int = 16;

/// Levels of tables after which another [`STACK_SLOTS`] are claimed: each level takes two, and a
/// value on its way up to five more.
const LEVELS_PER_CLAIM: u32 = 5;

/// How buffers leave and enter a VM.
pub trait Buffers {
    /// The content of the userdata at `index`, shared, or a copy if it is small. `Ok(None)` if it
    /// is no buffer. Needs no more than three stack slots.
    ///
    /// # Errors
    /// It is one that was released.
    fn share(lua: Stack<'_>, index: c_int) -> Result<Option<Content>, Released>;

    /// Pushes a buffer with this content, by reference or, if it is small, a copy. May unwind;
    /// needs no more than three stack slots.
    fn push(lua: Stack<'_>, content: &Piece);

    /// Pushes a buffer with a copy of these bytes. May unwind; needs no more than three stack
    /// slots.
    fn push_copy(lua: Stack<'_>, content: &[u8]);
}

/// What a buffer holds, on its way.
#[derive(Debug)]
pub enum Content {
    /// Few bytes.
    Small(Box<[u8]>),
    /// A block that others may hold too.
    Shared(Piece),
}

impl Content {
    fn into_value(self) -> Value {
        match self {
            Content::Small(bytes) => Value::SmallBuffer(bytes),
            Content::Shared(piece) => Value::Buffer(Box::new(piece)),
        }
    }

    fn into_piece(self) -> Piece {
        match self {
            Content::Small(bytes) => Piece::copy(&bytes),
            Content::Shared(piece) => piece,
        }
    }
}

/// A buffer that was released holds nothing to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Released;

/// For states without buffers: no userdata is one, and one that arrives becomes nil.
#[derive(Debug)]
pub struct NoBuffers;

impl Buffers for NoBuffers {
    fn share(_: Stack<'_>, _: c_int) -> Result<Option<Content>, Released> {
        Ok(None)
    }

    fn push(lua: Stack<'_>, _: &Piece) {
        lua.push_nil();
    }

    fn push_copy(lua: Stack<'_>, _: &[u8]) {
        lua.push_nil();
    }
}
