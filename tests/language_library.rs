//! Parts of the library that are loaded when a script first uses them: nobody can tell.

#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use support::{Folder, node_lua, run};

#[track_caller]
fn assert_prints(script: &str, expected: &str) {
    let done = run(node_lua().args(["-e", script])).succeeded();
    assert_eq!(done.stdout, expected, "{done}");
}

/// The name is put together, and everything there: else all is loaded at once.
#[test]
fn functions_for_coroutines_that_were_kept_before_they_are_loaded_go_on_to_work() {
    assert_prints(
        "local _ = pairs
         local c = _G['co' .. 'routine']
         local create, resume, yield, status = c.create, c.resume, c.yield, c.status
         local wrap, running, isyieldable = c.wrap, c.running, c.isyieldable
         print(running(), isyieldable(), pcall(yield))
         local outer
         local inner = create(function(a)
           timer.sleep(0)
           print(a, status(outer), running() ~= nil, isyieldable())
           local b = yield('first')
           timer.sleep(0)
           error(b, 0)
         end)
         outer = create(function()
           print(resume(inner, 'a'))
           print(status(inner), resume(inner, 'b'))
           return status(inner)
         end)
         print(resume(outer))
         local f = wrap(function(...) return ..., yield(...) end)
         print(f(1, 2), f(3))
         print(resume == c.resume, pcall(resume, 1))",
        "nil\tfalse\tfalse\tattempt to yield across C-call boundary\n\
         a\tnormal\ttrue\ttrue\n\
         true\tfirst\n\
         suspended\tfalse\tb\n\
         true\tdead\n\
         1\t1\t3\n\
         false\tfalse\tbad argument #1 to '?' (coroutine expected)\n",
    );
}

#[test]
fn what_a_script_puts_in_the_place_of_a_function_stays() {
    assert_prints(
        "for _, name in ipairs({ 'context', 'timer', 'tcp', 'buffer' }) do
           local module = _G[name]
           module.mine = 'mine'
         end
         function timer.sleep() return 'no sleep' end
         function tcp.listen() return 'no listener' end
         function context.query() return 'no query' end
         function buffer.length() return 'no length' end
         timer.timeout(0, function() print('late') end)
         print(timer.sleep(), timer.mine, tcp.listen(), tcp.mine, type(tcp.connect))
         print(context.query(), context.mine, type(context.create), type(context.wait))
         local b = buffer.new('abc')
         print(b:length(), b.mine, b:tostring(), b:u16be(0), #b, tcp.nothing, context.nothing)",
        "no sleep\tmine\tno listener\tmine\tfunction\n\
         no query\tmine\tfunction\tfunction\n\
         no length\tmine\tabc\t24930\t3\tnil\tnil\n\
         late\n",
    );
}

#[test]
fn a_buffer_that_arrives_has_its_methods_though_the_module_was_never_used() {
    let folder = Folder::new();
    folder.write(
        "receiver.lua",
        "local _, small, from = context.recv(0)
         local _, large = context.recv(0)
         context.send(from, { small:tostring(), #small, large:length(), tostring(small) })",
    );
    let main = folder.write(
        "main.lua",
        "local receiver = context.create(arg[0]:match('^(.*)/') .. '/receiver.lua')
         context.send(receiver, buffer.new('payload'))
         context.send(receiver, buffer.new(('x'):rep(10000)))
         print(unpack((select(2, context.recv(receiver)))))",
    );
    let done = run(node_lua().arg(main)).succeeded();
    assert_eq!(done.stdout, "payload\t7\t10000\tpayload\n", "{done}");
}

#[test]
fn a_wait_whose_time_is_over_returns_though_the_module_timer_was_never_used() {
    assert_prints("print(context.recv(0, 0.001))", "false\t208\t0\t-1\n");
}

/// There the VM refuses to be told what not to compile.
#[test]
fn what_a_finaliser_uses_first_is_loaded_there() {
    for (call, result) in [
        ("tcp.listen('127.0.0.1', 0)", "true"),
        ("udp.open('127.0.0.1', 0)", "true"),
        ("tcp.connect('127.0.0.1', 1, function() print('told') end) == nil", "true\ntold"),
        ("require('packet').layout({ { 'x', 'u8' } }) ~= nil", "true"),
        ("require('supervisor').start ~= nil", "true"),
        ("require('jit.bc').line ~= nil", "true"),
        ("require('ffi').sizeof('int64_t')", "8"),
        ("next(tcp) ~= nil", "true"),
    ] {
        let script = format!(
            "local object = newproxy(true)
             getmetatable(object).__gc = function() print((assert(select(2, pcall(function()
               return {call}
             end))))) end
             object = nil
             collectgarbage()"
        );
        assert_prints(&script, &format!("{result}\n"));
    }
}

/// On the way back from the overflow each level tries again, with a little more room.
#[test]
fn what_could_not_be_loaded_for_want_of_stack_is_loaded_the_next_time() {
    assert_prints(
        "local left = 0
         local function try()
           pcall(function() return timer.sleep end)
           pcall(function() return tcp.listen end)
           pcall(function() return context.query end)
           pcall(function() return coroutine.wrap(print) end)
         end
         local function f()
           local ok = pcall(f)
           if not ok and left < 100 then
             left = left + 1
             try()
             error('up')
           end
         end
         pcall(f)
         print(left, type(timer.sleep), type(tcp.listen), type(context.query), type(context.wait))
         print(coroutine.wrap(function(a) return a end)('b'))",
        "100\tfunction\tfunction\tfunction\tfunction\nb\n",
    );
}

/// A constant like 1LL has LuaJIT open FFI, and what was declared there stays.
#[test]
fn ffi_that_a_constant_has_opened_is_the_one_that_the_library_uses() {
    let use_it = "print(require('ffi') == F, F.sizeof(T), F.new(T, 7).a, F.istype(T, T(1)))";
    let begin = "local id = 2LL local F = require 'ffi' F.cdef 'typedef struct { int a, b, c; } t;'
         local T = F.typeof 't' F.sizeof 't' ";
    let uses = ["buffer.new('a'):u8(0)", "require 'packet'", "buffer.pack('<i8', id)"];
    for library in uses {
        let script = format!("{begin} {library} {use_it} F.sizeof 't'");
        assert_prints(&script, "true\t12\t7\ttrue\n");
    }
    // Not FFI, whoever has put it there.
    assert_prints(
        "local id = 2LL
         package.loaded.ffi = { cdef = function() end }
         print(buffer.new('a'):u8(0), tostring(id))",
        "97\t2LL\n",
    );
}

/// Runs `main` beside modules that wait while they are loaded, in a folder of their own.
fn run_with_modules(main: &str) -> support::Done {
    let folder = Folder::new();
    for (name, source) in [
        ("slow", "print('loading') timer.sleep(0.02) return { 'slow' }"),
        ("bad", "timer.sleep(0.02)\nlocal function inner() error('as told') end\ninner()"),
        ("worse", "require 'bad'"),
        ("a", "timer.sleep(0.02) return require 'b'"),
        ("b", "timer.sleep(0.02) return require 'a'"),
        ("own", "return require 'own'"),
    ] {
        folder.write(&format!("{name}.lua"), source);
    }
    let main = folder.write(
        "main.lua",
        format!(
            "local done = 0
             local function together(...)
               local names = {{ ... }}
               for _, name in ipairs(names) do
                 context.run(function()
                   local ok, found = pcall(require, name)
                   print(name, ok, ok and found[1] or found:match('[^/]*$'))
                   done = done + 1
                 end)
               end
               while done < #names do timer.sleep(0.001) end
               done = 0
             end
             {main}"
        ),
    );
    run(node_lua().arg(main))
}

#[test]
fn a_module_that_others_load_is_waited_for() {
    let done = run_with_modules(
        "together('slow', 'slow', 'slow')
         print(require('slow') == require('slow'))
         together('bad', 'bad')
         together('own')
         together('a', 'b')
         context.create { file = (arg[0]:gsub('main', 'slow')), deny = { 'ffi' } }",
    );
    let loop_of = |name: &str| format!("false\tloop or previous error loading module '{name}'\n");
    let (own, a, b) = (loop_of("own"), loop_of("a"), loop_of("b"));
    let expected = format!(
        "loading\nslow\ttrue\tslow\nslow\ttrue\tslow\nslow\ttrue\tslow\ntrue\n\
         bad\tfalse\tbad.lua:2: as told\nbad\t{}own\t{own}b\t{a}a\t{b}loading\n",
        loop_of("bad"),
    );
    assert_eq!(done.stdout, expected, "{done}");
    done.succeeded();
}

#[test]
fn the_traceback_of_an_error_in_a_module_shows_where_it_was_raised() {
    let done = run_with_modules("pcall(require, 'bad') package.loaded.bad = nil require 'worse'");
    assert_eq!(done.code(), Some(1), "{done}");
    for place in ["bad.lua:2: in function 'inner'", "bad.lua:3:", "worse.lua:1:", "main.lua:14:"] {
        assert!(done.stderr.contains(place), "{place}: {done}");
    }
}

#[test]
fn a_string_whose_metatable_claims_so_is_no_buffer() {
    assert_prints(
        "local ok, listener = tcp.listen('127.0.0.1', 0)
         local ok, socket = tcp.connect('127.0.0.1', tcp.local_port(listener))
         socket:write(buffer.new('x'))
         local text = ('x'):rep(64)
         getmetatable('').__metatable = getmetatable(buffer.new())
         for name in ('u8 set_u8 put_u8 varint text length ptr'):gmatch('%S+') do
           local ok, why = pcall(buffer[name], text, 0, 1)
           if ok or not why:find('string', 1, true) then print(name, ok, why) end
         end
         print(pcall(socket.write, socket, text))
         -- What hides it shows another table.
         debug.getmetatable('').__metatable = nil
         socket:write(text)
         print('here')",
        "false\tbad argument #2 to '' (cannot convert 'string' to 'void *')\n\
         here\n",
    );
}

/// All of this in contexts of their own: what is looked up first differs.
#[test]
fn nobody_can_tell_that_standard_libraries_are_opened_when_they_are_looked_up() {
    let folder = Folder::new();
    let looks = [
        "local n = 0 for _ in next, _G do n = n + 1 end return n > 45 and getmetatable(_G)",
        "return rawget(_G, 'math') == math and math == package.loaded.math",
        "return getmetatable(_G)",
        "setmetatable(_G, { __index = function(_, k) return k end }) return io ~= 'io' and nothing",
        "math = nil return math, pairs ~= nil, math",
        "local m = math math = nil return math, m.floor(1.5), _G.math",
        "string = 5 return string, ('x'):rep(2), string",
        "next = 7 return next, pairs({}) ~= 7, type(rawget(_G, 'pairs'))",
        "return pairs({}) == next",
        "return ('%d'):format(3), string.format == ('').format, getmetatable('').__index == string",
        "return ('x').nothing, pcall(function() return ('x'):nothing() end)",
        "for i = 1, 100 do local _ = _G['name' .. i] end return nothing, table.concat({ 1, 2 })",
        "for i = 1, 100 do _G['name' .. i] = i end return name100, table.concat({ 1, 2 })",
        "for i = 1, 100 do x = nil x = i end return x, rawget(_G, 'os') == os",
        "package.loaded.os = 1 return os.time() > 0, package.loaded.os",
        "return require('math') == math, require 'table' == table",
        "module('m', package.seeall) return type(print), type(io), _NAME",
        "setfenv(1, { f = setfenv }) return f ~= nil, math",
        "return debug.getmetatable(_G), debug.getregistry()._LOADED.bit == bit",
        "return pcall(setmetatable, _G), tostring(_G):sub(1, 6), #_G",
        "local co = coroutine coroutine = nil return coroutine, co.status(co.create(print))",
        "coroutine = 5 return coroutine, package.loaded.coroutine.running()",
        "local a, b = math.random(), math.random() return a ~= b, math.random(3) < 4",
        "return print == _G.print, tostring(io.stdout):sub(1, 4), io.type(io.stderr)",
        "return bit.band(7, 2), os.getenv('NOTHING'), jit.status()",
        "return pcall(function() _G[nothing] = 1 end)",
        "return pcall(function() _G[0 / 0] = 1 end)",
        "local f _G['xp' .. 'call'](function() _G[nothing] = 1 end, function()
           f = debug.getinfo(2, 'f').func
         end)
         pcall(f, 1, 2) pcall(f, 1, 2, 3) return type(f)",
        "local function r() return 1 + r() end
         return _G['x' .. 'pcall'](r, function(m)
           return _G['de' .. 'bug'].traceback(m):match('^[^\\n]*')
         end)",
        "return type(table.foreach(_G, function(k, v) if k == 'math' then return v end end))",
    ];
    let mut script = String::from(
        "local function show(...)
           local all = { ... }
           for i = 1, select('#', ...) do all[i] = tostring(all[i]):gsub('^.*lua:', '') end
           return table.concat(all, ' ')
         end\n",
    );
    // Whoever has looked up `pairs` finds everything open, as LuaJIT opens it.
    for (kind, first) in [("late", ""), ("open", "local _ = pairs ")] {
        for (index, look) in looks.iter().enumerate() {
            let name = format!("{kind}{index}.lua");
            let body =
                format!("{first}context.send(context.parent(), {{ (function() {look} end)() }})");
            folder.write(&name, body);
            script += &format!(
                "context.create('{}') local ok, all = context.recv(0)
                 print('{kind}', {index}, show(unpack(all, 1, 3)))\n",
                folder.path(&name).display()
            );
        }
    }
    folder.write("main.lua", script);
    let done = run(node_lua().arg(folder.path("main.lua"))).succeeded();
    let of = |kind: &str| -> Vec<String> {
        done.stdout.lines().filter_map(|line| Some(line.strip_prefix(kind)?.to_owned())).collect()
    };
    let found = of("late");
    assert_eq!(found, of("open"), "{done}");
    assert_eq!(found.len(), looks.len(), "{done}");
    assert_eq!(found[4], "\t4\tnil true nil");
    assert_eq!(found[10], "\t10\tnil false 1: attempt to call method 'nothing' (a nil value)");
    assert_eq!(found[13], "\t13\t100 true nil");
    assert_eq!(found[25], "\t25\tfalse 1: table index is nil nil");
    assert_eq!(found[28], "\t28\tfalse 1: stack overflow nil");
    assert_eq!(found[29], "\t29\ttable nil nil");
}

/// What plain LuaJIT tells hooks of functions that are C there, and of lines that call them.
#[test]
fn hooks_do_not_see_the_library() {
    assert_prints(
        "local seen = {}
         local function hook(event, line)
           if line then seen[#seen + 1] = line return end
           local about = debug.getinfo(2, 'nS')
           seen[#seen + 1] = event .. ' ' .. tostring(about.name) .. ' ' .. about.what
         end
         local function body() coroutine.yield(1)
           coroutine.yield(2)
         end
         local next, other = coroutine.wrap(body), coroutine.create(function() error('x') end)
         local told = function() return coroutine.isyieldable() end
         debug.sethook(hook, 'l')
         local a = next() local b = 2 local c = next()
         local d = pcall(error, 5) local e = 6
         require('string') local f = 7
         for i = 1, 2 do require('string') end
         coroutine.resume(other) local g = 8 coroutine.status(other) local h = 9
         told() local i = 10
         pcall(require, 'nowhere') require('string') local j = 11
         debug.sethook()
         print(table.concat(seen, ' '))
         seen, next = {}, coroutine.wrap(body)
         debug.sethook(hook, 'cr')
         next() next() coroutine.resume(other) require('string') told() pcall(require, 'string')
         debug.sethook()
         print(#seen > 11, seen[1], table.concat(seen, '; '):match('return [^;]*'))",
        "13 7 8 14 15 16 16 17 10 18 11 18 19 20\ntrue\tcall next C\tnil\n",
    );
}

/// A tool that counts lines takes each for a number, as it is in plain LuaJIT.
#[test]
fn hooks_for_lines_are_called_for_lines() {
    assert_prints(
        "local seen, calls, without = {}, 0, {}
         local function hook(event, line)
           if event ~= 'line' then calls = calls + 1 return end
           if type(line) ~= 'number' or line < 1 then without[#without + 1] = tostring(line) end
           seen[line or 0] = true
         end
         debug.sethook(hook, 'crl')
         local co = coroutine.wrap(function(...) coroutine.yield(...) end)
         co(1) co()
         local inner = coroutine.create(function() timer.sleep(0.001) end)
         coroutine.resume(inner) coroutine.status(inner) coroutine.running()
         require('string') dofile('/dev/null') pcall(require, 'nowhere') xpcall(print, print)
         table.foreach({1}, type) if json then json.encode({1}) end buffer.new('abcd'):u32be(0)
         context.recv(0, 0.001) context.check(true) context.query(context.self(), 1, 0.001)
         local is_there = debug.gethook() == hook
         debug.sethook()
         print(is_there, debug.gethook(), calls > 20, #without, table.concat(without, ' '))
         print(seen[8], seen[12], seen[13], seen[0])
         debug.sethook(hook, 'c') print(debug.gethook() == hook, select(2, debug.gethook()))
         debug.sethook(hook, 'l', 5) print(debug.gethook() == hook, select(2, debug.gethook()))
         debug.sethook()",
        "\ntrue\tnil\ttrue\t0\t\ntrue\ttrue\ttrue\tnil\ntrue\tc\t0\ntrue\tl\t5\n",
    );
}
