//! Peers that speak something else than WebSocket: what they send costs no more than it is long.
#![cfg(feature = "websocket")]
#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use support::{node_lua, run};

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
