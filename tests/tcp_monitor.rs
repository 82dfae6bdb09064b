//! `tcp.monitor` with peers of another kind: resets, half-closed streams, and that it costs nothing
//! while nothing happens.

#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::io::Write;
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use support::{Server, connect, node_lua, run};

/// Prints what the monitor of each connection is told; nobody reads. Every message that comes on a
/// second port is written to all connections.
fn broadcaster() -> (Server, u16) {
    let code = "
        local socks = {}
        local _, listener = tcp.listen('127.0.0.1', 0)
        listener:accept(function(_, sock)
          socks[sock] = true
          sock:monitor(function(code, of)
            socks[of] = nil
            print(code, sock == of, tcp.is_closed(of))
            of:close()
          end)
          print('accepted')
        end)
        timer.loop(0.01, 0.01, function() for sock in pairs(socks) do sock:write('news') end end)
        print(tcp.local_port(listener))";
    let mut server = Server::start(["-e", code]);
    let port = server.port();
    (server, port)
}

fn accepted(server: &mut Server, port: u16) -> TcpStream {
    let stream = connect(port);
    assert_eq!(server.line(), "accepted");
    stream
}

#[test]
fn a_broadcaster_learns_who_has_gone_and_how() {
    let (mut server, port) = broadcaster();
    let stream = accepted(&mut server, port);
    stream.shutdown(Shutdown::Write).unwrap();
    assert_eq!(server.line(), "1\ttrue\tfalse");
    let mut stream = accepted(&mut server, port);
    stream.write_all(b"nobody reads this").unwrap();
    stream.shutdown(Shutdown::Both).unwrap();
    drop(stream);
    let line = server.line();
    // What was broadcast meanwhile may have been answered with a reset.
    assert!(line == "1\ttrue\tfalse" || line == "13\ttrue\tfalse", "{line}");
    let socket = socket2::Socket::from(accepted(&mut server, port));
    socket.set_linger(Some(Duration::ZERO)).unwrap();
    drop(socket);
    assert_eq!(server.line(), "13\ttrue\tfalse");
}

#[test]
fn who_reads_after_the_monitor_finds_the_same_reason() {
    let code = "
        local _, listener = tcp.listen('127.0.0.1', 0)
        print(tcp.local_port(listener))
        local _, sock = listener:accept()
        sock:monitor(function(code)
          local good, data = sock:read()
          print(code, good, data, sock:write('x', true))
          sock:close()
        end)
        print('ready')";
    let mut server = Server::start(["-e", code]);
    let stream = connect(server.port());
    assert_eq!(server.line(), "ready");
    let socket = socket2::Socket::from(stream);
    socket.set_linger(Some(Duration::ZERO)).unwrap();
    drop(socket);
    assert_eq!(server.line(), "13\tfalse\t13\tfalse\t13");
}

/// Like every registered callback, it keeps its context alive, until it is called or removed.
#[test]
fn a_monitor_keeps_its_context_alive_until_it_is_over() {
    let script = "
        local _, listener = tcp.listen('127.0.0.1', 0)
        local _, one = tcp.connect('127.0.0.1', tcp.local_port(listener))
        local _, two = tcp.connect('127.0.0.1', tcp.local_port(listener))
        local _, other = listener:accept()
        one:monitor(print)
        two:monitor(print)
        two:monitor(nil)
        local named = one
        one:monitor(function(code, sock) print(code, sock == named) end)
        timer.timeout(0.05, function() other:close() end)";
    let done = run(node_lua().args(["-e", script])).succeeded();
    assert_eq!(done.stdout, "1\ttrue\n", "{done}");
}

#[test]
fn monitors_work_in_simulations() {
    let script = "
        local log = {}
        for i = 1, 20 do
          local listening, listener = tcp.listen('127.0.0.1', 0)
          if listening then
            local connected, client = tcp.connect('127.0.0.1', tcp.local_port(listener), 30)
            local accepted, server = listener:accept(30)
            if connected and accepted then
              tcp.monitor(server, function(code) log[#log + 1] = i .. ':' .. code end)
              server:write('x')
              client:write('y')
              client:close()
            end
            listener:close()
          end
        end
        timer.sleep(60)
        print(#log, table.concat(log, ' '))";
    let simulate = |seed: &str, faults: &str| {
        run(node_lua().args(["--simulate", seed, "--faults", faults, "-e", script])).succeeded()
    };
    let plain = simulate("1", "0");
    assert!(plain.stdout.starts_with("20\t"), "{plain}");
    for seed in ["1", "2", "3", "4", "5"] {
        let (one, two) = (simulate(seed, "0.5"), simulate(seed, "0.5"));
        assert_eq!((&one.stdout, &one.stderr), (&two.stdout, &two.stderr), "seed {seed}");
    }
}
