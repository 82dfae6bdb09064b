//! The `node-lua` binary.

#[path = "vm/linked.rs"]
mod linked;

use std::process::ExitCode;

fn main() -> ExitCode {
    node_lua::os::memory::init();
    node_lua::os::stdio::init();
    node_lua::os::init();
    node_lua::cli::run::run(std::env::args_os().collect())
}
