//! Signals, callbacks for them, and the end of the process.

#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::io::{Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::Command;
use std::time::Duration;

use support::{Done, Folder, PATIENCE, Server, connect, node_lua, run};

/// The promised five seconds after a signal, and some more for a loaded machine.
const SIGNAL_LIMIT: Duration = Duration::from_secs(8);

fn evaluate(code: &str) -> Done {
    run(node_lua().args(["-e", code]))
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
    for (signal, status) in [("TERM", 143), ("INT", 130)] {
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
        assert_eq!(done.code(), Some(status), "{signal}: {done}");
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
    assert_eq!(done.code(), Some(143), "{done}");
}

#[test]
fn a_signal_ends_a_process_that_computes_or_waits() {
    for code in ["print('up') while true do end", "print('up') timer.sleep(3600)"] {
        let mut server = Server::start(["-e", code]);
        assert_eq!(server.line(), "up");
        server.signal("TERM");
        let done = server.finish(SIGNAL_LIMIT);
        assert_eq!(done.code(), Some(143), "{code}: {done}");
    }
}

/// The binary with default actions for signals, whatever those of this process are.
fn unignored() -> Command {
    let mut command = Command::new("env");
    command.args(["--default-signal=HUP,USR1,USR2", env!("CARGO_BIN_EXE_node-lua")]);
    command
}

/// Prints what it is told, and ends as it is told.
const LISTENER: &str = "
    for _, name in ipairs { 'HUP', 'USR1', 'USR2', 'INT', 'TERM' } do
      context.on_signal(name, function(...) print(name, ...) end)
    end
    context.on_signal('USR2', function(name)
      timer.sleep(0.001)
      print('waited for', name)
      context.on_signal('HUP', nil)
      context.on_signal('HUP', nil)
      print('no more of HUP')
    end)
    print('up')";

#[test]
fn callbacks_are_told_of_signals() {
    let mut server = Server::spawn(unignored().args(["-e", LISTENER]));
    assert_eq!(server.line(), "up");
    for name in ["HUP", "USR1", "HUP"] {
        server.signal(name);
        assert_eq!(server.line(), format!("{name}\t{name}"));
    }
    server.signal("USR2");
    assert_eq!(server.line(), "waited for\tUSR2");
    assert_eq!(server.line(), "no more of HUP");
    // Nobody is there for it any more: it does what it does to any process.
    server.signal("HUP");
    let done = server.finish(SIGNAL_LIMIT);
    assert_eq!(done.status.and_then(|status| status.signal()), Some(1), "{done}");
}

#[test]
fn signals_that_nobody_asks_for_do_what_they_always_do() {
    for (name, number) in [("HUP", 1), ("USR1", 10), ("USR2", 12)] {
        let mut server = Server::spawn(unignored().args(["-e", "print('up') timer.sleep(3600)"]));
        assert_eq!(server.line(), "up");
        server.signal(name);
        let done = server.finish(SIGNAL_LIMIT);
        assert_eq!(done.status.and_then(|status| status.signal()), Some(number), "{name}: {done}");
    }
}

#[test]
fn every_context_with_a_callback_is_told() {
    let folder = Folder::new();
    let child = "local id = ...
                 context.on_signal('USR1', function() print('child', id) end) print('up')";
    folder.write("child.lua", child);
    let script = folder.write("main.lua", "for i = 1, 3 do context.create('child.lua', i) end");
    let mut server = Server::start([script]);
    assert_eq!([server.line(), server.line(), server.line()], ["up", "up", "up"]);
    server.signal("USR1");
    let mut lines = [server.line(), server.line(), server.line()];
    lines.sort();
    assert_eq!(lines, ["child\t1", "child\t2", "child\t3"]);
}

/// The last one is not lost behind thousands, and others go on meanwhile.
#[test]
fn a_flood_of_signals_harms_nobody() {
    let folder = Folder::new();
    let child = "local beats = 0
         timer.loop(0.001, 0.001, function() beats = beats + 1 end)
         context.recv(0, function() context.send(context.parent(), beats) end)";
    folder.write("child.lua", child);
    let main = "local child, flood = context.create('child.lua'), 0
         context.on_signal('USR1', function()
           flood = flood + 1
           for _ = 1, 1e5 do end
         end)
         context.on_signal('HUP', function()
           context.send(child, 1)
           local _, beats = context.recv(child)
           print(beats)
         end)
         context.on_signal('USR2', function() print('last', flood > 0) end)
         print('up')";
    let script = folder.write("main.lua", main);
    let mut server = Server::start([script]);
    assert_eq!(server.line(), "up");
    let id = server.id().to_string();
    let mut beats = Vec::new();
    for _ in 0..3 {
        let flood = "for _ in $(seq 5000); do kill -s USR1 $0; done; kill -s HUP $0";
        let status = Command::new("bash").args(["-c", flood, &id]).status().unwrap();
        assert!(status.success());
        beats.push(server.line().parse::<u64>().unwrap());
    }
    assert!(beats[0] > 0 && beats[0] < beats[1] && beats[1] < beats[2], "{beats:?}");
    server.signal("USR2");
    assert_eq!(server.line(), "last\ttrue");
}

#[test]
fn a_callback_keeps_its_context_alive_until_it_is_removed() {
    let code = "context.on_signal('HUP', print)
                timer.timeout(0.01, function() context.on_signal('HUP', nil) print('off') end)";
    assert_eq!(evaluate(code).succeeded().stdout, "off\n");
}

#[test]
fn a_callback_for_term_decides_how_the_process_ends() {
    let code = "context.on_signal('TERM', function()
                  timer.sleep(0.01) print('cleaned up') context.exit(7) print('never')
                end) print('up')";
    let mut server = Server::start(["-e", code]);
    assert_eq!(server.line(), "up");
    server.signal("TERM");
    let done = server.finish(SIGNAL_LIMIT);
    assert_eq!((done.code(), &*done.stdout), (Some(7), "cleaned up\n"), "{done}");
    // Or lets its contexts end.
    let code = "context.on_signal('INT', function() context.on_signal('INT', nil) end) print('up')";
    let mut server = Server::start(["-e", code]);
    assert_eq!(server.line(), "up");
    server.signal("INT");
    let done = server.finish(SIGNAL_LIMIT);
    assert_eq!(done.code(), Some(0), "{done}");
}

#[test]
fn time_for_callbacks_is_limited_and_a_second_signal_ends_it() {
    let code = "context.on_signal('TERM', print) print('up')";
    let mut server = Server::start(["--grace", "0.05", "-e", code]);
    assert_eq!(server.line(), "up");
    server.signal("TERM");
    let done = server.finish(SIGNAL_LIMIT);
    assert_eq!((done.code(), &*done.stdout), (Some(143), "TERM\n"), "{done}");

    let mut server = Server::start(["--grace", "0", "-e", code]);
    assert_eq!(server.line(), "up");
    server.signal("TERM");
    assert_eq!(server.line(), "TERM");
    server.signal("INT");
    let done = server.finish(SIGNAL_LIMIT);
    assert_eq!(done.code(), Some(130), "{done}");
}

#[test]
fn an_interrupt_ends_a_process_that_is_ignored_in_the_background() {
    // A shell without job control has background commands ignore SIGINT.
    let folder = Folder::new();
    let file = folder.path("id");
    let shell = "$0 -e \"print(1) timer.sleep(3600)\" > $1 & p=$!
        while [ ! -s $1 ]; do :; done; kill -INT $p; wait $p; echo $?";
    let mut command = Command::new("sh");
    command.args(["-c", shell, env!("CARGO_BIN_EXE_node-lua")]).arg(&file);
    assert_eq!(support::run_for(&mut command, PATIENCE).succeeded().stdout, "130\n");
}

#[test]
fn a_signal_that_was_ignored_is_ignored_again_without_a_callback() {
    let code = "context.on_signal('HUP', function()
                  context.on_signal('HUP', nil) print('told')
                  context.on_signal('USR1', function() print('lives') context.exit() end)
                end) print('up')";
    let mut server = start_ignoring("HUP", code);
    assert_eq!(server.line(), "up");
    server.signal("HUP");
    assert_eq!(server.line(), "told");
    server.signal("HUP");
    server.signal("USR1");
    assert_eq!(server.line(), "lives");
    assert_eq!(server.finish(SIGNAL_LIMIT).code(), Some(0));
}

#[test]
fn a_process_that_was_started_with_term_ignored_lives_on() {
    let code =
        "context.on_signal('USR1', function() print('lives') context.exit() end) print('up')";
    let mut server = start_ignoring("TERM", code);
    assert_eq!(server.line(), "up");
    server.signal("TERM");
    server.signal("USR1");
    assert_eq!(server.line(), "lives");
    assert_eq!(server.finish(SIGNAL_LIMIT).code(), Some(0));
    // With a callback it is told.
    let code = "context.on_signal('TERM', function() context.exit(7) end) print('up')";
    let mut server = start_ignoring("TERM", code);
    assert_eq!(server.line(), "up");
    server.signal("TERM");
    assert_eq!(server.finish(SIGNAL_LIMIT).code(), Some(7));
}

/// The binary with this code, started with this signal ignored.
fn start_ignoring(signal: &str, code: &str) -> Server {
    let mut command = Command::new("sh");
    command.args(["-c", "trap '' \"$2\"; exec \"$0\" -e \"$1\""]);
    Server::spawn(command.args([env!("CARGO_BIN_EXE_node-lua"), code, signal]))
}

#[test]
fn exit_ends_the_process_with_its_status() {
    for (code, status) in [
        ("context.exit(3)", 3),
        ("context.exit()", 0),
        ("context.exit(true)", 0),
        ("context.exit(false)", 1),
        ("timer.timeout(0.001, function() context.exit(255) end) timer.sleep(3600)", 255),
        ("coroutine.wrap(function() context.exit(4) end)()", 4),
        ("context.exit(5) context.exit(6)", 5),
    ] {
        let done = evaluate(&format!("{code} print('not reached')"));
        assert_eq!((done.code(), &*done.stdout), (Some(status), ""), "{code}: {done}");
    }
}

#[test]
fn exit_ends_all_contexts_and_sends_what_they_have_written() {
    let folder = Folder::new();
    folder.write(
        "child.lua",
        "local ok, listener = tcp.listen('127.0.0.1', 0)
         print(tcp.local_port(listener))
         local _, sock = listener:accept()
         sock:write(('x'):rep(1000000))
         context.send(context.parent(), 'written')
         timer.sleep(3600)",
    );
    let script = folder.write(
        "main.lua",
        "local child = context.create('child.lua')
         context.recv(child)
         context.exit(9)",
    );
    let mut server = Server::start([script]);
    let mut client = connect(server.port());
    let mut received = Vec::new();
    client.read_to_end(&mut received).unwrap();
    assert_eq!(received.len(), 1_000_000);
    assert_eq!(server.finish(SIGNAL_LIMIT).code(), Some(9));
}

#[test]
fn the_process_can_end_with_its_main_script() {
    let folder = Folder::new();
    folder.write("child.lua", "timer.sleep(3600)");
    let create = "context.create('child.lua') timer.sleep(0.01) print('ends')";
    for (code, status) in [("", 0), (" error('fails')", 1)] {
        let script = folder.write("main.lua", format!("{create}{code}"));
        let done = run(node_lua().arg("--exit-with-main").arg(script));
        assert_eq!((done.code(), &*done.stdout), (Some(status), "ends\n"), "{done}");
    }
}

#[test]
fn wrong_arguments_are_named_with_their_place() {
    for (code, text) in [
        (
            "context.exit(256)",
            "#1 to 'exit' (integer from 0 to 255, or boolean, expected, got number 256)",
        ),
        ("context.exit(1.5)", "got number 1.5)"),
        ("context.exit('x')", "got string \"x\")"),
        (
            "context.on_signal('FOO', print)",
            "(\"HUP\", \"USR1\", \"USR2\", \"INT\" or \"TERM\" expected, got string \"FOO\")",
        ),
        ("context.on_signal()", "got nil)"),
        (
            "context.on_signal('HUP', 1)",
            "bad argument #2 to 'on_signal' (function or nil expected, got number 1)",
        ),
    ] {
        let done = evaluate(&format!("\n{code}"));
        assert_eq!(done.code(), Some(1), "{code}: {done}");
        assert!(done.stderr.contains("(command line):2: ") && done.stderr.contains(text), "{done}");
    }
}

#[test]
fn confined_contexts_neither_end_the_process_nor_hear_signals() {
    let folder = Folder::new();
    folder.write(
        "child.lua",
        "print(pcall(context.exit, 1)) print(pcall(context.on_signal, 'TERM', print))",
    );
    let script = folder.write("main.lua", "context.create { file = 'child.lua', deny = { 'os' } }");
    let done = run(node_lua().arg(script)).succeeded();
    let place = format!("{}:1", folder.path("child.lua").display());
    let why = "the process is withheld from this context (deny \"os\")";
    let said = ["exit", "on_signal"].map(|call| format!("false\t{place}: {call}: {why}\n"));
    assert_eq!(done.stdout, said.concat());
}

#[test]
fn a_simulation_repeats_its_end_and_sends_term_when_nothing_else_can_happen() {
    let code = "context.on_signal('TERM', function(name)
                  timer.sleep(math.random())
                  print(name, timer.now(), timer.time())
                  context.exit(4)
                end)";
    let once = |code: &str| run(node_lua().args(["--simulate", "7", "--trace", "-e", code]));
    let (first, second) = (once(code), once(code));
    assert_eq!((first.code(), first.stdout.contains("TERM\t")), (Some(4), true), "{first}");
    assert_eq!((first.stdout, first.stderr), (second.stdout, second.stderr));
    let done = once("context.on_signal('TERM', print)");
    assert_eq!((done.code(), &*done.stdout), (Some(143), "TERM\n"), "{done}");
    assert_eq!(once("timer.sleep(100) context.exit(9)").code(), Some(9));
    let code = "context.create('examples/echo_server.lua') timer.sleep(1) print('main ends')";
    let mut command = node_lua();
    command.args(["--simulate", "7", "--exit-with-main", "-e", code]);
    assert!(run(&mut command).succeeded().stdout.ends_with("main ends\n"));
}

#[test]
fn a_main_script_that_cannot_start_has_failed() {
    let missing = |command: &mut std::process::Command| run(command.arg("no/such/script.lua"));
    assert_eq!(missing(&mut node_lua()).code(), Some(1));
    assert_eq!(missing(node_lua().args(["--simulate", "1"])).code(), Some(1));
    assert_eq!(run(node_lua().args(["-e", "local ="])).code(), Some(1));
    assert_eq!(run(node_lua().args(["--simulate", "1", "-e", "local ="])).code(), Some(1));
}

#[test]
fn exit_without_a_status_tells_that_the_main_script_has_failed() {
    let exits =
        ["context.exit()", "context.run(context.exit)", "timer.timeout(0.01, context.exit)"];
    for exit in exits {
        let failing = format!("context.run(function() {exit} end) error('lost')");
        let done = run(node_lua().args(["-e", &failing]));
        assert_eq!(done.code(), Some(1), "{exit}: {done}");
        let working = format!("context.run(function() {exit} end)");
        assert_eq!(run(node_lua().args(["-e", &working])).code(), Some(0), "{exit}");
    }
}

/// A folder with the module of `tests/c/` for signals, which scripts that begin with the other text
/// find as `S`. `USR1` is its number.
fn with_module() -> (Folder, String) {
    let folder = Folder::new();
    let templates = support::c_module(&folder, "signals");
    let head = format!("package.cpath = '{templates}' local S, USR1 = require('signals'), 10 ");
    (folder, head)
}

/// Handlers of modules in C, which set a hook in the state that they know.
#[test]
fn handlers_of_c_modules_are_called_where_their_state_runs() {
    let (folder, head) = with_module();
    let code = "
        local told = 0
        local function tell() told = told + 1 end
        for _, how in ipairs { 'action', 'information', 'signal' } do
          -- From a coroutine that is gone when the signal comes.
          local before = coroutine.wrap(function() return S.on(USR1, how, tell) end)()
          print(how, before, S.what(USR1))
          for i = 1, 20 do
            collectgarbage()
            S.send(USR1)
            assert(told == i * 2 - 1)
            os.execute('kill -USR1 $PPID')
            -- Whatever thread gets it.
            while told < i * 2 do end
          end
          told = 0
        end
        print(S.on(USR1, 'ignore', tell), S.what(USR1))
        S.send(USR1)
        print(S.on(USR1, 'default', tell), S.what(USR1))
        -- A fault is its thread's own.
        for _, number in ipairs { 4, 6, 8, 11, USR1 } do
          S.on(number, 'action', tell)
          print(number, S.what(number), S.is_direct(number))
          S.on(number, 'default', tell)
        end
        print(S.on(0, 'action', tell), S.on(64000, 'action', tell), S.what(9), told)";
    let done = run(unignored().arg(folder.write("main.lua", head + code))).succeeded();
    let expected = "action\tdefault\tours\ninformation\tours\tours\nsignal\tours\tours\n\
                    ours\tignored\nignored\tdefault\n4\tours\ttrue\n6\tours\ttrue\n\
                    8\tours\ttrue\n11\tours\ttrue\n10\tours\tfalse\nerror\terror\tdefault\t0\n";
    assert_eq!(done.stdout, expected, "{done}");
}

#[test]
fn a_context_that_waits_hears_of_signals_by_c_modules() {
    let (folder, head) = with_module();
    let code = "
        S.on(USR1, 'action', function(number) print('told', number) end)
        print('up')
        timer.sleep(3600)";
    let mut server = Server::spawn(unignored().arg(folder.write("main.lua", head + code)));
    assert_eq!(server.line(), "up");
    for _ in 0..3 {
        server.signal("USR1");
        assert_eq!(server.line(), "told\t10");
    }
}

/// The module has one variable for the coroutine that has asked last, for all contexts.
#[cfg(renames)]
#[test]
fn handlers_of_a_c_module_serve_one_context_at_a_time() {
    let (folder, head) = with_module();
    let child = "
        local told = 0
        print('first', S.on(USR1, 'action', function() told = told + 1 end))
        context.send(context.parent(), 'up')
        context.recv(context.parent())
        for i = 1, 20 do
          S.send(USR1)
          assert(told == i * 2 - 1)
          os.execute('kill -USR1 $PPID')
          while told < i * 2 do end
        end
        print('told', told)";
    folder.write("child.lua", format!("{head}{child}"));
    let code = "
        local child = context.create((arg[0]:gsub('main.lua$', 'child.lua')))
        context.recv(child)
        for _, how in ipairs { 'action', 'information', 'signal' } do
          coroutine.wrap(function() print(how, S.on(USR1, how, print), S.on(12, how, print)) end)()
        end
        collectgarbage()
        context.send(child, 'go')
        context.wait(child)
        print('main', S.on(USR1, 'action', function() print('heard') end))
        S.send(USR1)";
    let done = run(unignored().arg(folder.write("main.lua", head + code))).succeeded();
    let expected = "first\tdefault\naction\terror\terror\ninformation\terror\terror\n\
                    signal\tother\tother\ntold\t40\nmain\tdefault\nheard\n";
    assert_eq!(done.stdout, expected, "{done}");
    let refused = "signal 10: no handler (EBUSY): those of this C module serve another context";
    assert_eq!(done.stderr.matches(refused).count(), 1, "{done}");
}

#[test]
fn handlers_of_c_modules_go_with_their_context() {
    let (folder, head) = with_module();
    let child = "local how = ... S.on(USR1, how, print) print(how, S.what(USR1))";
    folder.write("child.lua", format!("{head}{child}"));
    let code = "
        local name = arg[0]:gsub('main.lua$', 'child.lua')
        for i = 1, 20 do
          context.wait(context.create(name, i % 2 == 0 and 'action' or 'signal'))
        end
        print(S.what(USR1))
        -- What was there before is there again.
        local told = false
        context.on_signal('USR1', function() told = true print('main') context.exit() end)
        context.wait(context.create(name, 'information'))
        S.send(USR1)";
    let done = run(unignored().arg(folder.write("main.lua", head.clone() + code))).succeeded();
    let last = "S.on(USR1, 'action', print) os.execute('kill -USR1 $PPID')";
    let last = folder.write("last.lua", head.clone() + last);
    // Debug builds take a while here to pass a signal on to the thread that it is for.
    for slowly in ["count", "signal all"].repeat(20) {
        // Told or not: it is not what ends the process.
        run(unignored().env("NODE_LUA_FAILPOINT", slowly).arg(&last)).succeeded();
    }
    let pairs = "signal\tours\naction\tours\n".repeat(10);
    assert_eq!(done.stdout, pairs + "default\ninformation\tours\nmain\n", "{done}");
}
