//! Exports the VM's symbols from the binary, so that C modules (`require "cjson"`) find them, and
//! `ffi.C` finds ours.
//!
//! On x86-64 the VM's look at the processor goes through src/vm/state.rs, which remembers the
//! answer: every state asks four times, and under a hypervisor each question is a trap. There its
//! machine code is made known to the unwinder through src/vm/unwind.rs. That takes over panics that
//! it has caught, too. Its seeds come from src/vm/state.rs, so that a simulation can choose them; it
//! does not free the objects of a state that ends one by one; and what it calls of the C library for
//! streams and child processes is in src/os/stdio/. Its profiler's timer is set in
//! src/vm/profiler.rs.
//!
//! LuaJIT's own Lua modules (`jit.v`, `jit.dump`, `jit.bcsave` and their like) are embedded from
//! the source of the very VM that is linked: Cargo.lock has one version of luajit-src, for mlua and
//! for this script. One of them, `jit.vmdef`, is made by LuaJIT's build; so that is run once more,
//! but for this file alone.

#![allow(unsafe_code, reason = "sets a variable")]

use std::fmt::Write;
use std::path::Path;
use std::{env, fs};

/// What LuaJIT's `io` and `os` call of the C library, and src/os/stdio/ and src/vm/stdio.rs
/// have a function for.
const STREAM_FUNCTIONS: [&str; 15] = [
    "fclose",
    "fflush",
    "fgets",
    "fopen64",
    "fread",
    "fseeko64",
    "ftello64",
    "fwrite",
    "getc",
    "__isoc99_fscanf",
    "mkstemp64",
    "pclose",
    "popen",
    "system",
    "tmpfile64",
];

/// What of LuaJIT runs long, or is called by what does, what nests on the C stack, calls finalisers,
/// sets hooks and finds functions in C: src/vm/linked.rs.
const LINKED_FUNCTIONS: [&str; 10] = [
    "dlsym",
    "lj_lex_next",
    "lj_str_find",
    "lj_vm_call",
    "lj_vm_pcall",
    "lj_vm_resume",
    "lua_call",
    "lua_gethook",
    "lua_gethookmask",
    "lua_lessthan",
];

/// What .cargo/config.toml gives other names.
const RENAMED_FUNCTIONS: [(&str, &str); 13] = [
    ("lua_yield", "node_lua_vm_yield"),
    ("lua_sethook", "node_lua_vm_sethook"),
    ("luaopen_base", "node_lua_vm_luaopen_base"),
    ("luaopen_bit", "node_lua_vm_luaopen_bit"),
    ("luaopen_debug", "node_lua_vm_luaopen_debug"),
    ("luaopen_ffi", "node_lua_vm_luaopen_ffi"),
    ("luaopen_io", "node_lua_vm_luaopen_io"),
    ("luaopen_jit", "node_lua_vm_luaopen_jit"),
    ("luaopen_math", "node_lua_vm_luaopen_math"),
    ("luaopen_os", "node_lua_vm_luaopen_os"),
    ("luaopen_package", "node_lua_vm_luaopen_package"),
    ("luaopen_string", "node_lua_vm_luaopen_string"),
    ("luaopen_table", "node_lua_vm_luaopen_table"),
];

/// What adds keys to tables: src/vm/tables.rs.
const TABLE_FUNCTIONS: [&str; 4] =
    ["lj_tab_newkey", "lj_tab_set", "lj_tab_setinth", "lj_tab_reasize"];

/// What knows the machine: src/vm/state.rs and src/vm/unwind.rs.
const MACHINE_FUNCTIONS: [&str; 3] = ["lj_vm_cpuid", "__register_frame", "__deregister_frame"];

/// Writes `jit_modules.rs`: names and texts of the modules that come with LuaJIT.
fn embed_jit_modules() {
    let out = env::var("OUT_DIR").expect("cargo sets it");
    // The makefile's default goal, which the environment may set (`make -e`); were this not heeded,
    // all of LuaJIT would be built, and the result be the same.
    // SAFETY: a build script that has started no thread.
    unsafe { env::set_var("TARGET_T", "jit/vmdef.lua") };
    let built = Path::new(&out).join("luajit");
    luajit_src::Build::new().out_dir(&built).debug(false).build();
    let mut paths: Vec<_> = fs::read_dir(built.join("luajit-build/src/jit"))
        .expect("LuaJIT's build copies its source to where it is told")
        .map(|entry| entry.expect("a folder that can be read").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "lua"))
        .collect();
    paths.sort();
    let mut text = String::from("&[\n");
    for path in &paths {
        let stem = path.file_stem().expect("a file").to_string_lossy();
        let code = fs::read_to_string(path).expect("LuaJIT's modules are text");
        writeln!(text, "    (\"jit.{stem}\", c\"@jit/{stem}.lua\", {code:?}),").expect("memory");
    }
    text.push_str("]\n");
    assert!(text.contains("jit.vmdef"), "LuaJIT's build made no jit/vmdef.lua");
    fs::write(Path::new(&out).join("jit_modules.rs"), text).expect("cargo's folder can be written");
    // Nothing else of it is needed.
    let _ = fs::remove_dir_all(built);
}

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-env-changed=CFLAGS");
    println!("cargo:rustc-check-cfg=cfg(renames)");
    let flags = env::var("CFLAGS").unwrap_or_default();
    let is_renamed = |(name, other): (&str, &str)| flags.contains(&format!("-D{name}={other}"));
    let renames = RENAMED_FUNCTIONS.into_iter().all(is_renamed);
    if renames {
        println!("cargo:rustc-cfg=renames");
    }
    let sethook = if renames { "node_lua_vm_sethook" } else { "lua_sethook" };
    embed_jit_modules();
    println!("cargo:rustc-link-arg-bins=-rdynamic");
    let wrapped =
        ["setitimer", "_Unwind_DeleteException", "lj_prng_seed_secure", "lj_gc_freeall", sethook];
    for function in STREAM_FUNCTIONS.iter().chain(&LINKED_FUNCTIONS).chain(&wrapped) {
        println!("cargo:rustc-link-arg-bins=-Wl,--wrap={function}");
    }
    if env::var("CARGO_CFG_TARGET_ARCH").as_deref() == Ok("x86_64") {
        for function in TABLE_FUNCTIONS.iter().chain(&MACHINE_FUNCTIONS) {
            println!("cargo:rustc-link-arg-bins=-Wl,--wrap={function}");
        }
    }
}
