//! The options and variables of `luajit`: -l, -j, -O, -b, -E, LUA_INIT, LUA_PATH, LUA_CPATH; and
//! the modules that come with LuaJIT.

#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use support::{Folder, node_lua, run};

#[test]
fn libraries_are_required_before_the_script() {
    let folder = Folder::new();
    folder.write("first.lua", "timer.sleep(0.001) print('first', ...)");
    folder.write("second.lua", "print('second', package.loaded.first) return { x = 1 }");
    let script = folder.write("main.lua", "print(package.loaded.second.x, second, ...)");
    let mut command = node_lua();
    let done = run(command.args(["-l", "first", "-lsecond"]).arg(script).arg("a")).succeeded();
    assert_eq!(done.stdout, "first\tfirst\nsecond\ttrue\n1\tnil\ta\n");
    let done = run(node_lua().args(["-l", "not_there", "-e", "print('never')"]));
    assert_eq!((done.code(), &*done.stdout), (Some(1), ""), "{done}");
    assert!(done.stderr.contains(": module 'not_there' not found:"), "{done}");
    assert!(!done.stderr.contains("[node-lua]"), "{done}");
    folder.write("fails.lua", "\nerror('why')");
    let done = run(node_lua().current_dir(folder.path("")).args(["-l", "fails"]).arg("main.lua"));
    let told = "node-lua: ./fails.lua:2: why\nstack traceback:\n\t[C]: in function 'error'\n\
                \t./fails.lua:2: in main chunk\n";
    assert_eq!((done.code(), &*done.stderr), (Some(1), told), "{done}");
}

#[test]
fn the_compiler_is_controlled_in_all_contexts() {
    let folder = Folder::new();
    folder.write("child.lua", "print('child', jit.status())");
    let script = folder.write("main.lua", "print(jit.status()) context.create('child.lua')");
    let output = |options: &[&str]| run(node_lua().args(options).arg(&script)).succeeded().stdout;
    for line in output(&["-joff"]).lines() {
        assert!(line.replace("child\t", "").starts_with("false"), "{line}");
    }
    let texts = output(&["-O1"]);
    assert_eq!(texts.matches("fold\tcse\tdce").count(), 2, "{texts}");
    assert_eq!(texts.matches("loop").count(), 0, "{texts}");
    assert_eq!(output(&["-O", "-O-loop,-fwd"]).matches("fwd").count(), 0);
    for (option, why) in [
        ("-Ox", "unknown or malformed optimization flag 'x'"),
        ("-jnothing", "unknown command -jnothing: there is no module jit.nothing"),
    ] {
        let done = run(node_lua().args([option, "-e", "print('never')"]));
        assert_eq!((done.code(), &*done.stdout), (Some(1), ""), "{done}");
        assert!(done.stderr.contains(why) && !done.stderr.contains("traceback"), "{done}");
    }
}

#[test]
fn traces_and_bytecode_are_shown() {
    let code = "for i = 1, 200 do end";
    let done = run(node_lua().args(["-jv", "-e", code])).succeeded();
    assert!(done.stderr.contains("[TRACE   1 (command line):1 loop]"), "{done}");
    let done = run(node_lua().args(["-jdump=+r", "-e", code])).succeeded();
    for part in ["---- TRACE 1 start", "---- TRACE 1 IR", "->LOOP:", "---- TRACE 1 stop -> loop"] {
        assert!(done.stdout.contains(part), "{part}: {done}");
    }
    let done = run(node_lua().args(["-jbc", "-e", "local x = 1"])).succeeded();
    assert!(done.stderr.contains("KSHORT"), "{done}");
    let done = run(node_lua().args(["-bl", "-e", "return 1"])).succeeded();
    assert!(done.stdout.contains("RET1"), "{done}");
    let busy = "local t = os.clock() repeat until os.clock() - t > 0.3";
    let done = run(node_lua().args(["-jp=l", "-e", busy])).succeeded();
    assert!(done.stdout.contains("%  (command line):1"), "{done}");
}

#[test]
fn saved_bytecode_runs_as_a_script() {
    let folder = Folder::new();
    let script = folder.write("main.lua", "print('ran', ...)\nerror('here')");
    let saved = folder.path("main.ljbc");
    let done = run(node_lua().arg("-bg").arg(script).arg(&saved)).succeeded();
    assert_eq!((&*done.stdout, &*done.stderr), ("", ""));
    let done = run(node_lua().arg(&saved).arg("x"));
    assert_eq!((done.code(), &*done.stdout), (Some(1), "ran\tx\n"), "{done}");
    assert!(done.stderr.contains("main.lua:2: here"), "{done}");
    let done = run(node_lua().args(["-b", "missing.lua", "x.ljbc"]));
    assert_eq!(done.code(), Some(1), "{done}");
}

#[test]
fn modules_that_come_with_luajit_are_in_the_binary() {
    let names = "bc bcsave dump p v vmdef zone dis_x86 dis_x64 dis_arm64";
    let code = format!(
        "for name in ('{names}'):gmatch('%S+') do
           local module = require('jit.' .. name)
           assert(package.loaded['jit.' .. name] == module, name)
         end
         print(pcall(require, 'jit.nothing'))
         local zone = require('jit.zone') zone('a') print(zone:get())"
    );
    let done = run(node_lua().current_dir("/").args(["-e", &code])).succeeded();
    assert!(done.stdout.starts_with("false\t"), "{done}");
    assert!(done.stdout.contains("module 'jit.nothing' not found"), "{done}");
    assert!(done.stdout.ends_with("\na\n"), "{done}");
}

#[test]
fn lua_init_runs_first_unless_the_environment_is_ignored() {
    let folder = Folder::new();
    let init = folder.write("init.lua", "print('from a file')");
    let with = |value: &OsStr, options: &[&str]| {
        let mut command = node_lua();
        command.env("LUA_INIT", value).args(options);
        run(command.args(["-e", "print('code', x)"]))
    };
    let done = with(OsStr::new("timer.sleep(0.001) x = 5"), &[]).succeeded();
    assert_eq!(done.stdout, "code\t5\n");
    let mut file = OsString::from("@");
    file.push(&init);
    assert_eq!(with(&file, &[]).succeeded().stdout, "from a file\ncode\tnil\n");
    assert_eq!(with(&file, &["-E"]).succeeded().stdout, "code\tnil\n");
    let shown = "print(debug.getregistry().LUA_NOENV)";
    assert_eq!(with(&file, &["-E", "-e", shown]).succeeded().stdout, "true\ncode\tnil\n");
    assert_eq!(run(node_lua().args(["-e", shown])).succeeded().stdout, "nil\n");
    let done = with(OsStr::new("error('broken')"), &[]);
    assert_eq!((done.code(), &*done.stdout), (Some(1), ""), "{done}");
    assert!(done.stderr.contains("LUA_INIT:1: broken"), "{done}");
    assert_eq!(with(OsStr::new("@missing.lua"), &[]).code(), Some(1));
    let tells = |options: &[&str]| {
        run(node_lua().env("LUA_INIT", "print('init')").args(options)).succeeded().stdout
    };
    let version = tells(&["-E", "-v"]);
    assert!(version.starts_with("node-lua ") && version.matches('\n').count() == 1, "{version}");
    assert_eq!(tells(&["-v"]), format!("init\n{version}"));
    assert_eq!(tells(&["-v", "-e", "print(1)"]), format!("init\n{version}1\n"));
}

#[test]
fn paths_come_from_the_environment_the_scripts_folder_and_what_is_usual() {
    let folder = Folder::new();
    folder.write("other/m.lua", "return 'of the path'");
    folder.write("own/m.lua", "return 'of the script'");
    let script = folder.write("own/main.lua", "print(require('m')) print(package.path)");
    let other = folder.path("other").display().to_string();
    let with = |path: &str, options: &[&str]| {
        run(node_lua().env("LUA_PATH", path).args(options).arg(&script)).succeeded().stdout
    };
    assert!(with("/nowhere/?.lua;;", &[]).starts_with("of the script\n/nowhere/?.lua;"));
    for path in [format!("{other}/?.lua;;"), format!("{other}/?.lua")] {
        let output = with(&path, &[]);
        assert!(output.starts_with("of the path\n"), "{output}");
        assert_eq!(output.contains("./?.lua"), path.ends_with(";;"), "{output}");
        assert!(output.contains("/own/?.lua"), "{output}");
        assert!(with(&path, &["-E"]).starts_with("of the script\n"));
    }
    let code = "print(package.cpath) print(package.path)";
    let mut command = node_lua();
    command.env("LUA_CPATH", "/c/?.so;;").env("LUA_PATH", "/only/?.lua");
    let done = run(command.args(["-e", code])).succeeded();
    let mut lines = done.stdout.lines();
    let cpath = lines.next().unwrap();
    assert!(cpath.starts_with("/c/?.so;./?.so;") && cpath.ends_with("/loadall.so"), "{cpath}");
    assert_eq!(lines.next(), Some("/only/?.lua"));
    if std::path::Path::new("/etc/debian_version").exists() {
        let done = run(node_lua().args(["-E", "-e", code])).succeeded();
        let (cpath, path) = done.stdout.split_once('\n').unwrap();
        assert!(path.contains(";/usr/share/lua/5.1/?.lua;/usr/share/lua/5.1/?/init.lua"), "{path}");
        assert!(path.contains(";/usr/local/share/lua/5.1/?.lua;"), "{path}");
        assert!(cpath.contains("-linux-gnu/lua/5.1/?.so;"), "{cpath}");
    }
}

#[test]
fn bytes_that_are_no_text_are_kept_in_arguments_names_and_code() {
    let folder = Folder::new();
    let name = OsString::from_vec(b"na\xffme.lua".to_vec());
    let script = folder.path("").join(&name);
    std::fs::write(&script, "print(#..., (...):byte(1, -1)) print(arg[0]:byte(-7))").unwrap();
    let argument = OsString::from_vec(vec![0xfe, b'a']);
    let done = run(node_lua().arg(&script).arg(&argument)).succeeded();
    assert_eq!(done.stdout, "2\t254\t97\n255\n");
    let code = OsStr::from_bytes(b"print(('\xff'):byte())");
    let done = run(node_lua().arg("-e").arg(code).arg(&script).arg("x")).succeeded();
    assert_eq!(done.stdout, "255\n1\t120\n255\n");
}

#[test]
fn arg_holds_the_whole_command_line() {
    let folder = Folder::new();
    let script = folder.write(
        "main.lua",
        "for i = -4, #arg do if arg[i] then print(i, i == 0 and 'script' or arg[i]) end end",
    );
    let mut command = node_lua();
    let done = run(command.args(["-e", "x=1", "--"]).arg(script).arg("a")).succeeded();
    let binary = env!("CARGO_BIN_EXE_node-lua");
    assert_eq!(done.stdout, format!("-4\t{binary}\n-3\t-e\n-2\tx=1\n-1\t--\n0\tscript\n1\ta\n"));
}

#[test]
fn the_limit_of_descriptors_is_as_high_as_may_be() {
    let code =
        "print(io.open('/proc/self/limits'):read('*a'):match('Max open files%s+(%d+)%s+(%d+)'))";
    let mut command = std::process::Command::new("sh");
    command.args(["-c", "ulimit -S -n 100 && exec \"$0\" -e \"$1\""]);
    let done = run(command.args([env!("CARGO_BIN_EXE_node-lua"), code])).succeeded();
    let (soft, hard) = done.stdout.trim().split_once('\t').unwrap();
    assert_eq!(soft, hard);
    assert!(soft.parse::<u64>().unwrap() > 100);
    // Children find what the process was started with.
    let code = "os.execute('ulimit -S -n') io.write(io.popen('ulimit -S -n; exit 3'):read('*a'))
                print(os.execute('exit 3'), os.execute(''), os.execute('sleep 0 &'))";
    let mut command = std::process::Command::new("sh");
    command.args(["-c", "ulimit -S -n 100 && exec \"$0\" -e \"$1\""]);
    let done = run(command.args([env!("CARGO_BIN_EXE_node-lua"), code])).succeeded();
    assert_eq!(done.stdout, "100\n100\n768\t0\t0\n");
}
