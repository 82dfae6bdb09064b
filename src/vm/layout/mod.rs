//! LuaJIT's structures, as its source has them on 64-bit machines, for what no function of its API
//! gives access to: the only mirror of them.
//!
//! `vm/known.rs` compares it with a state, once per process, and without its consent no state is
//! created. So whoever uses this need not look again.

mod object;
mod slot;

pub use object::*;
pub use slot::*;
