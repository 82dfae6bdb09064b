//! LuaJIT's profiler in a process of many contexts.

#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use support::{Folder, node_lua, run};

/// What any of them profiles: compiled and interpreted code, garbage, traces that come and go.
const WORK: &str = "
local profile = require('jit.profile')
local function work()
  local sum = 0
  for i = 1, 20000 do sum = sum + i % 7 end
  local t = {}
  for i = 1, 100 do t[i] = { i, tostring(i) } end
  return loadstring('local x = ... for i = 1, 200 do x = x + i end return x')(sum)
end
";

#[test]
fn any_number_of_contexts_may_ask_for_it() {
    let folder = Folder::new();
    folder.write(
        "worker.lua",
        format!(
            "{WORK}
            local samples, refused, dumps = 0, 0, 0
            repeat
              local ok, message = pcall(profile.start, 'li1', function(co, count)
                samples, dumps = samples + count, dumps + #profile.dumpstack(co, 'fl', 5)
              end)
              if ok then
                local before = samples
                repeat work() until samples > before
                profile.stop()
              else
                refused = refused + 1
                assert(message:find('the profiler is in use by another context', 1, true), message)
                work()
              end
              assert(profile.dumpstack('fl', 5):find('worker', 1, true))
              timer.sleep(0)
            until samples > 3
            assert(dumps > 0)
            context.send(1, 'done')"
        ),
    );
    let script = folder.write(
        "main.lua",
        "for i = 1, 8 do context.create('worker.lua') end
        for i = 1, 8 do assert(context.recv(0)) end
        print('all')",
    );
    let done = run(node_lua().arg(script)).succeeded();
    assert_eq!((&*done.stdout, &*done.stderr), ("all\n", ""), "{done}");
}

/// At any depth, in every kind of root, and where the library has called what runs.
#[test]
fn no_frame_of_the_library_is_in_what_jit_p_shows() {
    let folder = Folder::new();
    let script = folder.write(
        "main.lua",
        "local profile = require('jit.profile')
        local function dump(why)
          local text = profile.dumpstack('F:l;', 99) .. profile.dumpstack('F:l;', -99)
          for part in text:gmatch('[^;]+') do
            local name = part:match('^([^:]*)')
            local is_fine = part:find('main.lua', 1, true) or part:find('^@0x%x+:@0x%x+$')
              or ('dumpstack sort pcall resume'):find(name, 1, true)
            assert(is_fine, why .. ': ' .. text)
          end
        end
        dump('main')
        timer.timeout(0, function() dump('timer') end)
        context.run(function() pcall(dump, 'run') end)
        coroutine.wrap(function() dump('wrap') end)()
        local function sort() table.sort({ 1, 2 }, function() dump('sort') end) end
        coroutine.resume(coroutine.create(sort))
        local co = coroutine.create(function() return (context.recv(0)) end)
        timer.timeout(0, function()
          local text = profile.dumpstack(co, 'l;', 9)
          assert(text:find('^@0x%x+;main.lua:%d+;$'), text)
          context.send(context.self(), 1)
        end)
        coroutine.resume(co)
        print('over')",
    );
    for steps in [&["-e", ""][..], &[]] {
        let done = run(node_lua().args(steps).arg(&script)).succeeded();
        assert_eq!((&*done.stdout, &*done.stderr), ("over\n", ""), "{done}");
    }
}

#[test]
fn who_ends_leaves_it_to_others() {
    let folder = Folder::new();
    folder.write(
        "worker.lua",
        format!(
            "{WORK}
            local how = ...
            local samples = 0
            profile.start('fi1', function() samples = samples + 1 end)
            repeat work() until samples > 0
            if how == 'error' then error('mine') end
            context.send(1, 'sampled')
            if how == 'killed' then while true do work() end end"
        ),
    );
    let script = folder.write(
        "main.lua",
        "for _, how in ipairs({ 'killed', 'error', 'normal', 'normal' }) do
          local worker = context.create('worker.lua', how)
          context.monitor(worker, function(_, why) context.send(context.self(), why) end)
          if how ~= 'error' then assert(select(2, context.recv(worker)) == 'sampled') end
          if how == 'killed' then context.destroy(worker) end
          print((select(2, context.recv(context.self()))))
        end",
    );
    let done = run(node_lua().env("RUST_LOG", "off").arg(script)).succeeded();
    assert_eq!(done.stdout, "killed\nerror\nnormal\nnormal\n", "{done}");
}

#[test]
fn a_callback_that_fails_ends_its_context_alone() {
    let folder = Folder::new();
    let code = format!(
        "{WORK}
        profile.start('i1', function() error('no sample') end)
        while true do work() end"
    );
    let worker = folder.write("worker.lua", &code);
    let script = folder.write(
        "main.lua",
        "local worker = context.create('worker.lua')
        context.monitor(worker, function(_, why, text) print(why, text) end)",
    );
    let done = run(node_lua().arg(script)).succeeded();
    let text = "in the callback of jit.profile: ";
    assert!(done.stdout.starts_with(&format!("error\t{text}")), "{done}");
    assert!(done.stderr.contains(&format!("context 2: {text}")), "{done}");
    let done = run(node_lua().arg(worker));
    assert_eq!(done.code(), Some(1), "{done}");
    assert!(done.stderr.starts_with(&format!("node-lua: {text}")), "{done}");
    assert!(done.stderr.ends_with("worker.lua:11: no sample\n"), "{done}");
}
