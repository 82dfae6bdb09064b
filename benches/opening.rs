//! What a context's state costs to open, part by part: `cargo bench --bench opening`.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a tool")]

#[path = "../tests/support/vm.rs"]
#[allow(dead_code, reason = "tests use the rest")]
mod vm;

use std::time::Instant;

use node_lua::vm::state::State;

const STATES: u32 = 1000;

fn measure(what: &str, open: impl Fn() -> State) {
    let start = Instant::now();
    let states: Vec<State> = (0..STATES).map(|_| open()).collect();
    let bytes = states[0].account().lua_bytes();
    println!("{what}: {:?} and {bytes} bytes each", start.elapsed() / STATES);
}

fn main() {
    measure("a state", || State::new().unwrap());
    measure("with the library of buffers, from source", vm::state);
    measure("with its accessors, from source", || {
        let state = vm::state();
        vm::run(&state, "=access", "buffer.new('x'):u8(0)").unwrap();
        state
    });
}
