//! node-lua: thousands of isolated LuaJIT contexts over all cores, behind one binary.
//!
//! Layers, ground to top; each may use only those above it in this list:
//!
//! 0. [`error`], [`failpoint`], `rt`, `thread`, [`logging`], [`stdio`]: codes; failures on order;
//! the
//!    async runtime, clock and sockets; interruptions; the log; standard output and children
//! 1. [`buf`], [`frame`]: bytes, and their division into frames
//! 2. [`message`]: what travels between contexts
//! 3. [`context`]: who runs, and when
//! 4. [`net`], [`timer`]: sockets and deadlines
//! 5. [`abi`], [`lua`]: the C declarations shared with scripts; the VM
//! 6. [`cli`]: the command line

pub mod buf;
pub mod cli;
pub mod error;
pub mod failpoint;
pub mod frame;
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
pub mod vm;
