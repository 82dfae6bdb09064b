//! How buffers leave a VM and enter another.

use std::ffi::{c_int, c_void};
use std::ptr::NonNull;
use std::sync::OnceLock;

use super::userdata;
use crate::buf::{INLINE_MAX, NlBuffer, Piece};
use crate::vm::convert;
use crate::vm::stack::Stack;

/// Buffers of at most this many bytes travel as a copy, without a count of references.
const SMALL_MAX: usize = 119;

/// How buffers travel: by reference, unless they are small.
#[derive(Debug)]
pub struct BufferValues;

impl convert::Buffers for BufferValues {
    fn share(lua: Stack<'_>, index: c_int) -> Result<Option<convert::Content>, convert::Released> {
        match userdata::buffer_at(lua, index) {
            None => {
                let parcel = OTHER.get().and_then(|other| (other.take)(lua, index));
                Ok(parcel.map(convert::Content::Shared))
            }
            Some(buffer) if buffer.is_live() => Ok(Some(match buffer.len() {
                0..=SMALL_MAX => convert::Content::Small(buffer.as_slice().into()),
                _ => convert::Content::Shared(buffer.share()),
            })),
            Some(_) => Err(convert::Released),
        }
    }

    fn push(lua: Stack<'_>, content: &Piece) {
        if content.len() <= INLINE_MAX {
            // So small a piece that comes by reference may be something else.
            if !OTHER.get().is_some_and(|other| (other.push)(lua, content)) {
                userdata::push_bytes(lua, content);
            }
        } else {
            userdata::push_shared(lua, content.clone());
        }
    }

    fn push_copy(lua: Stack<'_>, content: &[u8]) {
        userdata::push_bytes(lua, content);
    }
}

/// Userdata that is none of a buffer and travels all the same, as a small piece that stands for it.
pub(crate) struct Other {
    /// The piece for what is at an index, if it is one.
    pub(crate) take: fn(Stack<'_>, c_int) -> Option<Piece>,
    /// Pushes what a piece stands for; false if it is one of bytes.
    pub(crate) push: fn(Stack<'_>, &Piece) -> bool,
}

static OTHER: OnceLock<Other> = OnceLock::new();

/// Has this userdata travel, in all states.
#[cfg(feature = "tls")]
pub(crate) fn travel(other: Other) {
    let _ = OTHER.set(other);
}

/// The address of a C function, for the FFI, that calls `body`, which captures nothing, with a
/// number and what a buffer userdata holds.
pub(crate) fn with_buffer<F: Fn(i64, &mut NlBuffer) -> c_int + Copy>(_body: F) -> *mut c_void {
    const { assert!(size_of::<F>() == 0, "no variables are captured") };
    /// # Safety
    /// `buffer` must be what a buffer userdata holds.
    unsafe extern "C" fn call<F: Fn(i64, &mut NlBuffer) -> c_int + Copy>(
        number: i64,
        buffer: *mut NlBuffer,
    ) -> c_int {
        // SAFETY: a type without size, of which `with_buffer` was given a value; and the FFI passes
        // what a buffer userdata holds, which nobody else looks at meanwhile.
        let (body, buffer) = unsafe { (NonNull::<F>::dangling().read(), &mut *buffer) };
        body(number, buffer)
    }
    call::<F> as *mut c_void
}

/// The same for a number and a string, given by its start and length.
pub(crate) fn with_text<F: Fn(i64, &[u8]) -> c_int + Copy>(_body: F) -> *mut c_void {
    const { assert!(size_of::<F>() == 0, "no variables are captured") };
    /// # Safety
    /// `start` must be valid for `length` bytes.
    unsafe extern "C" fn call<F: Fn(i64, &[u8]) -> c_int + Copy>(
        number: i64,
        start: *const u8,
        length: u32,
    ) -> c_int {
        // SAFETY: a type without size, of which `with_text` was given a value; and the FFI passes a
        // string of the VM's, which does not change, with its length.
        let (body, text) = unsafe {
            (NonNull::<F>::dangling().read(), std::slice::from_raw_parts(start, length as usize))
        };
        body(number, text)
    }
    call::<F> as *mut c_void
}
