//! The rules of the repository that no compiler checks: which folder may use which, sizes of
//! files, where `unsafe` may be, links between documents.

#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use support::{files, repository, stem};

/// Modules of `src/`, ground to top: each may use itself and those before it.
const LAYERS: &[&str] = &[
    "error",
    "failpoint",
    "sync",
    "os",
    "sim",
    "rt",
    "logging",
    "buf",
    "frame",
    "message",
    "timer",
    "sched",
    "net",
    "vm",
    "lua",
    "cli",
    "linked",
    "tables",
];

/// Modules that ignore each other although one comes first.
const STRANGERS: &[(&str, &str)] = &[("timer", "net")];

/// The folder that may name the async runtime.
const NAMES_RUNTIME: &str = "src/os/";

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

/// Longer files are to be split by noun.
const LINES_MAX: usize = 600;

/// Characters in a line.
const WIDTH_MAX: usize = 100;

/// Folders that hold what we wrote, and nothing recorded or built.
const OURS: &[&str] =
    &["src", "lua", "ffi", "examples", "tests", "benches/src", "fuzz/src", "docs"];

fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries {
        let path = entry.unwrap().path();
        if path.ends_with("tests/conformance")
            || path.ends_with("tests/stock")
            || path.ends_with("tests/libraries")
            || path.ends_with("target")
        {
            continue;
        } else if path.is_dir() {
            walk(&path, found);
        } else {
            found.push(path);
        }
    }
}

/// Path from the root, and content, of our own files with one of these extensions.
fn sources(extensions: &[&str]) -> Vec<(String, String)> {
    let mut paths = Vec::new();
    for folder in OURS {
        walk(&repository(folder), &mut paths);
    }
    paths.sort();
    let root = repository("");
    let wanted = |path: &&PathBuf| {
        path.extension().is_some_and(|found| extensions.iter().any(|wanted| found == *wanted))
    };
    paths
        .iter()
        .filter(wanted)
        .map(|path| {
            let name = path.strip_prefix(&root).unwrap().to_string_lossy().into_owned();
            (name, fs::read_to_string(path).unwrap())
        })
        .collect()
}

/// The code of each line, without what follows `//`.
fn code(source: &str) -> impl Iterator<Item = &str> {
    source.lines().map(|line| line.split("//").next().unwrap_or_default())
}

fn is_word(byte: Option<u8>) -> bool {
    byte.is_some_and(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

/// True if `word` is in the line on its own.
fn has_word(line: &str, word: &str) -> bool {
    line.match_indices(word).any(|(at, _)| {
        let bytes = line.as_bytes();
        let before = at.checked_sub(1).map(|at| bytes[at]);
        !is_word(before) && !is_word(bytes.get(at + word.len()).copied())
    })
}

/// The modules that a source names after `crate::`, in paths and in groups.
fn modules_used(source: &str) -> BTreeSet<String> {
    let text: String = code(source).collect::<Vec<_>>().join("\n");
    let mut found = BTreeSet::new();
    for (at, _) in text.match_indices("crate::") {
        let rest = &text[at + "crate::".len()..];
        let names = match rest.strip_prefix('{') {
            Some(group) => top_level(group),
            None => vec![rest],
        };
        for name in names {
            let name = name.trim_start();
            let end = name.bytes().position(|byte| !is_word(Some(byte))).unwrap_or(name.len());
            found.insert(name[..end].to_owned());
        }
    }
    found
}

/// The parts of a group `a::b, c::{d, e}}…` up to its closing brace, split at its own commas.
fn top_level(group: &str) -> Vec<&str> {
    let (mut depth, mut start, mut parts) = (0, 0, Vec::new());
    for (at, byte) in group.bytes().enumerate() {
        match byte {
            b'{' => depth += 1,
            b'}' if depth > 0 => depth -= 1,
            b'}' => {
                parts.push(&group[start..at]);
                break;
            }
            b',' if depth == 0 => {
                parts.push(&group[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts
}

#[track_caller]
fn assert_none(wrong: &[String]) {
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn modules_use_only_those_below_them() {
    let mut wrong = Vec::new();
    for (path, source) in sources(&["rs"]) {
        let Some(inside) = path.strip_prefix("src/") else { continue };
        let module = inside.split(['/', '.']).next().unwrap();
        let Some(rank) = LAYERS.iter().position(|layer| *layer == module) else {
            if !["lib", "main"].contains(&module) {
                wrong.push(format!("{path}: {module} has no place in the layers"));
            }
            continue;
        };
        for used in modules_used(&source) {
            let Some(other) = LAYERS.iter().position(|layer| *layer == used) else { continue };
            let strange = STRANGERS.contains(&(module, used.as_str()));
            if other > rank || strange {
                wrong.push(format!("{path}: {module} must not use {used}"));
            }
        }
    }
    assert_none(&wrong);
}

/// The folder of `src/` that a file is in, or that it is the face of; empty for `src/` itself.
fn folder_of(path: &str) -> Vec<String> {
    let parts: Vec<String> = path.split('/').skip(1).map(str::to_owned).collect();
    parts[..parts.len() - 1].to_vec()
}

/// The folders of `src/` that the paths in a source lead to, from the folder it is in.
fn folders_used(path: &str, source: &str) -> BTreeSet<Vec<String>> {
    let mut found = BTreeSet::new();
    let text: String = code(source).collect::<Vec<_>>().join("\n");
    let text = text.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
    let own = folder_of(path);
    let is_face = path.ends_with("/mod.rs");
    for start in ["crate::", "super::"] {
        for (at, _) in text.match_indices(start) {
            if is_word(at.checked_sub(1).map(|at| text.as_bytes()[at]))
                || text[..at].ends_with("::")
            {
                continue;
            }
            let mut base: Vec<String> = if start == "crate::" { Vec::new() } else { own.clone() };
            if start == "super::" && is_face {
                base.pop();
            }
            let mut rest = &text[at + start.len()..];
            while let Some(more) = rest.strip_prefix("super::") {
                base.pop();
                rest = more;
            }
            follow(&base, rest, &mut found);
        }
    }
    found.remove(&own);
    found
}

/// The folders that a path leads to, and those of a group.
fn follow(base: &[String], rest: &str, found: &mut BTreeSet<Vec<String>>) {
    if let Some(group) = rest.strip_prefix('{') {
        for part in top_level(group) {
            follow(base, part.trim_start(), found);
        }
        return;
    }
    let end = rest.bytes().position(|byte| !is_word(Some(byte))).unwrap_or(rest.len());
    let inside = [base, &[rest[..end].to_owned()]].concat();
    if end > 0 && repository(&format!("src/{}", inside.join("/"))).is_dir() {
        match rest[end..].strip_prefix("::") {
            Some(more) => follow(&inside, more, found),
            None => drop(found.insert(inside)),
        }
    } else if !base.is_empty() {
        found.insert(base.to_vec());
    }
}

#[test]
fn no_folders_import_in_a_circle() {
    let mut uses: BTreeMap<Vec<String>, BTreeSet<Vec<String>>> = BTreeMap::new();
    for (path, source) in sources(&["rs"]) {
        let is_test = path.ends_with("tests.rs") || path.ends_with("_test.rs");
        if path.starts_with("src/") && path.matches('/').count() > 1 && !is_test {
            uses.entry(folder_of(&path)).or_default().extend(folders_used(&path, &source));
        }
    }
    assert!(uses.len() > 10, "the folders are found");
    let mut wrong = Vec::new();
    for start in uses.keys() {
        let (mut seen, mut next) = (BTreeSet::new(), vec![start]);
        while let Some(folder) = next.pop() {
            for used in uses.get(folder).into_iter().flatten() {
                if used == start {
                    let (from, to) = (folder.join("/"), start.join("/"));
                    wrong.push(format!("src/{from} imports src/{to}, which leads to it"));
                } else if seen.insert(used) {
                    next.push(used);
                }
            }
        }
    }
    assert_none(&wrong);
}

#[test]
fn the_async_runtime_is_named_in_one_folder() {
    let mut wrong = Vec::new();
    for (path, source) in sources(&["rs"]) {
        let runtime = ["async_std", "async_io", "async_signal"];
        let named = code(&source).any(|line| runtime.iter().any(|name| has_word(line, name)));
        if path.starts_with("src/") && named && !path.starts_with(NAMES_RUNTIME) {
            wrong.push(format!("{path} names the async runtime"));
        }
    }
    assert_none(&wrong);
}

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

/// `NAME` and `7` of `NAME = 7, "…"`, and of `const NAME: f64 = 7.0;`: codes, and kinds of events.
fn numbers_of_rust() -> BTreeMap<String, u16> {
    let mut numbers = BTreeMap::new();
    for (path, source) in sources(&["rs"]) {
        for line in code(&source).filter(|_| path.starts_with("src/")).map(str::trim) {
            let constant = line.strip_prefix("const ").and_then(|rest| rest.split_once(": f64 = "));
            let found = match constant {
                Some((name, value)) => value.strip_suffix(".0;").map(|value| (name, value)),
                None => line
                    .split_once(" = ")
                    .and_then(|(name, rest)| Some((name, rest.split_once(", \"")?.0))),
            };
            let Some((name, value)) = found else { continue };
            let is_name = name.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'_');
            if let (true, Ok(value)) = (is_name, value.parse()) {
                let other = numbers.insert(name.to_owned(), value);
                assert!(other.is_none_or(|other| other == value), "{path}: {name}");
            }
        }
    }
    numbers
}

/// The Lua side calls codes and kinds of events what Rust calls them, with the same numbers, and
/// has them nowhere without their names.
#[test]
fn numbers_of_events_and_codes_have_one_name_each() {
    let numbers = numbers_of_rust();
    assert!(numbers["NO_REPLY"] == 207 && numbers["COMPLETE"] == 6, "{numbers:?}");
    let (mut wrong, mut found) = (Vec::new(), BTreeSet::new());
    for (path, source) in sources(&["lua"]) {
        for (number, line) in source.lines().enumerate().filter(|_| path.starts_with("lua/")) {
            let line = line.split("--").next().unwrap_or_default();
            let names = line.trim().strip_prefix("local ").and_then(|rest| rest.split_once(" = "));
            let mut named = 0;
            for (name, value) in names.into_iter().flat_map(|(names, values)| {
                names
                    .split(", ")
                    .zip(values.split(", "))
                    .filter_map(|(name, value)| Some((name, value.parse::<u16>().ok()?)))
            }) {
                let Some(rust) = numbers.get(name) else { continue };
                named += usize::from(*rust >= 200);
                found.insert(name.to_owned());
                if *rust != value {
                    wrong.push(format!("{path}:{}: {name} is {rust} in Rust", number + 1));
                }
            }
            let is_code = |value: &u16| *value >= 200 && numbers.values().any(|code| code == value);
            let words = line.split(|c: char| !c.is_ascii_alphanumeric());
            let codes = words.filter_map(|word| word.parse().ok()).filter(is_code).count();
            let is_bare = line.contains("handlers[") && !line.contains("handlers[kind]");
            let is_bare = is_bare && !line.contains(|c: char| c.is_ascii_uppercase());
            if is_bare || codes > named {
                wrong.push(format!("{path}:{}: {}", number + 1, line.trim()));
            }
        }
    }
    assert_none(&wrong);
    assert!(found.contains("NO_REPLY") && found.contains("COMPLETE"), "{found:?}");
}

#[test]
fn nothing_is_left_to_do() {
    let mut wrong = Vec::new();
    for (path, source) in sources(&["rs", "lua", "h"]) {
        if path == "tests/tidy.rs" {
            continue;
        }
        for (number, line) in source.lines().enumerate() {
            let marks = ["todo!", "unimplemented!", "FIXME", "XXX", "dbg!"];
            if marks.iter().any(|mark| line.contains(mark)) {
                wrong.push(format!("{path}:{}: {}", number + 1, line.trim()));
            }
        }
    }
    assert_none(&wrong);
}

#[test]
fn files_and_lines_are_short_enough() {
    let mut wrong = Vec::new();
    for (path, source) in sources(&["rs", "lua", "h"]) {
        let lines = source.lines().count();
        if lines > LINES_MAX {
            wrong.push(format!("{path}: {lines} lines, {LINES_MAX} at most"));
        }
        for (number, line) in source.lines().enumerate() {
            let width = line.chars().count();
            if width > WIDTH_MAX {
                wrong.push(format!("{path}:{}: {width} columns, {WIDTH_MAX} at most", number + 1));
            }
            if line.ends_with([' ', '\t', '\r']) || (line.contains('\t') && !path.ends_with(".h")) {
                wrong.push(format!("{path}:{}: blanks at the end, or a tab", number + 1));
            }
        }
        if !source.is_empty() && (!source.ends_with('\n') || source.ends_with("\n\n")) {
            wrong.push(format!("{path}: does not end with one line end"));
        }
    }
    assert_none(&wrong);
}

#[test]
fn every_module_says_what_it_is() {
    let mut wrong = Vec::new();
    for (path, source) in sources(&["rs", "lua"]) {
        if path.ends_with("tests.rs") || path.ends_with("_test.rs") {
            continue;
        }
        let first = source.lines().find(|line| !line.starts_with("#!")).unwrap_or_default();
        if !first.starts_with(if path.ends_with(".rs") { "//!" } else { "--" }) {
            wrong.push(format!("{path} does not open with what it is"));
        }
    }
    assert_none(&wrong);
}

#[test]
fn every_example_is_in_the_reading_order() {
    let readme = fs::read_to_string(repository("examples/README.md")).unwrap();
    let missing: Vec<String> = files("examples", "lua")
        .iter()
        .map(|path| format!("{}.lua", stem(path)))
        .filter(|name| !readme.contains(&format!("({name})")))
        .collect();
    assert_none(&missing);
}

#[test]
fn links_between_documents_lead_somewhere() {
    let mut documents = sources(&["md"]);
    for name in ["README.md", "CHANGELOG.md"] {
        documents.push((name.to_owned(), fs::read_to_string(repository(name)).unwrap()));
    }
    let mut wrong = Vec::new();
    for (path, text) in documents {
        let folder = repository(&path).parent().unwrap().to_owned();
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
            if link.contains("://") {
                continue;
            }
            let target = if file.is_empty() { repository(&path) } else { folder.join(file) };
            if !target.exists() {
                wrong.push(format!("{path}: no {link}"));
            } else if !anchor.is_empty() && !anchors(&target).contains(anchor) {
                wrong.push(format!("{path}: no heading for {link}"));
            }
        }
    }
    assert_none(&wrong);
}

/// The anchors of a document's headings, made as code hosts make them.
fn anchors(path: &Path) -> BTreeSet<String> {
    let text = fs::read_to_string(path).unwrap();
    let headings = text.lines().filter(|line| line.starts_with('#'));
    headings
        .map(|line| {
            let title = line.trim_start_matches('#').trim().to_lowercase();
            title
                .chars()
                .filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'))
                .map(|c| if c == ' ' { '-' } else { c })
                .collect()
        })
        .collect()
}
