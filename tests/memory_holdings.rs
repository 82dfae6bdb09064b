//! What a context with a memory limit holds outside of its VM: blocks that views keep, messages
//! that nobody has received yet, write queues, what was read ahead, timers, names, texts. What is
//! held is never more than twice the limit, and freed memory beside it is little.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "tests")]

mod support;

use std::time::Instant;

use support::{Done, Folder, node_lua, repository, run};

/// The limit of the context under test, in MiB.
const LIMIT: u64 = 16;

/// What may come on top of twice the limit: other contexts of the test, and the allocator's.
const SLACK: u64 = 16;

/// Names, and what a context with a limit does; `peer` is a context without one that takes what it
/// is sent and answers nothing, `port` and `path` are where a peer accepts connections and, as the
/// case says, reads nothing or writes much.
const CASES: &[(&str, &str)] = &[
    (
        "slices",
        "local keep = {}
         for i = 1, 300 do
           local b = buffer.new(2 ^ 20) b:append(('x'):rep(2 ^ 20))
           keep[i] = b:slice(0, 1000) b:release()
         end",
    ),
    (
        "large_slices",
        "local keep = {}
         for i = 1, 300 do
           local b = buffer.new(2 ^ 20) b:append(('x'):rep(2 ^ 20))
           keep[i] = b:slice(0, 2 ^ 18) b:release()
         end",
    ),
    (
        "split_off",
        "local keep = {}
         for i = 1, 300 do
           local b = buffer.new(2 ^ 20) b:append(('x'):rep(2 ^ 20))
           keep[i] = b:split(1000 + i * 500) b:release()
         end",
    ),
    (
        "rests_of_splits",
        "local keep = {}
         for i = 1, 300 do
           local b = buffer.new(2 ^ 20) b:append(('x'):rep(2 ^ 20))
           for _ = 1, 100 do b:split(10000) end
           keep[i] = b
         end",
    ),
    (
        "views_sent_to_oneself",
        "local keep = {}
         for i = 1, 300 do
           local b = buffer.new(2 ^ 20) b:append(('x'):rep(2 ^ 20))
           context.send(context.self(), { b:slice(0, 1000), b:slice(5000, 300000) })
           b:release()
           keep[i] = select(2, context.recv(0))
         end",
    ),
    (
        "strings_nobody_receives",
        "local s = ('x'):rep(2 ^ 20)
         for i = 1, 300 do context.send(peer, s .. i) timer.sleep(0.001) end",
    ),
    (
        "tables_nobody_receives",
        "local t = {} for i = 1, 1e5 do t[i] = i + 0.5 end
         for i = 1, 200 do context.send(peer, t) timer.sleep(0.001) end",
    ),
    (
        "buffers_nobody_receives",
        "for i = 1, 300 do
           context.send(peer, buffer.new(('x'):rep(2 ^ 20))) timer.sleep(0.001)
         end",
    ),
    (
        "questions_nobody_answers",
        "local s = ('x'):rep(2 ^ 20)
         for i = 1, 300 do
           context.query(peer, s .. i, function() end) timer.sleep(0.001)
         end",
    ),
    (
        "answers_nobody_asked_for",
        "local s = ('x'):rep(2 ^ 20)
         for i = 1, 600 do context.reply(peer, 1000000 + i, s .. i) end",
    ),
    (
        "a_peer_that_does_not_read",
        "local keep, s = {}, ('x'):rep(2 ^ 20)
         for i = 1, 30 do
           keep[i] = select(2, tcp.connect('127.0.0.1', port))
           for _ = 1, 20 do keep[i]:write(s) end
           timer.sleep(0.001)
         end",
    ),
    (
        "buffers_to_a_peer_that_does_not_read",
        "local keep = {}
         for i = 1, 30 do
           keep[i] = select(2, tcp.connect('127.0.0.1', port))
           for _ = 1, 20 do keep[i]:write(buffer.new(('x'):rep(2 ^ 20))) end
           timer.sleep(0.001)
         end",
    ),
    (
        "frames_kept",
        "local s = select(2, tcp.connect('127.0.0.1', noisy))
         s:set_rwopt { read_head_bytes = 2 }
         local keep = {}
         for i = 1, 60000 do
           local ok, frame = s:read(5)
           if not ok then break end
           if i % 60 == 0 then keep[#keep + 1] = frame end
         end",
    ),
    (
        "frames_begun",
        "local keep = {}
         for i = 1, 300 do
           local s = select(2, tcp.connect('127.0.0.1', noisy))
           s:set_rwopt { read_head_bytes = 4 }
           keep[i] = s
           s:read(function() end)
         end
         timer.sleep(0.5)
         context.destroy()",
    ),
    (
        "a_frame_longer_than_the_limit",
        "local s = select(2, tcp.connect('127.0.0.1', noisy))
         s:set_rwopt { read_head_bytes = 4, read_head_max = 2 ^ 31 - 1 }
         local ok, code = s:read(20)
         context.log(ok, code)",
    ),
    (
        "timers",
        "local f = function() end
         for i = 1, 3e6 do timer.timeout(3600, f) end",
    ),
    (
        "small_messages_nobody_receives",
        "for i = 1, 100 do
           local t = {}
           for k = 1, 65536 do t[k] = context.send(peer, k) end
         end",
    ),
    (
        "the_same_over_and_over_in_a_table",
        "local t, s, b = {}, ('x'):rep(2 ^ 19), buffer.new('small')
         for i = 1, 120 do t[i] = s end
         for i = 1, 20 do assert(select(2, context.send(peer, t)) == 209) end
         local t = {}
         for i = 1, 2e5 do t[i] = b end
         for i = 1, 20 do context.send(peer, t) end",
    ),
    (
        "publications_nobody_receives",
        "context.subscribe('t', function() end)
         local s = ('x'):rep(2 ^ 20)
         for i = 1, 300 do context.publish('t', s .. i) end
         for i = 1, 3e5 do context.publish('t', i) end
         context.destroy()",
    ),
    (
        "answers_nobody_reads",
        "local s = ('x'):rep(2 ^ 19)
         for i = 1, 300 do context.query(echo, s .. i, function() end) end
         local till = os.clock() + 0.5
         while os.clock() < till do context.query(echo, s .. till, function() end) end
         context.destroy()",
    ),
    (
        "reasons_of_ends_that_nobody_hears",
        "local s = ('x'):rep(65536)
         for i = 1, 1500 do
           local h = context.create(waiting)
           context.monitor(h, function() end)
           context.destroy(h, s)
           while context.stat(h) do end
         end
         context.destroy()",
    ),
    (
        "subscriptions_of_many_words",
        "for i = 1, 4000 do
           context.subscribe(i .. ('.a'):rep(100) .. i, function() end)
         end
         context.destroy()",
    ),
    (
        "names",
        "for i = 1, 2000 do context.register(('n'):rep(240) .. i) end
         context.destroy()",
    ),
    (
        "arguments_of_contexts_that_have_not_started",
        "local s = ('x'):rep(2 ^ 20)
         local options = { file = ended, worker = context.thread() }
         for i = 1, 100 do pcall(context.create, options, s .. i) end
         s = ('x'):rep(6 * 2 ^ 20)
         local ok, why = pcall(context.create, options, s, s, s)
         assert(not ok and why:find('no memory for its arguments', 1, true), why)
         context.destroy()",
    ),
    (
        "texts_in_the_log",
        "local s = ('\\1'):rep(2 ^ 22)
         for i = 1, 20 do context.log(s) context.run(error, s .. i) timer.sleep(0.001) end",
    ),
    (
        "staged_on_many_sockets",
        "local keep, s = {}, ('x'):rep(250000)
         for i = 1, 200 do keep[i] = select(2, tcp.connect('127.0.0.1', port)) end
         for i = 1, 200 do keep[i]:write('y') end
         for i = 1, 200 do keep[i]:write(s) end
         timer.sleep(0.001)",
    ),
    (
        "one_text_printed_over_and_over",
        "local ffi = require 'ffi'
         ffi.cdef 'int dup(int); int dup2(int, int); int open(const char *, int);'
         local null, output, errors = ffi.C.open('/dev/null', 1), ffi.C.dup(1), ffi.C.dup(2)
         ffi.C.dup2(null, 1) ffi.C.dup2(null, 2)
         local s = ('x'):rep(2 ^ 20)
         local t = { true }
         for i = 2, 300 do t[i] = s end
         print(unpack(t))
         io.write(unpack(t, 2))
         io.stderr:write(unpack(t, 2))
         pcall(io.stderr.write, io.stderr, unpack(t))
         local file = io.open('/dev/null', 'w')
         file:write(unpack(t, 2))
         t[300] = setmetatable({}, { __tostring = function() error() end })
         pcall(print, unpack(t))
         context.log(unpack(t, 2, 3))
         _G.tostring = function() return s end
         for i = 1, 300 do t[i] = i end
         print(unpack(t))
         io.flush()
         ffi.C.dup2(output, 1) ffi.C.dup2(errors, 2)",
    ),
    (
        "one_text_as_every_argument",
        "local s, t = ('x'):rep(2 ^ 20), {}
         for i = 1, 7000 do t[i] = s end
         local ok, why = pcall(context.create, ended, unpack(t))
         assert(not ok and why:find('no memory for its arguments', 1, true), why)
         for i = 1, 7000 do t[i] = { s, s, s, s } end
         local ok, why = pcall(context.create, ended, unpack(t))
         assert(not ok and why:find('no memory for its arguments', 1, true), why)",
    ),
    (
        "paths_of_contexts_that_have_not_started",
        "package.path, package.cpath = ('?;'):rep(2 ^ 19), ('?;'):rep(2 ^ 19)
         local options = { file = ended, worker = context.thread() }
         for i = 1, 200 do pcall(context.create, options) end
         context.destroy()",
    ),
    (
        "long_names_of_files",
        "local s = ('x'):rep(2 ^ 20)
         for i = 1, 400 do
           local ok, why = pcall(context.create, '/' .. s .. i)
           assert(not ok and why:find('file name of at most 4095 bytes expected', 1, true), why)
           pcall(context.create, { file = '/' .. s .. i })
           pcall(context.create, '/' .. ('y/'):rep(2000) .. i)
         end
         timer.sleep(0.1)",
    ),
    (
        "functions_in_c_inside_each_other",
        "local function nest(level)
           local function deepen()
             local ok = pcall(string.gsub, 'a', 'a', deepen)
             if not ok and level < 6 then
               level = level + 1
               coroutine.wrap(nest)(level)
             end
           end
           pcall(deepen)
         end
         nest(1)
         local called
         setmetatable(_G, { __index = function(_, k) if k == 'tostring' then called() end end })
         tostring, called = nil, function() print() end
         pcall(print)",
    ),
    (
        "open_files",
        "local files = {}
         for i = 1, 15000 do
           local file = io.open('/dev/zero')
           if not file then break end
           file:read(1)
           files[i] = file
         end",
    ),
    (
        "datagrams_of_many_sockets",
        "local keep, s = {}, ('x'):rep(4000)
         for i = 1, 600 do
           keep[i] = select(2, udp.open('127.0.0.1', 0))
           for _ = 1, 60 do keep[i]:write(s, '127.0.0.1', 9) end
           timer.sleep(0)
         end",
    ),
    (
        "notices_of_writes",
        "local _, listener = tcp.listen('127.0.0.1', 0)
         local keep, s, n = {}, ('x'):rep(500000), 0
         local function count() n = n + 1 end
         for i = 1, 60 do
           local _, sock = tcp.connect('127.0.0.1', listener:local_port())
           local _, other = listener:accept()
           keep[i] = { sock, other }
           repeat sock:write(s) timer.sleep(0) until sock:stat().write_queue_bytes > 0
           for _ = 1, 20000 do sock:write('x', count) end
           timer.sleep(0)
           other:read(function() end)
           while sock:stat().write_queue_bytes > 0 do timer.sleep(0.001) end
         end",
    ),
    (
        "tls_configurations",
        "local keep = {}
         for i = 1, 20000 do
           keep[i] = select(2, tls.client { verify = false, alpn = { 'p' .. i, ('x'):rep(200) } })
         end",
    ),
    (
        "tls_handshakes_begun",
        "local _, server = tls.server { cert = certificate }
         local _, listener = tcp.listen('127.0.0.1', 0)
         local hello = '\\1\\0\\253\\232\\3\\3' .. ('r'):rep(60000)
         local records = {}
         for i = 1, 4 do
           records[i] = '\\22\\3\\1\\58\\152' .. hello:sub(i * 15000 - 14999, i * 15000)
         end
         records = table.concat(records)
         local keep = {}
         listener:accept(function(_, sock)
           keep[#keep + 1] = sock
           sock:start_tls(server, nil, 20)
         end)
         for i = 1, 1500 do
           local _, sock = tcp.connect('127.0.0.1', listener:local_port())
           sock:write(records)
           keep[#keep + 1] = sock
           timer.sleep(0)
         end
         timer.sleep(0.2)
         context.destroy()",
    ),
    (
        "http_answers_to_who_does_not_read",
        "local big = ('x'):rep(4 * 2 ^ 20)
         local _, server = http.serve('127.0.0.1', 0, { body_rate = 0 }, function(req, res)
           return 200, {}, big
         end)
         local request = 'GET / HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n'
         context.send(attacker, { port = server:port(), count = 200, data = request:rep(5) })
         timer.sleep(1)
         context.destroy()",
    ),
    (
        "http_heads_of_answers",
        "local value = ('x'):rep(2 ^ 20)
         local _, server = http.serve('127.0.0.1', 0, { body_rate = 0 }, function(req, res)
           for i = 1, 20 do if not pcall(res.header, res, 'h' .. i, value) then break end end
           timer.sleep(10)
         end)
         local request = 'GET / HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n'
         context.send(attacker, { port = server:port(), count = 60, data = request })
         timer.sleep(1)
         context.destroy()",
    ),
    (
        "http_heads_that_do_not_come_whole",
        "local options = { head_bytes = 2 ^ 20, headers = 10000 }
         local _, server = http.serve('127.0.0.1', 0, options, function() return 200 end)
         local data = 'GET / HTTP/1.1\\r\\nHost: x\\r\\nA: ' .. ('x'):rep(1000000)
         context.send(attacker, { port = server:port(), count = 300, data = data })
         timer.sleep(1)
         context.destroy()",
    ),
    (
        "http_requests_with_many_headers",
        "local options = { head_bytes = 2 ^ 20, headers = 10000, http2 = true }
         local _, server = http.serve('127.0.0.1', 0, options, function() timer.sleep(10) end)
         local all = {}
         for i = 1, 9000 do all[i] = 'a' .. i .. ': b\\r\\n' end
         local data = 'GET / HTTP/1.1\\r\\nHost: x\\r\\n' .. table.concat(all) .. '\\r\\n'
         context.send(attacker, { port = server:port(), count = 300, data = data })
         timer.sleep(1)
         local frames = { 'PRI * HTTP/2.0\\r\\n\\r\\nSM\\r\\n\\r\\n\\0\\0\\0\\4\\0\\0\\0\\0\\0' }
         for i = 1, 199, 2 do
           frames[#frames + 1] = '\\0\\7\\15\\1\\5\\0\\0\\0' .. string.char(i)
             .. '\\130\\134\\132\\65\\1x\\64\\2aa\\1b' .. ('\\190'):rep(1796)
         end
         context.send(attacker, { port = server:port(), count = 60, data = table.concat(frames) })
         timer.sleep(1)
         context.destroy()",
    ),
    (
        "http_pieces_of_bodies_kept",
        "local keep = {}
         local _, server = http.serve('127.0.0.1', 0, { body_rate = 0 }, function(req, res)
           for piece in req.chunks do if #piece < 15000 then keep[#keep + 1] = piece end end
           return 200, {}, ''
         end)
         local _, sock = tcp.connect('127.0.0.1', server:port())
         sock:write('POST / HTTP/1.1\\r\\nHost: x\\r\\nContent-Length: 1000000000\\r\\n\\r\\n')
         local large, small = buffer.new(('x'):rep(131072)), buffer.new(('x'):rep(5000))
         for i = 1, 1500 do
           sock:write(large, true) timer.sleep(0) sock:write(small, true) timer.sleep(0)
         end
         context.destroy()",
    ),
    (
        "http_requests_of_many_clients",
        "local value, list, held = ('x'):rep(60000), {}, {}
         for i = 1, 2000 do list[i] = value end
         local url = 'http://127.0.0.1:' .. port
         for i = 1, 200 do
           context.run(function() pcall(http.get, url, { headers = { a = list } }) end)
           context.run(function() http.get(url .. i) end)
           context.run(function() http.post(url, buffer.new(value)) end)
         end
         timer.sleep(1)
         context.destroy()",
    ),
    (
        "http_answers_kept",
        "local lines = {}
         for i = 1, 95 do lines[i] = 'a' .. i .. ': ' .. ('b'):rep(1200) .. '\\r\\n' end
         local head = 'HTTP/1.1 200 OK\\r\\nContent-Length: 100000\\r\\n'
         head = head .. table.concat(lines) .. '\\r\\n' .. ('c'):rep(50000)
         local _, listener = tcp.listen('127.0.0.1', 0)
         listener:accept(function(_, sock)
           sock:read_until('\\r\\n\\r\\n') sock:write(head) sock:read()
         end)
         local keep, url = {}, 'http://127.0.0.1:' .. listener:local_port()
         for i = 1, 700 do
           local ok, res = http.get(url)
           if not ok then break end
           keep[i] = res
         end
         context.destroy()",
    ),
    (
        "http_connections_to_many_servers",
        "local keep, answer = {}, 'HTTP/1.1 200 OK\\r\\nContent-Length: 0\\r\\n\\r\\n'
         for i = 1, 1000 do
           local _, listener = tcp.listen('127.0.0.1', 0)
           if not listener then break end
           listener:accept(function(_, sock)
             keep[#keep + 1] = sock
             sock:read_until('\\r\\n\\r\\n') sock:write(answer)
           end)
           if not http.get('http://127.0.0.1:' .. listener:local_port()) then break end
         end
         context.destroy()",
    ),
    (
        "one_object_in_each_page",
        "local keep = {}
         for length = 30, 900, 30 do
           local t = {}
           for i = 1, 6e6 / (length + 50) do t[i] = ('s'):rep(length) .. i end
           for i = 1, #t do if i % (16000 / length) >= 1 then t[i] = nil end end
           keep[#keep + 1] = t
           collectgarbage()
         end",
    ),
];

/// Runs `fuzz/holdings.lua`: what it says of the limit and the growth, both in MiB.
fn grow(arguments: &[&str], log: &str) -> (u64, u64, Done) {
    let mut command = node_lua();
    command.arg(repository("fuzz/holdings.lua")).args(arguments);
    let done = run(command.env("RUST_LOG", log)).succeeded();
    let words: Vec<_> = done.stdout.split_whitespace().skip(1).collect();
    let [limit, growth, ..] = words[..] else { panic!("{done}") };
    (limit.parse().unwrap(), growth.parse().unwrap(), done)
}

#[test]
fn the_process_grows_by_no_more_than_is_allowed() {
    let mut wrong = Vec::new();
    let has = |name: &str| {
        let is_there = |feature: bool, start: &str| feature || !name.starts_with(start);
        is_there(cfg!(feature = "tls"), "tls") && is_there(cfg!(feature = "http"), "http")
    };
    for (name, script) in CASES.iter().filter(|(name, _)| has(name)) {
        let folder = Folder::new();
        let ended = folder.write("ended.lua", "");
        let waiting = folder.write("waiting.lua", "timer.sleep(60)");
        let certificate = repository("examples/localhost.pem");
        let names = format!(
            "local peer, port, noisy, echo, attacker = ...
             local ended, waiting, certificate = {ended:?}, {waiting:?}, {certificate:?}\n"
        );
        let case = folder.write("case.lua", names + script);
        let arguments = [case.to_str().unwrap(), &LIMIT.to_string()];
        let (_, growth, done) = grow(&arguments, "info");
        println!("{name}: {}", done.stdout.trim_end());
        if growth > 2 * LIMIT + SLACK {
            wrong.push(format!("{name}: {done}"));
        } else if done.stdout.contains("error") {
            wrong.push(format!("{name} is wrong itself: {done}"));
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

/// What calls need while they read or write a text counts like what they return.
#[cfg(all(feature = "json", feature = "msgpack"))]
#[test]
fn what_is_read_and_written_counts_too() {
    const LIMIT: u64 = 128;
    const LONG: &str = "local function long(head, letter, tail)
           local b, million = buffer.new(121e6), letter:rep(1e6)
           b:append(head)
           for i = 1, 118 do b:append(million) end
           b:append(tail)
           return b
         end ";
    for (name, script) in [
        ("escapes", "pcall(json.decode, long([[\"\\n]], 'y', [[\\q]]), most)"),
        ("no text", "pcall(msgpack.decode, long('\\219\\7\\8\\137\\128', '\\255', ''), most)"),
        ("lossy", "pcall(json.encode, ('\\255'):rep(1e6):rep(62), most_lossy)"),
        (
            "sorted",
            "local t = {}
             for i = 1, 2 ^ 23 do t[i] = true end
             pcall(json.encode, json.object(t), { sort_keys = true, max_bytes = 100 })",
        ),
    ] {
        let folder = Folder::new();
        // What waits elsewhere takes the rest of what is allowed.
        let before = "local most = { max_bytes = 2 ^ 31 - 1024 }
             local most_lossy = { max_bytes = 1e6, invalid_utf8 = 'replace' }
             local deaf, text = ..., ('m'):rep(2 ^ 20)
             while context.send(deaf, text) do end
             while context.send(context.self(), text) do end
             collectgarbage() ";
        let case = folder.write("case.lua", [LONG, before, script].concat());
        let (_, growth, done) = grow(&[case.to_str().unwrap(), &LIMIT.to_string()], "info");
        println!("{name}: {}", done.stdout.trim_end());
        // All that may wait outside, and the VM.
        assert!(growth <= LIMIT * 15 / 8, "{name}: {done}");
        assert!(!done.stdout.contains("error"), "{name}: {done}");
    }
}

/// What stays keeps pages that hold little else, which are of no use to what is longer; and of many
/// messages that unpack to much at a time counts what each has come to.
#[test]
fn what_lies_between_and_what_is_being_unpacked_counts_too() {
    let unpacking = cfg!(feature = "websocket").then_some(("unpacking", "64"));
    for (script, limit) in [("lying_between", "128")].into_iter().chain(unpacking) {
        let case = repository(&format!("tests/lua/support/{script}.lua"));
        let (limit, growth, done) = grow(&[case.to_str().unwrap(), limit], "info");
        assert!(growth <= 2 * limit + SLACK && !done.stdout.contains("error"), "{done}");
    }
}

/// Random programs, see `fuzz/holdings.lua`; `HOLDINGS_SECONDS` for longer, `HOLDINGS_SEED` to
/// begin with another one.
#[test]
fn random_programs_hold_no_more_than_is_allowed() {
    let number = |name| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let first = number("HOLDINGS_SEED").unwrap_or(1);
    let seconds = number("HOLDINGS_SECONDS");
    let began = Instant::now();
    let wanted = |seed| match seconds {
        Some(seconds) => began.elapsed().as_secs() < seconds,
        None => seed < first + 8,
    };
    for seed in (first..).take_while(|&seed| wanted(seed)) {
        let (limit, growth, done) = grow(&[&seed.to_string()], "off");
        assert!(growth <= 2 * limit + SLACK, "{done}");
    }
}
