//! Which folder of `src/` may use which.

use std::collections::{BTreeMap, BTreeSet};

use super::support::repository;
use super::{assert_none, code, has_word, is_word, sources};

/// Modules of `src/`, ground to top: each may use itself and those before it.
const LAYERS: &[&str] = &[
    "error",
    "failpoint",
    "hint",
    "sync",
    "os",
    "sim",
    "rt",
    "logging",
    "buf",
    "codec",
    "frame",
    "message",
    "timer",
    "tls",
    "sched",
    "net",
    "cluster",
    "http",
    "vm",
    "lua",
    "cli",
];

/// Modules that ignore each other although one comes first.
const STRANGERS: &[(&str, &str)] = &[("timer", "net")];

/// The folder that may name the async runtime.
const NAMES_RUNTIME: &str = "src/os/";

/// Folders whose files would stand in the one above if they were fewer, and count as files of that.
const PARTS: &[&str] = &["lua/http"];

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

/// The folder of `src/` that a file is in, or that it is the face of; empty for `src/` itself.
fn folder_of(path: &str) -> Vec<String> {
    let parts: Vec<String> = path.split('/').skip(1).map(str::to_owned).collect();
    parts[..parts.len() - 1].to_vec()
}

/// The folder that a folder counts as.
fn whole_of(mut folder: Vec<String>) -> Vec<String> {
    if PARTS.contains(&folder.join("/").as_str()) {
        folder.pop();
    }
    folder
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
    let mut found: BTreeSet<_> = found.into_iter().map(whole_of).collect();
    found.remove(&whole_of(own));
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

#[test]
fn no_folders_import_in_a_circle() {
    let mut uses: BTreeMap<Vec<String>, BTreeSet<Vec<String>>> = BTreeMap::new();
    for (path, source) in sources(&["rs"]) {
        let is_test = path.ends_with("tests.rs") || path.ends_with("_test.rs");
        if path.starts_with("src/") && path.matches('/').count() > 1 && !is_test {
            uses.entry(whole_of(folder_of(&path)))
                .or_default()
                .extend(folders_used(&path, &source));
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
