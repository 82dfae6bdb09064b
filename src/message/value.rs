//! One value on its way from one VM to another, owned by neither.
//!
//! Holds no Lua reference and does not know how tables are written: see
//! [`encode`](super::encode) for their form and `lua::convert` for the way in and out of a VM.
//!
//! ```
//! use node_lua::message::{Text, Value};
//!
//! let value = Value::String(Text::new(b"short strings need no memory of their own"));
//! let Value::String(text) = &value else { unreachable!() };
//! assert_eq!(text.as_bytes().len(), 41);
//! ```

use std::fmt;
use std::sync::Arc;

use super::allowance::{Allowance, Held};
use super::decode::vm_bytes;
use crate::buf::Piece;

/// Longest text kept inside the value itself.
const INLINE_BYTES: usize = 30;

/// About what a message takes in a mailbox beside what its value holds, and what that it is counted
/// takes.
const MESSAGE_BYTES: usize = 192;

/// About how many bytes a buffer in a table takes beside its content.
pub(crate) const PIECE_BYTES: usize = 96;

/// A value that a message can carry.
///
/// # Examples
/// ```
/// use bytes::Bytes;
/// use node_lua::buf::Piece;
/// use node_lua::message::{Text, Value};
///
/// let text = Value::String(Text::new(b"short strings need no memory of their own"));
/// assert_eq!(text.held_bytes(), 41);
/// let block = Piece::from(Bytes::from(vec![0; 8000]));
/// let buffer = Value::Buffer(Box::new(block.slice(0..4000)));
/// assert_eq!(buffer.held_bytes(), 8000); // it keeps the whole block
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Value {
    /// `nil`
    #[default]
    Nil,
    /// `true` or `false`
    Bool(bool),
    /// A Lua number.
    Number(f64),
    /// A signed 64-bit cdata.
    Int64(i64),
    /// An unsigned 64-bit cdata.
    UInt64(u64),
    /// The address in a light userdata; whoever made it answers for what is there.
    LightUserdata(usize),
    /// A Lua string, which may hold any bytes.
    String(Text),
    /// The content of a small buffer.
    SmallBuffer(Box<[u8]>),
    /// The content of a buffer, by reference. Boxed because the rest is half as large.
    Buffer(Box<Piece>),
    /// A table and all it holds.
    Table(Encoded),
    /// Any of these, while it counts as held by the context that has sent it.
    Counted(Box<(Value, Counted)>),
    /// In place of a value that holds more than its sender may; nobody takes it.
    TooMuch,
}

/// That the bytes of a value are held. Values are the same with and without.
#[derive(Clone, Debug)]
pub struct Counted(Arc<Held>);

impl Counted {
    /// Whether they are held by the context that has this allowance.
    pub fn is_of(&self, allowance: &Arc<Allowance>) -> bool {
        self.0.is_of(allowance)
    }
}

impl PartialEq for Counted {
    fn eq(&self, _: &Counted) -> bool {
        true
    }
}

impl Value {
    /// Bytes of memory that it keeps beside itself, shared blocks included.
    #[inline(always)]
    pub fn held_bytes(&self) -> usize {
        match self {
            Value::Nil
            | Value::Bool(_)
            | Value::Number(_)
            | Value::Int64(_)
            | Value::UInt64(_)
            | Value::LightUserdata(_)
            | Value::String(Text(Repr::Inline { .. })) => 0,
            Value::Table(Encoded { bytes, buffers: None }) => bytes.len(),
            _ => self.bytes_elsewhere(),
        }
    }

    fn bytes_elsewhere(&self) -> usize {
        match self {
            Value::String(Text(Repr::Boxed(bytes))) => bytes.len(),
            Value::Buffer(piece) => piece.block_bytes(),
            Value::SmallBuffer(bytes) => bytes.len(),
            Value::Counted(inner) => inner.0.held_bytes(),
            Value::Table(table) => {
                let blocks = table.buffers().iter().map(|piece| piece.block_bytes() + PIECE_BYTES);
                table.bytes().len() + blocks.sum::<usize>()
            }
            Value::TooMuch => usize::MAX,
            _ => 0,
        }
    }

    /// Whether it counts as held by the context that has this allowance.
    pub fn is_held_by(&self, allowance: &Arc<Allowance>) -> bool {
        matches!(self, Value::Counted(inner) if inner.1.is_of(allowance))
    }

    /// Bytes that it may come to take, wherever it waits: those of the VM that reads it too.
    fn counted_bytes(&self) -> usize {
        let wire = match self {
            Value::Table(table) => table.bytes(),
            Value::Counted(inner) => return inner.0.counted_bytes(),
            _ => &[],
        };
        let more = vm_bytes(wire).unwrap_or(0).saturating_sub(wire.len());
        self.held_bytes().saturating_add(more)
    }

    /// The same value, which is counted, with the message that it is, until it is dropped; gives it
    /// back if that is more than is allowed.
    ///
    /// # Errors
    /// The value as it was.
    pub fn count(self, allowance: &Arc<Allowance>) -> Result<Value, Value> {
        self.count_for(1, allowance)
    }

    /// The same for this many messages that share it.
    ///
    /// # Errors
    /// The value as it was.
    pub fn count_for(self, messages: usize, allowance: &Arc<Allowance>) -> Result<Value, Value> {
        let bytes = self.counted_bytes().saturating_add(messages * MESSAGE_BYTES);
        if let Value::Counted(mut inner) = self {
            // Counted while it was written, and known to nobody else.
            let held = Arc::get_mut(&mut inner.1.0).filter(|held| held.is_of(allowance));
            let is_counted = match held {
                Some(held) => held.try_set(bytes),
                None => return inner.0.count_for(messages, allowance),
            };
            return if is_counted { Ok(Value::Counted(inner)) } else { Err(Value::Counted(inner)) };
        }
        match allowance.hold(bytes) {
            Some(held) => Ok(self.counted(held)),
            None => Err(self),
        }
    }

    /// The same value, while it counts as what is held.
    pub fn counted(self, held: Held) -> Value {
        Value::Counted(Box::new((self, Counted(Arc::new(held)))))
    }

    /// The same value, which counts no more.
    pub fn uncounted(self) -> Value {
        match self {
            Value::Counted(inner) => inner.0,
            value => value,
        }
    }
}

/// The bytes of a string: short ones in place, others in memory of their own.
#[derive(Clone)]
pub struct Text(Repr);

#[derive(Clone)]
enum Repr {
    Inline { len: u8, bytes: [u8; INLINE_BYTES] },
    Boxed(Box<[u8]>),
}

impl Text {
    /// A copy of `bytes`.
    #[inline]
    pub fn new(bytes: &[u8]) -> Text {
        Text::inline(bytes).unwrap_or_else(|| Text(Repr::Boxed(bytes.into())))
    }

    /// A copy that needs no memory of its own; none if `bytes` are too many.
    #[inline]
    pub fn inline(bytes: &[u8]) -> Option<Text> {
        let mut inline = [0; INLINE_BYTES];
        inline.get_mut(..bytes.len())?.copy_from_slice(bytes);
        Some(Text(Repr::Inline { len: bytes.len() as u8, bytes: inline }))
    }

    /// The bytes.
    #[inline]
    pub fn as_bytes(&self) -> &[u8] {
        match &self.0 {
            Repr::Inline { len, bytes } => &bytes[..usize::from(*len)],
            Repr::Boxed(bytes) => bytes,
        }
    }
}

impl From<Vec<u8>> for Text {
    /// Takes the memory over if the bytes do not fit in place.
    fn from(bytes: Vec<u8>) -> Text {
        if bytes.len() > INLINE_BYTES { Text(Repr::Boxed(bytes.into())) } else { Text::new(&bytes) }
    }
}

impl PartialEq for Text {
    fn eq(&self, other: &Text) -> bool {
        self.as_bytes() == other.as_bytes()
    }
}

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.as_bytes().escape_ascii())
    }
}

/// A table in wire form, with the buffers it refers to by index.
#[derive(Clone, Debug, PartialEq)]
pub struct Encoded {
    bytes: Box<[u8]>,
    /// Absent if there are none, as is usual, to keep values small.
    #[expect(clippy::box_collection, reason = "a vector in place would make values larger")]
    buffers: Option<Box<Vec<Piece>>>,
}

impl Encoded {
    /// The bytes a [`Writer`](super::encode::Writer) made, and the buffers in the order of their
    /// indices.
    #[inline]
    pub fn new(bytes: &[u8], buffers: Vec<Piece>) -> Encoded {
        let buffers = if buffers.is_empty() { None } else { Some(Box::new(buffers)) };
        Encoded { bytes: bytes.into(), buffers }
    }

    /// The same with memory that it takes over.
    pub fn from_vec(bytes: Vec<u8>, buffers: Vec<Piece>) -> Encoded {
        let buffers = if buffers.is_empty() { None } else { Some(Box::new(buffers)) };
        Encoded { bytes: bytes.into(), buffers }
    }

    /// The wire form, for a [`Reader`](super::decode::Reader).
    #[inline]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The buffers the wire form refers to.
    #[inline]
    pub fn buffers(&self) -> &[Piece] {
        self.buffers.as_deref().map_or(&[], Vec::as_slice)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn values_stay_small() {
        assert!(size_of::<Value>() <= 32, "{} bytes", size_of::<Value>());
    }

    #[test]
    fn text_keeps_its_bytes_around_the_inline_limit() {
        for len in [0, 1, INLINE_BYTES - 1, INLINE_BYTES, INLINE_BYTES + 1, 1000] {
            let bytes: Vec<u8> = (0..len).map(|n| n as u8).collect();
            assert_eq!(Text::new(&bytes).as_bytes(), bytes);
            assert_eq!(Text::from(bytes.clone()), Text::new(&bytes));
        }
    }

    #[test]
    fn encoded_keeps_its_buffers_in_order() {
        let buffers = vec![Piece::copy(b"a"), Piece::copy(b"b")];
        assert_eq!(Encoded::new(b"x", buffers.clone()).buffers(), buffers);
        assert!(Encoded::new(b"x", Vec::new()).buffers().is_empty());
    }
}
