//! Functions of buffers and packets, while finalisers change the buffer that they are at work on.

use std::cell::RefCell;

use super::message;
use super::program::Program;

thread_local! {
    static PROGRAM: RefCell<Program> =
        const { RefCell::new(Program::new("@finaliser.lua", include_str!("finaliser.lua"))) };
}

/// A program for `finaliser.lua`: what the finalisers do, and what is called meanwhile.
pub(super) fn run(input: &[u8]) {
    PROGRAM.with_borrow_mut(|program| program.run(input, message::open));
}
