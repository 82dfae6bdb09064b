//! Names of scripts for `context.create`: relative to the working folder, or beside the creator's.

#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use support::{Folder, node_lua, run};

#[test]
fn a_script_is_found_beside_its_creators_from_any_folder() {
    let folder = Folder::new();
    folder.write("child.lua", "print('child', ...)");
    folder.write(
        "deep/inner.lua",
        "for _, name in ipairs { '../child.lua', './leaf.lua', 'leaf.lua' } do
           context.wait(context.create(name, name))
         end",
    );
    folder.write("deep/leaf.lua", "print('leaf', ...)");
    let script = folder.write(
        "main.lua",
        "for _, name in ipairs { 'child.lua', './child.lua', 'deep/../child.lua' } do
           context.wait(context.create(name, name))
         end
         context.wait(context.create({ file = 'child.lua', name = 'x' }, 'table'))
         context.wait(context.create('deep/inner.lua'))",
    );
    let expected = "child\tchild.lua\nchild\t./child.lua\nchild\tdeep/../child.lua\nchild\ttable\n\
                    child\t../child.lua\nleaf\t./leaf.lua\nleaf\tleaf.lua\n";
    for folder in ["/", "/tmp"] {
        let done = run(node_lua().current_dir(folder).arg(&script)).succeeded();
        assert_eq!(done.stdout, expected, "{done}");
    }
    // By a relative name, and through a link, of which the folder counts, as for modules.
    let parent = script.parent().unwrap();
    let name = std::path::Path::new(parent.file_name().unwrap()).join("main.lua");
    let done = run(node_lua().current_dir(parent.parent().unwrap()).arg(&name)).succeeded();
    assert_eq!(done.stdout, expected, "{done}");
    let link = parent.join("link.lua");
    std::os::unix::fs::symlink(&script, &link).unwrap();
    let done = run(node_lua().current_dir("/").arg(&link)).succeeded();
    assert_eq!(done.stdout, expected, "{done}");
}

#[test]
fn the_working_folder_comes_first_and_absolute_names_are_only_that() {
    let folder = Folder::new();
    folder.write("here/child.lua", "print('of the working folder')");
    folder.write("there/child.lua", "print('beside')");
    let script = folder.write(
        "there/main.lua",
        "context.create('child.lua') print((io.open('main.lua')), (loadfile('main.lua')))",
    );
    let done = run(node_lua().current_dir(folder.path("here")).arg(&script)).succeeded();
    // Either of the two may have its turn first.
    let mut lines: Vec<_> = done.stdout.lines().collect();
    lines.sort_unstable();
    assert_eq!(lines, ["nil\tnil", "of the working folder"], "{done}");
}

#[test]
fn a_supervisor_and_modules_find_scripts_beside_the_main_one() {
    let folder = Folder::new();
    folder.write("worker.lua", "print('worker', ...)");
    folder
        .write("lib/starts.lua", "return function() return context.create('worker.lua', 'm') end");
    let script = folder.write(
        "main.lua",
        "require('supervisor').start { { 'worker.lua', 's', restart = 'temporary' } }
         context.wait(require('lib.starts')())",
    );
    let done = run(node_lua().current_dir("/").arg(&script)).succeeded();
    let mut lines: Vec<&str> = done.stdout.lines().collect();
    lines.sort_unstable();
    assert_eq!(lines, ["worker\tm", "worker\ts"], "{done}");
}

#[test]
fn what_is_in_neither_place_is_told_by_the_name_that_was_given() {
    let folder = Folder::new();
    let script = folder.write(
        "main.lua",
        "context.monitor(context.create('missing.lua'), function(_, _, why) print(why) end)",
    );
    let done = run(node_lua().current_dir("/").arg(&script)).succeeded();
    assert!(done.stdout.contains("cannot open missing.lua"), "{done}");
    for code in ["-e", "-"] {
        let mut command = node_lua();
        let text = "context.create('missing.lua')";
        command.arg(code).args((code == "-e").then_some(text));
        assert_eq!(run(&mut command).code(), Some(0));
    }
}
