//! The VM: states, values, and the native functions behind the script API.

mod arena;
mod attempts;
mod behavior;
mod command;
mod compiled;
pub mod convert;
mod cut;
mod disguise;
mod fixed_heap;
mod heap;
mod host;
pub mod interrupt;
mod layout;
pub mod library;
mod mail;
mod native;
mod notice;
pub mod objects;
mod pages;
mod pattern;
mod pristine;
mod process;
pub mod profiler;
mod quota;
mod sessions;
mod settings;
mod slots;
mod start;
pub mod state;
mod stock;
mod strings;
mod timers;
mod traceback;
#[cfg(all(target_arch = "x86_64", target_os = "linux", target_env = "gnu"))]
mod unread;
pub mod unwind;

pub(crate) use host::is_open;

pub use behavior::{Paths, Program, Script, Source};
pub use command::{CommandLine, Step};
pub use native::confine::Deny;
pub use process::Process;
pub use settings::Settings;

use std::ffi::c_int;

use mlua::ffi::lua_State;

use crate::abi::buffer;
use crate::buf::{INLINE_MAX, Piece};
use crate::message::Pooled;

/// How buffers travel: by reference.
#[derive(Debug)]
pub struct BufferValues;

impl convert::Buffers for BufferValues {
    unsafe fn share(
        state: *mut lua_State,
        index: c_int,
    ) -> Result<Option<convert::Content>, convert::Released> {
        // SAFETY: the caller's contract.
        match unsafe { buffer::test(state, index) } {
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
                buffer::push_bytes(state, content);
            } else {
                buffer::push_shared(state, content.clone());
            }
        }
    }

    unsafe fn push_copy(state: *mut lua_State, content: &[u8]) {
        // SAFETY: the caller's contract.
        unsafe { buffer::push_bytes(state, content) };
    }
}
