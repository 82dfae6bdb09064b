//! Trees of contexts: who is started again when a child ends, and when a supervisor gives up.

#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use support::{Done, Folder, node_lua, run};

/// A child: tells its name and that it is up, then does what it is told.
const CHILD: &str = "
    local main, name = ...
    context.send(main, { name, 'up', context.self() })
    local _, order = context.recv(main)
    if order == 'fail' then error('told to') end
    if order == 'loop' then while true do end end
    if order == 'grow' then local t = {} while true do t[#t + 1] = ('x'):rep(1000) .. #t end end
";

/// What the scripts below begin with: `up()` waits for the next child and returns its name and
/// handle, `ups(n)` the names of so many.
const PRELUDE: &str = "
    local supervisor = require 'supervisor'
    local me, child = context.self(), (...)
    local function up()
      local _, told = context.recv(0)
      return told[1], told[3]
    end
    local function ups(n)
      local names = {}
      for i = 1, n do names[i] = up() end
      table.sort(names)
      return table.concat(names, ' ')
    end
    local function spec(name, restart)
      return { { file = child, memory = 2 ^ 23, turn_limit = 0.05 }, me, name, restart = restart }
    end
    local finished
    local function start(options)
      options.on_finish = function(...) finished = { ... } end
      options.intensity = options.intensity or 100
      return supervisor.start(options)
    end
    local function wait_finished()
      while not finished do timer.sleep(0.001) end
      return unpack(finished)
    end
";

fn supervise(script: &str) -> Done {
    let folder = Folder::new();
    let child = folder.write("child.lua", CHILD);
    let main = folder.write("main.lua", [PRELUDE, script].concat());
    run(node_lua().env("RUST_LOG", "off").args([main, child]))
}

#[test]
fn a_supervisor_shows_what_it_can_do_and_nothing_else() {
    let done = supervise(
        "local s = start { spec 'a' }
         print(ups(1), next(s), getmetatable(s), s.finish, s.on_end, s.children, s.start)
         for _, call in ipairs { 's:handle(1, 2)', 's:stop(1)', 's.handle(1)', 's.stop()' } do
           print(select(2, pcall(setfenv(loadstring(call), { s = s }))))
         end
         -- What the script sets is its own, and nobody else's.
         s.stop, s.children, s.is_over = nil, {}, true
         s:stop()
         print(wait_finished())
         print(s:handle(1), pcall(s.handle, s, 2))
         -- One that is over is garbage, whatever its callbacks hold.
         local known = setmetatable({}, { __mode = 'k' })
         local function another()
           local s
           s = supervisor.start { spec 'b', on_exit = function() return s end }
           known[s] = true
           s:stop()
         end
         another()
         collectgarbage()
         collectgarbage()
         print(next(known))",
    );
    let lines: Vec<&str> = done.stdout.lines().collect();
    let expected = [
        "a\tnil\tfalse\tnil\tnil\tnil\tnil",
        "2)\"]:1: bad argument #2 to 'handle' (no more arguments expected, got number 2)",
        "stop(1)\"]:1: bad argument #1 to 'stop' (no more arguments expected, got number 1)",
        "#1 to 'handle' (supervisor, as in s:handle(…), expected, got number 1)",
        "#1 to 'stop' (supervisor, as in s:stop(…), expected, got nil)",
        "stopped",
        "bad argument #2 to 'handle' (number of a child, from 1 to 1, expected, got number 2)",
        "nil",
    ];
    assert_eq!(lines.len(), expected.len(), "{done}");
    for (line, end) in lines.iter().zip(expected) {
        assert!(line.ends_with(end), "{end}:\n{done}");
    }
}

#[test]
fn one_for_one_starts_the_one_that_ended() {
    let done = supervise(
        "local s = start { spec 'a', spec 'b', spec 'c' }
         print(ups(3))
         local a, b, c = s:handle(1), s:handle(2), s:handle(3)
         for _, order in ipairs { 'fail', 'loop', 'grow', 'end' } do
           context.send(s:handle(2), order)
           print(order, (up()))
           assert(s:handle(1) == a and s:handle(3) == c and s:handle(2) ~= b)
           b = s:handle(2)
         end
         context.destroy(b, 'killed')
         print('kill', (up()))
         s:stop()
         print(wait_finished())
         for _, h in ipairs { a, s:handle(2) or c, c } do assert(context.stat(h) == nil) end",
    );
    let expected = "a b c\nfail\tb\nloop\tb\ngrow\tb\nend\tb\nkill\tb\nstopped\n";
    assert_eq!(done.succeeded().stdout, expected);
}

#[test]
fn one_for_all_starts_all_again() {
    let done = supervise(
        "local s = start { spec 'a', spec 'b', spec 'c', strategy = 'one_for_all' }
         ups(3)
         local before = { s:handle(1), s:handle(2), s:handle(3) }
         context.send(before[2], 'fail')
         local names = { (up()), (up()), (up()) }
         table.sort(names)
         print(table.concat(names, ' '))
         for i = 1, 3 do assert(s:handle(i) ~= before[i] and not context.stat(before[i])) end
         s:stop()
         print(wait_finished())",
    );
    assert_eq!(done.succeeded().stdout, "a b c\nstopped\n");
}

#[test]
fn rest_for_one_starts_those_after_it_again() {
    let done = supervise(
        "local s = start { spec 'a', spec 'b', spec 'c', strategy = 'rest_for_one' }
         ups(3)
         local before = { s:handle(1), s:handle(2), s:handle(3) }
         context.send(before[2], 'fail')
         local names = { (up()), (up()) }
         table.sort(names)
         print(table.concat(names, ' '))
         assert(s:handle(1) == before[1] and context.stat(before[1]))
         assert(s:handle(2) ~= before[2] and s:handle(3) ~= before[3])
         assert(not context.stat(before[3]))
         context.send(s:handle(3), 'fail')
         print((up()))
         assert(s:handle(1) == before[1])
         s:stop()
         print(wait_finished())",
    );
    assert_eq!(done.succeeded().stdout, "b c\nc\nstopped\n");
}

#[test]
fn too_many_restarts_end_all() {
    let done = supervise(
        "local exits = {}
         local s = start {
           spec 'a', spec 'b', intensity = 2, period = 3600,
           on_exit = function(index, reason) exits[#exits + 1] = index .. reason end,
         }
         ups(2)
         local a = s:handle(1)
         for i = 1, 3 do
           context.send(s:handle(2), 'fail')
           if i < 3 then assert(up() == 'b') end
         end
         print(wait_finished())
         print(table.concat(exits, ' '), context.stat(a), s:handle(1), s:handle(2))",
    );
    let expected = "intensity\t3 restarts in 3600 s\n2error 2error 2error\tnil\tnil\tnil\n";
    assert_eq!(done.succeeded().stdout, expected);
}

#[test]
fn restarts_that_are_long_ago_do_not_count() {
    let done = supervise(
        "local s = start { spec 'a', intensity = 1, period = 0.001 }
         up()
         for i = 1, 5 do
           timer.sleep(0.002)
           context.send(s:handle(1), 'fail')
           up()
         end
         print(finished)
         s:stop()
         print(wait_finished())",
    );
    assert_eq!(done.succeeded().stdout, "nil\nstopped\n");
}

#[test]
fn children_may_end_for_good() {
    let done = supervise(
        "local s = start { spec('a', 'temporary'), spec('b', 'transient'), spec 'c' }
         ups(3)
         local c = s:handle(3)
         context.send(s:handle(1), 'fail')
         context.wait(s:handle(1) or 2 ^ 40)
         context.send(s:handle(2), 'fail')
         print((up()))
         context.send(s:handle(2), 'end')
         while s:handle(2) do timer.sleep(0.001) end
         print(s:handle(1), s:handle(2), s:handle(3) == c, finished)
         s:stop()
         print(wait_finished())
         finished = nil
         -- Once nobody is left, it is over by itself.
         start { spec('d', 'temporary'), spec('e', 'transient') }
         local _, d = up()
         local _, e = up()
         context.send(d, 'end')
         context.send(e, 'end')
         print(wait_finished())",
    );
    assert_eq!(done.succeeded().stdout, "b\nnil\tnil\ttrue\tnil\nstopped\nnormal\n");
}

/// A supervisor that gives up ends its context with an error, so that the one above starts it again
/// with its children; and a supervisor's end ends nobody below it but through `stop`.
#[test]
fn supervisors_supervise_supervisors() {
    let folder = Folder::new();
    let child = folder.write("child.lua", CHILD);
    let inner = folder.write(
        "inner.lua",
        "local main, child = ...
         local supervisor = require 'supervisor'
         local s
         s = supervisor.start {
           { child, main, 'x' }, { child, main, 'y' }, intensity = 1, period = 3600,
           on_finish = function(reason) if reason == 'intensity' then over = true end end,
         }
         while not over do timer.sleep(0.001) end
         error('gave up')",
    );
    let script = "
        local inner = select(2, ...)
        local reasons = {}
        local s = start {
          { inner, me, child },
          on_exit = function(_, reason, detail)
            reasons[#reasons + 1] = reason .. ' ' .. detail:match('gave up')
          end,
        }
        local handles = {}
        local function take(n)
          for i = 1, n do
            local name, handle = up()
            handles[name] = handle
          end
        end
        take(2)
        for i = 1, 2 do
          context.send(handles.x, 'fail')
          -- The first failure starts x, the second, by the supervisor above, both.
          take(i)
        end
        local function both() return context.stat(handles.x) and context.stat(handles.y) and 2 end
        print(table.concat(reasons, ', '), both())
        -- Destroyed, the inner one cannot end its children.
        local old = s:handle(1)
        s:stop()
        print(wait_finished())
        print(context.stat(old), both())
        context.destroy(handles.x)
        context.destroy(handles.y)";
    let main = folder.write("main.lua", [PRELUDE, script].concat());
    let done = run(node_lua().env("RUST_LOG", "off").args([main, child, inner]));
    let expected = "error gave up\t2\nstopped\nnil\t2\n";
    assert_eq!(done.succeeded().stdout, expected);
}

#[test]
fn wrong_trees_raise() {
    let script = "local supervisor = require 'supervisor'
        for _, options in ipairs {
          {}, { 1 }, { { 'x' }, strategy = 'none' }, { { 'x', restart = 'often' } },
          { { 'x' }, intensity = -1 }, { { 'x' }, period = 0 }, { { 'x' }, period = 'long' },
        } do
          print(pcall(supervisor.start, options))
        end
        print(pcall(supervisor.start))";
    let done = run(node_lua().args(["-e", script])).succeeded();
    for (line, wanted) in done.stdout.lines().zip([
        "6: bad argument #1 to 'start' (a table for each child expected, got no children)",
        "6: bad child 1 of 'start' (table expected, got number 1)",
        "6: bad option 'strategy' of 'start' (\"one_for_one\", \"one_for_all\" or ",
        "6: bad restart of child 1 of 'start' (\"permanent\", \"transient\" or ",
        "6: bad option 'intensity' of 'start' (whole number of restarts, or math.huge, ",
        "6: bad option 'period' of 'start' (number of seconds above 0 expected, got number 0)",
        "6: bad option 'period' of 'start' (number of seconds above 0 expected, got string ",
        "8: bad argument #1 to 'start' (table expected, got nil)",
    ]) {
        assert!(line.starts_with(&format!("false\t(command line):{wanted}")), "{done}");
    }
    assert_eq!(done.stdout.lines().count(), 8, "{done}");
}

#[test]
fn methods_without_their_supervisor_and_errors_in_callbacks_are_told_with_their_place() {
    let folder = Folder::new();
    folder.write("child.lua", "");
    let main = folder.write(
        "main.lua",
        "local s
         s = require('supervisor').start {
           { 'child.lua', restart = 'temporary' },
           on_exit = function() error('told', 0) end,
         }
         print(pcall(s.stop))
         print(pcall(s.handle, 1))",
    );
    let done = run(node_lua().arg(&main)).succeeded();
    let at = main.display();
    let wrong = |line: u32, call: &str, value: &str| {
        let expected = format!("supervisor, as in s:{call}(…), expected, got {value}");
        format!("false\t{at}:{line}: bad argument #1 to '{call}' ({expected})\n")
    };
    assert_eq!(done.stdout, wrong(6, "stop", "nil") + &wrong(7, "handle", "number 1"));
    let place = format!("{at}:4: in function <{at}:4>");
    let error = "[C]: in function 'error'";
    assert_eq!(done.stderr, format!("node-lua: told\nstack traceback:\n\t{error}\n\t{place}\n"));
}
