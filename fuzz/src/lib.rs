//! Fuzz targets: functions that take any bytes and panic, or crash, only if node-lua is wrong.
//!
//! `main.rs` drives them with a mutator of its own on a stable compiler, `bin/libfuzzer.rs` with
//! libFuzzer; `tests/props.rs` of the main package replays `corpus/` with every `cargo test`. How
//! to run them is in `tests/README.md`.

pub mod mutate;
pub mod targets;
#[path = "../../tests/support/vm.rs"]
#[allow(dead_code, missing_docs, unreachable_pub, reason = "shared with the tests")]
mod vm;
