//! Exports the VM's symbols from the binary, so that C modules (`require "cjson"`) find them, and
//! `ffi.C` finds ours.
//!
//! On x86-64 Linux the VM's look at the processor goes through src/lua/state.rs, which remembers
//! the answer: every state asks four times, and under a hypervisor each question is a trap. There
//! its machine code is made known to the unwinder through src/lua/unwind.rs. On
//! Linux its seeds come from there too, so that a simulation can choose them, and what it calls of
//! the C library for streams and child processes is in src/stdio/.

/// What LuaJIT's `io` and `os` call of the C library, and src/stdio/ and src/lua/native/stdio.rs
/// have a function for.
const STREAM_FUNCTIONS: [&str; 10] = [
    "fflush",
    "fgets",
    "fopen64",
    "fread",
    "fwrite",
    "getc",
    "__isoc99_fscanf",
    "popen",
    "system",
    "tmpfile64",
];

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rustc-link-arg-bins=-rdynamic");
    let target = |name: &str| std::env::var(format!("CARGO_CFG_TARGET_{name}"));
    if target("OS").as_deref() == Ok("linux") && target("ENV").as_deref() == Ok("gnu") {
        for function in STREAM_FUNCTIONS {
            println!("cargo:rustc-link-arg-bins=-Wl,--wrap={function}");
        }
    }
    if target("OS").as_deref() == Ok("linux") {
        println!("cargo:rustc-link-arg-bins=-Wl,--wrap=lj_prng_seed_secure");
    }
    if target("ARCH").as_deref() == Ok("x86_64") && target("OS").as_deref() == Ok("linux") {
        println!("cargo:rustc-link-arg-bins=-Wl,--wrap=lj_vm_cpuid");
        if target("ENV").as_deref() == Ok("gnu") {
            println!("cargo:rustc-link-arg-bins=-Wl,--wrap=__register_frame");
            println!("cargo:rustc-link-arg-bins=-Wl,--wrap=__deregister_frame");
        }
    }
}
