//! Operations on a few buffers that share blocks, against strings.

use std::cell::RefCell;

use super::message;
use super::program::Program;

thread_local! {
    static PROGRAM: RefCell<Program> =
        const { RefCell::new(Program::new("@buffer.lua", include_str!("buffer.lua"))) };
}

/// A program for `buffer.lua`: each byte or two is an operation.
pub(super) fn run(input: &[u8]) {
    PROGRAM.with_borrow_mut(|program| program.run(input, message::open));
}
