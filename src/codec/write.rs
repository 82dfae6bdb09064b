//! What writers have in common.

use serde::ser::Impossible;

use super::Error;

/// Where bytes go. Its methods fail if there is no room for them.
#[expect(clippy::missing_errors_doc, reason = "said above: all fail alike")]
pub trait Sink {
    /// What there is, with room for this many bytes more; nothing if there may not be as many.
    fn room(&mut self, more: usize) -> Option<&mut Vec<u8>>;

    /// The same, or the error of a writer.
    #[inline]
    fn claim(&mut self, more: usize) -> Result<&mut Vec<u8>, Error> {
        self.room(more).ok_or_else(|| Error::new("no room"))
    }

    /// Appends a byte.
    #[inline]
    fn add_byte(&mut self, byte: u8) -> Result<(), Error> {
        self.claim(1)?.push(byte);
        Ok(())
    }

    /// Appends bytes.
    #[inline]
    fn add(&mut self, bytes: &[u8]) -> Result<(), Error> {
        append(self.claim(bytes.len())?, bytes);
        Ok(())
    }
}

impl Sink for Vec<u8> {
    fn room(&mut self, more: usize) -> Option<&mut Vec<u8>> {
        self.reserve(more);
        Some(self)
    }
}

/// Appends bytes, for which there is room; few without a call.
#[inline(always)]
pub(super) fn append(out: &mut Vec<u8>, bytes: &[u8]) {
    let end = out.len() + bytes.len();
    if let (Some(first), Some(last), 8..=16) =
        (bytes.first_chunk::<8>(), bytes.last_chunk::<8>(), bytes.len())
    {
        out.extend_from_slice(first);
        out.truncate(end - 8);
        out.extend_from_slice(last);
    } else if let (Some(first), Some(last), 4..8) =
        (bytes.first_chunk::<4>(), bytes.last_chunk::<4>(), bytes.len())
    {
        out.extend_from_slice(first);
        out.truncate(end - 4);
        out.extend_from_slice(last);
    } else {
        out.extend_from_slice(bytes);
    }
}

/// Whether all bytes are ASCII; few without a loop, whose end nobody can guess.
#[inline(always)]
#[cfg(feature = "msgpack")]
pub(super) fn is_ascii(bytes: &[u8]) -> bool {
    const HIGH: u64 = 0x8080_8080_8080_8080;
    let bits = if let (Some(first), Some(last)) = (bytes.first_chunk(), bytes.last_chunk()) {
        if bytes.len() > 16 {
            return bytes.is_ascii();
        }
        u64::from_le_bytes(*first) | u64::from_le_bytes(*last)
    } else if let (Some(first), Some(last)) = (bytes.first_chunk(), bytes.last_chunk()) {
        u64::from(u32::from_le_bytes(*first) | u32::from_le_bytes(*last))
    } else {
        bytes.iter().fold(0, |bits, byte| bits << 8 | u64::from(*byte))
    };
    bits & HIGH == 0
}

/// Methods for types that no value of a script has.
macro_rules! refused {
    ($($name:ident ($($of:ty),*) $([$type:ident])? -> $to:ty;)*) => {
        $(fn $name $(<$type: Serialize + ?Sized>)? (self, $(_: $of),*) -> Result<$to> {
            Err(Error::new("a type that no script has"))
        })*
    };
}

/// What neither format has, of what a serializer must have.
macro_rules! refuse_what_no_script_has {
    () => {
        type SerializeTuple = Never;
        type SerializeTupleStruct = Never;
        type SerializeTupleVariant = Never;
        type SerializeStruct = Never;
        type SerializeStructVariant = Never;

        refused! {
            serialize_i8(i8) -> ();
            serialize_i16(i16) -> ();
            serialize_i32(i32) -> ();
            serialize_u8(u8) -> ();
            serialize_u16(u16) -> ();
            serialize_u32(u32) -> ();
            serialize_f32(f32) -> ();
            serialize_char(char) -> ();
            serialize_none() -> ();
            serialize_unit_struct(&'static str) -> ();
            serialize_unit_variant(&'static str, u32, &'static str) -> ();
            serialize_newtype_struct(&'static str, &T) [T] -> ();
            serialize_tuple(usize) -> Never;
            serialize_tuple_struct(&'static str, usize) -> Never;
            serialize_tuple_variant(&'static str, u32, &'static str, usize) -> Never;
            serialize_struct(&'static str, usize) -> Never;
            serialize_struct_variant(&'static str, u32, &'static str, usize) -> Never;
        }
    };
}

pub(super) use {refuse_what_no_script_has, refused};

/// What nobody gets.
pub(super) type Never = Impossible<(), Error>;
