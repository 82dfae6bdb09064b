//! Turns that are cut: what users see of contexts that are suspended in the middle of one.

#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use support::{Folder, node_lua, run};

/// What has been cut in the middle of its turn does not run again: fewer slices begin before it has
/// ended than there are loops.
#[test]
fn a_suspended_context_is_ended_at_once() {
    let folder = Folder::new();
    let file = folder.write("loop.lua", "while true do end");
    let main = folder.write(
        "main.lua",
        "local loops = {}
         for i = 1, 60 do loops[i] = context.create((...)) end
         local function slices()
           local sum, suspended = 0, nil
           for i, handle in ipairs(loops) do
             local stat = context.stat(handle)
             if stat.state == 'suspended' then suspended = i end
             sum = sum + stat.slices
           end
           return sum, suspended
         end
         local before, suspended
         repeat
           timer.sleep(0.005)
           before, suspended = slices()
         until before > 4 * #loops and suspended
         local handle = table.remove(loops, suspended)
         local told
         context.monitor(handle, function(_, reason) told = reason end)
         context.destroy(handle)
         context.wait(handle)
         local after = slices()
         while not told do timer.sleep(0.001) end
         print(told, after - before < #loops)
         for _, loop in ipairs(loops) do context.destroy(loop) end",
    );
    let done = run(node_lua().args(["--workers", "2"]).args([main, file])).succeeded();
    assert_eq!(done.stdout, "killed\ttrue\n", "{done}");
}

/// Loops that have to share the workers are ended once they have used up their time, wherever they
/// are then.
#[test]
fn a_turn_limit_counts_all_slices() {
    let folder = Folder::new();
    let file = folder.write("loop.lua", "local n = 0\nwhile true do\n  n = n + 1\nend");
    let main = folder.write(
        "main.lua",
        "local left, least = 8, math.huge
         for i = 1, left do
           local handle, cpu, slices = context.create({ file = (...), turn_limit = 0.06 }), 0, 0
           local look
           look = timer.loop(0.001, 0.001, function()
             local stat = context.stat(handle)
             if not stat then return timer.close(look) end
             cpu, slices = stat.cpu, stat.slices
           end)
           context.monitor(handle, function(_, reason, place)
             least = math.min(least, slices)
             print(reason, place:match('loop.lua:%d'), cpu < 0.2)
             left = left - 1
             if left == 0 then print(least > 2) end
           end)
         end",
    );
    let done = run(node_lua().args(["--workers", "2"]).args([main, file])).succeeded();
    let lines: Vec<_> = done.stdout.lines().collect();
    assert_eq!(lines.last(), Some(&"true"), "{done}");
    for line in &lines[..8] {
        let words: Vec<_> = line.split('\t').collect();
        assert_eq!((words[0], words[2]), ("time", "true"), "{done}");
        assert!(["loop.lua:2", "loop.lua:3"].contains(&words[1]), "{done}");
    }
}

/// The count of a script's own hook goes on where it was.
#[test]
fn hooks_of_scripts_outlive_cuts() {
    let folder = Folder::new();
    let file = folder.write("loop.lua", "while true do end");
    let main = folder.write(
        "main.lua",
        "local loops = {}
         for i = 1, 4 do loops[i] = context.create((...)) end
         local calls, x, before = 0, 0, context.stat().slices
         debug.sethook(function() calls = calls + 1 end, '', 100000)
         repeat
           for i = 1, 1e6 do x = x + i % 7 end
         until context.stat().slices > before + 20 or x > 1e9
         local hook, mask, count = debug.gethook()
         debug.sethook()
         -- Three instructions an iteration.
         local rounds = x / 2999998
         print(type(hook), count, math.abs(calls - 30 * rounds) < 1 + rounds / 10)
         for _, loop in ipairs(loops) do context.destroy(loop) end",
    );
    let done = run(node_lua().args(["--workers", "1"]).args([main, file])).succeeded();
    assert_eq!(done.stdout, "function\t100000\ttrue\n", "{done}");
}

/// The collector, in the hook that is about to cut a turn, meets the limit: the hook is left.
#[test]
fn contexts_that_reach_their_limit_as_they_are_cut_end_alone() {
    let folder = Folder::new();
    folder.write(
        "child.lua",
        "while true do
           local b, s = buffer.new(100), {}
           for i = 1, 1e5 do s[i] = tostring(i) end
         end",
    );
    let main = "
        local name = arg[0]:gsub('main.lua$', 'child.lua')
        local ended = 0
        context.on_error(function() end)
        local function create()
          local child = context.create({ file = name, memory = 6 * 2 ^ 20 })
          context.wait(child, function()
            ended = ended + 1
          end)
          timer.timeout(0.4, function() context.destroy(child) end)
        end
        for round = 1, 4 do
          for _ = 1, 8 do create() end
          while ended < round * 8 do timer.sleep(0.01) end
        end
        print(ended)";
    let done = run(node_lua().arg(folder.write("main.lua", main))).succeeded();
    assert_eq!(done.stdout, "32\n", "{done}");
}

/// A script that has a hook is told of each line, call and return as often as if it ran alone,
/// wherever its turns are cut.
#[test]
fn hooks_are_told_the_same_wherever_turns_are_cut() {
    let folder = Folder::new();
    let script = folder.write(
        "main.lua",
        "local function fib(n) if n < 2 then return n end return fib(n - 1) + fib(n - 2) end
         local function work()
           for i = 1, 20 do
             fib(6)
             table.sort({ 3, 2, 1 }, function(a, b) return a < b end)
             tostring(i)
             local s = 0
             for j = 1, 3 do s = s + j end
             while s > 0 do
               s = s - 1
             end
           end
         end
         for _, events in ipairs { 'c', 'r', 'l', 'crl' } do
           for _ = 1, 10 do
             local told = {}
             local function tell(event, line) told[#told + 1] = event .. tostring(line) end
             debug.sethook(tell, events)
             work()
             debug.sethook()
             print(table.concat(told, ' '))
           end
         end
         local stat = context.stat(context.self())
         io.stderr:write(stat.slices - stat.turns, ' cuts')",
    );
    let simulate = |seed: &str, cuts: &str| {
        run(node_lua().args(["--simulate", seed, "--cuts", cuts]).arg(&script)).succeeded()
    };
    let expected = simulate("1", "0").stdout;
    let mut cuts = 0;
    for seed in 1..=40 {
        let done = simulate(&seed.to_string(), "1");
        assert!(done.stdout == expected, "seed {seed}");
        let told = done.stderr.split(" cuts").next().and_then(|text| text.lines().last());
        cuts += told.and_then(|text| text.parse::<u32>().ok()).unwrap();
    }
    assert!(cuts > 20, "{cuts}");
}

/// Those that have hooks give way to others as the rest do.
#[test]
fn loops_with_hooks_take_turns() {
    let folder = Folder::new();
    folder.write("loop.lua", "debug.sethook(function() end, ...) while true do end");
    let main = folder.write(
        "main.lua",
        "local loops = {}
         for i = 1, 20 do
           local events = ({ 'l', 'c', 'r', 'crl' })[i % 4 + 1]
           loops[i] = context.create((arg[0]:gsub('main.lua$', 'loop.lua')), events)
         end
         for _, loop in ipairs(loops) do
           while context.stat(loop).slices < 4 do timer.sleep(0.005) end
         end
         for _, loop in ipairs(loops) do
           assert(context.stat(loop).turns == 1)
           context.destroy(loop)
           context.wait(loop)
         end
         print('all went on')",
    );
    let done = run(node_lua().args(["--workers", "2"]).arg(main));
    assert_eq!(done.succeeded().stdout, "all went on\n");
}

/// A collection may be asked for right when the VM is about to call a hook of the script's for a
/// call, and a cut as soon as there is none.
#[test]
fn hooks_for_calls_come_and_go_beside_others() {
    let folder = Folder::new();
    folder.write(
        "child.lua",
        "local random = math.random
         for i = 1, 3 do context.run(function() for round = 1, 60 do
           debug.sethook(function()
             if random(200) == 1 then pcall(error, 'x') end
           end, random(2) == 1 and 'l' or 'crl', random(100))
           local s = 0
           for i = 1, 1e4 do s = s + #tostring(i % 10) end
           debug.sethook()
           timer.sleep(0.001)
         end end) end",
    );
    let main = "
        local name, ended = arg[0]:gsub('main.lua$', 'child.lua'), 0
        for _ = 1, 8 do
          context.wait(context.create(name), function() ended = ended + 1 end)
        end
        while ended < 8 do timer.sleep(0.01) end
        print(ended)";
    let done = run(node_lua().arg(folder.write("main.lua", main))).succeeded();
    assert_eq!(done.stdout, "8\n", "{done}");
}

/// In a simulation the hook that cuts is set from the beginning of a turn.
#[test]
fn scripts_are_told_of_no_hook_but_their_own() {
    let folder = Folder::new();
    let main = folder.write(
        "main.lua",
        "local seen = {}
         for i = 1, 20 do
           local hook, events, count = debug.gethook()
           seen[table.concat({ tostring(hook), events, count }, ' ')] = true
           for _ = 1, 1e4 do end
           timer.sleep(0.001)
         end
         for what in pairs(seen) do print(what) end
         local function own() end
         debug.sethook(own, '', 1000)
         print(debug.gethook() == own, select(2, debug.gethook()))
         debug.sethook()
         local stat = context.stat()
         print(stat.slices > stat.turns)",
    );
    let done = run(node_lua().args(["--simulate", "1", "--cuts", "1"]).arg(main)).succeeded();
    assert!(done.stdout.starts_with("nil  0\ntrue\t\t1000\ntrue\n"), "{done}");
}
