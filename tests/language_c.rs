//! Coroutines and C code: modules that resume them, and functions that yield.

#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use support::{Folder, c_module, node_lua, run};

/// A folder with the module of `tests/c/`, which `script` finds as `C`.
fn with_module(script: &str) -> (Folder, String) {
    let folder = Folder::new();
    let templates = c_module(&folder, "coroutines");
    (folder, format!("package.cpath = '{templates}' local C = require('coroutines') {script}"))
}

#[track_caller]
fn assert_prints(script: &str, expected: &str) {
    let (folder, script) = with_module(script);
    let file = folder.write("main.lua", script);
    let done = run(node_lua().arg(file)).succeeded();
    assert_eq!(done.stdout, expected, "{done}");
}

#[test]
fn a_coroutine_that_c_resumes_yields_and_knows_itself() {
    assert_prints(
        "local me
         local function body(a)
           print(a, coroutine.running() == me, coroutine.isyieldable(), coroutine.status(me))
           print(coroutine.yield('one', 2))
           local inner = coroutine.create(function(b)
             print(b, coroutine.status(me), coroutine.isyieldable(), coroutine.yield('inside'))
             error('fails', 0)
           end)
           print(coroutine.resume(inner, 'b'))
           print(coroutine.resume(inner, 'c'))
           local next = coroutine.wrap(function() for i = 1, 3 do coroutine.yield(i) end end)
           print(next(), next(), next())
           print(pcall(coroutine.yield, 'in pcall'))
           return 'end', nil
         end
         local function drive()
           print(C.resume(me, 'a')) print(coroutine.status(me))
           print(C.resume(me, 'x', 'y')) print(C.resume(me, 'z'))
           print(coroutine.status(me), C.resume(me) > 1)
         end
         for _, create in ipairs({ coroutine.create, C.create }) do
           me = create(body) drive()
         end
         me = coroutine.create(body)
         coroutine.wrap(drive)()
         print(coroutine.running(), coroutine.isyieldable(), pcall(coroutine.yield))",
        &("a\ttrue\ttrue\trunning\n1\tone\t2\nsuspended\nx\ty\n\
           true\tinside\nb\tnormal\ttrue\tc\nfalse\tfails\n1\t2\t3\n1\tin pcall\n\
           true\tz\n0\tend\tnil\ndead\ttrue\n"
            .repeat(3)
            + "nil\tfalse\tfalse\tattempt to yield across C-call boundary\n"),
    );
}

/// Wherever the C code is in between; and what waits beside it, or later, does so undisturbed.
#[test]
fn waiting_raises_where_c_has_resumed_a_coroutine_on_the_way() {
    assert_prints(
        "local function try()
           local ok, why = pcall(function() timer.sleep(0.001) end)
           return ok or why:match('^[^:]*main.lua:1?%d*: (.*)$') or why
         end
         local function by_c(f) return select(2, C.resume(coroutine.create(f))) end
         local function by_lua(f) return select(2, coroutine.resume(coroutine.create(f))) end
         local function wrapped(f) return coroutine.wrap(f)() end
         local function called(f) return C.call(f) end
         local ways = { by_c, by_lua, wrapped, called }
         local counts, texts = {}, {}
         -- Every chain of up to three.
         for _, a in ipairs(ways) do for _, b in ipairs(ways) do for _, c in ipairs(ways) do
           local chain = { a, b, c }
           local may = true
           for i = 1, 3 do may = may and (chain[i] == by_lua or chain[i] == wrapped) end
           local found = a(function() return b(function() return c(try) end) end)
           assert(may == (found == true), found)
           local kind = found == true and 'may wait' or 'may not'
           counts[kind] = (counts[kind] or 0) + 1
           if found ~= true and not counts[found] then
             counts[found], texts[#texts + 1] = 0, found
           end
           assert(coroutine.running() == nil and try() == true)
           assert(wrapped(try) == true)
         end end end
         table.sort(texts)
         print(counts['may wait'], counts['may not'], table.concat(texts, '\\n'))
         -- What C resumes gets none of the library's values, and no other wait ends early.
         local began = 0
         timer.loop(0.01, 0.01, function() began = began + 1 end)
         local me = context.self()
         print(C.resume(coroutine.create(function() return pcall(context.recv, me) end)))
         timer.timeout(0.05, function() context.send(me, 'the message') end)
         print((select(2, context.recv(me))))
         assert(began >= 3, began)
         os.exit(0)",
        "8\t56\tcannot wait in 'sleep' in a coroutine that a C function has resumed: attempt \
         to yield across a C-call boundary; resume it with coroutine.resume or coroutine.wrap, or \
         wait outside of it\n\
         cannot wait in 'sleep' inside a C function (table.sort, string.gsub, a finaliser, …): \
         attempt to yield across a C-call boundary; collect first and wait afterwards\n\
         0\tfalse\tcannot wait in a coroutine that a C function has resumed: attempt to yield \
         across a C-call boundary; resume it with coroutine.resume or coroutine.wrap, or wait \
         outside of it\n\
         the message\n",
    );
}

/// In every kind of root; whatever else there is goes on.
#[test]
fn a_c_function_that_yields_in_a_root_raises_there() {
    let (folder, script) = with_module(
        "local function yields() C.yield(1) print('not reached') end
         print(pcall(yields))
         local function tail() return C.yield(1) end
         print(pcall(tail))
         print(pcall(C.yield, 1))
         print(pcall(C.call, C.yield, 1))
         print(xpcall(yields, function() return debug.traceback():match('function .yield.') end))
         print(coroutine.wrap(function() return C.yield('in a coroutine') end)())
         print(coroutine.wrap(function() return pcall(C.yield, 'in pcall') end)())
         print((debug.gethook()))
         timer.timeout(0, yields)
         timer.timeout(0, function() return C.yield(2) end)
         timer.timeout(0, C.yield)
         timer.loop(0, 0.01, function() C.yield() end)
         context.run(yields)
         context.run(C.yield)
         context.recv(0, function() yields() end)
         context.send(context.self(), 'x')
         local _, listener = tcp.listen('127.0.0.1', 0)
         listener:accept(function(_, sock) yields() end)
         local _, sock = tcp.connect('127.0.0.1', tcp.local_port(listener))
         local calls = 0
         debug.sethook(function() calls = calls + 1 end, 'l')
         print(pcall(yields))
         local before = calls
         local now = 1
         print(calls > before, debug.gethook() ~= nil)
         debug.sethook()
         timer.sleep(0.05)
         timer.timeout(0.2, function() print('the process went on') os.exit(3) end)
         yields()",
    );
    let file = folder.write("main.lua", script);
    let done = run(node_lua().arg(&file));
    let file = file.display();
    let text = "attempt to yield across C-call boundary: a C function yields outside of any \
                coroutine; call it in one (coroutine.wrap)";
    assert_eq!(
        done.stdout,
        format!(
            "false\t{file}:1: {text}\nfalse\t{text}\nfalse\t{text}\nfalse\t{text}\n\
             false\tfunction 'yield'\nin a coroutine\nin pcall\nnil\n\
             false\t{file}:1: {text}\ntrue\ttrue\nthe process went on\n"
        ),
        "{done}"
    );
    assert!(!done.stderr.contains("[node-lua]"), "{done}");
    assert!(done.stderr.matches(text).count() >= 9, "{done}");

    let (folder, script) = with_module("C.yield()");
    let done = run(node_lua().arg(folder.write("main.lua", script)));
    assert!(done.stderr.contains(text), "{done}");
    assert_eq!(done.status.unwrap().code(), Some(1), "{done}");
}

/// Of a context all stay as they are, also those that were not looked up yet, and what waits in a
/// coroutine goes on to; another state has all that LuaJIT has.
#[test]
fn a_c_module_opens_the_standard_libraries() {
    let folder = Folder::new();
    let templates = c_module(&folder, "libraries");
    let script = format!(
        "package.cpath = '{templates}'
         local path, libraries = package.path, require('libraries')
         local resume, wrap, write = coroutine.resume, coroutine.wrap, io.write
         libraries.open()
         print(coroutine.resume == resume, io.write == write, package.path == path)
         print(string.rep('x', 3), math.max(1, 2), next({{}}), getmetatable(_G))
         print(coroutine.wrap(function() timer.sleep(0.001) coroutine.yield('waited') end)())
         print(libraries.run([[
           local names = {{}}
           for _, name in ipairs({{ 'bit', 'coroutine', 'debug', 'ffi', 'io', 'jit', 'math', 'os',
                                   'package', 'string', 'table' }}) do
             names[#names + 1] = require(name) and name
           end
           return table.concat(names, ' ')]]))
         print(libraries.run('return tostring(context)'))"
    );
    let main = folder.write("main.lua", script);
    let early = folder.write("early.lua", format!(
        "package.cpath = '{templates}' require('libraries').open() print(table.concat({{ 1, 2 }}))"
    ));
    let expected = "true\ttrue\ttrue\nxxx\t2\tnil\tnil\nwaited\n\
                    bit coroutine debug ffi io jit math os package string table\nnil\n";
    assert_eq!(run(node_lua().arg(main)).succeeded().stdout, expected);
    assert_eq!(run(node_lua().arg(early)).succeeded().stdout, "12\n");
}

/// The same by `luaopen_io` and its like, of any library, whether the script has used it before.
#[test]
fn a_c_module_opens_one_standard_library() {
    let folder = Folder::new();
    let templates = c_module(&folder, "libraries");
    let script = format!(
        "package.cpath = '{templates}'
         local libraries = require('libraries')
         local before, is_known = {{}}, ...
         local function note()
           local names = '_G bit coroutine debug ffi io jit math os package string table'
           for name in names:gmatch('%S+') do
             local library = require(name)
             for key, value in pairs(library) do before[name .. '.' .. key] = value end
           end
         end
         if is_known then note() end
         local index, write, count = 1, io.write, 0
         while true do
           local name, library = libraries.one(index)
           if not name then break end
           assert(type(library) == 'table' and library == package.loaded[name], name)
           index = index + 1
         end
         for name, value in pairs(before) do
           local library, key = name:match('^([^.]*)%.(.*)$')
           assert(rawequal(package.loaded[library][key], value), name)
           count = count + 1
         end
         print(index, not is_known or count > 150, io.write == write, getmetatable(_G))
         print(coroutine.wrap(function() timer.sleep(0.001) coroutine.yield('waited') end)())
         print(debug.traceback('x'):find('lua/core', 1, true), require('ffi').sizeof('int'))
         print(pcall(math.floor), ('x'):rep(3), table.concat({{ 1, 2 }}))
         package.loaded.os = nil
         for i = 1, index - 1 do libraries.one(i) end
         print(type(package.loaded.os.clock()), io.write == write)
         print(libraries.run('return tostring(context) .. table.concat(' ..
           '{{ _VERSION, #string.rep([[x]], 3), type(io.write), tostring(ffi) }}, [[ ]])', true))"
    );
    let main = folder.write("main.lua", script);
    let expected = "true\ttrue\tnil\nwaited\nnil\t4\n\
                    false\txxx\t12\nnumber\ttrue\nnilLua 5.1 3 function nil\n";
    for known in [&["known"][..], &[]] {
        let done = run(node_lua().arg(&main).args(known)).succeeded();
        assert_eq!(done.stdout, format!("12\t{expected}"), "{done}");
    }
}

/// A state that a module has made is LuaJIT's: it has nothing of a context, and touches nothing.
#[test]
fn states_of_c_modules_are_plain() {
    let folder = Folder::new();
    let templates = c_module(&folder, "libraries");
    let cases = [
        (
            "local t = {} for i = 1, 1000 do t[i] = i * 7919 % 1000 end \
          table.sort(t, function(a, b) return a > b end) return t[1]",
            "999",
        ),
        ("return (('x'):rep(100):gsub('x', function(c) return c .. 'y' end)):sub(1, 4)", "xyxy"),
        (
            "local function f(n) return (('x'):gsub('x', function() return f(n + 1) end)) end \
          return tostring(pcall(f, 1))",
            "false",
        ),
        (
            "local c = coroutine.wrap(function(a) return a + coroutine.yield(a) end) \
          return c(1) .. c(2)",
            "13",
        ),
        (
            "local c = coroutine.wrap(function(a) return a + yields(a) end) return c(1) .. c(2)",
            "13",
        ),
        ("return select(2, pcall(yields))", "attempt to yield across C-call boundary"),
        (
            "local n = 0 for i = 1, 1e5 do local p = newproxy(true) \
          getmetatable(p).__gc = function() n = n + 1 end end collectgarbage() return n",
            "100000",
        ),
        (
            "local lines = {} debug.sethook(function(_, line) lines[#lines + 1] = line end, 'l')\n\
          local x = 1\n\
          debug.sethook() return table.concat(lines, ' ')",
            "2 3",
        ),
        (
            "local calls = 0 local function count() calls = calls + 1 end \
          debug.sethook(count, 'cr') \
          math.abs(1) local is_set = debug.gethook() == count debug.sethook() \
          return tostring(is_set) .. calls",
            "true3",
        ),
        (
            "local p = require('jit.profile') p.start('i1', function() end) \
          for i = 1, 1e6 do end p.stop() return 'ok'",
            "ok",
        ),
        ("return debug.traceback('x')", "x\nstack traceback:"),
    ];
    let mut script = format!(
        "package.cpath = '{templates}'
         local libraries, own = require('libraries'), 0
         debug.sethook(function() own = own + 1 end, 'l')
         local hook = debug.gethook()\n"
    );
    for (code, _) in cases {
        script += &format!("print(libraries.run([==[{code}]==]))\n");
    }
    script += "print(debug.gethook() == hook, own > 9) debug.sethook() timer.sleep(0.001)";
    let main = folder.write("main.lua", script);
    let done = run(node_lua().arg(main)).succeeded();
    let expected: Vec<&str> = cases.iter().map(|(_, result)| *result).collect();
    assert_eq!(done.stdout, format!("{}\ntrue\ttrue\n", expected.join("\n")), "{done}");
}

#[test]
fn waiting_raises_in_callbacks_that_c_calls_through_ffi() {
    assert_prints(
        "local ffi = require('ffi')
         ffi.cdef('void qsort(void *, size_t, size_t, int (*)(const void *, const void *))')
         local values, texts = ffi.new('int[2]', 2, 1), {}
         local function try()
           texts[#texts + 1] = tostring(select(2, pcall(function() timer.sleep(0.001) end)))
         end
         jit.off(true, true)
         ffi.C.qsort(values, 2, 4, function() try() coroutine.wrap(try)() return 0 end)
         for _, text in ipairs(texts) do
           print(text:match(\"cannot wait in 'sleep' inside a C\"))
         end
         timer.sleep(0.001)
         print(coroutine.running())",
        "cannot wait in 'sleep' inside a C\ncannot wait in 'sleep' inside a C\nnil\n",
    );
}

/// Debian's `lua-cqueues`, where it is installed: its controllers resume what is attached to them.
#[test]
fn cqueues_runs_coroutines_that_do_not_wait() {
    let script = "
        local found, cqueues = pcall(require, 'cqueues')
        if not found then return print('absent') end
        local condition = require('cqueues.condition')
        local cq, cv, order = cqueues.new(), condition.new(), {}
        local function note(text) order[#order + 1] = text end
        cq:wrap(function()
          note(tostring(coroutine.running() ~= nil) .. tostring(coroutine.isyieldable()))
          cqueues.sleep(0.01)
          note((select(2, pcall(function() timer.sleep(1) end)):match('a C function has resumed')))
          cv:signal()
        end)
        cq:wrap(function() cv:wait(5) note('woken') end)
        cq:wrap(coroutine.wrap(function() note('wrapped') end))
        assert(cq:loop(5))
        local began = cqueues.monotime()
        timer.sleep(0.05)
        assert(cqueues.monotime() - began >= 0.04)
        table.sort(order)
        print(table.concat(order, '; '))";
    let paths = [
        ("LUA_PATH", "/usr/share/lua/5.1/?.lua;/usr/share/lua/5.1/?/init.lua;;"),
        ("LUA_CPATH", "/usr/lib/x86_64-linux-gnu/lua/5.1/?.so;;"),
    ];
    let done = run(node_lua().args(["-e", script]).envs(paths)).succeeded();
    let expected = "a C function has resumed; truetrue; woken; wrapped\n";
    assert!([expected, "absent\n"].contains(&done.stdout.as_str()), "{done}");
}

/// To a script it is not suspended: it waits for what it has called, and gets that.
#[test]
fn a_coroutine_that_waits_is_not_resumed_by_c() {
    assert_prints(
        "local _, listener = tcp.listen('127.0.0.1', 0)
         local _, sock = tcp.connect('127.0.0.1', tcp.local_port(listener))
         local _, peer = listener:accept()
         local waits = {
           sleep = function() timer.sleep(0.05) return 'slept' end,
           read = function() return sock:read_bytes(2) end,
           recv = function() return context.recv(0) end,
           query = function() return context.query(context.self(), 'q', 0.05) end,
           accept = function() return (listener:accept()) end,
           inner = function()
             return coroutine.wrap(function() timer.sleep(0.05) return 'in' end)()
           end,
         }
         for _, name in ipairs({ 'sleep', 'read', 'recv', 'query', 'accept', 'inner' }) do
           local co = coroutine.create(function(...)
             local function show(_, value) return name, _, tostring(value) end
             print(show(waits[name]()))
             return 'done'
           end)
           local ended
           context.run(function() ended = { coroutine.resume(co) } end)
           timer.sleep(0.001)
           for _ = 1, 3 do
             print(coroutine.status(co), C.resume(co, 'bogus', 1))
           end
           if name == 'read' then peer:write('xy') end
           if name == 'recv' then context.send(context.self(), 'message') end
           if name == 'accept' then tcp.connect('127.0.0.1', tcp.local_port(listener)) end
           while not ended do timer.sleep(0.001) end
           print(unpack(ended))
           print(coroutine.status(co))
         end",
        &[
            "sleep\tslept\tnil",
            "read\ttrue\txy",
            "recv\ttrue\tmessage",
            "query\tfalse\t208",
            "accept\ttrue\tnil",
            "inner\tin\tnil",
        ]
        .map(|line| {
            "normal\t2\tcannot resume non-suspended coroutine\n".repeat(3)
                + line
                + "\ntrue\tdone\ndead\n"
        })
        .concat(),
    );
}
