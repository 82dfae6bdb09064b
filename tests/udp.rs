//! Datagrams against a live process: floods, garbage, sockets that go away in the middle, limits.

#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::net::UdpSocket;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use support::{PATIENCE, Server, node_lua, resident_bytes, run, run_for, with_many_files};

/// A socket that talks to a port, and does not wait for ever.
fn peer(port: u16) -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.connect(("127.0.0.1", port)).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

fn server(code: &str) -> (Server, u16) {
    let code = format!("local _, sock = udp.open('127.0.0.1', 0) {code} print(sock:local_port())");
    let mut server = Server::start(["-e", &code]);
    let port = server.port();
    (server, port)
}

/// Asks until an answer comes: floods may cost a question or an answer.
fn ask(socket: &UdpSocket, question: &[u8]) -> String {
    socket.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    let mut space = [0; 65536];
    for _ in 0..600 {
        socket.send(question).unwrap();
        if let Ok(count) = socket.recv(&mut space) {
            return String::from_utf8_lossy(&space[..count]).into_owned();
        }
    }
    panic!("no answer");
}

const COUNTING: &str = "
    local mine = 0
    sock:read(function(_, data, addr, port)
        mine = mine + 1
        if data == buffer.new('stat') then
            local s = sock:stat()
            sock:write(('%d %d %d'):format(s.received, s.dropped, mine), addr, port)
        end
    end)";

#[test]
fn a_flood_is_received_or_counted_as_dropped_and_others_run_meanwhile() {
    let (mut server, port) = server(&format!(
        "{COUNTING}
         local ticks = 0
         context.run(function()
             while ticks < 20 do timer.sleep(0.001) ticks = ticks + 1 end
             print('others run')
         end)"
    ));
    let socket = peer(port);
    let total = 30_000_u64;
    for number in 0..total {
        socket.send(&number.to_le_bytes()).unwrap();
    }
    assert_eq!(server.line(), "others run");
    let asker = peer(port);
    // Questions count too, those that were dropped among them.
    let answer = ask(&asker, b"stat");
    let figures: Vec<u64> = answer.split(' ').map(|word| word.parse().unwrap()).collect();
    let [received, dropped, mine] = figures[..] else { panic!("{answer}") };
    // A script that has been given all it was sent up to here.
    assert_eq!(received, mine, "{answer}");
    assert!(received + dropped > total, "{answer}");
    assert!(received + dropped <= total + 600, "{answer}");
}

#[test]
fn what_is_received_at_once_is_bounded() {
    let (server, port) =
        server("context.run(function() sock:read() timer.sleep(3600) return sock end)");
    let socket = peer(port);
    for _ in 0..20_000 {
        socket.send(&[7; 1400]).unwrap();
    }
    // One batch was taken; the rest is in the system's buffer, or lost.
    let before = resident_bytes(server.id());
    for _ in 0..20_000 {
        socket.send(&[7; 1400]).unwrap();
    }
    assert!(resident_bytes(server.id()) < before + (4 << 20));
}

#[test]
fn datagrams_of_any_size_come_back_as_they_were() {
    let (_server, port) =
        server("sock:read(function(_, data, addr, port) sock:write(data, addr, port) end)");
    let socket = peer(port);
    let mut space = vec![0; 65536];
    for size in [0, 1, 895, 896, 897, 3999, 4000, 4001, 4096, 8191, 8192, 9000, 65506, 65507] {
        let sent: Vec<u8> = (0..size).map(|at| (at * 7 + at / 251) as u8).collect();
        socket.send(&sent).unwrap();
        let count = socket.recv(&mut space).unwrap();
        assert_eq!(space[..count], sent, "{size} bytes");
    }
    // Two windows of questions, answered in one batch each.
    for window in [20, 90] {
        for number in 0..window {
            socket.send(&[number; 64]).unwrap();
        }
        for number in 0..window {
            let count = socket.recv(&mut space).unwrap();
            assert_eq!(space[..count], [number; 64]);
        }
    }
}

#[test]
fn a_socket_closed_in_the_middle_of_a_batch_hears_no_more() {
    let code = "
        local _, sock = udp.open('127.0.0.1', 0)
        local _, peer = udp.open()
        for i = 1, 20 do peer:write('number ' .. i, '127.0.0.1', sock:local_port(), true) end
        local heard = 0
        sock:read(function(ok, data, _, _, _, same)
            heard = heard + 1
            if heard == 3 then same:close() end
        end)
        while not sock:is_closed() do timer.sleep(0.001) end
        timer.sleep(0.01)
        print(heard)
        -- Closed while another root waits for it, with datagrams on their way.
        local _, other = udp.open('127.0.0.1', 0)
        context.run(function() print(other:read()) end)
        context.run(function() print(other:read(30)) end)
        timer.sleep(0.001)
        peer:write('one', '127.0.0.1', other:local_port(), true)
        other:close()
        peer:write('late', '127.0.0.1', 9)
        peer:close()
        print(pcall(peer.read, peer))";
    let done = run(node_lua().args(["-e", code])).succeeded();
    let lines: Vec<&str> = done.stdout.lines().collect();
    assert_eq!(lines[0], "3", "{done}");
    assert!(lines[1].starts_with("false\t") && lines[1].contains("closed"), "{done}");
    assert_eq!(lines[2..], ["false\t203", "false\t203"], "{done}");
}

#[test]
fn thousands_of_sockets_may_be_opened_and_forgotten() {
    with_many_files("thousands_of_sockets_may_be_opened_and_forgotten", || {
        let code = "
            for i = 1, 30000 do
                local ok, sock = udp.open('127.0.0.1', 0)
                if not ok then error(context.strerror(sock)) end
                if i % 100 == 0 then sock:write('to nobody', '127.0.0.1', 9) end
            end
            collectgarbage() collectgarbage()
            print(context.stat().sockets)
            local all = {}
            for i = 1, 2000 do
                all[i] = context.check(udp.open('127.0.0.1', 0))
                all[i]:read(function(_, data) all[data:tostring()] = true end)
            end
            for i = 1, 2000 do
                all[i % 2000 + 1]:write(tostring(i), '127.0.0.1', all[i]:local_port())
            end
            local function count()
                local n = 0
                for i = 1, 2000 do n = n + (all[tostring(i)] and 1 or 0) end
                return n
            end
            while count() < 2000 do timer.sleep(0.01) end
            print(count())
            for i = 1, 2000 do all[i]:close() end";
        let done = run_for(node_lua().args(["-e", code]), 2 * PATIENCE).succeeded();
        assert_eq!(done.stdout, "0\n2000\n", "{done}");
    });
}

#[test]
fn what_is_kept_counts_against_the_memory_limit() {
    let (mut server, port) = server(
        "sock:close()
         local file = os.tmpname()
         local out = io.open(file, 'w')
         out:write([[
             local _, sock = udp.open('127.0.0.1', 0)
             local kept = {}
             sock:read(function(_, data) kept[#kept + 1] = data end)
             context.send(context.parent(), sock:local_port())]])
         out:close()
         local child = context.create({ file = file, memory = 8 * 2 ^ 20 })
         local _, port = context.recv(child)
         context.monitor(child, function(reason) print('ended by ' .. reason) end)
         local _, fine = udp.open('127.0.0.1', 0)
         fine:read(function(_, data, addr, from) fine:write(data, addr, from) end)
         print(port)
         sock = fine",
    );
    let other = server.port();
    let socket = peer(port);
    // Large ones, which are held by reference; most are dropped while the script is behind.
    let is_over = AtomicBool::new(false);
    let line = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                // Once nobody is there any more it is refused.
                drop(socket.send(&[1; 30_000]));
                std::thread::yield_now();
            }
        });
        let line = server.line();
        is_over.store(true, Ordering::Relaxed);
        line
    });
    assert!(line.starts_with("ended by "), "{line}");
    assert_eq!(ask(&peer(other), b"others stay"), "others stay");
}

#[test]
fn who_is_connected_learns_of_refusals_once_and_sends_on() {
    // An address where no other test opens sockets meanwhile.
    let refused = UdpSocket::bind("127.77.0.1:0").unwrap();
    let port = refused.local_addr().unwrap().port();
    drop(refused);
    let code = format!(
        "local _, sock = udp.open()
         sock:connect('127.77.0.1', {port})
         for i = 1, 3 do
             sock:write('x')
             print(sock:read(30))
         end
         for i = 1, 100 do sock:write('y') end
         local refused = 0
         while sock:read(0.05) == false and refused < 200 do
             local ok, code = sock:read(0.001)
             refused = refused + 1
             if code == 208 then break end
         end
         local s = sock:stat()
         print(s.sent + s.failed, s.failed)"
    );
    let done = run(node_lua().args(["-e", &code])).succeeded();
    let lines: Vec<&str> = done.stdout.lines().collect();
    assert_eq!(lines[..3], ["false\t12"; 3], "{done}");
    // None of them was lost because an earlier one was refused.
    assert!(lines[3].starts_with("103\t"), "{done}");
}

#[test]
fn descriptors_that_are_short_fail_a_call_and_nothing_else() {
    let code = "
        local _, server = udp.open('127.0.0.1', 0)
        local kept, code = {}, nil
        repeat
            local ok, sock = udp.open()
            if ok then kept[#kept + 1] = sock else code = sock end
        until not ok
        print(code)
        kept[1]:write('still', '127.0.0.1', server:local_port())
        local _, data = server:read(30)
        print(data)
        kept = nil
        print((udp.open()))";
    let mut command = std::process::Command::new("sh");
    let limit = "ulimit -n 64; exec \"$0\" \"$@\"";
    command.args(["-c", limit, env!("CARGO_BIN_EXE_node-lua"), "-e", code]);
    let done = run(&mut command).succeeded();
    assert_eq!(done.stdout, "20\nstill\ntrue\n", "{done}");
}
