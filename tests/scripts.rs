//! Runs every `tests/lua/*_test.lua` through the binary: a script passes when it exits with 0.

mod support;

use support::{files, node_lua, run, stem};

#[test]
fn every_lua_test_passes() {
    let scripts = files("tests/lua", "lua");
    let tests: Vec<_> = scripts.iter().filter(|path| stem(path).ends_with("_test")).collect();
    assert!(!tests.is_empty());
    let mut failed = Vec::new();
    for test in tests {
        let done = run(node_lua().arg(test));
        let planned = done.stdout.lines().any(|line| line.starts_with("1.."));
        if done.code() != Some(0) || !planned {
            failed.push(format!("{}: {done}", stem(test)));
        }
    }
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}
