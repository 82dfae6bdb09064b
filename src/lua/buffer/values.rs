//! How buffers leave a VM and enter another.

use std::ffi::c_int;

use mlua::ffi::lua_State;

use super::userdata;
use crate::buf::{INLINE_MAX, Piece};
use crate::message::Pooled;
use crate::vm::convert;

/// How buffers travel: by reference.
#[derive(Debug)]
pub struct BufferValues;

impl convert::Buffers for BufferValues {
    unsafe fn share(
        state: *mut lua_State,
        index: c_int,
    ) -> Result<Option<convert::Content>, convert::Released> {
        // SAFETY: the caller's contract.
        match unsafe { userdata::test(state, index) } {
            None => Ok(None),
            Some(buffer) if buffer.is_live() => Ok(Some(match Pooled::new(buffer.as_slice()) {
                Some(bytes) => convert::Content::Small(bytes),
                None => convert::Content::Shared(buffer.share()),
            })),
            Some(_) => Err(convert::Released),
        }
    }

    unsafe fn push(state: *mut lua_State, content: &Piece) {
        // SAFETY: the caller's contract.
        unsafe {
            if content.len() <= INLINE_MAX {
                userdata::push_bytes(state, content);
            } else {
                userdata::push_shared(state, content.clone());
            }
        }
    }

    unsafe fn push_copy(state: *mut lua_State, content: &[u8]) {
        // SAFETY: the caller's contract.
        unsafe { userdata::push_bytes(state, content) };
    }
}
