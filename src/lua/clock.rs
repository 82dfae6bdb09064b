//! Clocks, as scripts read them.

use std::ffi::c_int;

use crate::rt;
use crate::vm::stack::{Stack, function};

/// Functions for the table of natives.
pub(super) const FUNCTIONS: super::native::Functions =
    &[(c"now", function(now)), (c"wall_clock", function(wall_clock))];

/// native.now(): seconds of the monotonic clock.
fn now(lua: Stack<'_>) -> c_int {
    lua.push_number(rt::now() as f64 / 1e9);
    1
}

/// native.wall_clock(): seconds since 1970.
fn wall_clock(lua: Stack<'_>) -> c_int {
    lua.push_number(rt::wall_clock().as_secs_f64());
    1
}
