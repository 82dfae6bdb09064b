//! The `node-lua` binary.

#[cfg(target_os = "linux")]
mod linked;
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod tables;

use std::process::ExitCode;

fn main() -> ExitCode {
    node_lua::os::memory::init();
    node_lua::os::stdio::init();
    node_lua::os::init();
    node_lua::cli::run::run(std::env::args_os().collect())
}
