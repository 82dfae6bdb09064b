//! What was closed is gone: whatever is opened and closed over and over leaves no memory, neither
//! in the VM nor beside it, and no descriptor. `OPEN_CLOSE` says how many times; 3,000 if it does
//! not, 900 for connections.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "tests")]

mod support;

use support::{Folder, node_lua, run};

/// Names, what has to be there, and what is done over and over.
const KINDS: &[(&str, &str, &str)] = &[
    ("listeners", "", "open(tcp.listen('127.0.0.1', 0)):close()"),
    (
        "listeners_with_callbacks",
        "",
        "local l = open(tcp.listen('127.0.0.1', 0)) l:accept(print) l:close()",
    ),
    ("connections", "", "connect():close()"),
    (
        "connections_with_all",
        "",
        "local c = connect() c:read(print) c:monitor(print) c:set_wshared(true) c:fd() c:close()",
    ),
    ("connections_collected", "", "connect()"),
    ("connections_that_fail", "", "assert(not tcp.connect('127.0.0.1', closed))"),
    ("datagram_sockets", "", "open(udp.open('127.0.0.1', 0)):close()"),
    (
        "datagram_sockets_with_all",
        "",
        "local u = open(udp.open('127.0.0.1', 0)) u:read(print) u:set_wshared(true) u:fd()
         u:write('x', '127.0.0.1', u:local_port()) u:close()",
    ),
    ("contexts", "", "context.wait(context.create(child))"),
    (
        "contexts_watched",
        "",
        "local h = context.create(child) context.monitor(h, function() end) context.wait(h)",
    ),
    ("queries_that_fail", "", "assert(not context.query(2 ^ 30, 1))"),
    ("timers", "", "timer.close(timer.timeout(60, print))"),
    ("names", "", "local name = 'name ' .. i context.register(name) context.unregister(name)"),
    (
        "subscriptions",
        "",
        "local topic = 'topic.' .. i context.subscribe(topic, print) context.unsubscribe(topic)",
    ),
    ("signals", "", "context.on_signal('USR1', print) context.on_signal('USR1', nil)"),
    #[cfg(feature = "http")]
    ("servers", "", "open(http.serve('127.0.0.1', 0, print)):close(0)"),
    #[cfg(feature = "http")]
    ("servers_that_wait", "", "open(http.serve('127.0.0.1', 0, print)):close()"),
    #[cfg(feature = "http")]
    (
        "servers_whose_listener_is_closed",
        "",
        "local l = open(tcp.listen('127.0.0.1', 0)) open(http.serve(l, print)) l:close()",
    ),
    #[cfg(feature = "http")]
    (
        "servers_that_were_used",
        "",
        "local s = open(http.serve('127.0.0.1', 0, function(_, res) res:finish('x') end))
         assert(open(http.get('http://127.0.0.1:' .. s:port())):text() == 'x') s:close()",
    ),
    #[cfg(feature = "http")]
    (
        "answers",
        "local s = open(http.serve('127.0.0.1', 0, function(_, res) res:finish('x') end))
         local url = 'http://127.0.0.1:' .. s:port()",
        "assert(open(http.get(url)):text() == 'x')",
    ),
    #[cfg(feature = "http")]
    (
        "answers_that_nobody_reads",
        "local s = open(http.serve('127.0.0.1', 0, function(_, res) res:finish('x') end))
         local url = 'http://127.0.0.1:' .. s:port()",
        "open(http.get(url))",
    ),
    #[cfg(feature = "websocket")]
    (
        "websockets",
        "local l = open(tcp.listen('127.0.0.1', 0))
         l:accept(function(_, sock)
           local ws = open(websocket.accept(sock)) ws:recv() ws:close()
         end)
         local url = 'ws://127.0.0.1:' .. l:local_port()",
        "open(websocket.connect(url)):close()",
    ),
    #[cfg(feature = "tls")]
    ("configurations", "", "open(tls.client { verify = false })"),
];

const FRAME: &str = "
    local function open(ok, value, ...) return ok and value or error(tostring(value), 2) end
    local function pages()
      local f = io.open('/proc/self/statm')
      local _, resident = f:read('*n', '*n')
      f:close()
      return resident * 4
    end
    local id = io.open('/proc/self/stat'):read('*n')
    local function descriptors()
      local p = io.popen('ls /proc/' .. id .. '/fd')
      local _, count = p:read('*a'):gsub('\\n', '')
      p:close()
      return count
    end
    local peer = open(tcp.listen('127.0.0.1', 0))
    peer:accept(function(_, sock) sock:read(function(ok) if not ok then sock:close() end end) end)
    local function connect() return open(tcp.connect('127.0.0.1', peer:local_port())) end
    local listener = open(tcp.listen('127.0.0.1', 0))
    local closed = listener:local_port()
    listener:close()
    local child, print = CHILD, function() end
    BEFORE
    local function go(count)
      for i = 1, count do
        ONE
        -- What happens besides is not put off until the end.
        if i % 50 == 0 then timer.sleep(0) collectgarbage() end
      end
      for _ = 1, 20 do timer.sleep(0.005) collectgarbage() end
    end
    go(COUNT / 3)
    local held, resident, files = collectgarbage('count'), pages(), descriptors()
    go(COUNT)
    local per = 1024 / COUNT
    io.write(('%d %d %d\\n'):format((collectgarbage('count') - held) * per,
      (pages() - resident) * per, descriptors() - files))
    os.exit(0)";

/// Bytes of each that may be left, in the VM and in all: less than the smallest record of one, more
/// than what the allocator and the collector keep for the next.
const VM_BYTES: i64 = 24;
const BYTES: i64 = 200;

#[test]
fn what_is_closed_leaves_nothing() {
    let folder = Folder::new();
    let child = format!("{:?}", folder.write("child.lua", ""));
    let given = std::env::var("OPEN_CLOSE").ok();
    for (name, before, one) in KINDS {
        // The system keeps the ports of connections for a minute; each takes some 20 KiB.
        let is_connected = ["connect", "http.get"].iter().any(|word| one.contains(word));
        let (usual, share) = if is_connected { ("900", 15) } else { ("3000", 1) };
        let count = given.as_deref().unwrap_or(usual);
        let script = FRAME.replace("CHILD", &child).replace("BEFORE", before);
        let script = script.replace("ONE", one).replace("COUNT", count);
        let done = run(node_lua().args(["-e", &script])).succeeded();
        let found: Vec<i64> = done.stdout.split_whitespace().flat_map(str::parse).collect();
        println!("{name}: {found:?}");
        assert!(
            matches!(found[..], [vm, all, files]
                if vm < VM_BYTES * share && all < BYTES * share && files < 30),
            "{name} left {found:?}: {done}"
        );
    }
}
