//! Contexts: mailboxes, queries, lifetime, memory, values in messages.

#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use support::{Done, Folder, Server, beside, node_lua, resident_bytes, run};

/// Runs `main` beside the other scripts, given as name and source. `here` is their folder.
fn run_with(scripts: &[(&str, &str)], main: &str) -> Done {
    let (_folder, mut command) = beside(scripts, main);
    run(&mut command)
}

#[track_caller]
fn assert_prints(scripts: &[(&str, &str)], main: &str, expected: &str) {
    let done = run_with(scripts, main).succeeded();
    assert_eq!(done.stdout, expected, "{done}");
}

/// Answers every query with the value it got.
const ECHO: (&str, &str) = (
    "echo.lua",
    "context.recv(0, function(_, value, from, session) context.reply(from, session, value) end)",
);

#[test]
fn a_file_that_many_contexts_run_is_the_same_for_all() {
    // From the third context on, a file that was not changed lately is loaded as bytecode.
    let code = "for i = 1, 5 do
           local greeter = context.create('examples/greeter.lua')
           print(select(2, context.query(greeter, 'number ' .. i)))
           context.destroy(greeter)
           context.wait(greeter)
         end";
    let done = run(node_lua().args(["-e", code])).succeeded();
    let greetings = done.stdout.lines().filter(|line| line.starts_with("hello, number ")).count();
    assert_eq!(greetings, 5, "{done}");
}

#[test]
fn a_full_mailbox_returns_209_and_takes_more_once_emptied() {
    assert_prints(
        &[],
        "local me, sent = context.self(), 0
         while context.send(me, sent) do sent = sent + 1 end
         print(sent, context.send(me, 'one more'))
         print(context.query(me, 'a query', 1))
         print(context.query(me, 'a query', 1, print))
         print((select(2, context.recv(me))), (select(2, context.recv(me))))
         print(context.send(me, 'a'), context.send(me, 'b'), context.send(me, 'c'))
         local count, last = 0
         while true do
           local ok, value = context.recv(me, 0.001)
           if not ok then break end
           count, last = count + 1, value
         end
         print(count, last)",
        "65536\tfalse\t209\nfalse\t209\nfalse\t209\n0\t1\ntrue\ttrue\tfalse\t209\n65536\tb\n",
    );
}

#[test]
fn a_full_mailbox_takes_one_more_message_from_each_context_it_has_created() {
    let folder = Folder::new();
    folder.write(
        "child.lua",
        "local counter = ...
         local first, again = context.send(context.parent(), 'up'), 0
         repeat again = again + 1 until not context.send(context.parent(), 'again') or again > 9
         context.send(counter, { first, again })",
    );
    folder.write(
        "counter.lua",
        "local count, firsts, agains, question = ..., 0, 0, nil
         while count > 0 or not question do
           local _, said, _, session = context.recv(0)
           if session > 0 then
             question = session
           else
             count = count - 1
             firsts, agains = firsts + (said[1] and 1 or 0), agains + said[2]
           end
         end
         context.reply(context.parent(), question, { firsts, agains })",
    );
    let main = folder.write(
        "main.lua",
        "local here = arg[0]:match('^(.*)/')
         for i = 1, 4 do assert(context.send(context.self(), 'full')) end
         local counter = context.create({ file = here .. '/counter.lua', mailbox = 1000 }, 20)
         for _ = 1, 20 do context.create(here .. '/child.lua', counter) end
         local _, counts = context.query(counter, 'all there?')
         print(counts[1], counts[2])
         print(context.send(context.self(), 'mine'))
         local heard = { full = 0, up = 0, again = 0 }
         for _ = 1, 24 do
           local _, word = context.recv(0)
           heard[word] = heard[word] + 1
         end
         print(heard.full, heard.up, heard.again, context.recv(0, 0.001))",
    );
    let done = run(node_lua().args(["--mailbox", "4"]).arg(main)).succeeded();
    assert_eq!(done.stdout, "20\t20\nfalse\t209\n4\t20\t0\tfalse\t208\t0\t-1\n", "{done}");
}

#[test]
fn answers_that_nobody_asked_for_cannot_fill_the_memory() {
    assert_prints(
        &[ECHO],
        "local me, n, ok, code = context.self(), 0
         context.query(me, 'open', function() end)
         repeat
           ok, code = context.reply(me, 12345, n)
           n = n + 1
         until not ok
         print(n, code)
         local echo = context.create(here .. '/echo.lua')
         print(context.query(echo, 'still answered', 30))
         context.destroy(echo)",
        "65538\t209\ntrue\tstill answered\n",
    );
}

#[test]
fn a_wait_whose_time_is_over_still_gets_what_came_before() {
    assert_prints(
        &[
            ECHO,
            (
                "flood.lua",
                "local to, done = ...
                 for i = 1, 2000 do context.send(to, i) end
                 io.open(done, 'w'):close()",
            ),
        ],
        "local me, done = context.self(), here .. '/done'
         local flood = context.create(here .. '/flood.lua', me, done)
         local echo = context.create(here .. '/echo.lua')
         while not io.open(done) do end
         -- Comes behind the flood, which takes more than a turn.
         context.send(me, 'mine')
         context.recv(flood, function(_, i)
           if i == 500 then
             local start = os.clock()
             while os.clock() - start < 0.01 do end
           end
         end)
         print((select(2, context.recv(me, 0.001))))
         context.destroy(echo)
         context.recv(flood, nil)",
        "mine\n",
    );
}

#[test]
fn messages_wait_in_order_until_a_recv_takes_them() {
    assert_prints(
        &[("sender.lua", "local to, n = ... for i = 1, n do context.send(to, i) end"), ECHO],
        "local me = context.self()
         local a = context.create(here .. '/sender.lua', me, 3)
         context.wait(a)
         local b = context.create(here .. '/sender.lua', me, 3)
         context.wait(b)
         local function from(h) return (select(2, context.recv(h, 30))) end
         print(from(b), from(b), from(a), from(0), from(0), from(0))
         local ok, code = context.recv(0, 0.001)
         print(ok, code)",
        "1\t2\t1\t2\t3\t3\nfalse\t208\n",
    );
}

#[test]
fn a_message_goes_to_the_oldest_recv_of_its_sender_then_to_others() {
    assert_prints(
        &[(
            "sender.lua",
            "local to = ...
             context.recv(to)
             for i = 1, 4 do context.send(to, i) end
             context.recv(to)
             for i = 5, 7 do context.send(to, i) end",
        )],
        "local me = context.self()
         local sender = context.create(here .. '/sender.lua', me)
         local got = {}
         local function blocked(name, from)
           context.run(function()
             local _, value = context.recv(from)
             got[#got + 1] = name .. value
           end)
         end
         blocked('any', 0) blocked('first', sender) blocked('second', sender) blocked('later', 0)
         context.run(function()
           context.recv(sender, function(_, value)
             got[#got + 1] = 'callback' .. value
             if value == 4 then context.recv(sender, nil) end
           end)
           context.send(sender, 'go')
         end)
         while #got < 4 do timer.sleep(0.001) end
         context.send(sender, 'go on')
         while #got < 6 do timer.sleep(0.001) end
         print(table.concat(got, ' '))
         local ok, value, from, session = context.recv(sender, 30)
         print(ok, value, from == sender, session)",
        "first1 second2 callback3 callback4 any5 later6\ntrue\t7\ttrue\t-1\n",
    );
}

#[test]
fn a_query_to_a_context_that_ends_gets_207() {
    assert_prints(
        &[
            ("ignores.lua", "local seconds = ... timer.sleep(seconds)"),
            ("takes.lua", "context.recv(0) timer.sleep(0.01)"),
            ("breaks.lua", "context.recv(0) error('breaks')"),
            ("destroyed.lua", "context.recv(0) context.destroy() timer.sleep(3600)"),
            (
                "later.lua",
                "context.recv(0, function(_, v, from) end) timer.sleep(0.01) context.recv(0, nil)",
            ),
        ],
        "for _, name in ipairs({ 'takes', 'breaks', 'destroyed', 'later' }) do
           print(name, context.query(context.create(here .. '/' .. name .. '.lua'), 'question'))
         end
         print('ignores', context.query(context.create(here .. '/ignores.lua', 0.3), 'question'))
         local slow = context.create(here .. '/ignores.lua', 3600)
         local told
         context.query(slow, 'question', function(ok, code)
           told = true
           print('killed', ok, code)
         end)
         context.destroy(slow)
         context.wait(slow)
         while not told do timer.sleep(0.001) end
         print('afterwards', context.query(slow, 'question'))",
        "takes\tfalse\t207\nbreaks\tfalse\t207\ndestroyed\tfalse\t207\nlater\tfalse\t207\n\
         ignores\tfalse\t207\nkilled\tfalse\t207\nafterwards\tfalse\t205\n",
    );
}

#[test]
fn a_context_is_killed_wherever_it_is_blocked() {
    let bodies = [
        ("sleep.lua", "timer.sleep(3600)"),
        ("recv.lua", "context.recv(0)"),
        ("query.lua", "context.query(..., 'never answered')"),
        ("wait.lua", "context.wait(...)"),
        ("accept.lua", "local _, l = tcp.listen('127.0.0.1', 0) l:accept()"),
        (
            "read.lua",
            "local _, l = tcp.listen('127.0.0.1', 0)
             local _, c = tcp.connect('127.0.0.1', tcp.local_port(l)) c:read()",
        ),
        (
            "write.lua",
            "local _, l = tcp.listen('127.0.0.1', 0)
             local _, c = tcp.connect('127.0.0.1', tcp.local_port(l))
             local _, s = l:accept()
             while true do s:write(('x'):rep(65536), true) end",
        ),
        (
            "deep.lua",
            "local function inner() pcall(coroutine.wrap(function() timer.sleep(3600) end)) end
             coroutine.wrap(inner)()",
        ),
        ("loops.lua", "timer.loop(0.001, 0.001, function() end)"),
    ];
    let mut main = "local me, kids = context.self(), {}\n".to_owned();
    for (name, _) in &bodies {
        main += &format!("kids[#kids + 1] = context.create(here .. '/{name}', me)\n");
    }
    main += "timer.sleep(0.05)
             for _, kid in ipairs(kids) do context.destroy(kid, 'no longer needed') end
             for _, kid in ipairs(kids) do
               local ok, code = context.wait(kid, 30)
               print(ok or code == 205)
             end
             for _, kid in ipairs(kids) do assert(select(2, context.send(kid, 1)) == 205) end
             print('all gone')";
    assert_prints(&bodies, &main, &("true\n".repeat(bodies.len()) + "all gone\n"));
}

#[test]
fn a_context_that_never_returns_to_its_loop_does_not_stop_the_others() {
    let done = run_with(
        &[("busy.lua", "while true do end"), ECHO],
        "local busy = context.create(here .. '/busy.lua')
         local echo = context.create(here .. '/echo.lua')
         for i = 1, 100 do assert(context.query(echo, i, 30)) end
         print('answered')
         os.exit(0)",
    )
    .succeeded();
    assert_eq!(done.stdout, "answered\n");
}

#[test]
fn a_flooded_context_does_not_starve_its_neighbours() {
    assert_prints(
        &[
            (
                "flooder.lua",
                "local to = ...
                 while true do if not context.send(to, 1) then timer.sleep(0) end end",
            ),
            ("flooded.lua", "context.recv(0, function() end)"),
            ECHO,
        ],
        "local all = {}
         for i = 1, 4 do
           local flooded = context.create(here .. '/flooded.lua')
           all[#all + 1] = flooded
           all[#all + 1] = context.create(here .. '/flooder.lua', flooded)
         end
         local echo = context.create(here .. '/echo.lua')
         for i = 1, 50 do assert(context.query(echo, i, 30)) end
         print('answered')
         os.exit(0)",
        "answered\n",
    );
}

#[test]
fn values_of_every_kind_arrive_as_they_were() {
    let main = r#"
      local ffi = require("ffi")
      local echo = context.create(here .. "/echo.lua")
      local function back(value)
        local ok, answer = context.query(echo, value, 30)
        assert(ok, answer)
        return answer
      end
      for _, value in ipairs({ true, false, 0, -1, 2^53, 1e300, -0.5, math.huge, -math.huge, "",
                               "text", "with \0 zero", ("x"):rep(100000) }) do
        assert(back(value) == value, tostring(value))
      end
      assert(back(nil) == nil)
      local nan = back(0 / 0)
      assert(nan ~= nan)
      assert(1 / back(0 * -1) == -math.huge)
      -- 64-bit integers
      for _, value in ipairs({ 0LL, -1LL, 9223372036854775807LL, 0ULL, 18446744073709551615ULL }) do
        local answer = back(value)
        assert(type(answer) == "cdata" and answer == value, tostring(value))
        assert(ffi.istype(ffi.typeof(value), answer), tostring(value))
      end
      -- tables
      local list = { 1, 2, { 3, { 4 } }, name = "map", [true] = false, [1.5] = "x", [10] = "ten" }
      local answer = back(list)
      assert(answer[1] == 1 and answer[3][2][1] == 4 and answer.name == "map")
      assert(answer[true] == false and answer[1.5] == "x" and answer[10] == "ten")
      assert(next(back({})) == nil)
      local deep = {}
      for i = 1, 50 do deep = { deep } end
      assert(type(back(deep)) == "table")
      local big = {}
      for i = 1, 10000 do big[i] = { id = i, name = "entry " .. i } end
      answer = back(big)
      assert(#answer == 10000 and answer[9999].name == "entry 9999")
      -- a table is copied: changes to one side do not show on the other
      local mine = { 1 }
      local theirs = back(mine)
      theirs[1] = 2
      assert(mine[1] == 1 and theirs ~= mine)
      -- buffers, alone and inside tables
      local b = buffer.new("some bytes\0")
      local c = back(b)
      assert(c:tostring() == "some bytes\0")
      c:append("more")
      assert(b:tostring() == "some bytes\0" and c:length() == 15)
      answer = back({ head = b, [1] = b, list = { b } })
      assert(answer.head:tostring() == b:tostring() and answer.list[1]:length() == 11)
      context.destroy(echo)
      print("all came back")
    "#;
    assert_prints(&[ECHO], main, "all came back\n");
}

#[test]
fn shared_and_cyclic_tables_are_kept_or_refused_but_never_hang() {
    let main = r#"
      local echo = context.create(here .. "/echo.lua")
      local function back(value)
        return pcall(function() return select(2, context.query(echo, value, 30)) end)
      end
      local shared = { "shared" }
      local ok, answer = back({ shared, shared })
      if ok then
        assert(answer[1][1] == "shared" and answer[2][1] == "shared")
      else
        assert(type(answer) == "string")
      end
      local cycle = {}
      cycle.self = cycle
      ok, answer = back(cycle)
      if ok then
        assert(answer.self == answer)
      else
        assert(type(answer) == "string", answer)
      end
      -- too deep is refused, with a message
      local deep = {}
      for i = 1, 100000 do deep = { deep } end
      ok, answer = back(deep)
      assert(not ok and type(answer) == "string")
      -- what no message can carry raises and says what it is
      local array = require("ffi").new("int[2]")
      for _, value in ipairs({ print, coroutine.create(print), io.stdout, array }) do
        for _, wrapped in ipairs({ value, { value }, { [1] = { deep = value } } }) do
          local good, message = pcall(context.send, echo, wrapped)
          assert(not good and type(message) == "string", type(value))
        end
      end
      assert(not pcall(context.send, echo, { [print] = 1 }))
      assert(not pcall(context.send, echo))
      assert(select(2, context.query(echo, "still well", 30)) == "still well")
      context.destroy(echo)
      print("done")
    "#;
    assert_prints(&[ECHO], main, "done\n");
}

#[test]
fn an_answer_that_cannot_be_sent_is_206_for_the_asker() {
    assert_prints(
        &[(
            "bad.lua",
            "context.recv(0, function(_, _, from, session)
               print((pcall(context.reply, from, session, { print })))
             end)",
        )],
        "local bad = context.create(here .. '/bad.lua')
         local ok, code = context.query(bad, 1, 30)
         print(ok, code)
         context.destroy(bad)",
        "false\nfalse\t206\n",
    );
}

#[test]
fn arguments_of_create_keep_their_types() {
    assert_prints(
        &[(
            "child.lua",
            "local n, s, t, b, none, last = ...
             print(n + 1, s, t.list[2], b:tostring(), none, last, select('#', ...))",
        )],
        "local bytes = buffer.new('bytes')
         context.create(here .. '/child.lua', 41, '7', { list = { 1, 2 } }, bytes, nil, true)",
        "42\t7\t2\tbytes\tnil\ttrue\t6\n",
    );
}

#[test]
fn a_context_that_cannot_start_is_logged_with_its_place() {
    let done = run_with(
        &[
            ("syntax.lua", "\n\nlocal = 1"),
            ("raises.lua", "local function f() error('oops') end f()"),
        ],
        "for _, name in ipairs({ 'missing', 'syntax', 'raises' }) do
           context.wait(context.create(here .. '/' .. name .. '.lua'))
         end
         print('goes on')",
    )
    .succeeded();
    assert_eq!(done.stdout, "goes on\n");
    for part in ["missing.lua", "syntax.lua:3:", "raises.lua:1: oops", "stack traceback"] {
        assert!(done.stderr.contains(part), "{part}: {done}");
    }
}

#[test]
fn a_context_that_destroys_itself_reacts_to_nothing_more() {
    assert_prints(
        &[],
        "local me = context.self()
         context.recv(0, function(_, v)
           print(v)
           if v == 2 then
             context.run(print, 'not any more')
             context.destroy()
             print('the code after it still runs')
           end
         end)
         for i = 1, 5 do context.send(me, i) end",
        "1\n2\nthe code after it still runs\n",
    );
}

#[test]
fn answers_that_nobody_has_asked_for_fill_a_mailbox_at_most() {
    assert_prints(
        &[
            ECHO,
            (
                "repeats.lua",
                "local _, _, from, session = context.recv(0)
             local count = 0
             while context.reply(from, session, ('x'):rep(100)) and count < 1e6 do
               count = count + 1
             end
             print(count >= 65536 and count < 1e6, context.reply(from, session, 1))
             io.open((...), 'w'):close()",
            ),
        ],
        "local done = here .. '/done'
         local h = context.create(here .. '/repeats.lua', done)
         context.query(h, 1, function(ok) print('answered', ok) end)
         local echo = context.create(here .. '/echo.lua')
         -- Busy until the other one has given up.
         while not io.open(done) do end
         print(context.query(echo, 'still heard', 30))
         context.destroy(echo)
         context.destroy()",
        "true\tfalse\t209\nanswered\ttrue\ntrue\tstill heard\n",
    );
}

#[test]
fn finalisers_that_send_while_a_value_is_sent_harm_nothing() {
    assert_prints(
        &[],
        "local me = context.self()
         local sent = 0
         local function litter()
           local proxy = newproxy(true)
           getmetatable(proxy).__gc = function()
             context.send(me, { 1LL, { buffer.new(('y'):rep(2000)) } })
             sent = sent + 1
           end
         end
         for i = 1, 300 do
           for _ = 1, 20 do litter() end
           context.send(me, { 5ULL, buffer.new(('x'):rep(5000)), { i } })
         end
         print(sent > 100)
         local count = 0
         while context.recv(me, 0.01) do count = count + 1 end
         print(count >= sent + 300)
         os.exit(0)",
        "true\ntrue\n",
    );
}

#[test]
fn globals_are_not_shared_between_contexts() {
    assert_prints(
        &[("child.lua", "print(shared, string.extra) shared = 'changed' string.extra = 1")],
        "shared = 'mine'
         context.wait(context.create(here .. '/child.lua'))
         context.wait(context.create(here .. '/child.lua'))
         print(shared, string.extra)",
        "nil\tnil\nnil\tnil\nmine\tnil\n",
    );
}

#[test]
fn handles_of_ended_contexts_are_not_used_again_soon() {
    assert_prints(
        &[("ends.lua", "")],
        "local seen = {}
         for i = 1, 500 do
           local h = context.create(here .. '/ends.lua')
           assert(not seen[h])
           seen[h] = true
           context.wait(h)
           assert(select(2, context.send(h, 1)) == 205)
         end
         print('all different')",
        "all different\n",
    );
}

#[test]
fn two_thousand_idle_contexts_stay_under_250_mb() {
    let folder = Folder::new();
    folder.write("idle.lua", "context.send((...), 'up') context.recv(0, function() end)");
    let main = folder.write(
        "main.lua",
        "local here = arg[0]:match('^(.*)/')
         for _ = 1, 2000 do context.create(here .. '/idle.lua', context.self()) end
         for _ = 1, 2000 do context.recv(0) end
         print('all are up')
         context.recv(0)",
    );
    let mut server = Server::start([main]);
    assert_eq!(server.line(), "all are up");
    let resident = resident_bytes(server.id());
    assert!(resident < 250 << 20, "{resident} bytes");
}
