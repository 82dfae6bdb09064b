//! The virtual machine: the only room that knows LuaJIT. It knows neither sockets nor peers.
//!
//! # Examples
//! ```
//! use node_lua::vm::state::State;
//!
//! let state = State::new().expect("memory for a state");
//! let lua = state.stack();
//! lua.push_text(b"hello");
//! assert_eq!((lua.top(), lua.text(1)), (1, Some(&b"hello"[..])));
//! assert!(state.account().lua_bytes() > 0);
//! ```

#![allow(unsafe_code, reason = "the VM is a C library")]

pub mod blame;
mod charge;
pub(crate) mod chunk_cache;
pub mod convert;
pub mod coroutine;
pub(crate) mod cut;
#[cfg(any(feature = "json", feature = "msgpack"))]
pub(crate) mod data;
mod disguise;
pub(crate) mod environments;
pub mod finaliser;
pub mod foreign_signals;
mod frames;
pub mod hook;
pub mod int64;
pub(crate) mod kept;
mod known;
pub mod layout;
pub mod line_hook;
pub(crate) mod memory;
pub(crate) mod native;
mod openers;
mod pattern;
pub mod prelude;
pub(crate) mod pristine;
pub mod profiler;
pub(crate) mod run;
mod spent;
pub mod stack;
pub mod standard;
pub mod state;
mod stdio;
pub(crate) mod stock;
mod streams;
mod strings;
pub mod tables;
mod texts;
pub(crate) mod traceback;
pub mod unwind;
pub mod userdata;
