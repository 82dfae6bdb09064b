//! The C declarations in `ffi/` and their Rust mirrors must agree: sizes, offsets, constants.

#![allow(clippy::unwrap_used, reason = "a test")]

mod support;

use std::fmt::Write;
use std::mem::{align_of, size_of};

use node_lua::buf;

#[test]
fn buffer_header_matches_rust() {
    let mut script = String::from(
        "local ffi = require 'ffi'\n\
         native_for_tests.load 'buffer/cdef'(native_for_tests, 'buffer.h')\n\
         local function same(what, c, rust)\n\
           assert(c == rust, what .. ': ' .. tostring(c) .. ' in C, ' .. rust .. ' in Rust')\n\
         end\n",
    );
    let mut same = |what: &str, rust: u64| {
        writeln!(script, "same([[{what}]], tonumber({what}), {rust})").expect("string");
    };
    same("ffi.sizeof 'nl_buffer'", size_of::<buf::NlBuffer>() as u64);
    same("ffi.alignof 'nl_buffer'", align_of::<buf::NlBuffer>() as u64);
    for (field, offset) in buf::NlBuffer::FIELDS {
        same(&format!("ffi.offsetof('nl_buffer', '{field}')"), *offset as u64);
    }
    for (name, value) in [
        ("LIVE", buf::LIVE),
        ("UNIQUE", buf::UNIQUE),
        ("OWNED", buf::OWNED),
        ("SHARED", buf::SHARED),
    ] {
        same(&format!("ffi.C.NL_BUFFER_{name}"), u64::from(value));
    }
    let state = support::vm::state();
    support::vm::run(&state, "=abi", &script).unwrap();
}
