//! More ways to take all memory than tests/sched_turns.rs has: in single calls of the library,
//! through messages, and without a limit. Each ends at most its own context; a neighbour goes on.

#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use support::{Done, Folder, Server, connect, node_lua, resident_bytes, run, wait_until_below};

/// Takes more than 16 MiB and holds on to it, or asks for it at once.
const GREEDY: &[(&str, &str)] = &[
    ("gsub", "return (('x'):rep(1e6):gsub('x', ('y'):rep(1000)))"),
    ("gsub_swallowed", "while true do pcall(string.gsub, ('x'):rep(1e6), 'x', ('y'):rep(1e3)) end"),
    ("concat", "local t = {} for i = 1, 1000 do t[i] = ('x'):rep(1e5) end return table.concat(t)"),
    (
        "format",
        "local t = {} for i = 1, 50 do t[i] = ('x'):rep(1e6) end
        return string.format(('%s'):rep(50), unpack(t))",
    ),
    (
        "string_buffer",
        "local b = require 'string.buffer'.new() while true do b:put(('x'):rep(1e5)) end",
    ),
    ("string_buffer_reserve", "return require 'string.buffer'.new():reserve(2 ^ 30)"),
    (
        "string_buffer_decode",
        "local b = require 'string.buffer'
        local t = {} for i = 1, 1e5 do t[i] = { i } end
        local s, keep = b.encode(t), {}
        while true do keep[#keep + 1] = b.decode(s) end",
    ),
    ("ffi_big", "return require 'ffi'.new('char[?]', 2 ^ 30)"),
    (
        "ffi_swallowed",
        "local ffi, t = require 'ffi', {}
        while true do local ok, v = pcall(ffi.new, 'char[?]', 1e6) t[#t + 1] = ok and v or nil end",
    ),
    (
        "upvalues",
        "local f = function() end
        while true do local g, a = f, {} f = function() return g, a end end",
    ),
    ("varargs", "local function f(...) return f(1, 2, 3, 4, ...) end f()"),
    ("metatables", "local t = {} while true do t = setmetatable({}, { __index = t }) end"),
    (
        "environments",
        "local t = {} while true do t[#t + 1] = setfenv(loadstring('return x'), {}) end",
    ),
    (
        "sources",
        "local t = {}
        while true do t[#t + 1] = loadstring(('local a = 1 '):rep(150) .. 'return ' .. #t) end",
    ),
    ("one_source", "return loadstring('return {' .. ('{},'):rep(1e6) .. '}')"),
    ("keys", "local t = {} for i = 1, 1e9 do t[i * 0.5] = true end"),
    ("new", "return require 'table.new'(1e8, 0)"),
    (
        "coroutine_stacks",
        "local t = {}
        while true do
          local co = coroutine.wrap(function()
            local function f(n) if n == 0 then coroutine.yield() end return 1 + f(n - 1) end
            f(100)
          end)
          co()
          t[#t + 1] = co
        end",
    ),
    ("waiting_coroutines", "while true do context.run(function() timer.sleep(3600) end) end"),
    ("timers", "while true do timer.timeout(3600, ('x'):rep(100), print) end"),
    ("timer_arguments", "local t = {} for i = 1, 1e6 do timer.timeout(3600, { i }, print) end"),
    ("packed", "local b = buffer.new() while true do b:pack('s4', ('x'):rep(1e5)) end"),
    ("appended", "local b = buffer.new(('x'):rep(1e5)) while true do b:append(b) end"),
    ("reserved", "return buffer.new():reserve(2 ^ 30)"),
    ("room", "return buffer.new(2 ^ 30)"),
    ("small_buffers", "local t = {} while true do t[#t + 1] = buffer.new(('x'):rep(300)) end"),
    (
        "own_messages",
        "local s = ('x'):rep(1e6)
        local t = {}
        for i = 1, 100 do
          context.send(context.self(), s .. i)
          t[i] = select(2, context.recv(0))
        end",
    ),
    (
        "received",
        "context.send(context.parent(), context.self())
        local t = {} while true do t[#t + 1] = select(2, context.recv(0)) end",
    ),
];

/// Sends much to whoever asks, serves probes, and tells how each greedy context ended.
const MAIN: &str = "
    local file, name = ...
    local alive = context.create(arg[0], 'neighbour')
    local h = context.create({ file = file, memory = 16 * 2 ^ 20, name = name })
    local reason, detail
    context.monitor(h, function(_, ...) reason, detail = ... end)
    context.recv(h, function()
      for i = 1, 100 do context.send(h, ('x'):rep(1e6) .. i) end
    end)
    -- It may have ended before.
    context.wait(h, 50)
    while not reason do timer.sleep(0.001) end
    context.recv(h, nil)
    print(reason)
    io.stderr:write(tostring(detail), '\\n')
    assert(select(2, context.query(alive, 'well?', 50)) == 'well')
    context.destroy(alive)";

fn main_script() -> String {
    let neighbour = "
    if ... == 'neighbour' then
      return context.recv(0, function(_, _, from, session) context.reply(from, session, 'well') end)
    end";
    format!("{neighbour}{MAIN}")
}

fn told(done: &Done, part: &str) -> bool {
    done.stderr.contains(part)
}

#[test]
fn what_takes_too_much_ends_its_context_and_the_log_says_what_it_held() {
    let folder = Folder::new();
    let main = folder.write("main.lua", main_script());
    let mut wrong = Vec::new();
    for (name, script) in GREEDY {
        let file = folder.write(&format!("{name}.lua"), script);
        let done = run(node_lua().arg(&main).arg(file).arg(name));
        // What is raised and not caught ends the script too, before the limit does.
        let is_right = match done.stdout.as_str() {
            "memory\n" => ["(210)", "bytes in Lua", "in buffers"].iter().all(|w| told(&done, w)),
            "error\n" => ["memory", "overflow", "too large"].iter().any(|w| told(&done, w)),
            _ => false,
        };
        if done.code() != Some(0) || !is_right {
            wrong.push(format!("{name}: {done}"));
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn without_a_limit_single_giants_raise_what_a_script_can_catch() {
    for (giant, part) in [
        ("('x'):rep(2 ^ 31 - 1, ('y'):rep(2 ^ 20))", "not enough memory"),
        ("('x'):rep(1e8):rep(1e9)", "not enough memory"),
        ("require 'ffi'.new('char[?]', -1)", "too large"),
        ("require 'string.buffer'.new():reserve(2 ^ 31)", "out of range"),
        ("require 'table.new'(2 ^ 30, 0)", "table overflow"),
        ("unpack({}, 1, 1e7)", "too many results to unpack"),
        ("('x'):rep(1e7):byte(1, -1)", "string slice too long"),
        ("buffer.new(2 ^ 31)", "whole number from 0 to 2147483647 expected"),
        ("buffer.new():reserve(2 ^ 40)", "whole number from 0 to 2147483647 expected"),
        ("assert(loadstring('return ' .. ('('):rep(1e5)))", "too many"),
    ] {
        let script = format!(
            "local ok, why = pcall(function() return {giant} end)
             print(ok, why)
             print('goes on')"
        );
        let done = run(node_lua().args(["-e", &script])).succeeded();
        assert!(done.stdout.starts_with("false\t"), "{giant}: {done}");
        assert!(done.stdout.contains(part), "{giant}: {done}");
        assert!(done.stdout.ends_with("\ngoes on\n"), "{giant}: {done}");
    }
}

#[test]
fn the_default_limit_holds_for_all_that_name_none() {
    let folder = Folder::new();
    let bomb = folder.write("bomb.lua", "local t = {} while true do t[#t + 1] = {} end");
    let big =
        folder.write("big.lua", "local t = {} for i = 1, 30 do t[i] = ('x'):rep(1e6) .. i end");
    let main = folder.write(
        "main.lua",
        "local bomb, big = ...
         local function told(options)
           local reason
           context.monitor(context.create(options), function(_, found) reason = found end)
           while not reason do timer.sleep(0.001) end
           return reason
         end
         print(told(bomb))
         print(told({ file = bomb, name = 'b' }))
         print(told({ file = big, memory = 64 * 2 ^ 20 }))",
    );
    let with_limit = || {
        let mut command = node_lua();
        command.args(["--memory-limit", "16M"]);
        command
    };
    let done = run(with_limit().arg(main).arg(&bomb).arg(big)).succeeded();
    assert_eq!(done.stdout, "memory\nmemory\nnormal\n", "{done}");
    let done = run(with_limit().arg(bomb));
    assert_eq!(done.code(), Some(1), "{done}");
    assert!(done.stderr.contains("(210)"), "{done}");
}

/// What ended contexts leave between those that go on does not stay with the process.
#[test]
#[cfg(target_env = "gnu")]
fn memory_of_ended_contexts_goes_back_to_the_system() {
    let folder = Folder::new();
    // Small objects, so that the allocator puts them side by side.
    let big = folder.write(
        "big.lua",
        "local t = {} for i = 1, 5000 do t[i] = ('x'):rep(180) .. i end
         context.send(context.parent(), 'up')
         context.recv(0)",
    );
    let main = folder.write(
        "main.lua",
        "local big, handles = ..., {}
         for i = 1, 90 do
           handles[i] = context.create(big)
           context.recv(handles[i])
         end
         local ok, listener = tcp.listen('127.0.0.1', 0)
         print(tcp.local_port(listener))
         listener:accept()
         for i = 1, 90 do
           if i % 9 ~= 0 then context.destroy(handles[i]) end
         end
         timer.loop(0.002, 0.002, function() end)",
    );
    let mut server = Server::start([main, big]);
    let port = server.port();
    let full = resident_bytes(server.id());
    let _go = connect(port);
    wait_until_below(server.id(), full / 4);
}
