//! The `node-lua` binary.

use std::process::ExitCode;

fn main() -> ExitCode {
    node_lua::memory::init();
    node_lua::stdio::init();
    node_lua::rt::init();
    node_lua::cli::run::run(std::env::args_os().collect())
}
