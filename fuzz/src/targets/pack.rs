//! `pack` and `unpack`: the format's walk, and values there and back through a VM.

use std::cell::RefCell;

use node_lua::lua::buffer::Options;

use super::message;
use super::program::Program;

thread_local! {
    static PROGRAM: RefCell<Program> =
        const { RefCell::new(Program::new("@pack.lua", include_str!("pack.lua"))) };
}

/// The input as a format, then as a program for `pack.lua`.
pub(super) fn run(input: &[u8]) {
    let mut options = Options::new(input);
    let (mut offset, mut steps) = (0usize, 0);
    while let Ok(Some(step)) = options.step(offset) {
        assert!(step.padding < 16, "{step:?}");
        offset = offset + step.padding + 1;
        steps += 1;
        assert!(steps <= input.len(), "more items than characters");
    }
    PROGRAM.with_borrow_mut(|program| program.run(input, message::open));
}
