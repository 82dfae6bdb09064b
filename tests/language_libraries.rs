//! Lua libraries as Debian has them, those in C among them, do here what they do in LuaJIT:
//! `tests/libraries/use_*.lua`, whose `.expected` is what Debian's `luajit` prints in that folder.
//!
//! The first line of a script names the packages that it needs. Where one is not installed the
//! script is skipped, and that is said; with `NODE_LUA_LIBRARIES=all`, as in `.ci/run`, it fails.

#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use support::expect::difference_from_recorded;
use support::{files, node_lua, run, stem};

/// Whether all these packages are installed; says so if not.
fn has(packages: &[&str], what: &str) -> bool {
    let is_installed = |package: &&str| {
        let query = Command::new("dpkg-query")
            .args(["-W", "-f=${Status}", package])
            .stderr(Stdio::null())
            .output();
        query.is_ok_and(|done| done.stdout.ends_with(b"install ok installed"))
    };
    let missing: Vec<_> = packages.iter().filter(|package| !is_installed(package)).collect();
    if missing.is_empty() {
        return true;
    }
    assert!(
        std::env::var_os("NODE_LUA_LIBRARIES").is_none(),
        "{what} needs packages that are not installed: {missing:?}"
    );
    eprintln!("skipped: {what} needs packages that are not installed: {missing:?}");
    false
}

#[test]
fn libraries_do_what_they_do_in_luajit() {
    let mut wrong = Vec::new();
    let scripts = files("tests/libraries", "lua");
    assert!(!scripts.is_empty());
    for script in scripts {
        let text = fs::read_to_string(&script).unwrap();
        let needs = text.lines().next().and_then(|line| line.strip_prefix("-- needs: ")).unwrap();
        let needs: Vec<_> = needs.split(' ').collect();
        if !has(&needs, &stem(&script)) {
            continue;
        }
        wrong.extend(difference_from_recorded(&script));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The command of the package, with specifications that read standard input.
#[test]
fn busted_runs_from_its_own_command_line() {
    let command = Path::new("/usr/bin/busted");
    if !has(&["lua-busted"], "busted's command line") {
        return;
    }
    let folder = support::Folder::new();
    let spec = folder.write(
        "some_spec.lua",
        "it('reads', function() assert.equal('a line', io.read('*l')) end)
         it('fails', function() assert.equal(1, 2) end)",
    );
    let input = folder.write("input", "a line\nanother\n");
    let mut busted = node_lua();
    busted.arg(command).args(["-o", "TAP"]).arg(&spec).stdin(fs::File::open(&input).unwrap());
    let done = run(&mut busted);
    assert!(done.stdout.starts_with("ok 1 - reads\nnot ok 2 - fails\n"), "{done}");
    assert!(done.stdout.ends_with("\n1..2\n"), "{done}");
    assert_eq!((done.code(), done.stderr.as_str()), (Some(1), ""), "{done}");
}
