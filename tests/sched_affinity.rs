//! Contexts that only one worker may run: option `worker` of `context.create`.

#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use support::{Done, Folder, node_lua, run};

/// Answers every query with the worker it is on; "loop" never ends, "pass" sends on what it gets.
const ROLES: &str = "
    local role, next_one, count = ...
    if role == 'loop' then
      context.send(context.parent(), 'looping')
      while true do end
    elseif role == 'pass' then
      context.recv(0, function(_, value)
        value[#value + 1] = context.thread()
        context.send(#value < count and next_one or context.parent(), value)
      end)
    else
      context.recv(0, function(_, _, from, session)
        context.reply(from, session, context.thread())
      end)
    end";

fn run_main(workers: &str, main: &str) -> Done {
    let folder = Folder::new();
    let roles = folder.write("roles.lua", ROLES);
    let main = folder.write("main.lua", format!("local roles = ...\n{main}"));
    run(node_lua().args(["--workers", workers]).args([main, roles]))
}

#[track_caller]
fn assert_prints(workers: &str, main: &str, expected: &str) {
    let done = run_main(workers, main).succeeded();
    assert_eq!(done.stdout, expected, "{done}");
}

#[test]
fn a_context_runs_on_its_worker_alone() {
    // Beside some that run anywhere, and would be stolen from where they are.
    assert_prints(
        "3",
        "local all = {}
         for i = 1, 30 do
           all[i] = { context.create({ file = roles, worker = i % 3 }), i % 3 }
           all[#all][3] = context.create(roles)
         end
         local open, wrong = 0, 0
         for round = 1, 50 do
           for _, entry in ipairs(all) do
             open = open + 2
             context.query(entry[1], 1, function(ok, worker)
               open = open - 1
               if not ok or worker ~= entry[2] then wrong = wrong + 1 end
             end)
             context.query(entry[3], 1, function() open = open - 1 end)
           end
         end
         while open > 0 do timer.sleep(0.001) end
         print(wrong, context.stat(all[1][1]).worker, context.stat(all[1][3]).worker)
         for _, entry in ipairs(all) do context.destroy(entry[1]) context.destroy(entry[3]) end",
        "0\t1\tnil\n",
    );
}

#[test]
fn workers_that_sleep_are_woken_for_what_only_they_may_run() {
    assert_prints(
        "2",
        "local one = context.create({ file = roles, worker = 0 }, 'pass', context.self(), 1)
         context.destroy(one)
         local two = context.create({ file = roles, worker = 1 })
         for i = 1, 300 do
           assert(select(2, context.query(two, i)) == 1)
           if i % 10 == 0 then timer.sleep(0.001) end
         end
         context.destroy(two)
         print('all answered')",
        "all answered\n",
    );
}

#[test]
fn a_message_goes_round_between_workers() {
    assert_prints(
        "2",
        "local last = context.create({ file = roles, worker = 1 }, 'pass', 0, 2)
         local first = context.create({ file = roles, worker = 0 }, 'pass', last, 2)
         for i = 1, 1000 do
           context.send(first, {})
           local _, way = context.recv(last)
           assert(way[1] == 0 and way[2] == 1 and #way == 2)
         end
         context.destroy(first)
         context.destroy(last)
         print('round')",
        "round\n",
    );
}

#[test]
fn a_stuck_worker_leaves_its_contexts_to_the_next() {
    for workers in ["1", "2"] {
        assert_prints(
            workers,
            "local echo = context.create({ file = roles, worker = 0 })
             print(context.query(echo, 1))
             local loop = context.create({ file = roles, worker = 0 }, 'loop')
             context.recv(loop)
             for i = 1, 10 do assert(select(2, context.query(echo, i)) == 0) end
             local new = context.create({ file = roles, worker = 0 })
             print(context.query(new, 1))
             context.destroy(loop)
             context.wait(loop)
             print(context.query(echo, 1))
             context.destroy(echo)
             context.destroy(new)",
            "true\t0\ntrue\t0\ntrue\t0\n",
        );
    }
}

#[test]
fn loops_on_one_worker_hold_nobody_up_for_long() {
    let done = run_main(
        "2",
        "local loops = {}
         for i = 1, 30 do
           loops[i] = context.create({ file = roles, worker = 1 }, 'loop')
         end
         local here = context.create({ file = roles, worker = 1 })
         local there = context.create({ file = roles, worker = 0 })
         local anywhere = context.create(roles)
         for i = 1, 20 do
           print(select(2, context.query(here, i)), select(2, context.query(there, i)))
           assert(context.query(anywhere, i))
         end
         os.exit(0)",
    )
    .succeeded();
    assert_eq!(done.stdout, "1\t0\n".repeat(20), "{done}");
}

/// Workers that are given up come and go in any order; none takes an index with it.
#[test]
fn of_many_stuck_workers_none_keeps_its_contexts_from_the_next() {
    let folder = Folder::new();
    // A turn that cannot be cut.
    let uncut = folder.write(
        "uncut.lua",
        "local seconds = ...
         (('a'):gsub('a', function()
           local till = timer.now() + seconds
           while timer.now() < till do end
         end))",
    );
    let main = folder.write(
        "main.lua",
        "local uncut, me = ..., context.self()
         for round = 1, 15 do
           local left = 30
           for i = 1, left do
             local worker = i % 3 > 0 and i % 2 or nil
             local h = context.create({ file = uncut, worker = worker }, math.random() * 0.03)
             context.monitor(h, function()
               left = left - 1
               if left == 0 then context.send(me, 'all') end
             end)
           end
           if not context.recv(me, 60) then
             print('round', round, left, 'have not ended')
             os.exit(1)
           end
         end",
    );
    run(node_lua().args(["--workers", "2"]).args([main, uncut])).succeeded();
}

#[test]
fn a_worker_that_is_not_there_raises_with_the_limit() {
    let script = "for _, worker in ipairs { 2, -1, 0.5, 'x', 0/0 } do
                    print(select(2, pcall(context.create, { file = 'x', worker = worker })))
                  end";
    let done = run(node_lua().args(["--workers", "2", "-e", script])).succeeded();
    for (line, got) in done.stdout.lines().zip([
        "number 2",
        "number -1",
        "number 0.5",
        "string \"x\"",
        "number nan",
    ]) {
        let wanted = "bad option 'worker' of 'create' (integer from 0 to 1 expected, got ";
        assert!(line.contains(&format!("{wanted}{got})")), "{done}");
    }
    assert_eq!(done.stdout.lines().count(), 5, "{done}");
}
