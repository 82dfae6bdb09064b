//! The VM: states, values, and the native functions behind the script API.

pub mod state;
