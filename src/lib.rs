//! node-lua: thousands of isolated LuaJIT contexts over all cores, behind one binary.
//!
//! Rooms, ground to top; each may use only those before it in this list:
//!
//! 0. [`error`], [`failpoint`]: codes; failures on order
//! 1. [`os`], [`sim`], [`rt`]: the system; a simulated one; whichever is on
//! 2. [`logging`], [`buf`], [`frame`], [`message`], [`timer`]: the log; bytes; their division into
//!    frames; what travels between contexts; deadlines
//! 3. [`sched`]: who runs, and when
//! 4. `tls`, [`net`], `cluster`, `http`: TLS without I/O; sockets with frames, and without; other
//!    processes; HTTP
//! 5. [`vm`]: the virtual machine, and nobody else who knows LuaJIT
//! 6. [`lua`]: what scripts call
//! 7. [`cli`]: the command line

#![cfg_attr(
    not(all(feature = "json", feature = "msgpack")),
    allow(dead_code, reason = "some is for these alone")
)]

pub mod buf;
pub mod cli;
#[cfg(feature = "cluster")]
pub mod cluster;
#[cfg(not(feature = "cluster"))]
#[path = "cluster/options.rs"]
pub mod cluster;
#[cfg(any(feature = "json", feature = "msgpack"))]
pub mod codec;
pub mod error;
pub mod failpoint;
pub mod frame;
mod hint;
#[cfg(feature = "http")]
pub mod http;
pub mod logging;
pub mod lua;
pub mod message;
pub mod net;
pub mod os;
pub mod rt;
pub mod sched;
pub mod sim;
mod sync;
pub mod timer;
#[cfg(feature = "tls")]
pub mod tls;
pub mod vm;
