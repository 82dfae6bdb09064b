//! What servers answer costs clients no more than it is long; what clients keep has bounds, and the
//! time of handlers has none.
#![cfg(feature = "http")]
#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::Stdio;
use std::thread;
use std::time::Instant;

use support::{Folder, PATIENCE, node_lua, run};

/// Where each of these took time that grew with the square of its length, or more, one of them was
/// minutes.
#[test]
fn redirects_cost_no_more_than_they_are_long() {
    let script = "local _, listener = tcp.listen('127.0.0.1', 0)
         local answers, at = {
           { '/' .. ('a'):rep(60000), 'b' },
           { '/' .. ('a/'):rep(30000), '../b' },
           { '/' .. ('../'):rep(20000) },
           { 'http://' .. ('1'):rep(100000) .. ']/' },
           { 'http://[' .. ('1'):rep(100000) .. ']:' .. ('1'):rep(20000) .. 'x/' },
           { 'http://' .. ('@'):rep(100000) .. '/' },
           { '//' .. ('a:'):rep(50000) },
           { ('#'):rep(100000) },
           { '?' .. ('?'):rep(60000) },
           { (' '):rep(60000) .. 'x' },
         }
         listener:accept(function(_, sock)
           while sock:read_until('\\r\\n\\r\\n', 2 ^ 18) do
             local to = table.remove(at, 1)
             local head = to and '302 Found\\r\\nLocation: ' .. to or '200 OK'
             sock:write('HTTP/1.1 ' .. head .. '\\r\\nContent-Length: 0\\r\\n\\r\\n')
           end
         end)
         local url = 'http://127.0.0.1:' .. listener:local_port() .. '/'
         for i, all in ipairs(answers) do
           at = all
           local ok, res = http.get(url, { timeout = 60 })
           print(i, ok and res.status or 'refused')
         end
         listener:close()
         os.exit(0)";
    let done = run(node_lua().args(["--turn-limit", "10", "-e", script])).succeeded();
    assert_eq!(done.stdout.lines().count(), 10, "{done}");
    assert!(done.stdout.starts_with("1\t200\n2\t200\n"), "{done}");
}

/// Of those that are kept for other servers, too.
#[test]
fn connections_that_are_kept_have_a_bound() {
    let script = "local listeners, open, most = {}, 0, 0
         local answer = 'HTTP/1.1 200 OK\\r\\nContent-Length: 0\\r\\n\\r\\n'
         for i = 1, 150 do
           local _, listener = tcp.listen('127.0.0.1', 0)
           listeners[i] = 'http://127.0.0.1:' .. listener:local_port()
           listener:accept(function(_, sock)
             open = open + 1
             most = math.max(most, open)
             while sock:read_until('\\r\\n\\r\\n') do sock:write(answer) end
             open = open - 1
           end)
         end
         local function get(i)
           assert(select(2, assert(http.get(listeners[i]))):text() == '')
         end
         for _ = 1, 3 do for i = 1, 150 do get(i) timer.sleep(0) end end
         assert(most <= 70, most)
         local before = open
         for _ = 1, 20 do get(150) end
         -- What is not sent after all leaves no connection behind.
         local wrong = { headers = { [''] = '' } }
         for _ = 1, 20 do assert(not pcall(http.get, listeners[150], wrong)) end
         for _ = 1, 20 do assert(not pcall(http.get, listeners[1], wrong)) end
         while open > 65 do timer.sleep(0.001) end
         print('good')
         os.exit(0)";
    let done = run(node_lua().args(["-e", script])).succeeded();
    assert_eq!(done.stdout, "good\n", "{done}");
}

/// More than a map of headers has room for.
#[test]
fn too_many_headers_are_an_error() {
    let script = "local many, list = {}, {}
         for i = 1, 40000 do many['a' .. i], list[i] = 'b', 'b' end
         local kind
         local _, server = http.serve('127.0.0.1', 0, function(req, res)
           if kind == 1 then return 200, many, '' end
           if kind == 2 then return 200, { a = list }, '' end
           if kind == 3 then return 200, many, function() end end
           for name, value in pairs(many) do res:header(name, value) end
         end)
         local url = 'http://127.0.0.1:' .. server:port()
         for i = 1, 4 do
           kind = i
           print(select(2, http.get(url)).status)
         end
         for _, headers in ipairs { many, { a = list } } do
           local ok, why = pcall(http.get, url, { headers = headers })
           print(ok, (why:find('at most 4096 headers', 1, true)) ~= nil)
         end
         context.destroy()";
    let done = run(node_lua().args(["-e", script])).succeeded();
    assert_eq!(
        done.stdout,
        format!("{}{}", "500\n".repeat(4), "false\ttrue\n".repeat(2)),
        "{done}"
    );
}

/// Frames that ask for an answer each, on many connections at once: a turn does not deal with all
/// of them, and whatever else its context waits for comes in between.
#[test]
fn no_flood_of_small_frames_keeps_a_context_from_its_timers() {
    let script = "local _, server = http.serve('127.0.0.1', 0, { http2 = true }, print)
         print(server:port())
         io.flush()
         for _ = 1, 30 do timer.sleep(0.001) end
         print('good')
         os.exit(0)";
    let mut child = node_lua().args(["-e", script]).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let port: u16 = lines.next().unwrap().unwrap().parse().unwrap();
    let mut pings = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".to_vec();
    let head = pings.len();
    pings.extend(b"\0\0\x08\x06\0\0\0\0\0abcdefgh".repeat(60_000));
    let connect = || TcpStream::connect(("127.0.0.1", port)).ok();
    let mut all: Vec<(TcpStream, usize)> = (0..150).filter_map(|_| Some((connect()?, 0))).collect();
    all.iter().for_each(|(stream, _)| stream.set_nonblocking(true).unwrap());
    let said = thread::spawn(move || lines.next());
    let mut block = vec![0; 1 << 16];
    // It took minutes.
    let began = Instant::now();
    while !said.is_finished() && began.elapsed() < PATIENCE {
        for (stream, sent) in &mut all {
            while matches!(stream.read(&mut block), Ok(1..)) {}
            if let Ok(count) = stream.write(&pings[*sent..]) {
                *sent += count;
                if *sent == pings.len() {
                    *sent = head;
                }
            }
        }
    }
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(said.join().unwrap().unwrap().unwrap(), "good");
}

/// The rate of a body is looked at while somebody waits for it, and not afterwards.
#[test]
fn a_handler_may_take_its_time_when_it_has_waited_for_a_body() {
    let script = "
        local function handle(req)
            if req.path == '/later' then
                req:read(0.1)
                timer.sleep(30)
            end
            local text = req:text()
            timer.sleep(30)
            return 200, nil, text
        end
        local server = context.check(http.serve('127.0.0.1', 80, handle))
        for _, path in ipairs { '/', '/later' } do
            local n = 0
            local function body()
                n = n + 1
                timer.sleep(0.5)
                return n < 4 and 'piece' or nil
            end
            local url = 'http://127.0.0.1' .. path
            local res = context.check(http.post(url, body, { proxy = false }))
            print(res.status, res:text())
        end
        server:close(0)";
    let done = run(node_lua().args(["--simulate", "1", "-e", script])).succeeded();
    assert_eq!(done.stdout, "200\tpiecepiecepiece\n".repeat(2), "{done}");
}

/// A piece that a context has no room for is refused, and nothing that the script goes on with may
/// pass for what follows it: the client finds the answer cut off, and the log says why.
#[test]
fn a_piece_beyond_the_memory_limit_leaves_no_hole_in_an_answer() {
    let child = "local body, long = ('x'):rep(2 ^ 20), buffer.new()
         for _ = 1, 6 do long:append(body) end
         context.on_error(function(message) context.send(context.parent(), message) end)
         local _, server = http.serve('127.0.0.1', 0, function(req, res)
           if req.path == '/whole' then return 200, nil, long end
           if req.path ~= '/first' then res:write('begun, ') end
           local said = { res:write(long) }
           said[3], said[4] = res:write('and ended')
           context.send(context.parent(), json.encode(said))
           if req.path == '/finished' then res:finish('!') end
         end)
         context.send(context.parent(), server:port())";
    let folder = Folder::new();
    std::fs::write(folder.path("child.lua"), child).unwrap();
    let main = "context.create({ file = 'child.lua', memory = 10 * 2 ^ 20 })
         local _, port = context.recv(0)
         local url = 'http://127.0.0.1:' .. port
         local function heard() return (select(2, context.recv(0))) end
         local _, unread = http.get(url .. '/whole') -- what waits for us takes room
         for _, path in ipairs({ '/first', '/later', '/finished' }) do
           local ok, res = http.get(url .. path)
           print(path, (ok and res:text()), heard())
           print(heard())
         end
         local ok, res = http.request({ url = url .. '/later', method = 'HEAD' })
         print(ok, res.status, heard())
         print(#unread:text())
         os.exit(0)";
    let done = run(node_lua().current_dir(folder.path("")).args(["-e", main]));
    let said = "[false,26,false,203]";
    let why = "an answer is cut off: the context's memory limit has no room for a body of 6291456 \
               bytes";
    assert_eq!(
        done.stdout,
        format!(
            "/first\tfalse\t{said}\nchild.lua:4: {why}\n\
             /later\tfalse\t{said}\nchild.lua:4: {why}\n\
             /finished\tfalse\t{said}\nchild.lua:10: {why}\n\
             true\t200\t[false,26,true]\n6291456\n"
        ),
        "{done}"
    );
}

/// What a context has no room to send is told: the handler by an error, which it may catch to
/// answer something shorter, and the client by status 500. Another client does not read its own,
/// meanwhile.
#[test]
fn a_body_beyond_the_memory_limit_is_told_on_both_sides() {
    let child = "local body, long = ('x'):rep(2 ^ 20), buffer.new()
         for _ = 1, 6 do long:append(body) end
         context.on_error(function(message) context.send(context.parent(), message) end)
         local _, server = http.serve('127.0.0.1', 0, function(req, res)
           if req.path:find('^/re') then return 200, nil, long end
           if req.path == '/ended' then return res:finish(long) end
           if req.path == '/begun' then res:write('a') end
           if req.path ~= '/caught' then res:finish(long) end
           local ok, why = pcall(res.finish, res, long)
           res:status(503):finish(tostring(ok) .. ' ' .. why)
         end)
         context.send(context.parent(), server:port())";
    let folder = Folder::new();
    std::fs::write(folder.path("child.lua"), child).unwrap();
    let main = "context.create({ file = 'child.lua', memory = 10 * 2 ^ 20 })
         local _, port = context.recv(0)
         local url = 'http://127.0.0.1:' .. port
         local _, unread = http.get(url .. '/read-late')
         for _, path in ipairs({ '/returned', '/finished', '/ended', '/caught' }) do
           local _, res = http.get(url .. path)
           print(path, res.status, (res:text()))
           if path ~= '/caught' then print((select(2, context.recv(0)))) end
         end
         local ok, res = http.get(url .. '/begun')
         print(ok and res:text(), (select(2, context.recv(0))))
         print(#unread:text())
         os.exit(0)";
    let done = run(node_lua().current_dir(folder.path("")).args(["-e", main]));
    let why = "the context's memory limit has no room for a body of 6291456 bytes";
    assert_eq!(
        done.stdout,
        format!(
            "/returned\t500\tInternal Server Error\n\n\
             child.lua:4: bad result #3 of the handler of 'serve' ({why})\n\
             /finished\t500\tInternal Server Error\n\n\
             child.lua:8: bad argument #1 to 'finish' ({why})\n\
             /ended\t500\tInternal Server Error\n\n\
             child.lua:4: bad argument #2 to 'finish' ({why})\n\
             /caught\t503\tfalse child.lua:9: bad argument #2 to 'finish' ({why})\n\
             false\tchild.lua:8: bad argument #1 to 'finish' ({why})\n6291456\n"
        ),
        "{done}"
    );
}
