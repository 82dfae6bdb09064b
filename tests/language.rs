//! What scripts see of the language is what LuaJIT shows: `tests/stock/*.lua`, whose `.expected` is
//! what Debian's `luajit` prints, run in that folder, with addresses replaced.

#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::fs;

use support::expect::{difference_from_recorded, without_addresses};
use support::{Done, Folder, files, node_lua, run};

#[test]
fn scripts_see_what_luajit_shows() {
    let scripts = files("tests/stock", "lua");
    assert!(!scripts.is_empty());
    let wrong: Vec<_> =
        scripts.iter().filter_map(|script| difference_from_recorded(script)).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[track_caller]
fn run_files(folder: &[(&str, &str)]) -> Done {
    let place = Folder::new();
    for (name, text) in folder {
        fs::write(place.path(name), text).unwrap();
    }
    run(node_lua().current_dir(place.path("")).arg("main.lua"))
}

#[test]
fn what_fails_in_the_main_script_is_told_as_luajit_tells_it() {
    let main = "local function f(x)\n  return x.y\nend\nlocal r = f(nil)\n";
    let done = run_files(&[("main.lua", main)]);
    assert_eq!(done.code(), Some(1), "{done}");
    assert_eq!(
        done.stderr,
        "node-lua: main.lua:2: attempt to index local 'x' (a nil value)\nstack traceback:\n\
         \tmain.lua:2: in function 'f'\n\tmain.lua:4: in main chunk\n",
    );
    let done = run_files(&[("main.lua", "x = = 1")]);
    assert_eq!(done.code(), Some(1), "{done}");
    assert_eq!(done.stderr, "node-lua: main.lua:1: unexpected symbol near '='\n");
    // `error()` is how some scripts end with a status.
    let done = run_files(&[("main.lua", "error()")]);
    assert_eq!((done.code(), done.stderr.as_str()), (Some(1), ""), "{done}");
}

#[test]
fn an_error_shows_every_frame_of_the_script_and_none_of_the_library() {
    let done = run_files(&[
        (
            "main.lua",
            "local function go()\n  require 'a'\nend\ntimer.timeout(0, function()\n  go()\nend)",
        ),
        ("a.lua", "local b = require 'b'\n"),
        (
            "b.lua",
            "local t\nlocal co = coroutine.wrap(function() timer.sleep(0) end)\nco()\nprint(t.x)\n",
        ),
    ]);
    assert_eq!(
        done.stderr,
        "node-lua: ./b.lua:4: attempt to index local 't' (a nil value)\nstack traceback:\n\
         \t./b.lua:4: in main chunk\n\t[C]: in function 'require'\n\t./a.lua:1: in main chunk\n\
         \t[C]: in function 'require'\n\tmain.lua:2: in function 'go'\n\
         \tmain.lua:5: in function <main.lua:4>\n",
        "{done}"
    );
    let waiting = "
        local co
        local function wait() timer.sleep(10) end
        timer.timeout(0, function()
          print(debug.traceback(co, 'waits'))
          print(debug.traceback('callback'))
          for level = 0, 9 do
            local i = debug.getinfo(co, level)
            print(i and i.what .. ' ' .. i.currentline .. ' ' .. tostring(i.name))
          end
          context.destroy(nil)
        end)
        co = coroutine.create(function() wait() end)
        coroutine.resume(co)";
    let done = run_files(&[("main.lua", waiting)]);
    let wanted = "waits\nstack traceback:\n\t[C]: in function 'sleep'\n\
                  \tmain.lua:3: in function 'wait'\n\tmain.lua:13: in function <main.lua:13>\n\
                  callback\nstack traceback:\n\tmain.lua:6: in function <main.lua:4>\n\
                  \t[C]: at ADDR\n\
                  C -1 sleep\nLua 3 wait\nLua 13 nil\nnil\nnil\nnil\nnil\nnil\nnil\nnil\n";
    assert_eq!(without_addresses(&done.stdout), wanted, "{done}");
}

/// However a root is run, there is one frame below it to scripts, as below LuaJIT's main chunk.
#[test]
fn who_walks_the_stack_finds_one_frame_below_a_root() {
    let main = "
        local function walk(name)
          local kinds = {}
          for level = 2, 30 do
            local info = debug.getinfo(level, 'S')
            kinds[#kinds + 1] = info and info.what
          end
          print(name, table.concat(kinds, ' '))
        end
        local me = context.self()
        timer.timeout(0, function() walk('timer') end)
        timer.timeout(0, function() timer.sleep(0.001) walk('after a wait') end)
        context.run(function() walk('run') end)
        context.recv(me, function() walk('recv') context.recv(me, nil) end)
        context.send(me, 1)
        walk('main')
        table.sort({ 1, 2 }, function() walk('sort') end)
        coroutine.wrap(function() walk('coroutine') end)()
        coroutine.wrap(pcall)(pcall, function() walk('pcall') end)";
    let done = run_files(&[("main.lua", main)]).succeeded();
    let mut lines: Vec<&str> = done.stdout.lines().collect();
    lines.sort_unstable();
    let wanted = [
        "after a wait\tLua C",
        "coroutine\tLua",
        "main\tmain C",
        "pcall\tLua C C",
        "recv\tLua C",
        "run\tLua C",
        "sort\tLua C main C",
        "timer\tLua C",
    ];
    assert_eq!(lines, wanted, "{done}");
}

#[test]
fn a_module_of_the_scripts_own_comes_before_the_librarys_and_the_globals_stay() {
    for name in ["timer", "buffer", "tcp", "udp", "context", "packet", "supervisor"] {
        let main = format!(
            "local before = {name}
             local m = require '{name}'
             print(m.own, require '{name}' == m, package.loaded.{name} == m, {name} == before)"
        );
        let own = format!("return {{ own = '{name}.lua', args = select('#', ...) }}");
        let done = run_files(&[("main.lua", &main), (&format!("{name}.lua"), &own)]).succeeded();
        assert_eq!(done.stdout, format!("{name}.lua\ttrue\ttrue\ttrue\n"), "{done}");
        let main =
            format!("local m = require '{name}' print(type(m), m.own, m == require '{name}')");
        let done = run_files(&[("main.lua", &main)]).succeeded();
        assert_eq!(done.stdout, "table\tnil\ttrue\n", "{name}: {done}");
        // A preloaded one, and what was put there by hand.
        let main = format!(
            "package.preload.{name} = function() return 'preloaded' end
             print(require '{name}')
             package.loaded.{name} = 'put'
             print(require '{name}')"
        );
        let done = run_files(&[("main.lua", &main)]).succeeded();
        assert_eq!(done.stdout, "preloaded\nput\n", "{name}: {done}");
    }
    // The script that asks for the library's module is not that module.
    for name in ["packet", "supervisor", "tcp"] {
        let text = format!("print(type(require '{name}'), ...)");
        let place = Folder::new();
        let file = place.write(&format!("{name}.lua"), text);
        for path in [file.as_path(), std::path::Path::new(file.file_name().unwrap())] {
            let done = run(node_lua().current_dir(place.path("")).arg(path).arg("x"));
            assert_eq!(done.succeeded().stdout, "table\tx\n");
        }
    }
    let done = run_files(&[
        ("main.lua", "dofile 'timer.lua'"),
        ("timer.lua", "print(require 'timer' == timer, package.loaded.timer == timer)"),
    ]);
    assert_eq!(done.succeeded().stdout, "true\ttrue\n");
}

#[test]
fn a_module_may_wait_while_others_ask_for_it() {
    let main = "
        local function ask(name)
          return function() print(name, pcall(require, name)) end
        end
        context.run(ask 'slow') context.run(ask 'slow')
        context.run(ask 'fails') context.run(ask 'fails') context.run(ask 'fails')
        context.run(ask 'a') context.run(ask 'b')
        context.run(function()
          print('caught', pcall(require, 'fails2'))
          timer.sleep(0.02)
          print('goes on')
        end)
        context.run(ask 'fails2')";
    let done = run_files(&[
        ("main.lua", main),
        ("slow.lua", "timer.sleep(0.005) return 'loaded'"),
        ("fails.lua", "timer.sleep(0.01) error('failed', 0)"),
        ("fails2.lua", "timer.sleep(0.015) error('failed too', 0)"),
        ("a.lua", "timer.sleep(0.02) local m = require 'b' return m"),
        ("b.lua", "timer.sleep(0.02) local m = require 'a' return m"),
    ]);
    let mut lines: Vec<_> = done.stdout.lines().collect();
    lines.sort_unstable();
    let again =
        |name: &str| format!("{name}\tfalse\tloop or previous error loading module '{name}'");
    let (fails, fails2) = (again("fails"), again("fails2"));
    let wanted = [
        "a\tfalse\t./a.lua:1: loop or previous error loading module 'b'",
        "b\tfalse\t./b.lua:1: loop or previous error loading module 'a'",
        "caught\tfalse\tfailed too",
        "fails\tfalse\tfailed",
        &fails,
        &fails,
        &fails2,
        "goes on",
        "slow\ttrue\tloaded",
        "slow\ttrue\tloaded",
    ];
    assert_eq!(lines, wanted, "{done}");
}

#[test]
fn what_nobody_catches_is_told_to_the_script() {
    let main = "
        local mark = setmetatable({}, { __tostring = function() return 'marked' end })
        context.on_error(function(message, trace)
          print(message == mark or message, type(trace), (trace:match('main.lua:%d+')))
        end)
        local function go(f) context.run(f) timer.sleep(0) end
        print(pcall(context.on_error, 5))
        go(function() error('boom', 0) end)
        go(function() error(mark) end)
        go(function() error() end)
        go(function() error('a\\0b', 0) end)
        go(function() local x; x() end)
        local is_over
        context.on_error(function(message)
          timer.sleep(0)
          is_over = true
          error('again: ' .. message, 0)
        end)
        go(function() error('first', 0) end)
        while not is_over do timer.sleep(0) end
        context.on_error(nil)
        go(function() error('logged', 0) end)";
    let done = run_files(&[("main.lua", main)]).succeeded();
    assert_eq!(
        done.stdout,
        "false\tmain.lua:7: bad argument #1 to 'on_error' (function or nil expected, \
         got number 5)\n\
         boom\tstring\tmain.lua:8\ntrue\tstring\tmain.lua:9\nnil\tstring\tmain.lua:10\n\
         a\0b\tstring\tmain.lua:11\nmain.lua:12: attempt to call local 'x' (a nil value)\tstring\t\
         main.lua:12\n",
        "{done}"
    );
    for part in ["context.on_error: again: first\n", "\nnode-lua: first\n", "\nnode-lua: logged\n"]
    {
        assert!(done.stderr.contains(part), "{part}: {done}");
    }
    assert_eq!(done.stderr.matches("node-lua: ").count(), 3, "{done}");
}

/// The hook stays: it is called for whatever the context's callbacks do, not for the library.
#[test]
fn what_a_hook_raises_ends_no_more_than_the_callback_it_came_in() {
    for events in ["'c'", "'r'", "'l'", "'', 1", "'clr'"] {
        let body = format!(
            "context.run(function()
               debug.sethook(function() error('hk') end, {events})
               local x = type
               x(1)
             end)
             context.run(function()
               local x = type
               x(1)
             end)"
        );
        let told = format!(
            "context.on_error(function(message)
               print(message:match('^main.lua:%d+: hk$') ~= nil, (debug.gethook()))
             end)
             {body}"
        );
        let done = run_files(&[("main.lua", &told)]);
        assert_eq!(done.stdout, "true\tnil\ntrue\tnil\n", "{events}: {done}");
        let done = run_files(&[("main.lua", &body)]);
        assert_eq!(
            done.stderr.matches("node-lua: main.lua:2: hk\n").count(),
            2,
            "{events}: {done}"
        );
    }
}

/// Whatever has the finaliser, wherever the collector runs, and whatever it raises.
#[test]
fn what_a_finaliser_raises_is_told_and_ends_nothing() {
    let main = "
        local ffi = require('ffi')
        local function doom(f) getmetatable(newproxy(true)).__gc = f end
        local function collect() collectgarbage() collectgarbage() end
        doom(function() error('of a proxy') end) collect()
        ffi.gc(ffi.new('int[1]'), function(x) return x.y.z end) collect()
        doom(function() error({}) end) collect()
        doom(function() error() end) collect()
        doom(function() doom(function() error('inner') end) collect() error('outer') end) collect()
        doom(function() pcall(error, 'caught') end) collect()
        coroutine.wrap(function() doom(function() error('of a coroutine') end) collect() end)()
        local heard
        jit.attach(function(why) heard = why end, 'errfin')
        doom(function() error('heard', 0) end) collect()
        jit.attach(function() end)
        print(heard)
        local is_over
        doom(function() is_over = true error('in between') end)
        while not is_over do garbage = {} end
        context.on_error(function(message, trace) print(message, trace:match(\"'error'\")) end)
        doom(function() error('told') end) collect()
        print('goes on')
        timer.sleep(0)
        at_last = newproxy(true)
        getmetatable(at_last).__gc = function() error('at the end') end";
    let done = run_files(&[("main.lua", main)]).succeeded();
    assert_eq!(done.stdout, "heard\ngoes on\nmain.lua:21: told\t'error'\n", "{done}");
    let start = "node-lua: in a finaliser: ";
    let told = [
        "main.lua:5: of a proxy\nstack traceback:\n\t[C]: in function 'error'\n\
         \tmain.lua:5: in function <main.lua:5>\n",
        "main.lua:6: ",
        "table: 0x",
        "nil\n",
        "main.lua:9: inner",
        "main.lua:9: outer",
        "main.lua:11: of a coroutine",
        "heard",
        "main.lua:18: in between",
        "main.lua:25: at the end",
    ];
    for part in told {
        assert_eq!(done.stderr.matches(&format!("{start}{part}")).count(), 1, "{part}: {done}");
    }
    assert_eq!(done.stderr.matches(start).count(), told.len(), "{done}");
}

#[test]
fn errors_are_silent_with_rust_log_off_alone() {
    let main = "
        timer.timeout(0, function() error('of the main script') end)
        local child = context.create('child.lua')
        context.wait(child)
        error('at last')";
    for (level, count) in [("off", 0), ("error", 3), ("script=info", 3), ("none=debug", 3)] {
        let place = Folder::new();
        fs::write(place.path("main.lua"), main).unwrap();
        fs::write(place.path("child.lua"), "context.name('named') error('of the child')").unwrap();
        let done =
            run(node_lua().current_dir(place.path("")).env("RUST_LOG", level).arg("main.lua"));
        assert_eq!(done.code(), Some(1), "{done}");
        let told = ["of the main script", "(named): child.lua:1: of the child", "at last"];
        let found = told.iter().filter(|text| done.stderr.contains(*text)).count();
        assert_eq!(found, count, "{level}: {done}");
        assert_eq!(done.stderr.is_empty(), count == 0, "{level}: {done}");
    }
}
