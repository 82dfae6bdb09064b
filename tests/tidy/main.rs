//! The rules of the repository that no compiler checks: sizes of files, links between documents;
//! how long functions are (functions.rs), which folder may use which (layers.rs), and where
//! `unsafe` may be (unsafe_code.rs).

#![allow(clippy::unwrap_used, reason = "tests")]

mod functions;
mod layers;
mod patterns;
#[path = "../support/mod.rs"]
mod support;
mod unsafe_code;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use support::{files, repository, stem};

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
            || path.ends_with("tests/regress")
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

#[track_caller]
fn assert_none(wrong: &[String]) {
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
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
        if path == "tests/tidy/main.rs" {
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

/// Examples run: rustdoc ignores those alone that say so.
#[test]
fn every_public_module_has_an_example_that_runs() {
    let face = fs::read_to_string(repository("src/lib.rs")).unwrap();
    let names = face.lines().filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';'));
    let all = sources(&["rs"]);
    let is_there = |name: &&str| {
        let within = |path: &str| {
            path == format!("src/{name}.rs") || path.starts_with(&format!("src/{name}/"))
        };
        let runs = |text: &str| {
            let mut lines =
                text.lines().map(|line| line.trim_start().trim_start_matches(['/', '!']));
            lines.any(|line| line == " # Examples")
                && lines.any(|line| line.starts_with(" ```"))
                && !text.contains("```ignore")
        };
        all.iter().any(|(path, text)| within(path) && runs(text))
    };
    let missing: Vec<String> = names
        .filter(|name| !is_there(name))
        .map(|name| format!("src/{name}: no example"))
        .collect();
    assert_none(&missing);
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
