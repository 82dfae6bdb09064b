//! Peers that speak something else than WebSocket: what they send costs no more than it is long.
#![cfg(feature = "websocket")]
#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use support::{Folder, node_lua, run};

/// Lines of 16 KiB, as many as take half a minute where time grows with the square of their length.
#[test]
fn handshakes_cost_no_more_than_they_are_long() {
    let script = "local _, listener = tcp.listen('127.0.0.1', 0)
         local long = ('x'):rep(16000)
         local lines = {
           'a: b' .. (' '):rep(16000) .. 'b', 'a: b' .. ('\\t '):rep(8000) .. 'b',
           ('\\n'):rep(16000), 'a:' .. (' '):rep(16000), (' '):rep(16000), ('a'):rep(16000),
           'upgrade: ' .. ('a '):rep(8000), 'connection: ' .. (','):rep(16000),
         }
         local first, rest = 'GET / HTTP/1.1\\r\\nHost: x\\r\\n', '\\r\\n\\r\\n'
         for _, line in ipairs(lines) do
           for i = 1, 20 do
             local _, client = tcp.connect('127.0.0.1', listener:local_port())
             client:write(first .. line .. rest)
             local _, sock = listener:accept()
             local ok, code = websocket.accept(sock)
             assert(not ok and code == 223, code)
             client:close()
           end
         end
         -- The other way round.
         listener:accept(function(_, sock)
           sock:read_until('\\r\\n\\r\\n')
           sock:write('HTTP/1.1 101 x\\r\\n' .. lines[1] .. rest)
         end)
         for i = 1, 20 do
           local ok, code = websocket.connect('ws://127.0.0.1:' .. listener:local_port())
           assert(not ok and code == 223, code)
         end
         print('good')
         os.exit(0)";
    let done = run(node_lua().args(["-e", script])).succeeded();
    assert_eq!(done.stdout, "good\n", "{done}");
}

/// What a peer sends costs work, at once or behind each other: a short message on another socket
/// that has come later is not behind all of it.
#[test]
fn what_costs_much_is_done_a_part_at_a_time() {
    let script = "local function frame(first, payload)
           local n = #payload
           local size = n < 126 and string.char(128 + n)
             or string.char(255, 0, 0, 0, 0) .. string.pack('>I4', n)
           return string.char(first) .. size .. '\\0\\0\\0\\0' .. payload
         end
         local stored = '\\0\\0\\0\\255\\255' -- a block of no bytes
         -- Much out of little, deflated by hand so that all of it is sent at once: the codes of
         -- some bytes, and 65,000 copies of 258 of them.
         local function packed(codes, distance)
           local bits = '010' .. codes .. ('11000101' .. distance):rep(65000) .. ('0'):rep(10)
           bits = bits .. ('0'):rep(-#bits % 8)
           return (bits:gsub('........', function(byte)
             return string.char(tonumber(byte:reverse(), 2))
           end))
         end
         local kinds = {
           pings = frame(0x89, ''):rep(1e5) .. frame(0x81, ''),
           pongs = frame(0x8a, ''):rep(1e5) .. frame(0x81, ''),
           parts = frame(0x01, '') .. frame(0x00, ''):rep(1e5) .. frame(0x80, ''),
           letters = frame(0x01, '') .. frame(0x00, 'x'):rep(9e4) .. frame(0x80, ''),
           blocks = frame(0xc2, stored:rep(1.2e5) .. '\\0'),
           ascii = frame(0xc1, packed('10101000', '00000')), -- x
           letter = frame(0xc1, packed('111000011' .. '110100100', '00001')), -- U+00E4
         }
         local request = 'GET / HTTP/1.1\\r\\nHost: x\\r\\nUpgrade: websocket\\r\\n'
           .. 'Connection: Upgrade\\r\\nSec-WebSocket-Version: 13\\r\\n'
           .. 'Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\\r\\n'
           .. 'Sec-WebSocket-Extensions: permessage-deflate\\r\\n\\r\\n'
         local _, listener = tcp.listen('127.0.0.1', 0)
         local port = listener:local_port()
         local names
         listener:accept(function(_, sock)
           local _, ws = websocket.accept(sock, { deflate = true })
           local name = table.remove(names, 1)
           ws:recv(function(good) if good then context.send(context.self(), name) end end)
         end)
         -- The order in which they come to an end, of which the first is sent first.
         local function try(name)
           local _, first = context.recv(0)
           local _, second = context.recv(0)
           print(name, first, second)
         end
         for name in ('pings pongs parts letters blocks ascii letter'):gmatch('%l+') do
           names = { 'long', 'short' }
           local _, raw = tcp.connect('127.0.0.1', port)
           raw:write(request)
           raw:read_until('\\r\\n\\r\\n')
           local _, ws = websocket.connect('ws://127.0.0.1:' .. port)
           raw:write(kinds[name])
           ws:send('x')
           try(name)
           raw:close()
           ws:close()
         end
         -- The same for a client, whose server is one that hands on the handshake.
         names = { 'server', 'short' }
         local _, hostile = tcp.listen('127.0.0.1', 0)
         local theirs
         hostile:accept(function(_, sock)
           local _, upstream = tcp.connect('127.0.0.1', port)
           local _, head = sock:read_until('\\r\\n\\r\\n')
           upstream:write(head:tostring() .. '\\r\\n\\r\\n')
           _, head = upstream:read_until('\\r\\n\\r\\n')
           sock:write(head:tostring() .. '\\r\\n\\r\\n')
           theirs = sock
         end)
         local url = 'ws://127.0.0.1:' .. hostile:local_port()
         local _, one = websocket.connect(url, { deflate = true })
         one:recv(function() context.send(context.self(), 'long') end)
         local _, other = websocket.connect('ws://127.0.0.1:' .. port)
         local head = '\\193\\127\\0\\0\\0\\0' .. string.pack('>I4', #kinds.ascii - 14)
         theirs:write(head .. kinds.ascii:sub(15))
         other:send('x')
         try('client')
         os.exit(0)";
    let pack = "string.pack = function(_, n)
           return string.char(math.floor(n / 2 ^ 24), math.floor(n / 2 ^ 16) % 256,
             math.floor(n / 256) % 256, n % 256)
         end ";
    let done = run(node_lua().args(["-e", &format!("{pack}{script}")])).succeeded();
    let kinds = "pings pongs parts letters blocks ascii letter client";
    let expected: String = kinds.split(' ').map(|kind| format!("{kind}\tshort\tlong\n")).collect();
    assert_eq!(done.stdout, expected, "{done}");
}

/// Packing a message takes its time, during which its context can be ended: nothing of it leaves.
#[test]
fn who_packs_a_long_message_can_be_ended() {
    let folder = Folder::new();
    let child = folder.write(
        "child.lua",
        "local _, data = context.recv(context.parent())
         local _, url = context.recv(context.parent())
         local _, ws = websocket.connect(url, { deflate = true })
         ws:send('first')
         context.recv(context.parent())
         ws:send(data, 'binary')",
    );
    let main = folder.write(
        "main.lua",
        "local child, came, reason = ..., nil, nil
         local function tell()
           if came == nil or not reason then return end
           print(came, reason)
           os.exit(0)
         end
         local h = context.create { file = child, turn_limit = 0.05 }
         context.monitor(h, function(_, why) reason = why tell() end)
         local _, server = http.serve('127.0.0.1', 0, function(req, res)
           local _, ws = websocket.accept(req, res, { deflate = true, max_message = 2 ^ 30 })
           ws:recv()
           context.send(h, 'go')
           came = ws:recv()
           tell()
         end)
         local noise = {}
         for i = 1, 2 ^ 20 do noise[i] = string.char(math.random(0, 255)) end
         local data = buffer.new(table.concat(noise):rep(48))
         context.send(h, data)
         context.send(h, 'ws://127.0.0.1:' .. server:port())",
    );
    let done = run(node_lua().args([main, child]));
    assert_eq!(done.stdout, "false\ttime\n", "{done}");
}
