//! TLS: peers that mean harm, sessions that go on elsewhere, reloading, simulations. What scripts
//! alone can show is in tests/lua/tls_test.lua, other programs are in tests/tls_peers.rs.

#![cfg(feature = "tls")]
#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "support/pki.rs"]
mod pki;
mod support;

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use pki::Pki;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, ClientConnection, HandshakeKind, RootCertStore, StreamOwned};
use support::{Folder, Server, connect, node_lua, read_rest, resident_bytes, run};

/// Echoes over TLS what comes, and says on standard output how each connection has gone. A first
/// word of `stat` is answered with the number of sockets.
const ECHO: &str = r#"
    local server = context.check(tls.server{ cert = "server.pem", key = "server.key" })
    local ok, listener = tcp.listen("127.0.0.1", 0)
    print(tcp.local_port(listener))
    listener:accept(function(_, sock)
      local ok, code, text = sock:start_tls(server, nil, tonumber(TIMEOUT))
      if not ok then
        print("failed", code, text)
        return sock:close()
      end
      sock:read(function(good, data)
        if good then
          if data:tostring() == "stat" then data = tostring(context.stat().sockets) end
          return sock:write(data)
        end
        print("ended", data, context.strerror(data))
        sock:close()
      end)
    end)
"#;

fn echo_server(pki: &Pki, timeout: f64) -> (Server, u16) {
    let mut server =
        Server::spawn(&mut pki.node_lua(&ECHO.replace("TIMEOUT", &timeout.to_string())));
    let port = server.port();
    (server, port)
}

fn client_config(pki: &Pki) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(pki.path("ca.pem")).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider);
    let builder = builder.with_safe_default_protocol_versions().unwrap();
    Arc::new(builder.with_root_certificates(roots).with_no_client_auth())
}

type Client<S> = StreamOwned<ClientConnection, S>;

fn client<S: Read + Write>(config: &Arc<ClientConfig>, stream: S) -> Client<S> {
    let name = "localhost".try_into().unwrap();
    StreamOwned::new(ClientConnection::new(Arc::clone(config), name).unwrap(), stream)
}

fn echo<S: Read + Write>(client: &mut Client<S>, text: &[u8]) -> Vec<u8> {
    client.write_all(text).unwrap();
    let mut answer = vec![0; text.len()];
    client.read_exact(&mut answer).unwrap();
    answer
}

/// The bytes of a handshake's first message.
fn hello(config: &Arc<ClientConfig>) -> Vec<u8> {
    let name = "localhost".try_into().unwrap();
    let mut bytes = Vec::new();
    ClientConnection::new(Arc::clone(config), name).unwrap().write_tls(&mut bytes).unwrap();
    bytes
}

/// Sends each byte alone.
struct OneByOne(TcpStream);

impl Read for OneByOne {
    fn read(&mut self, space: &mut [u8]) -> std::io::Result<usize> {
        let some = space.len().min(1);
        self.0.read(&mut space[..some])
    }
}

impl Write for OneByOne {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.write(&bytes[..bytes.len().min(1)])
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.0.flush()
    }
}

#[test]
fn one_byte_at_a_time_is_a_handshake_and_an_echo() {
    let pki = Pki::new();
    let (mut server, port) = echo_server(&pki, 0.0);
    let mut client = client(&client_config(&pki), OneByOne(connect(port)));
    let text = b"slowly ".repeat(40);
    client.write_all(&text).unwrap();
    let mut answer = vec![0; text.len()];
    client.read_exact(&mut answer).unwrap();
    assert_eq!(answer, text);
    client.conn.send_close_notify();
    client.flush().unwrap();
    assert_eq!(server.line(), "ended\t1\tend of file");
}

#[test]
fn what_is_not_tls_is_named() {
    let pki = Pki::new();
    let (mut server, port) = echo_server(&pki, 0.0);
    let mut stream = connect(port);
    stream.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    let line = server.line();
    assert!(line.starts_with("failed\t220\t") && line.contains("not TLS"), "{line}");
    assert!(line.contains("\"GET / HTTP/1.1\\r\\n\""), "{line}");
    read_rest(&mut stream);
}

#[test]
fn broken_handshakes_fail_with_a_reason() {
    let pki = Pki::new();
    let config = client_config(&pki);
    let (mut server, port) = echo_server(&pki, 0.0);
    // A record that is longer than any may be.
    let mut stream = connect(port);
    stream.write_all(&[22, 3, 1, 255, 255]).unwrap();
    stream.write_all(&[0; 1000]).unwrap();
    let line = server.line();
    assert!(line.starts_with("failed\t220\t"), "{line}");
    read_rest(&mut stream);
    // Cut off in the middle.
    let bytes = hello(&config);
    let mut stream = connect(port);
    stream.write_all(&bytes[..bytes.len() / 2]).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let line = server.line();
    assert!(line.starts_with("failed\t220\t") && line.contains("closed the connection"), "{line}");
    read_rest(&mut stream);
    // Reset in the middle.
    let mut stream = connect(port);
    stream.write_all(&bytes[..bytes.len() / 2]).unwrap();
    socket2::Socket::from(stream).set_linger(Some(Duration::ZERO)).unwrap();
    let line = server.line();
    assert!(line.starts_with("failed\t13\t"), "{line}");
    // Records within the limit that are nothing.
    let mut stream = connect(port);
    stream.write_all(&[22, 3, 1, 0, 4, 99, 0, 0, 0]).unwrap();
    let line = server.line();
    assert!(line.starts_with("failed\t220\t"), "{line}");
    read_rest(&mut stream);
    assert_eq!(
        echo(&mut client(&config, connect(port)), b"others are served"),
        b"others are served"
    );
}

#[test]
fn a_handshake_has_its_time() {
    let pki = Pki::new();
    let (mut server, port) = echo_server(&pki, 0.05);
    let bytes = hello(&client_config(&pki));
    let mut stream = connect(port);
    stream.write_all(&bytes[..10]).unwrap();
    assert_eq!(server.line(), "failed\t208\ttimeout");
    assert!(read_rest(&mut stream).is_empty());
}

#[test]
fn an_end_without_a_word_is_told_from_one_with() {
    let pki = Pki::new();
    let config = client_config(&pki);
    let (mut server, port) = echo_server(&pki, 0.0);
    let mut cut = client(&config, connect(port));
    echo(&mut cut, b"bytes");
    cut.sock.shutdown(Shutdown::Write).unwrap();
    assert!(server.line().starts_with("ended\t222\ttruncated"));
    let mut polite = client(&config, connect(port));
    echo(&mut polite, b"bytes");
    polite.conn.send_close_notify();
    polite.flush().unwrap();
    assert_eq!(server.line(), "ended\t1\tend of file");
    // Our word is the last one: the peer finds a clean end.
    assert_eq!(polite.read(&mut [0; 10]).unwrap(), 0);
    // Reset within a record.
    let mut reset = client(&config, connect(port));
    echo(&mut reset, b"bytes");
    reset.sock.write_all(&[23, 3, 3, 0, 20, 1]).unwrap();
    socket2::Socket::from(reset.sock).set_linger(Some(Duration::ZERO)).unwrap();
    assert!(server.line().starts_with("ended\t13\t"));
    // Spoilt afterwards.
    let mut spoilt = client(&config, connect(port));
    echo(&mut spoilt, b"bytes");
    spoilt.sock.write_all(&[23, 3, 3, 0, 20]).unwrap();
    spoilt.sock.write_all(&[9; 20]).unwrap();
    assert!(server.line().starts_with("ended\t220\t"));
}

#[test]
fn who_has_ended_its_side_is_still_answered() {
    let pki = Pki::new();
    let script = r#"
        local server = context.check(tls.server{ cert = "server.pem", key = "server.key" })
        local ok, listener = tcp.listen("127.0.0.1", 0)
        print(tcp.local_port(listener))
        local _, sock = listener:accept()
        context.check(sock:start_tls(server))
        local ok, data, n = true, nil, 0
        while ok do
          ok, data = sock:read()
          if ok then n = n + #data end
        end
        print(data)
        sock:write(("x"):rep(n))
        sock:close()
        listener:close()"#;
    let mut server = Server::spawn(&mut pki.node_lua(script));
    let mut client = client(&client_config(&pki), connect(server.port()));
    client.write_all(&[7; 300_000]).unwrap();
    client.conn.send_close_notify();
    client.flush().unwrap();
    client.sock.shutdown(Shutdown::Write).unwrap();
    assert_eq!(server.line(), "1");
    let mut answer = Vec::new();
    client.read_to_end(&mut answer).unwrap();
    assert_eq!(answer.len(), 300_000);
}

/// Each drops its connection at another point of the handshake, or behind it, in another way.
#[test]
fn ten_thousand_dropped_in_the_middle_of_handshakes_leave_nothing() {
    const WAVES: usize = 20;
    const CONNECTIONS: usize = 500;
    support::with_many_files(
        "ten_thousand_dropped_in_the_middle_of_handshakes_leave_nothing",
        || {
            let pki = Pki::new();
            let config = client_config(&pki);
            let (server, port) = echo_server(&pki, 30.0);
            let mut control = client(&config, connect(port));
            let bytes = hello(&config);
            let mut resident = Vec::new();
            for _ in 0..WAVES {
                let streams: Vec<TcpStream> = (0..CONNECTIONS)
                    .map(|number| {
                        let mut stream = connect(port);
                        match number % 8 {
                            0 => {}
                            1 | 2 => stream.write_all(&bytes[..number % bytes.len()]).unwrap(),
                            3 | 4 => stream.write_all(&bytes).unwrap(),
                            5 => {
                                // Its answer is read, and taken for wrong.
                                stream.write_all(&bytes).unwrap();
                                stream.read_exact(&mut [0; 5]).unwrap();
                                stream.write_all(&[21, 3, 3, 0, 2, 2, 42]).unwrap();
                            }
                            6 => stream.write_all(&[22, 3, 1, 63, 255, 1, 0, 255, 255]).unwrap(),
                            _ => {
                                let mut client = client(&config, stream);
                                assert_eq!(echo(&mut client, b"x"), b"x");
                                stream = client.sock;
                            }
                        }
                        stream
                    })
                    .collect();
                for (number, stream) in streams.into_iter().enumerate() {
                    if number % 2 == 0 {
                        socket2::Socket::from(stream).set_linger(Some(Duration::ZERO)).unwrap();
                    }
                }
                // The listener and this one; `stat` tells how things were after the turn before.
                while sockets(&mut control) != 2 {}
                resident.push(resident_bytes(server.id()));
            }
            let (early, last) = (resident[2], resident[WAVES - 1]);
            assert!(last < early + (8 << 20), "resident after each wave: {resident:?}");
        },
    );
}

fn sockets(control: &mut Client<TcpStream>) -> usize {
    control.write_all(b"stat").unwrap();
    let mut answer = [0; 10];
    let count = control.read(&mut answer).unwrap();
    std::str::from_utf8(&answer[..count]).unwrap().parse().unwrap()
}

/// What a server may do to a client of ours. Each is told with a code, within its time.
#[test]
fn servers_that_mean_harm_are_told_from_others() {
    let pki = Pki::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let script = format!(
        r#"
        local client = context.check(tls.client{{ ca = "ca.pem" }})
        for i = 1, 7 do
          local sock = context.check(tcp.connect("127.0.0.1", {}))
          print(select(2, sock:start_tls(client, "localhost", i == 7 and 0.1 or 20)))
          sock:close()
        end
        print(context.stat().sockets)"#,
        listener.local_addr().unwrap().port()
    );
    let mut command = pki.node_lua(&script);
    let running = thread::spawn(move || run(&mut command).succeeded());
    let mut peers = Vec::new();
    for number in 0..7 {
        let (mut stream, _) = listener.accept().unwrap();
        stream.read_exact(&mut [0; 5]).unwrap();
        match number {
            // Nothing, a reset, no TLS, an alert.
            0 => stream.shutdown(Shutdown::Write).unwrap(),
            1 => {
                socket2::Socket::from(stream).set_linger(Some(Duration::ZERO)).unwrap();
                continue;
            }
            2 => stream.write_all(b"220 mail.example ESMTP\r\n").unwrap(),
            3 => stream.write_all(&[21, 3, 3, 0, 2, 2, 40]).unwrap(),
            // A record, and a message, longer than any may be.
            4 => stream.write_all(&[22, 3, 3, 255, 255]).unwrap(),
            5 => {
                let _ = stream.write_all(&[22, 3, 3, 0, 4, 2, 255, 255, 255]);
                let part = [&[22, 3, 3, 64, 0][..], &[0; 16384]].concat();
                // It does not go on taking what cannot be.
                while stream.write_all(&part).is_ok() {}
            }
            // One byte now and then, and no more.
            _ => stream.write_all(&[22, 3]).unwrap(),
        }
        peers.push(stream);
    }
    let done = running.join().unwrap();
    let lines: Vec<&str> = done.stdout.lines().collect();
    let expected = ["220", "13", "220", "220", "220", "220", "208", "0"];
    assert_eq!(lines.len(), expected.len(), "{done}");
    for (line, expected) in lines.iter().zip(expected) {
        assert_eq!(line.split('\t').next(), Some(expected), "{done}");
    }
    assert!(lines[2].contains("220 mail.exampl"), "{done}");
}

/// Whoever writes to a peer that does not read has its bound, records and all.
#[test]
fn a_peer_that_does_not_read_is_dropped_and_others_are_served() {
    let pki = Pki::new();
    let script = r#"
        local server = context.check(tls.server{ cert = "server.pem", key = "server.key" })
        local listener = context.check(tcp.listen("127.0.0.1", 0))
        print(tcp.local_port(listener))
        listener:accept(function(_, sock)
          if not sock:start_tls(server, 20) then return sock:close() end
          sock:set_write_limit(1000000)
          sock:read(function(good, data)
            if not good then
              print(data)
              return sock:close()
            end
            if data:tostring() == "hello" then return sock:write(data) end
            for _ = 1, 64 do
              sock:write(("x"):rep(1000000))
              timer.sleep(0)
            end
          end)
        end)"#;
    let mut server = Server::spawn(&mut pki.node_lua(script));
    let port = server.port();
    let config = client_config(&pki);
    let mut deaf = client(&config, connect(port));
    deaf.write_all(b"flood").unwrap();
    deaf.flush().unwrap();
    let mut other = client(&config, connect(port));
    assert_eq!(echo(&mut other, b"hello"), b"hello");
    // As without TLS; nobody says that the peer has cut it off.
    assert_eq!(server.line(), "1");
    assert_eq!(echo(&mut other, b"hello"), b"hello");
    assert!(resident_bytes(server.id()) < 200 << 20);
}

#[test]
fn sessions_go_on_in_whichever_context_answers() {
    let pki = Pki::new();
    let worker = r#"
        local fd, port = ...
        local server = context.check(tls.server{ cert = "server.pem", key = "server.key" })
        local listener = context.check(tcp.listen("127.0.0.1", port, true))
        context.send(context.parent(), tcp.local_port(listener))
        local _, sock = listener:accept()
        sock:start_tls(server)
        sock:read(function(good, data)
          if good then sock:write(data) else sock:close() listener:close() end
        end)"#;
    pki.folder.write("worker.lua", worker);
    let script = r#"
        for i = 1, 2 do
          local handle = context.create("worker.lua", i, 0)
          local _, port = context.recv(handle)
          print(port)
        end
        timer.sleep(60)"#;
    let mut server = Server::spawn(&mut pki.node_lua(script));
    let ports = [server.port(), server.port()];
    let config = client_config(&pki);
    let kinds = ports.map(|port| {
        let mut client = client(&config, connect(port));
        echo(&mut client, b"bytes");
        client.conn.handshake_kind()
    });
    assert_eq!(kinds, [Some(HandshakeKind::Full), Some(HandshakeKind::Resumed)]);
}

#[test]
fn reload_changes_what_begins_and_keeps_the_rest() {
    let pki = Pki::new();
    let script = r#"
        local server = context.check(tls.server{ cert = "server.pem", key = "server.key" })
        local client = context.check(tls.client{ ca = "ca.pem" })
        local listener = context.check(tcp.listen("127.0.0.1", 0))
        listener:accept(function(_, sock)
          if not sock:start_tls(server) then return end
          sock:read(function(ok, data) sock:write(ok and data or "") end)
        end)
        local function connect()
          local sock = context.check(tcp.connect("127.0.0.1", tcp.local_port(listener)))
          context.check(sock:start_tls(client, "localhost"))
          return sock, sock:tls().peer.sha256
        end
        local old, first = connect()
        local function copy(from, to)
          local source, target = io.open(from, "rb"), io.open(to, "wb")
          target:write(source:read("*a"))
          source:close()
          target:close()
        end
        copy("fresh.pem", "server.pem")
        print(server:reload())
        local _, same = connect()
        print(same == first)
        copy("fresh.key", "server.key")
        print(server:reload())
        local _, fresh = connect()
        print(fresh == first)
        old:write("still there")
        print(context.check(old:read()):tostring())
        os.exit(0)"#;
    pki.add("fresh", "localhost", &["localhost"], |_| {});
    let done = run(&mut pki.node_lua(script)).succeeded();
    let lines: Vec<&str> = done.stdout.lines().collect();
    assert!(
        lines[0]
            .starts_with("false\t221\tcert: 'server.pem', line 1: certificate \"CN=localhost\"")
    );
    assert_eq!(lines[1..], ["true", "true", "false", "still there"]);
}

/// What is promised of simulations: the same seed, the same bytes.
#[test]
fn simulations_repeat_and_verify() {
    let pki = Pki::new();
    let script = r#"
        local server = context.check(tls.server{ cert = "server.pem", key = "server.key" })
        local client = context.check(tls.client{ ca = "ca.pem" })
        local listener = context.check(tcp.listen("127.0.0.1", 0))
        listener:accept(function(_, sock)
          local ok, code = sock:start_tls(server, nil, 5)
          if not ok then return sock:close() end
          sock:read(function(good, data)
            if good then return sock:write(data) end
            sock:write("the end: " .. data)
            sock:close()
          end)
        end)
        for _, name in ipairs { "localhost", "other.example" } do
          local sock = context.check(tcp.connect("127.0.0.1", tcp.local_port(listener)))
          local ok, code, text = sock:start_tls(client, name, 5)
          print(timer.now(), ok, ok and sock:tls().version or code, text)
          if ok then
            sock:write(("x"):rep(100000))
            local n = 0
            while n < 100000 do n = n + #context.check(sock:read()) end
            print(timer.now(), n)
            sock:write("last words")
            sock:shutdown()
            print(timer.now(), sock:read(), sock:read())
          end
          sock:close()
        end
        listener:close()"#;
    pki.folder.write("script.lua", script);
    let simulate = |seed: &str| {
        let mut command = node_lua();
        command.current_dir(pki.path(""));
        run(command.args(["--simulate", seed, "--trace", "script.lua"])).succeeded()
    };
    let (first, again, other) = (simulate("7"), simulate("7"), simulate("8"));
    assert_eq!((&first.stdout, &first.stderr), (&again.stdout, &again.stderr));
    assert_ne!(first.stdout, other.stdout);
    assert!(first.stdout.contains("true\tTLSv1.3"), "{first}");
    assert!(
        first.stdout.contains("false\t221") && first.stdout.contains("other.example"),
        "{first}"
    );
}

#[test]
fn who_has_no_files_gives_texts() {
    let folder = Folder::new();
    folder.write(
        "confined.lua",
        r#"
        local function first(ok, code, text) return ok, code, text end
        print(first(tls.client{ ca = "/etc/passwd" }))
        local pem = ...
        print((tls.client{ ca = pem }))"#,
    );
    folder.write(
        "main.lua",
        r#"
        local text = assert(io.open("ca.pem")):read("*a")
        context.create({ file = "confined.lua", deny = { "io", "network" } }, text)"#,
    );
    let pki = Pki::new();
    folder.write("ca.pem", std::fs::read(pki.path("ca.pem")).unwrap());
    let done = run(node_lua().current_dir(folder.path("")).arg("main.lua")).succeeded();
    let lines: Vec<&str> = done.stdout.lines().collect();
    assert!(lines[0].starts_with("false\t50\tfiles are withheld"), "{done}");
    assert_eq!(lines[1], "true", "{done}");
}
