//! The command line: options, arguments, exit status, what goes to stderr.

#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::process::Stdio;

use support::{Done, Folder, Server, node_lua, run};

fn evaluate(code: &str) -> Done {
    run(node_lua().args(["-e", code]))
}

/// Runs a program given on standard input.
fn pipe_in(args: &[&str], program: &str) -> Done {
    let folder = Folder::new();
    let path = folder.write("stdin", program);
    let input = std::fs::File::open(path).unwrap();
    run(node_lua().args(args).stdin(Stdio::from(input)))
}

#[test]
fn code_and_a_script_run_one_after_the_other() {
    let folder = Folder::new();
    let script = folder.write("main.lua", "print(set, select('#', ...), ...) print(arg[0] ~= nil)");
    let first = "print(select('#', ...)) timer.sleep(0.001) set = 1";
    let second = "coroutine.wrap(function() timer.sleep(0.001) set = set + 1 end)()";
    let mut command = node_lua();
    command.args(["-e", first, "-e", second]).arg(&script).args(["one", "-e", "--help"]);
    let done = run(&mut command).succeeded();
    assert_eq!(done.stdout, "0\n2\t3\tone\t-e\t--help\ntrue\n");
    // What fails keeps what follows from running, a script that is not there is told then.
    for (code, line) in [("error('first')", "first"), ("print(", "(command line):1:")] {
        let done = run(node_lua().args(["-e", code, "-e", "print('never')"]).arg(&script));
        assert_eq!((done.code(), &*done.stdout), (Some(1), ""), "{done}");
        assert!(done.stderr.contains(line), "{done}");
    }
    let done = run(node_lua().args(["-e", "print('ran')", "missing.lua"]));
    assert_eq!((done.code(), &*done.stdout), (Some(1), "ran\n"), "{done}");
    assert!(done.stderr.contains("missing.lua"), "{done}");
}

#[test]
fn a_program_on_standard_input_needs_no_dash() {
    assert_eq!(pipe_in(&[], "print('hello', arg[0], ...)").succeeded().stdout, "hello\tnil\n");
    let done = pipe_in(&["-e", "x = 1", "-", "a"], "print(x, arg[0], ...)").succeeded();
    assert_eq!(done.stdout, "1\t-\ta\n");
    // With code alone, standard input is the code's.
    let done = pipe_in(&["-e", "print(io.read())"], "a line\n").succeeded();
    assert_eq!(done.stdout, "a line\n");
    let done = pipe_in(&[], "error('told')");
    assert_eq!(done.code(), Some(1), "{done}");
    assert!(done.stderr.contains("stdin:1: told"), "{done}");
}

#[test]
fn a_script_from_standard_input_runs_with_its_arguments() {
    let done = pipe_in(&["-", "one", "two"], "print('hello', ...)");
    assert_eq!(done.succeeded().stdout, "hello\tone\ttwo\n");
}

#[test]
fn the_program_can_be_run_again_from_any_folder() {
    let folder = Folder::new();
    let binary = std::path::Path::new(env!("CARGO_BIN_EXE_node-lua"));
    let script = folder.write(
        "main.lua",
        "local command = ('cd / && %s -e \"print(7)\"'):format(arg[-1])
         local pipe = io.popen(command) print(pipe:read('*a')) pipe:close()",
    );
    let mut command = std::process::Command::new("sh");
    command.args(["-c", "exec ./node-lua \"$0\""]).arg(&script);
    let done = run(command.current_dir(binary.parent().unwrap())).succeeded();
    assert_eq!(done.stdout, "7\n\n", "{done}");
}

#[test]
fn arguments_are_strings_in_arg_and_in_varargs() {
    let folder = Folder::new();
    let script = folder.write(
        "main.lua",
        "print(type(...), ...)\nprint(#arg, arg[0], arg[1], arg[2])\nprint(arg[-1] ~= nil)",
    );
    let done = run(node_lua().arg(&script).args(["1", "--workers"])).succeeded();
    let path = script.display();
    assert_eq!(done.stdout, format!("string\t1\t--workers\n2\t{path}\t1\t--workers\ntrue\n"));
}

#[test]
fn version_and_help_go_to_stdout() {
    let version = env!("CARGO_PKG_VERSION");
    for option in ["-v", "--version"] {
        let done = run(node_lua().arg(option)).succeeded();
        assert!(done.stdout.contains(version), "{option}: {done}");
    }
    let done = run(node_lua().args(["-v", "-e", "print('and goes on')"])).succeeded();
    assert!(done.stdout.contains(version) && done.stdout.ends_with("and goes on\n"), "{done}");
    for option in ["-h", "--help"] {
        let done = run(node_lua().arg(option)).succeeded();
        for part in ["node-lua [options] [script.lua", "-e", "--workers", "--mailbox", "-v"] {
            assert!(done.stdout.contains(part), "{option} does not tell about {part}: {done}");
        }
    }
}

#[test]
fn wrong_usage_ends_with_status_2_and_says_why() {
    let wrong: &[&[&str]] = &[
        &["-x"],
        &["-l"],
        &["-e", "print(1)", "-b", "x.lua"],
        &["-i", "--simulate", "1"],
        &["--grace", "soon", "x.lua"],
        &["--no-such-option"],
        &["-e"],
        &["--workers"],
        &["--workers", "many", "x.lua"],
        &["--workers", "0", "x.lua"],
        &["--mailbox", "-1", "x.lua"],
    ];
    for args in wrong {
        let done = run(node_lua().args(*args));
        assert_eq!(done.code(), Some(2), "{args:?}: {done}");
        assert!(!done.stderr.is_empty(), "{args:?}: {done}");
        assert_eq!(done.stdout, "", "{args:?}: {done}");
    }
    for option in ["--no-such-option", "-x"] {
        let done = run(node_lua().arg(option));
        assert!(done.stderr.contains(option) && done.stderr.contains("Usage:"), "{done}");
    }
}

#[test]
fn a_failed_script_ends_with_status_1_and_its_traceback_on_stderr() {
    let folder = Folder::new();
    let script = folder.write(
        "fails.lua",
        "local function inner()\n  error('something broke')\nend\nfunction outer()\n  inner()\n  \
         return 1\nend\nprint('before')\nouter()\n",
    );
    let done = run(node_lua().arg(script));
    assert_eq!(done.code(), Some(1), "{done}");
    assert_eq!(done.stdout, "before\n", "{done}");
    for part in
        ["fails.lua:2: something broke", "stack traceback", "fails.lua:5: in function", "outer"]
    {
        assert!(done.stderr.contains(part), "{part:?} is missing: {done}");
    }
    for part in [".rs", "panicked", "fails.lua:8:"] {
        assert!(!done.stderr.contains(part), "{part:?} does not belong there: {done}");
    }
}

#[test]
fn a_script_that_fails_after_waiting_ends_with_status_1() {
    let done = evaluate("timer.sleep(0.001) error('late failure')");
    assert_eq!(done.code(), Some(1), "{done}");
    assert!(done.stderr.contains("late failure"), "{done}");
    assert!(done.stderr.contains("stack traceback"), "{done}");
}

#[test]
fn error_values_that_are_not_strings_are_reported() {
    for code in ["error({})", "error(42)", "error(setmetatable({}, {__tostring = error}))"] {
        let done = evaluate(code);
        assert_eq!(done.code(), Some(1), "{code}: {done}");
        assert!(!done.stderr.is_empty(), "{code}: {done}");
    }
    let done = evaluate("error(setmetatable({}, {__tostring = function() return 'told' end}))");
    assert!(done.stderr.contains("told"), "{done}");
    let done = evaluate("error(setmetatable({}, {__tostring = function() return 12.5 end}))");
    assert!(done.stderr.starts_with("node-lua: 12.5\n"), "{done}");
    let done = evaluate("error(require('ffi').cast('void *', 0))");
    assert!(done.stderr.starts_with("node-lua: cdata<void *>: NULL\n"), "{done}");
}

#[test]
fn objects_that_are_raised_are_told_and_end_one_coroutine_whatever_comparing_them_does() {
    for equal in ["a.x == b.x", "true", "error('compared')"] {
        let code = format!(
            "local function compare(a, b) return {equal} end
            local thing = require('ffi').metatype('struct {{ int x; }}', {{
                __eq = compare, __tostring = function(thing) return 'thing ' .. thing.x end }})
            local left = 2
            local function go_on() left = left - 1 if left == 0 then print('goes on') end end
            context.run(function() error(thing(1)) end)
            context.run(function() timer.sleep(0) error(thing(2)) end)
            timer.timeout(0, thing(3), function(it) error(it) end)
            timer.timeout(0.01, thing(4), go_on)
            context.run(function(it) timer.sleep(0.01) go_on(it) end, thing(5))
            timer.sleep(0)
            error(thing(6))"
        );
        let done = evaluate(&code);
        assert_eq!((done.code(), &*done.stdout), (Some(1), "goes on\n"), "{equal}: {done}");
        for number in [1, 2, 3, 6] {
            let told = format!("node-lua: thing {number}\nstack traceback:\n");
            assert_eq!(done.stderr.matches(&told).count(), 1, "{equal}: {done}");
        }
    }
}

#[test]
fn broken_and_missing_scripts_end_with_status_1_and_a_position() {
    let folder = Folder::new();
    let script = folder.write("broken.lua", "print('never')\nlocal = 1\n");
    let done = run(node_lua().arg(script));
    assert_eq!(done.code(), Some(1), "{done}");
    assert!(done.stderr.contains("broken.lua:2:"), "{done}");
    assert_eq!(done.stdout, "");
    let done = run(node_lua().arg(folder.path("missing.lua")));
    assert_eq!(done.code(), Some(1), "{done}");
    assert!(done.stderr.contains("missing.lua"), "{done}");
}

#[test]
fn the_rest_of_a_failed_script_still_runs_and_the_status_is_1() {
    let done = evaluate("timer.timeout(0.01, function() print('fires') end) error('fails')");
    assert_eq!(done.code(), Some(1), "{done}");
    assert_eq!(done.stdout, "fires\n", "{done}");
}

#[test]
fn an_error_in_a_callback_is_logged_with_its_traceback_and_ends_nothing_else() {
    let done = evaluate(
        "timer.timeout(0.001, function() error('in the callback') end)
         timer.timeout(0.01, function() print('goes on') end)",
    )
    .succeeded();
    assert_eq!(done.stdout, "goes on\n", "{done}");
    assert!(done.stderr.contains("in the callback"), "{done}");
    assert!(done.stderr.contains("stack traceback"), "{done}");
}

#[test]
fn rust_log_sets_what_is_logged() {
    let code = "context.log('noted') timer.timeout(0.001, function() error('logged') end)";
    let done = run(node_lua().env("RUST_LOG", "off").args(["-e", code])).succeeded();
    assert_eq!(done.stderr, "", "{done}");
    let done = run(node_lua().env("RUST_LOG", "info").args(["-e", code])).succeeded();
    assert!(done.stderr.contains("noted"), "{done}");
    assert!(done.stderr.contains("logged"), "{done}");
    assert_eq!(done.stdout, "", "{done}");
}

#[test]
fn os_exit_ends_the_process_with_its_status() {
    for (code, status) in [("os.exit(3)", 3), ("os.exit(0)", 0), ("os.exit(true)", 0)] {
        let done = evaluate(&format!("io.write('flushed') timer.sleep(0.001) {code}"));
        assert_eq!(done.code(), Some(status), "{code}: {done}");
        assert_eq!(done.stdout, "flushed", "{code}: {done}");
    }
}

#[test]
fn require_finds_files_beside_the_main_script() {
    let folder = Folder::new();
    let script = folder.write(
        "main.lua",
        "print(require('beside').name, require('deep.inside').name, require('package_of').name)
         print(require('beside') == require('beside'), package.loaded.beside.name)
         print(pcall(require, 'not_there'))",
    );
    folder.write("beside.lua", "return { name = ... }");
    folder.write("deep/inside.lua", "return { name = ... }");
    folder.write("package_of/init.lua", "return { name = ... }");
    let done = run(node_lua().arg(script).current_dir("/")).succeeded();
    let mut lines = done.stdout.lines();
    assert_eq!(lines.next(), Some("beside\tdeep.inside\tpackage_of"), "{done}");
    assert_eq!(lines.next(), Some("true\tbeside"), "{done}");
    let why = lines.next().unwrap();
    assert!(why.starts_with("false") && why.contains("module 'not_there' not found"), "{done}");
}

#[test]
fn modules_of_the_runtime_are_loaded() {
    let done = evaluate(
        "for _, name in ipairs({ 'tcp', 'context', 'timer', 'buffer', 'ffi', 'jit', 'bit' }) do
           assert(require(name) == package.loaded[name], name)
         end
         assert(tcp == require('tcp') and context == require('context'))
         assert(require('string.buffer').encode)
         assert(jit.status())",
    );
    done.succeeded();
}

#[test]
fn shebang_and_byte_order_mark_are_skipped_and_lines_still_count() {
    let folder = Folder::new();
    for start in
        ["#!/usr/bin/env node-lua\n", "\u{feff}", "\u{feff}#!/usr/bin/env node-lua\n", "#!x\r\n"]
    {
        let script = folder.write("main.lua", format!("{start}print('ran')\nerror('here')"));
        let done = run(node_lua().arg(script));
        let line = start.matches('\n').count() + 2;
        assert_eq!(done.stdout, "ran\n", "{start:?}: {done}");
        assert!(done.stderr.contains(&format!("main.lua:{line}: here")), "{start:?}: {done}");
    }
    let script = folder.write("only.lua", "#!/usr/bin/env node-lua");
    run(node_lua().arg(script)).succeeded();
    let done = pipe_in(&["-"], "#!/usr/bin/env node-lua\nprint('ran')").succeeded();
    assert_eq!(done.stdout, "ran\n");
}

#[test]
fn the_number_of_workers_can_be_chosen() {
    // There are two at least, so that one long turn does not stop everything.
    for (workers, threads) in [("1", 2), ("2", 2), ("5", 5)] {
        let code = format!("print(context.thread() >= 0 and context.thread() < {threads})");
        let done = run(node_lua().args(["--workers", workers, "-e", &code])).succeeded();
        assert_eq!(done.stdout, "true\n", "{workers}: {done}");
    }
    let code = "print(context.ncpu() >= 1)";
    let done = run(node_lua().args(["--workers=2", "-e", code])).succeeded();
    assert_eq!(done.stdout, "true\n");
}

#[test]
fn the_bound_of_mailboxes_can_be_chosen() {
    let code = "local self, sent = context.self(), 0
                while true do
                  local ok, code = context.send(self, sent)
                  if not ok then print(sent, code, context.strerror(code)) break end
                  sent = sent + 1
                end";
    let done = run(node_lua().args(["--mailbox", "10", "-e", code])).succeeded();
    assert_eq!(done.stdout, "10\t209\tmailbox full\n");
}

#[test]
fn output_reaches_a_pipe_line_by_line() {
    let code = "print('first') timer.timeout(3600, print)";
    let mut server = Server::start(["-e", code]);
    assert_eq!(server.line(), "first");
}

#[test]
fn the_process_ends_with_its_last_context() {
    let folder = Folder::new();
    folder.write("child.lua", "timer.sleep(0.05) print('child', ...)");
    let script = folder.write(
        "main.lua",
        "local here = arg[0]:match('^(.*)/')
         context.create(here .. '/child.lua', 'outlives its creator')
         tcp.listen('127.0.0.1', 0) -- an open socket alone keeps nothing alive
         print('main ends')",
    );
    let done = run(node_lua().arg(script)).succeeded();
    assert_eq!(done.stdout, "main ends\nchild\toutlives its creator\n");
}

#[test]
fn callbacks_of_gsub_inside_each_other_raise_and_end_nothing() {
    let done = evaluate(
        "local function f() return (('x'):gsub('x', f)) end
         print((pcall(f)))
         print('alive')",
    );
    assert_eq!(done.succeeded().stdout, "false\nalive\n");
}
