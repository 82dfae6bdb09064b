//! Where `unsafe` may be, and that tests run it.

use std::collections::BTreeMap;
use std::fs;

use super::support::repository;
use super::{assert_none, code, has_word, sources};

/// The files that may hold `unsafe`: bytes, the boundary to C and to the VM, and the reactor.
const UNSAFE: &[&str] = &[
    "benches/src/sys.rs",
    "fuzz/src/targets/message.rs",
    "src/buf/block.rs",
    "src/buf/block_test.rs",
    "src/buf/read_buffer.rs",
    "src/linked.rs",
    "src/lua/buffer/call.rs",
    "src/lua/buffer/methods.rs",
    "src/lua/buffer/pack.rs",
    "src/lua/buffer/userdata.rs",
    "src/lua/clock.rs",
    "src/lua/command.rs",
    "src/lua/confine.rs",
    "src/lua/context.rs",
    "src/lua/environments.rs",
    "src/lua/events.rs",
    "src/lua/failure.rs",
    "src/lua/fault.rs",
    "src/lua/frames.rs",
    "src/lua/host.rs",
    "src/lua/log.rs",
    "src/lua/message.rs",
    "src/lua/mod.rs",
    "src/lua/names.rs",
    "src/lua/native.rs",
    "src/lua/process.rs",
    "src/lua/program.rs",
    "src/lua/rwopt.rs",
    "src/lua/shortage.rs",
    "src/lua/start.rs",
    "src/lua/stat.rs",
    "src/lua/tcp.rs",
    "src/lua/timer.rs",
    "src/os/chance.rs",
    "src/os/descriptors.rs",
    "src/os/exit.rs",
    "src/os/memory.rs",
    "src/os/runtime.rs",
    "src/os/signal.rs",
    "src/os/socket.rs",
    "src/os/stdio/broken_pipe.rs",
    "src/os/stdio/children.rs",
    "src/os/stdio/input.rs",
    "src/os/stdio/mod.rs",
    "src/os/stdio/reading.rs",
    "src/os/stdio/shortage.rs",
    "src/os/thread.rs",
    "src/sched/slot.rs",
    "src/sched/watch.rs",
    "src/sim/tests.rs",
    "src/tables.rs",
    "src/vm/blame.rs",
    "src/vm/chunk_cache.rs",
    "src/vm/convert/from_lua.rs",
    "src/vm/convert/int64.rs",
    "src/vm/convert/mod.rs",
    "src/vm/convert/plain.rs",
    "src/vm/convert/tests.rs",
    "src/vm/convert/to_lua.rs",
    "src/vm/cut.rs",
    "src/vm/disguise.rs",
    "src/vm/gc_layout.rs",
    "src/vm/hook.rs",
    "src/vm/layout.rs",
    "src/vm/memory/arena.rs",
    "src/vm/memory/deterministic_heap.rs",
    "src/vm/memory/heap.rs",
    "src/vm/memory/pages.rs",
    "src/vm/memory/slots.rs",
    "src/vm/prelude.rs",
    "src/vm/pristine.rs",
    "src/vm/profiler.rs",
    "src/vm/stack.rs",
    "src/vm/state.rs",
    "src/vm/stdio.rs",
    "src/vm/stock.rs",
    "src/vm/streams.rs",
    "src/vm/strings.rs",
    "src/vm/traceback.rs",
    "src/vm/unwind.rs",
    "tests/buffer.rs",
    "tests/support/vm.rs",
];

/// Unsafe code in `src/` that no test gets to: the file, a part of the block, and why.
const UNREACHED: &[(&str, &str, &str)] = &[
    ("src/lua/start.rs", "c\"=stdin\".as_ptr()", "no command line gets there"),
    ("src/vm/convert/mod.rs", "lua_pushnil", "no state without buffers is sent one"),
    ("src/lua/context.rs", "&mut scratch) }", "no finaliser of a test sends at that moment"),
    ("src/lua/events.rs", "too many timers", "it takes 67 million of them"),
    ("src/lua/frames.rs", "push_refusal(raw, Some(message))", "the Lua side looks first"),
    ("src/lua/shortage.rs", "lua_settop(raw, -2)", "no collection fails there"),
    ("src/vm/pristine.rs", "let name = ffi::lua_tostring(raw, 2)", "nothing is generated there"),
    ("src/vm/state.rs", "LUA_GCSETPAUSE, before)", "only if a script has set the pause itself"),
    ("src/vm/unwind.rs", "register(frame.cast())", "spans surround all code here"),
    ("src/vm/unwind.rs", "__deregister_frame_info", "the same"),
    ("src/vm/unwind.rs", "[u64; OBJECT_WORDS]>()", "the same"),
];

#[test]
fn unsafe_code_is_only_where_it_is_allowed() {
    let mut wrong = Vec::new();
    for (path, source) in sources(&["rs"]) {
        let allowed = UNSAFE.contains(&path.as_str());
        for (number, line) in code(&source).enumerate() {
            let is_lint = line.contains("unsafe_") && !has_word(line, "unsafe");
            if !allowed && !is_lint && has_word(line, "unsafe") && !line.contains('"') {
                wrong.push(format!("{path}:{}: {}", number + 1, line.trim()));
            }
        }
    }
    for path in UNSAFE {
        let source = fs::read_to_string(repository(path)).unwrap_or_default();
        if !code(&source).any(|line| has_word(line, "unsafe")) {
            wrong.push(format!("{path} is on the list, but has no `unsafe`"));
        }
    }
    assert_none(&wrong);
}

/// The first and the last line of each `unsafe` block, but for those of unit tests.
fn unsafe_blocks(source: &str) -> Vec<(usize, usize)> {
    let source = source.split("#[cfg(test)]\nmod").next().unwrap_or_default();
    let lines: Vec<&str> = code(source).collect();
    let mut found = Vec::new();
    for (at, line) in lines.iter().enumerate() {
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
    for path in UNSAFE.iter().filter(|path| path.starts_with("src/") && !is_test(path)) {
        let source = fs::read_to_string(repository(path)).unwrap();
        let file = repository(path);
        let file = file.to_str().unwrap();
        for (first, last) in unsafe_blocks(&source) {
            all += 1;
            let is_run = counts.range((file, first)..=(file, last)).any(|(_, count)| *count > 0);
            let text: String = source.lines().skip(first - 1).take(last + 1 - first).collect();
            let is_known = UNREACHED.iter().any(|(at, part, _)| at == path && text.contains(part));
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
