//! Scripts that do not stop, that take all memory, or that recurse for ever: each ends at most its
//! own context, and those beside it go on.

#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use support::{Folder, node_lua, run};

/// Scripts that would run for ever, in every way that a hook has to be got past.
const LOOPS: &[(&str, &str)] = &[
    ("plain", "while true do end"),
    ("pcall", "while true do pcall(function() while true do end end) end"),
    ("hook", "while true do debug.sethook() end"),
    ("in_hook", "debug.sethook(function() while true do end end, '', 1) local x = 1"),
    ("coroutine", "while true do coroutine.wrap(function() while true do end end)() end"),
    ("xpcall", "while true do xpcall(function() while true do end end, debug.traceback) end"),
    (
        "finaliser",
        "getmetatable(newproxy(true)).__gc = function() while true do end end
                   while true do local t = {} end",
    ),
    (
        "at_the_end",
        "p = newproxy(true)
                    getmetatable(p).__gc = function() while true do end end",
    ),
    ("tostring", "error(setmetatable({}, { __tostring = function() while true do end end }))"),
];

/// Compiles all the time, so that most signals come while the trace compiler is at work.
const COMPILES: &str = concat!(
    "local program = (function() ",
    include_str!("lua/support/traces.lua"),
    " end)()
    jit.opt.start('hotloop=1', 'hotexit=1', 'minstitch=1', 'maxtrace=50')
    local k = ...
    while true do
      k = k + 1
      local f = program(k)
      for r = 1, 8 do pcall(f) end
    end
"
);

/// Each is cut and goes on many times, and is ended, at moments where its hook must not be set:
/// whoever asked asks again.
#[test]
fn loops_that_keep_the_trace_compiler_busy_take_turns_and_end() {
    let folder = Folder::new();
    let file = folder.write("loop.lua", COMPILES);
    let main = folder.write(
        "main.lua",
        "local file, handles, ended = ..., {}, 0
         for round = 1, 4 do
           for i = 1, 24 do
             handles[i] = context.create(file, i * round)
             context.monitor(handles[i], function(_, why)
               if why == 'killed' then ended = ended + 1 end
             end)
           end
           timer.sleep(0.4)
           for i = 1, 24 do context.destroy(handles[i]) end
           for i = 1, 24 do context.wait(handles[i]) end
         end
         timer.sleep(0)
         print(ended)",
    );
    assert_eq!(run(node_lua().args([main, file])).succeeded().stdout, "96\n");
}

/// Their limits are noticed too, while they compile.
#[test]
fn a_busy_trace_compiler_does_not_outlast_a_turn_limit_or_a_memory_limit() {
    let folder = Folder::new();
    let file = folder.write("loop.lua", COMPILES);
    let keeps =
        folder.write("keeps.lua", COMPILES.replace("pcall(f)", "kept = { kept, f, pcall(f) }"));
    let main = folder.write(
        "main.lua",
        "local file, keeps = ...
         for i = 1, 4 do
           local handle = context.create({ file = file, turn_limit = 0.05 }, i)
           print(context.wait(handle))
           handle = context.create({ file = keeps, memory = 2e6 }, i)
           print(context.wait(handle))
         end",
    );
    let done = run(node_lua().args([main, file, keeps]));
    assert_eq!(done.stdout.lines().count(), 8, "{done}");
    assert_eq!(done.stderr.matches("(211)").count(), 4, "{done}");
    assert_eq!(done.stderr.matches("(210)").count(), 4, "{done}");
}

#[test]
fn destroy_ends_whatever_loops() {
    let folder = Folder::new();
    for (name, script) in LOOPS {
        let file = folder.write(&format!("{name}.lua"), script);
        let main = folder.write(
            "main.lua",
            "local h = context.create((...))
             timer.sleep(0.05)
             context.destroy(h, 'enough')
             local _, code = context.wait(h, 20)
             assert(code == 0 or code == 205, code)",
        );
        let done = run(node_lua().args([main, file]));
        assert_eq!(done.code(), Some(0), "{name}: {done}");
    }
}

#[test]
fn a_turn_limit_ends_a_loop_with_211_and_its_line() {
    let folder = Folder::new();
    let file = folder.write("loop.lua", "local x = 1\nwhile true do pcall(error)\nend\n");
    let main = folder.write(
        "main.lua",
        "context.monitor(context.create({ file = (...), turn_limit = 0.05, name = 'busy' }),
           function(_, reason, detail) print(reason, detail:match('loop.lua:(%d+)')) end)",
    );
    let done = run(node_lua().args([&main, &file])).succeeded();
    assert!(["time\t2\n", "time\t3\n"].contains(&done.stdout.as_str()), "{done}");
    for part in ["(busy)", "(211)", "0.05 s", "loop.lua:"] {
        assert!(done.stderr.contains(part), "{part}: {done}");
    }
    // By default for all, the main script included.
    let done = run(node_lua().args(["--turn-limit", "0.05"]).arg(&file));
    assert_eq!(done.code(), Some(1), "{done}");
    assert!(done.stderr.contains("(211)"), "{done}");
}

#[test]
fn turns_below_the_limit_are_left_alone() {
    let script = "local t = os.clock() for i = 1, 20 do
                    local stop = os.clock() + 0.01
                    while os.clock() < stop do end
                    timer.sleep(0.001)
                  end
                  print('done')";
    let done = run(node_lua().args(["--turn-limit", "0.5", "-e", script])).succeeded();
    assert_eq!(done.stdout, "done\n");
}

/// Ways to take all memory.
const BOMBS: &[(&str, &str)] = &[
    ("table", "local t = {} while true do t[#t + 1] = {} end"),
    ("text", "local t = {} while true do t[#t + 1] = ('x'):rep(100) .. #t end"),
    (
        "swallowed",
        "local function f() local t = {} while true do t[#t + 1] = t end end
                   while true do pcall(f) end",
    ),
    ("rep", "local s = ('x'):rep(1e9)"),
    ("doubling", "local s = 'x' while true do s = s .. s end"),
    ("buffers", "local t = {} while true do t[#t + 1] = buffer.new(1e5) end"),
    ("ffi", "local new, t = require 'ffi'.new, {} while true do t[#t + 1] = new('char[999]') end"),
    ("coroutines", "local t = {} for i = 1, 1e6 do t[i] = coroutine.create(print) end"),
    (
        "finaliser",
        "local p = newproxy(true)
                   getmetatable(p).__gc = function()
                     local t = {} while true do t[#t + 1] = {} end
                   end
                   p = nil collectgarbage() while true do local t = {} end",
    ),
    (
        "closures",
        "local t = {}
                  local function f() t[#t + 1] = function() return t end return f() end f()",
    ),
];

#[test]
fn a_memory_limit_ends_the_context_that_exceeds_it_alone() {
    let folder = Folder::new();
    for (name, script) in BOMBS {
        // Not before it is watched.
        let script = format!("context.recv(context.parent()) {script}");
        let file = folder.write(&format!("{name}.lua"), script);
        let main = folder.write(
            "main.lua",
            "local h = context.create({ file = (...), memory = 8 * 2 ^ 20 })
             local reason, detail
             context.monitor(h, function(_, ...) reason, detail = ... end)
             context.send(h, 'go')
             print(context.wait(h, 50))
             while not reason do timer.sleep(0.001) end
             print(reason)
             io.stderr:write(tostring(detail), '\\n')",
        );
        let done = run(node_lua().args([main, file]));
        assert_eq!(done.stdout, "true\t0\nmemory\n", "{name}: {done}");
        for part in ["(210)", "bytes in Lua", "in buffers", "limit 8388608"] {
            assert!(done.stderr.contains(part), "{name}: {part}: {done}");
        }
    }
}

#[test]
fn garbage_does_not_count_against_the_limit() {
    let script = "local keep = {}
                  for i = 1, 20000 do keep[i] = ('y'):rep(200) .. i end
                  for i = 1, 1e6 do local s = ('x'):rep(100) .. i end
                  print('done')";
    let done = run(node_lua().args(["--memory-limit", "16M", "-e", script])).succeeded();
    assert_eq!(done.stdout, "done\n");
}

/// Recursion through C, and what else used to end the process.
const DEEP: &[&str] = &[
    "local function f() return (('x'):gsub('x', f)) end f()",
    "local function f() return coroutine.wrap(f)() end f()",
    "local function f() return coroutine.resume(coroutine.create(f)) end f()",
    "local function f() return load(f) end f()",
    "local function f() table.sort({ 1, 2, 3 }, f) end f()",
    "local function f() return 1 + f() end f()",
    "local function f() local ok = pcall(string.gsub, 'x', 'x', f)
       if not ok then coroutine.resume(coroutine.create(f)) error('x') end end f()",
    "error(setmetatable({}, { __tostring = function() error('x') end }))",
    "string.gsub, string.format, debug.traceback = nil error('x')",
    "loadstring(('('):rep(1e6))",
];

#[test]
fn recursion_ends_its_context_and_nothing_else() {
    let folder = Folder::new();
    let mut main = String::from("local h = {}\n");
    for (number, script) in DEEP.iter().enumerate() {
        let file = folder.write(&format!("{number}.lua"), script);
        main += &format!(
            "h[#h + 1] = context.create({{ file = {file:?}, memory = 2 ^ 28, turn_limit = 2 }})\n"
        );
    }
    main += "for i = 1, #h do context.wait(h[i]) end print('here')";
    let done = run(node_lua().arg(folder.write("main.lua", main))).succeeded();
    assert_eq!(done.stdout, "here\n", "{done}");
}

#[test]
#[cfg(debug_assertions)]
fn a_fault_of_the_runtime_ends_its_context_alone() {
    let folder = Folder::new();
    for (name, body) in [
        ("called", "pcall(coroutine.wrap(function() native.panic_for_tests() end))"),
        ("compiled", "pcall(function() for i = 1, 1e9 do panic(i) end end)"),
    ] {
        let file = folder.write(
            &format!("{name}.lua"),
            format!(
                "local native = debug.getregistry()['node-lua.native']
                 local panic = require 'ffi'.cast('int (*)(int)', native.panicking_pointer())
                 context.recv(context.parent())
                 while true do {body} end"
            ),
        );
        let main = folder.write(
            "main.lua",
            "local h = context.create((...))
             context.monitor(h, function(_, ...) print(...) end)
             context.send(h, 'go')",
        );
        let done = run(node_lua().args([main, file])).succeeded();
        assert!(done.stdout.starts_with("error\tthe runtime failed: a test panics"), "{done}");
        assert!(done.stderr.contains("the runtime failed"), "{done}");
    }
}

#[test]
fn what_a_stuck_context_has_sent_arrives() {
    let folder = Folder::new();
    let file =
        folder.write("stuck.lua", "context.send(context.parent(), 'hello') while true do end");
    let script = "local h = context.create((...))
                  local ok, value = context.recv(h, 20)
                  print(value)
                  context.destroy(h)";
    let main = folder.write("main.lua", script);
    let done = run(node_lua().args(["--workers", "1"]).args([main, file])).succeeded();
    assert_eq!(done.stdout, "hello\n");
}

#[test]
fn reasons_of_ends_are_told() {
    let folder = Folder::new();
    folder.write("normal.lua", "context.recv(0)");
    folder.write("failed.lua", "context.recv(0) error('so it is')");
    folder.write("waits.lua", "context.recv(0)");
    let main = folder.write(
        "main.lua",
        "local here = arg[0]:match('^(.*)/') .. '/'
         local told = 0
         local function tell(name) return function(h, reason, detail)
           print(name, reason, detail and detail:match('[^\\n]*'):gsub('^.*: ', ''))
           told = told + 1
         end end
         local function until_told(count)
           while told < count do timer.sleep(0.001) end
         end
         for count, name in ipairs { 'normal', 'failed' } do
           local h = context.create(here .. name .. '.lua')
           context.monitor(h, tell(name))
           context.send(h, 'go')
           until_told(count)
         end
         local h = context.create(here .. 'waits.lua')
         context.monitor(h, tell 'c')
         context.monitor(h, tell 'd')
         context.destroy(h, 'because')
         context.wait(h)
         until_told(4)
         context.monitor(h, tell 'e')
         print(context.stat(h), pcall(context.monitor, context.self(), print))",
    );
    let done = run(node_lua().arg(main)).succeeded();
    let told: Vec<&str> = done.stdout.lines().collect();
    assert_eq!(
        told[..4],
        [
            "normal\tnormal\tnil",
            "failed\terror\tso it is",
            "c\tkilled\tbecause",
            "d\tkilled\tbecause"
        ],
        "{done}"
    );
    assert!(told[4].starts_with("nil\tfalse"), "{done}");
    assert_eq!(told[5], "e\tkilled\tbecause", "{done}");
}

#[test]
fn stat_tells_what_a_context_holds() {
    let folder = Folder::new();
    let file = folder.write(
        "holds.lua",
        "b = buffer.new(100000)
         timer.timeout(3600, print)
         ok, l = tcp.listen('127.0.0.1', 0)
         context.query(context.parent(), 'asks', function() end)
         local stop = os.clock() + 0.1
         while os.clock() < stop do end",
    );
    let main = folder.write(
        "main.lua",
        "local h = context.create({ file = (...), mailbox = 3, memory = 2 ^ 26, turn_limit = 5 })
         context.recv(h)
         for i = 1, 3 do assert(context.send(h, i)) end
         assert(select(2, context.send(h, 4)) == 209)
         local s
         repeat
           timer.sleep(0.01)
           s = context.stat(h)
         until s.cpu > 0.05 and s.timers == 1
         assert(s.mailbox == 3 and s.mailbox_max == 3 and s.mailbox_peak == 3, s.mailbox)
         assert(s.timers == 1 and s.sockets == 1 and s.queries == 1)
         assert(s.buffer_bytes >= 100000 and s.lua_bytes > 10000)
         assert(s.memory_limit == 2 ^ 26 and s.turn_limit == 5)
         assert(s.turns >= 1 and s.cpu > 0.05 and s.cpu < 1, s.cpu)
         assert(context.stat().memory_limit == nil)
         context.destroy(h)",
    );
    run(node_lua().args([main, file])).succeeded();
}

#[test]
fn wrong_options_raise() {
    let script = "for _, options in ipairs {
                    {}, { file = 1 }, { file = 'x', memory = -1 }, { file = 'x', turn_limit = 0 },
                    { file = 'x', mailbox = 0.5 }, { file = 'x', deny = { 'fire' } },
                    { file = 'x', colour = 'red' }, { file = 'x', name = 7 },
                  } do
                    local ok, why = pcall(context.create, options)
                    print(ok, why)
                  end";
    let done = run(node_lua().args(["-e", script])).succeeded();
    assert_eq!(done.stdout.lines().filter(|line| line.starts_with("false\t")).count(), 8, "{done}");
    for flags in [["--memory-limit", "many"], ["--memory-limit", "0"], ["--turn-limit", "-1"]] {
        assert_eq!(run(node_lua().args(flags).args(["-e", ""])).code(), Some(2));
    }
}
