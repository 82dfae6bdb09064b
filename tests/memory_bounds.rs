//! Every queue that a script can fill has a bound, an outcome that the script sees when it is
//! reached, and figures that tell of it.

#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use support::{Folder, node_lua, run};

#[test]
fn queries_that_wait_have_a_bound() {
    let folder = Folder::new();
    let file = folder.write(
        "asks.lua",
        "local main = ...
         local results = {}
         local function note(...) results[#results + 1] = { ... } end
         for i = 1, 3 do assert(context.query(main, i, note)) end
         for i = 1, 5 do
           local ok, code = context.query(main, 'too many', note)
           assert(not ok and code == 213, code)
         end
         local ok, code = context.query(main, 'too many')
         assert(not ok and code == 213 and context.strerror(213):find('queries'))
         local s = context.stat()
         assert(s.queries == 3 and s.queries_max == 3 and s.queries_peak == 3, s.queries)
         context.send(main, 'full')
         while #results < 3 do timer.sleep(0.001) end
         -- What was answered, and what was not delivered, makes room in the same turn.
         for i = 1, 9 do
           local ok, code = context.query(2 ^ 40 + 7, 'nobody')
           assert(not ok and code == 205, code)
         end
         local _, answer = context.query(main, 4)
         assert(answer == 40, answer)
         assert(context.stat().queries_peak == 3)
         print('good')",
    );
    let main = folder.write(
        "main.lua",
        "local h = context.create({ file = (...), queries = 3 }, context.self())
         local asked = {}
         for i = 1, 4 do
           local _, value, from, session = context.recv(h)
           if value ~= 'full' then asked[#asked + 1] = { from, session, value } end
         end
         for _, one in ipairs(asked) do context.reply(one[1], one[2], one[3] * 10) end
         local _, value, from, session = context.recv(h)
         context.reply(from, session, value * 10)
         context.wait(h)",
    );
    assert_eq!(run(node_lua().args([main, file])).succeeded().stdout, "good\n");
}

#[test]
fn mailboxes_have_a_bound() {
    let script = "local me, n = context.self(), 0
                  while context.send(me, n) do n = n + 1 end
                  local _, code = context.send(me, n)
                  local _, asked = context.query(me, n, print)
                  local s = context.stat()
                  print(n, code, asked, s.mailbox, s.mailbox_max, s.mailbox_peak)
                  for i = 1, n do assert(select(2, context.recv(me)) == i - 1) end
                  print(context.send(me, n), context.stat().mailbox_peak)";
    let done = run(node_lua().args(["--mailbox", "100", "-e", script])).succeeded();
    assert_eq!(done.stdout, "100\t209\t209\t100\t100\t100\ntrue\t100\n", "{done}");
}

/// Messages that hold nothing take some memory, too: a memory limit bounds how many wait, whatever
/// the option says.
#[test]
fn a_memory_limit_bounds_the_messages_in_a_mailbox() {
    let folder = Folder::new();
    let busy = folder.write("busy.lua", "while true do end");
    let script = format!(
        "for _, memory in ipairs {{ 2 ^ 24, 2 ^ 29 }} do
           local h = context.create({{ file = '{}', memory = memory, mailbox = 2 ^ 30 }})
           local count = 0
           while context.send(h, count) do count = count + 1 end
           print(count, context.stat(h).mailbox_max)
           context.destroy(h)
         end",
        busy.display()
    );
    let done = run(node_lua().args(["-e", &script])).succeeded();
    assert_eq!(done.stdout, "65536\t65536\n131072\t131072\n", "{done}");
}

#[test]
fn the_bytes_in_a_mailbox_have_a_bound() {
    let script = "local me = context.self()
                  for _, mail in ipairs {
                    ('x'):rep(2 ^ 20), buffer.new(('x'):rep(2 ^ 20)),
                    { ('x'):rep(2 ^ 19), buffer.new(('x'):rep(2 ^ 19)) },
                  } do
                    local n = 0
                    while context.send(me, mail) do n = n + 1 end
                    local s = context.stat()
                    assert(s.mailbox_bytes <= s.mailbox_bytes_max)
                    print(n, select(2, context.send(me, mail)), context.send(me, 1))
                    assert(n == 63 or s.mailbox_bytes == 2 ^ 26)
                    for i = 1, n + 1 do context.recv(me) end
                    print(context.stat().mailbox_bytes, s.mailbox_bytes_max == 2 ^ 26)
                    -- One that is larger than all is taken alone.
                    assert(context.send(me, ('x'):rep(2 ^ 27)))
                    context.recv(me)
                  end";
    let done = run(node_lua().args(["-e", script])).succeeded();
    let once = |n| format!("{n}\t209\ttrue\n0\ttrue\n");
    // A buffer has some room behind its content, and a table takes bytes beside what is in it.
    assert_eq!(done.stdout, [once(64), once(63), once(63)].concat(), "{done}");
    let script = "local me, n = context.self(), 0
                  while context.send(me, ('x'):rep(2 ^ 20)) do n = n + 1 end
                  print(n, context.stat().mailbox_bytes_max)";
    let done = run(node_lua().args(["--memory-limit", "8M", "-e", script])).succeeded();
    assert_eq!(done.stdout, "4\t4194304\n", "{done}");
}

#[test]
fn look_ups_of_names_have_a_bound() {
    let script = "local ok, l = tcp.listen('127.0.0.1', 0)
                  local port = tcp.local_port(l)
                  l:close()
                  local seen, n = {}, 0
                  for i = 1, 300 do
                    tcp.connect('localhost', port, function(ok, code)
                      code = ok and 'connected' or code
                      seen[code] = (seen[code] or 0) + 1
                      n = n + 1
                      if n < 300 then return end
                      print(seen[214], context.stat().lookups, context.strerror(214))
                      seen[214] = nil
                      for code, count in pairs(seen) do print(count) end
                      tcp.connect('localhost', port, function(ok, code) print(code == 214) end)
                    end)
                  end
                  timer.timeout(0.001, function() end)";
    let done = run(node_lua().args(["-e", script])).succeeded();
    let expected = "44\t0\ttoo many host names are being looked up\n256\nfalse\n";
    assert_eq!(done.stdout, expected, "{done}");
}

/// The system goes on with a look-up whose context has ended: those of all that a confined context
/// creates count together. Of a simulation's some take long.
#[test]
fn look_ups_of_the_confined_have_one_bound() {
    let folder = Folder::new();
    let file = folder.write(
        "child.lua",
        "local file, is_last = ...
         if not is_last then
           local refused = 0
           for _ = 1, 60 do
             local h = context.create(file, file, true)
             refused = refused + select(2, context.recv(h))
             context.wait(h)
           end
           return context.send(context.parent(), refused > 0)
         end
         local refused = 0
         for _ = 1, 200 do
           tcp.connect('localhost', 1, function(_, code)
             if code == 214 then refused = refused + 1 end
           end)
         end
         timer.timeout(0.001, function()
           context.send(context.parent(), refused)
           context.destroy()
         end)",
    );
    let main = folder.write(
        "main.lua",
        "local file, denied = ...
         local h = context.create({ file = file, deny = { denied } }, file)
         print((select(2, context.recv(h))))",
    );
    let has_refused = |denied: &[&str]| {
        let mut command = node_lua();
        command.args(["--simulate", "1", "--faults", "1"]).args([&main, &file]).args(denied);
        run(&mut command).succeeded().stdout
    };
    assert_eq!(has_refused(&["io"]), "true\n");
    assert_eq!(has_refused(&[]), "false\n");
}

#[test]
fn what_waits_to_be_accepted_has_a_bound() {
    let script = "local ok, l = tcp.listen('127.0.0.1', 0, 4)
                  local port = tcp.local_port(l)
                  local socks = {}
                  -- The system takes one more than the backlog.
                  for i = 1, 5 do socks[i] = select(2, tcp.connect('127.0.0.1', port, 20)) end
                  local s = l:stat()
                  print(s.backlog, s.backlog_max, s.accepted)
                  print(tcp.connect('127.0.0.1', port, 0.2))
                  for i = 1, 5 do socks[#socks + 1] = select(2, l:accept()) end
                  s = l:stat()
                  print(s.backlog, s.accepted)
                  l:close()
                  print(next(l:stat()))";
    let done = run(node_lua().args(["-e", script])).succeeded();
    assert_eq!(done.stdout, "5\t4\t0\nfalse\t208\n0\t5\nnil\n", "{done}");
}

#[test]
fn what_is_read_ahead_and_written_has_a_bound() {
    let script = "local ok, l = tcp.listen('127.0.0.1', 0)
         local ok, a = tcp.connect('127.0.0.1', tcp.local_port(l))
         local ok, b = l:accept()
         for _, sock in ipairs { a, b } do
           sock:set_rwopt({ read_head_bytes = 2, write_head_bytes = 2 })
         end
         a:set_write_limit(2 ^ 20)
         local body, sent, failed = ('x'):rep(1000), 0
         local function done(ok, code) if ok then sent = sent + 1 else failed = code end end
         -- One reads nothing but the first frame: the other fills the kernel, then its own queue.
         a:write(body, done)
         b:read()
         local n = 1
         while not failed do
           for i = 1, 100 do a:write(body, done) n = n + 1 end
           context.query(context.self(), 'turn', 0.001)
           local s = a:stat()
           assert(not s.write_queue_bytes or s.write_queue_bytes <= s.write_queue_max)
           assert(s.write_queue_high <= 2 ^ 20 and s.write_queue_max == 2 ^ 20)
           local s = b:stat()
           assert(s.read_buffered_bytes <= 65536, s.read_buffered_bytes)
           assert(n < 1e6)
         end
         print(failed, sent > 0, a:stat().write_queue_high > 2 ^ 19)
         l:close() a:close() b:close()";
    let done = run(node_lua().args(["-e", script])).succeeded();
    assert_eq!(done.stdout, "212\ttrue\ttrue\n", "{done}");
}

/// A large write counts before it is copied, and once: two of 12 MiB wait for a peer that does not
/// read where 28 MiB may, a third does not.
#[test]
fn large_writes_count_once() {
    let folder = Folder::new();
    let child = folder.write(
        "child.lua",
        "local ok, l = tcp.listen('127.0.0.1', 0)
         local ok, a = tcp.connect('127.0.0.1', tcp.local_port(l))
         local ok, b = l:accept()
         a:set_rwopt({ write_head_bytes = 4 })
         local body, failed = ('x'):rep(12 * 2 ^ 20)
         for i = 1, 3 do
           a:write(body, function(ok, code) failed = failed or code end)
           timer.sleep(0)
           print(failed, (a:stat().write_queue_bytes or 0) > 0)
         end
         l:close() a:close() b:close()",
    );
    let script = format!("context.create({{ file = '{}', memory = 2 ^ 25 }})", child.display());
    let done = run(node_lua().args(["-e", &script])).succeeded();
    assert_eq!(done.stdout, "nil\ttrue\nnil\ttrue\n212\tfalse\n", "{done}");
}

/// What a context with a memory limit has sent, and has not received, counts together, also for the
/// one message that an empty mailbox takes whatever its size.
#[test]
fn a_mailbox_takes_what_its_owner_may_hold_besides() {
    let folder = Folder::new();
    let limited = folder.write(
        "limited.lua",
        "local main, deaf = ...
         local alone
         context.query(main, 'small', function(ok, code) alone = not ok and code end)
         local text = ('x'):rep(2 ^ 20)
         local sent = 0
         while context.send(deaf, buffer.new(text)) do sent = sent + 1 end
         context.send(main, sent)
         while alone == nil do timer.sleep(0.001) end
         context.send(main, alone)
         context.send(deaf, 'more')
         timer.sleep(60)",
    );
    let deaf = folder.write("deaf.lua", "timer.sleep(60)");
    let main = folder.write(
        "main.lua",
        "local limited, deaf = ...
         local d = context.create(deaf)
         local h = context.create({ file = limited, memory = 2 ^ 24 }, context.self(), d)
         local _, _, from, session = context.recv(h)
         local _, sent = context.recv(h)
         print(sent > 8)
         local text = buffer.new(('y'):rep(10 * 2 ^ 20))
         print(context.send(h, text))
         print(context.reply(from, session, text))
         print((select(2, context.recv(h))))
         context.destroy(d)
         context.wait(d)
         print(context.send(h, text))
         print(context.send(h, text))
         print(context.send(h, { 'small' }))
         os.exit(0)",
    );
    let done = run(node_lua().env("RUST_LOG", "off").args([main, limited, deaf])).succeeded();
    let refused = "false\t209\n";
    let expected = format!("true\n{refused}{refused}209\ntrue\n{refused}{refused}");
    assert_eq!(done.stdout, expected, "{done}");
}

/// The first message that a full mailbox refuses is worth a warning, and not the thousandth.
#[test]
fn a_full_mailbox_is_warned_of_once() {
    let folder = Folder::new();
    let file = folder.write("sink.lua", "context.recv(1) context.recv(2 ^ 40)");
    let script = "context.name('source')
                  local h = context.create({ file = (...), name = 'sink', mailbox = 10 })
                  local refused = 0
                  for i = 1, 1000 do
                    local ok, code = context.send(h, i)
                    if not ok and code == 209 then refused = refused + 1 end
                  end
                  print(refused > 900)
                  context.destroy(h)";
    let main = folder.write("main.lua", script);
    let done = run(node_lua().args([main, file])).succeeded();
    assert_eq!(done.stdout, "true\n", "{done}");
    let warnings: Vec<&str> = done.stderr.lines().collect();
    let [warning] = warnings[..] else { panic!("{done}") };
    for part in
        ["context 2 (sink): its mailbox is full", "of context 1 (source) was refused", "209"]
    {
        assert!(warning.contains(part), "{part}: {done}");
    }
}

/// So is the first publication, or answer, that finds no room.
#[test]
fn refused_publications_and_answers_are_warned_of_once() {
    // Its turn lasts until the flag is there: nothing in its mailbox is looked at before.
    const SINK: &str = "
        local flag, kind = ...
        if kind == 'a publication' then
          context.subscribe('t', function() end)
          context.send(context.parent(), 'ready')
        else
          for i = 1, 10 do context.query(context.parent(), i, function() end) end
        end
        local file
        repeat file = io.open(flag) until file
        context.destroy()";
    const MAIN: &str = "
        local folder, kind = ...
        local flag = folder .. '/flag'
        context.name('source')
        local h = context.create({ file = folder .. '/sink.lua', name = 'sink', mailbox = 10,
          memory = 8 * 2 ^ 20 }, flag, kind)
        local refused = 0
        if kind == 'a publication' then
          context.recv(h)
          for i = 1, 100 do refused = refused + (select(3, context.publish('t', i)) or 0) end
        else
          local sessions = {}
          for i = 1, 10 do sessions[i] = select(4, context.recv(h)) end
          for i = 1, 10 do
            local ok, code = context.reply(h, sessions[i], ('x'):rep(2 ^ 20))
            if code == 209 then refused = refused + 1 end
          end
        end
        print(refused > 1)
        io.open(flag, 'w'):close()";
    for kind in ["a publication", "an answer"] {
        let folder = Folder::new();
        folder.write("sink.lua", SINK);
        let main = folder.write("main.lua", MAIN);
        let done = run(node_lua().arg(main).arg(folder.path("")).arg(kind)).succeeded();
        assert_eq!(done.stdout, "true\n", "{done}");
        let warnings: Vec<&str> = done.stderr.lines().collect();
        let [warning] = warnings[..] else { panic!("{done}") };
        let part = format!("{kind} of context 1 (source) was refused (209)");
        for part in ["context 2 (sink): its mailbox is full", &part] {
            assert!(warning.contains(part), "{part}: {done}");
        }
    }
}

/// The same for the other bounds.
#[test]
fn other_bounds_are_warned_of_once() {
    for (script, part) in [
        (
            "local h = context.create({ file = (...), queries = 3 })
             context.wait(h)",
            "too many of its queries wait for an answer (213): 3 at most",
        ),
        (
            "local ok, l = tcp.listen('127.0.0.1', 0)
             local socks = {}
             for i = 1, 3 do
               local ok, a = tcp.connect('127.0.0.1', tcp.local_port(l))
               local ok, b = l:accept()
               a:set_write_limit(1000)
               socks[i] = { a, b }
               for i = 1, 100 do
                 a:write(('x'):rep(2 ^ 20))
                 context.query(context.self(), 'turn', 0.001)
               end
             end
             l:close()",
            "a connection whose peer reads too slowly was ended (212)",
        ),
        (
            "for i = 1, 400 do tcp.connect('localhost', 1, function() end) end",
            "too many host names are being looked up (214)",
        ),
    ] {
        let folder = Folder::new();
        let asks = "for i = 1, 99 do context.query(context.parent(), i, 0.01, function() end) end";
        let (main, file) = (folder.write("main.lua", script), folder.write("asks.lua", asks));
        let done = run(node_lua().args([main, file])).succeeded();
        assert_eq!(done.stderr.matches(part).count(), 1, "{done}");
        assert_eq!(done.stderr.lines().count(), 1, "{done}");
    }
}

/// Answers to a context that has asked nothing are dropped at once, however many and large.
#[test]
fn answers_that_nobody_asked_for_are_dropped() {
    let script = "local me, text = context.self(), ('x'):rep(2 ^ 20)
                  for i = 1, 2000 do assert(context.reply(me, i, text)) end
                  for i = 1, 100000 do assert(context.reply(me, i, true)) end
                  print(context.stat().mailbox_bytes)
                  -- Those that are waited for arrive.
                  context.recv(me, function(_, value, from, session)
                    context.reply(from, session, value + 1)
                    context.recv(me, nil)
                  end)
                  print(context.query(me, 7))";
    let done = run(node_lua().args(["-e", script])).succeeded();
    assert_eq!((done.stdout.as_str(), done.stderr.as_str()), ("0\ntrue\t8\n", ""), "{done}");
}

/// Lua: the most MiB that the process has held so far.
const PEAK: &str = "
local function peak()
  local file = io.open '/proc/self/status'
  local all = file:read '*a'
  file:close()
  return tonumber(all:match 'VmHWM:%s+(%d+)') / 1024
end
";

/// What the receiver has no room for is not made: neither an answer nor a message.
#[test]
fn what_is_refused_for_its_size_is_not_copied_before() {
    let folder = Folder::new();
    let asks = folder.write(
        "asks.lua",
        "local main = ...
         print('asked', context.query(main, 'table'))
         print('asked', context.query(main, 'text'))
         context.send(main, 'over')",
    );
    let main = folder.write(
        "main.lua",
        PEAK.to_owned()
            + "local values = { table = {}, text = ('y'):rep(60 * 2 ^ 20) }
         for i = 1, 60 do values.table[i] = ('x'):rep(2 ^ 20) end
         collectgarbage()
         local before = peak()
         local h = context.create({ file = (...), memory = 8 * 2 ^ 20 }, context.self())
         for _ = 1, 2 do
           local _, which, from, session = context.recv(h)
           print('message', context.send(h, values[which]))
           print('answer', context.reply(from, session, values[which]))
         end
         context.recv(h)
         context.wait(h)
         local grown = peak() - before
         print(grown < 30 or grown)",
    );
    let done = run(node_lua().env("RUST_LOG", "off").args([main, asks])).succeeded();
    let mut lines: Vec<_> = done.stdout.lines().collect();
    assert_eq!(lines.pop(), Some("true"), "{done}");
    // The asker prints beside who answers.
    lines.sort_unstable();
    let each = ["answer\tfalse\t209", "asked\tfalse\t209", "message\tfalse\t209"];
    assert_eq!(lines, each.map(|line| [line; 2]).concat(), "{done}");
}

/// By how many MiB the process grows at most while contexts with a limit of 24 MiB run a script,
/// one after the other; it is given a port where a peer reads nothing.
fn growth(script: &str, times: usize) -> u64 {
    let folder = Folder::new();
    let child = folder.write("child.lua", script);
    let main = folder.write(
        "main.lua",
        PEAK.to_owned()
            + "local child, times = ...
         local _, listener = tcp.listen('127.0.0.1', 0)
         local before, kept = peak(), {}
         listener:accept(function(_, sock) kept[#kept + 1] = sock end)
         for _ = 1, times do
           local options = { file = child, memory = 24 * 2 ^ 20 }
           context.wait(context.create(options, listener:local_port()))
         end
         print(math.floor(peak() - before))
         os.exit(0)",
    );
    let times = times.to_string();
    let done = run(node_lua().env("RUST_LOG", "off").args([main, child]).arg(times));
    done.stdout.trim().parse().unwrap()
}

/// Bodies that scripts send piece by piece, to who does not read, count with what they wait in.
#[cfg(feature = "http")]
#[test]
fn what_is_sent_in_small_pieces_has_a_bound() {
    let script = "local url, given, ended = 'http://127.0.0.1:' .. ..., 0, 0
        local function body()
          given = given + 1
          if given == 3e6 then context.destroy() end
          return 'x'
        end
        for _ = 1, 40 do
          context.run(function()
            http.request({ url = url, method = 'POST', body = body })
            ended = ended + 1
            if ended == 40 then context.destroy() end
          end)
        end";
    let grown = growth(script, 1);
    assert!(grown <= 2 * 24 + 16, "{grown} MiB");
}

/// What contexts have written and not sent when they end is bounded, however many there were.
#[test]
fn what_ended_contexts_leave_has_a_bound() {
    let script = "local port = ...
        local text = ('x'):rep(6 * 2 ^ 20)
        for _ = 1, 2 do
          local _, sock = tcp.connect('127.0.0.1', port)
          sock:write(buffer.new(text))
        end";
    // 128 MiB, and of one context twice the limit and 16 MiB.
    let grown = growth(script, 50);
    assert!(grown <= 128 + 2 * 24 + 16, "{grown} MiB");
}

/// Finalisers that run when a context ends are no way beyond its limit.
#[test]
fn finalisers_at_the_end_have_a_bound() {
    let script = "kept = newproxy(true)
        getmetatable(kept).__gc = function()
          local t = {}
          for i = 1, 300 do t[i] = { ('x'):rep(2 ^ 20) .. i, buffer.new(('y'):rep(2 ^ 20)) } end
        end
        local function make()
          more = {}
          for i = 1, 100 do
            more[i] = newproxy(true)
            getmetatable(more[i]).__gc = make
          end
        end
        make()";
    let grown = growth(script, 3);
    assert!(grown <= 2 * 24 + 16, "{grown} MiB");
}
