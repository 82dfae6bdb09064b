//! Exports the VM's symbols from the binary, so that C modules (`require "cjson"`) find them, and
//! `ffi.C` finds ours.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rustc-link-arg-bins=-rdynamic");
}
