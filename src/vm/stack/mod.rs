//! Values on the stack of a state, as native functions read and push them.

use std::ffi::CStr;

/// The registry field of the table of native functions.
pub(crate) const TABLE: &CStr = c"node-lua.native";

/// Calls a function of LuaJIT's API on a [`Stack`]. Those whose names end with `_` are as LuaJIT
/// has them: mlua's others look at what was pushed as well.
macro_rules! vm {
    ($lua:expr, $function:ident $(, $argument:expr)*) => {
        // SAFETY: by the contract of `Stack::new` the state is alive, run by this thread, and has
        // slots free for what is pushed. Indices are those of values that are there, and of the
        // type that the function takes, as the method that this stands in has it; texts are
        // terminated, or passed with their length, and copied.
        unsafe { ffi::$function($lua.raw $(, $argument)*) }
    };
}

mod objects;
mod records;
mod results;
pub(crate) mod slots;
mod values;

pub(crate) use records::{Record, place_of};
pub(crate) use results::singles;
pub use results::{Nil, Results, Single, Whole};
pub use values::{Stack, function};
