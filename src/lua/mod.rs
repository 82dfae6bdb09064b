//! The VM: states, values, and the native functions behind the script API.

pub mod convert;
pub mod state;
