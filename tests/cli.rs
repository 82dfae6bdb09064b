//! The command line: options, arguments, exit status, what goes to stderr, signals.

#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::io::{Read, Write};
use std::process::Stdio;
use std::time::Duration;

use support::{Done, Folder, Server, connect, node_lua, run};

/// The promised five seconds after a signal, and some more for a loaded machine.
const SIGNAL_LIMIT: Duration = Duration::from_secs(8);

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
fn code_on_the_command_line_runs_with_its_arguments() {
    let done = run(node_lua().args(["-e", "print(select('#', ...), ...)", "one", "-e", "--help"]));
    assert_eq!(done.succeeded().stdout, "3\tone\t-e\t--help\n");
}

#[test]
fn a_script_from_standard_input_runs_with_its_arguments() {
    let done = pipe_in(&["-", "one", "two"], "print('hello', ...)");
    assert_eq!(done.succeeded().stdout, "hello\tone\ttwo\n");
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
    for option in ["-h", "--help"] {
        let done = run(node_lua().arg(option)).succeeded();
        for part in ["node-lua [options] script.lua", "-e", "--workers", "--mailbox", "-v"] {
            assert!(done.stdout.contains(part), "{option} does not tell about {part}: {done}");
        }
    }
}

#[test]
fn wrong_usage_ends_with_status_2_and_says_why() {
    let wrong: &[&[&str]] = &[
        &[],
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
    let done = run(node_lua().arg("--no-such-option"));
    assert!(done.stderr.contains("--no-such-option"), "{done}");
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
    for code in
        ["error({})", "error()", "error(42)", "error(setmetatable({}, {__tostring = error}))"]
    {
        let done = evaluate(code);
        assert_eq!(done.code(), Some(1), "{code}: {done}");
        assert!(!done.stderr.is_empty(), "{code}: {done}");
    }
    let done = evaluate("error(setmetatable({}, {__tostring = function() return 'told' end}))");
    assert!(done.stderr.contains("told"), "{done}");
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

const SERVER: &str = "
    local ok, listener = tcp.listen('127.0.0.1', 0)
    listener:accept(function(_, sock)
      sock:read(function(good, data)
        if good then sock:write(string.rep('x', 4194304)) print('written') end
      end)
    end)
    print(tcp.local_port(listener))";

#[test]
fn signals_close_listeners_flush_what_was_written_and_end_the_process() {
    for signal in ["TERM", "INT"] {
        let mut server = Server::start(["-e", SERVER]);
        let mut client = connect(server.port());
        client.write_all(b"go").unwrap();
        assert_eq!(server.line(), "written");
        server.signal(signal);
        // Far more than the kernel takes: most of it waits in the process when the signal comes.
        let mut received = Vec::new();
        client.read_to_end(&mut received).unwrap();
        assert_eq!(received.len(), 4_194_304, "{signal}");
        let done = server.finish(SIGNAL_LIMIT);
        assert!(done.status.is_some(), "{signal}: {done}");
        assert_eq!(done.stderr, "", "{signal}: {done}");
    }
}

#[test]
fn a_signal_ends_the_process_even_if_a_peer_never_reads() {
    let mut server = Server::start(["-e", SERVER]);
    let mut client = connect(server.port());
    client.write_all(b"go").unwrap();
    assert_eq!(server.line(), "written");
    server.signal("TERM");
    let done = server.finish(SIGNAL_LIMIT);
    assert!(done.status.is_some(), "{done}");
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

#[test]
fn a_signal_ends_a_process_that_computes_or_waits() {
    for code in ["print('up') while true do end", "print('up') timer.sleep(3600)"] {
        let mut server = Server::start(["-e", code]);
        assert_eq!(server.line(), "up");
        server.signal("TERM");
        let done = server.finish(SIGNAL_LIMIT);
        assert!(done.status.is_some(), "{code}: {done}");
    }
}
