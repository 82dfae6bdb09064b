//! Clocks, as scripts read them.

use crate::rt;
use crate::vm::stack::{Stack, function};

/// Functions for the table of natives.
pub(super) const FUNCTIONS: super::native::Functions =
    &[(c"now", function(now)), (c"wall_clock", function(wall_clock))];

/// native.now(): seconds of the monotonic clock.
fn now(_: Stack<'_>) -> f64 {
    rt::now() as f64 / 1e9
}

/// native.wall_clock(): seconds since 1970.
fn wall_clock(_: Stack<'_>) -> f64 {
    rt::wall_clock().as_secs_f64()
}
