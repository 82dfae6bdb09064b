//! Where `unsafe` may be, and that tests run it.

use std::collections::BTreeMap;
use std::fs;

use super::support::repository;
use super::{assert_none, code, has_word, sources};

/// Where `unsafe` may be: bytes, the boundary to C and to the VM, and the system; files that are to
/// be put behind a safe face; and tools.
const UNSAFE: &[&str] = &[
    "src/buf/block",
    "src/lua/buffer/",
    "src/os/",
    "src/vm/",
    "src/http/wire.rs",
    "src/sched/slot.rs",
    "src/sim/tests.rs",
    "benches/src/sys.rs",
    "tests/buffer.rs",
];

/// Unsafe code in `src/` that no test gets to: the file, a part of the block, and why.
const UNREACHED: &[(&str, &str, &str)] = &[
    ("src/vm/stack/mod.rs", "ffi::$function", "a macro: where it is used is what runs"),
    ("src/vm/unwind.rs", "register(frame.cast())", "all areas lie in what was registered at first"),
    ("src/vm/unwind.rs", "__deregister_frame_info", "the same"),
    ("src/vm/unwind.rs", "[u64; OBJECT_WORDS]>()", "the same"),
];

#[test]
fn unsafe_code_is_only_where_it_is_allowed() {
    let mut wrong = Vec::new();
    for (path, source) in sources(&["rs"]) {
        let allowed = UNSAFE.iter().any(|start| path.starts_with(start));
        for (number, line) in code(&source).enumerate() {
            let is_lint = line.contains("unsafe_") && !has_word(line, "unsafe");
            if !allowed && !is_lint && has_word(line, "unsafe") && !line.contains('"') {
                wrong.push(format!("{path}:{}: {}", number + 1, line.trim()));
            }
        }
    }
    for start in UNSAFE {
        let mut inside = sources(&["rs"]).into_iter().filter(|(path, _)| path.starts_with(start));
        if !inside.any(|(_, source)| code(&source).any(|line| has_word(line, "unsafe"))) {
            wrong.push(format!("{start} is on the list, but has no `unsafe`"));
        }
    }
    assert_none(&wrong);
}

/// What stands in the place of a reason why a block is sound.
const NO_REASONS: &[&str] = &[
    "as above",
    "see above",
    "the same.",
    "likewise",
    "the caller's contract",
    "as in `",
    " as there",
];

#[test]
fn each_unsafe_block_has_a_reason_of_its_own() {
    let mut wrong = Vec::new();
    for (path, source) in sources(&["rs"]).iter().filter(|(path, _)| path.starts_with("src/")) {
        for (number, line) in source.lines().enumerate() {
            let Some((_, reason)) = line.split_once("// SAFETY:") else { continue };
            if NO_REASONS.iter().any(|none| reason.contains(none)) {
                wrong.push(format!("{path}:{}: {}", number + 1, line.trim()));
            }
        }
    }
    assert_none(&wrong);
}

/// What LuaJIT calls in the place of functions in C is unwound through when a script is to end, but
/// for those that nothing can be raised in.
#[test]
fn what_the_vm_calls_can_be_unwound() {
    const RAISE_NOTHING: &[&str] = &[
        "__wrap_dlsym",
        "__wrap_lua_sethook",
        "__wrap_lua_gethook",
        "__wrap_lua_gethookmask",
        "__wrap_lj_str_find",
        "__wrap_lj_gc_freeall",
        "__wrap_lj_vm_cpuid",
        "__wrap_lj_prng_seed_secure",
        "__wrap_setitimer",
        "__wrap__Unwind_DeleteException",
        "__wrap___register_frame",
        "__wrap___deregister_frame",
    ];
    let mut found = Vec::new();
    for (_, source) in sources(&["rs"]) {
        for line in code(&source) {
            if let Some((_, rest)) = line.split_once("extern \"C\" fn __wrap") {
                let name: String =
                    rest.chars().take_while(|&c| c.is_alphanumeric() || c == '_').collect();
                found.push(format!("__wrap{name}"));
            }
        }
    }
    found.sort();
    let mut wanted: Vec<String> = RAISE_NOTHING.iter().map(ToString::to_string).collect();
    wanted.sort();
    assert_eq!(found, wanted, "`extern \"C-unwind\"`, or a reason to be on the list");
}

/// The first and the last line of each `unsafe` block, but for those of unit tests. So are the uses
/// of the macro `vm`, which is one.
fn unsafe_blocks(source: &str) -> Vec<(usize, usize)> {
    let source = source.split("#[cfg(test)]\nmod").next().unwrap_or_default();
    let lines: Vec<&str> = code(source).collect();
    let mut found = Vec::new();
    for (at, line) in lines.iter().enumerate() {
        if line.contains("vm!(") {
            found.push((at + 1, at + 1));
        }
        let Some(start) = line.find("unsafe {") else { continue };
        let mut depth = 0_usize;
        let end = lines[at..].iter().position(|line| {
            let text = if depth == 0 { &line[start..] } else { line };
            for byte in text.bytes() {
                match byte {
                    b'{' => depth += 1,
                    b'}' => depth = depth.saturating_sub(1),
                    _ => {}
                }
                if byte == b'}' && depth == 0 {
                    return true;
                }
            }
            false
        });
        found.push((at + 1, at + 1 + end.unwrap_or(0)));
    }
    found
}

/// The tests run all unsafe code: `.ci/coverage` counts how often each line runs in all of them.
#[test]
#[ignore = "needs the counts of .ci/coverage in NODE_LUA_COVERAGE"]
fn all_unsafe_code_runs() {
    let report = fs::read_to_string(std::env::var("NODE_LUA_COVERAGE").unwrap()).unwrap();
    let mut counts: BTreeMap<(&str, usize), u64> = BTreeMap::new();
    let mut file = "";
    for line in report.lines() {
        if let Some(path) = line.strip_prefix("SF:") {
            file = path;
        } else if let Some((number, count)) =
            line.strip_prefix("DA:").and_then(|rest| rest.split_once(','))
        {
            *counts.entry((file, number.parse().unwrap())).or_default() +=
                count.parse::<u64>().unwrap();
        }
    }
    let (mut wrong, mut all) = (Vec::new(), 0);
    let is_test = |path: &str| path.ends_with("tests.rs") || path.ends_with("_test.rs");
    for (path, source) in sources(&["rs"]) {
        if !path.starts_with("src/") || is_test(&path) {
            continue;
        }
        let file = repository(&path);
        let file = file.to_str().unwrap();
        for (first, last) in unsafe_blocks(&source) {
            all += 1;
            let is_run = counts.range((file, first)..=(file, last)).any(|(_, count)| *count > 0);
            let text: String = source.lines().skip(first - 1).take(last + 1 - first).collect();
            let is_known = UNREACHED.iter().any(|(at, part, _)| *at == path && text.contains(part));
            if !is_run && !is_known {
                wrong.push(format!("{path}:{first}: no test runs this"));
            } else if is_run && is_known && last == first {
                wrong.push(format!("{path}:{first}: tests run this, although UNREACHED has it"));
            }
        }
    }
    assert!(all > 100, "{all} blocks");
    assert_none(&wrong);
}
