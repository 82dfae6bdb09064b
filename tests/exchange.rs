//! Who asks gets an answer: at whatever point either side of an exchange ends, nobody hangs.
//! The cases are enumerated by `tests/exchange/main.lua`.

#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use support::{PATIENCE, node_lua, run_for};

#[test]
fn nobody_hangs_wherever_an_exchange_ends() {
    let mut command = node_lua();
    command.env("RUST_LOG", "off").args(["--workers", "2", "tests/exchange/main.lua"]);
    let done = run_for(&mut command, 2 * PATIENCE);
    assert_eq!(done.stdout, "227 cases\n", "{done}");
    done.succeeded();
}
