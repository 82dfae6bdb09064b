//! The library's Lua code reaches nothing that a script can replace, and a confined script reaches
//! nothing of the library's.

#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::fs;
use std::path::{Path, PathBuf};

use support::{Done, Folder, files, node_lua, repository, run};

fn sources() -> Vec<PathBuf> {
    let folders =
        ["", "/buffer", "/context", "/core", "/http", "/packet", "/tcp", "/udp", "/websocket"];
    folders.iter().flat_map(|folder| files(&format!("lua{folder}"), "lua")).collect()
}

#[test]
fn library_functions_use_no_globals() {
    let script = repository("tests/lua/support/globals.lua");
    let found = run(node_lua().arg(&script).args(sources())).succeeded();
    assert_eq!(found.stdout, "", "take them into locals at the head of the file");
    // It would find some.
    let found = run(node_lua().arg(&script).arg(&script)).succeeded();
    assert!(found.stdout.contains("globals.lua:7: bit\n"), "{found}");
}

/// A method of strings is whatever the script has put there.
fn string_method(line: &str) -> bool {
    let names = [
        "byte", "char", "dump", "find", "format", "gmatch", "gsub", "len", "lower", "match", "rep",
        "reverse", "sub", "upper",
    ];
    let code = line.split("--").next().unwrap();
    names.iter().any(|name| {
        code.match_indices(&format!(":{name}")).any(|(at, found)| {
            let rest = code[at + found.len()..].trim_start();
            rest.starts_with(['(', '{', '"', '\'', '['])
        })
    })
}

#[test]
fn library_calls_no_methods_of_strings() {
    let mut wrong = Vec::new();
    for file in sources() {
        for (number, line) in fs::read_to_string(&file).unwrap().lines().enumerate() {
            if string_method(line) {
                wrong.push(format!("{}:{}: {line}", file.display(), number + 1));
            }
        }
    }
    assert!(wrong.is_empty(), "call the function instead:\n{}", wrong.join("\n"));
    assert!(string_method("x = (\"%d\"):format(1)") && !string_method("-- x:format(1)"));
}

#[test]
fn confined_scripts_reach_nothing_that_is_withheld_or_used_by_the_library() {
    // Only such builds show the library's functions as they are.
    if !cfg!(debug_assertions) {
        return;
    }
    let script = repository("tests/lua/support/reach.lua");
    let bare = || {
        let mut command = node_lua();
        command.env("NODE_LUA_BARE", "1");
        command
    };
    let found = run(bare().arg(&script)).succeeded();
    assert_eq!(found.stdout, "nothing\n", "{found}");
    let found = run(bare().args([&script, Path::new("plant")])).succeeded();
    assert!(found.stdout.contains("debug.getupvalue is reached as planted\n"), "{found}");
    assert!(found.stdout.contains("uses planted streams, which"), "{found}");
}

/// What the sample needs beside it.
fn sample() -> Folder {
    let folder = Folder::new();
    let text = fs::read_to_string(repository("tests/lua/support/sample.lua")).unwrap();
    folder.write("sample.lua", text);
    folder.write(
        "echo.lua",
        "local what = ...
         if what == 'broken' then error('broken as told') end
         context.recv(0, function(_, value, from, session)
           if session > 0 then context.reply(from, session, value)
           else context.send(from, value) end
         end)",
    );
    folder.write("sample_module.lua", "return { (...) }");
    folder.write("sample_broken.lua", "return x x");
    folder.write(
        "confined.lua",
        "local file, folder, how = ...
         local deny = { 'ffi', 'loadlib' }
         local child = context.create({ file = file, deny = deny }, folder, how)
         context.monitor(child, function(_, reason) io.write('it ended: ', reason, '\\n') end)",
    );
    folder
}

/// The log without times, and in any order: several threads write to it.
fn log_of(done: &Done) -> Vec<String> {
    let line = |line: &str| line.split_once("] ").map_or(line, |(_, text)| text).to_owned();
    let mut lines: Vec<String> = done.stderr.lines().map(line).collect();
    lines.retain(|line| !line.contains("0x"));
    lines.sort();
    lines
}

fn compare(arguments: impl Fn(&Folder) -> Vec<PathBuf>, end: &str) {
    let folder = sample();
    let arguments = arguments(&folder);
    let plain = run(node_lua().args(&arguments));
    let hostile = run(node_lua().args(&arguments).arg("hostile"));
    assert!(plain.stdout.ends_with(end), "{plain}");
    for (left, right) in plain.stdout.lines().zip(hostile.stdout.lines()) {
        assert_eq!(left, right, "{hostile}");
    }
    assert_eq!(plain.stdout, hostile.stdout);
    assert_eq!(log_of(&plain), log_of(&hostile));
    assert_eq!(plain.code(), hostile.code());
}

#[test]
fn whatever_scripts_replace_the_library_answers_the_same() {
    compare(|folder| vec![folder.path("sample.lua"), folder.path("")], "done\n");
}

#[test]
fn whatever_confined_scripts_replace_the_library_answers_the_same() {
    let files = ["confined.lua", "sample.lua", ""];
    compare(|folder| files.iter().map(|file| folder.path(file)).collect(), "it ended: normal\n");
}
