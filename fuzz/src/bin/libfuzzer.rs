//! The targets for libFuzzer; the environment variable `TARGET` says which.

#![no_main]

use std::sync::LazyLock;

use node_lua_fuzz::targets::{TARGETS, Target};

static CHOSEN: LazyLock<Target> = LazyLock::new(|| {
    let name = std::env::var("TARGET").expect("TARGET names a target");
    TARGETS.iter().find(|target| target.0 == name).expect("TARGET names a target").1
});

libfuzzer_sys::fuzz_target!(|input: &[u8]| CHOSEN(input));
