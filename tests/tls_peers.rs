//! TLS with other programs: openssl, curl and nginx. One that is not installed is skipped, and that
//! is said; with `NODE_LUA_PEERS=all`, as in `.ci/run`, it fails.

#![cfg(feature = "tls")]
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "tests")]

#[path = "support/peers.rs"]
mod peers;
#[path = "support/pki.rs"]
mod pki;
mod support;

use std::io::Write;
use std::process::{Command, Stdio};

use pki::Pki;
use support::{Done, PATIENCE, Server, free_port, run_for};

/// Whether a program is there.
fn has(program: &str) -> bool {
    !peers::lacks_program(program)
}

/// Answers every line with itself, and tells at once what the handshake has come to.
const LINES: &str = r#"
    local server = context.check(tls.server{
      cert = "server.pem", key = "server.key", alpn = { "echo" },
      client_ca = "ca.pem", client_optional = true,
      sni = { ["other.example"] = { "other.pem", "other.key" } },
    })
    local ok, listener = tcp.listen("127.0.0.1", 0)
    print(tcp.local_port(listener))
    listener:accept(function(_, sock)
      local ok, code, text = sock:start_tls(server, nil, 20)
      if not ok then
        print("failed", code, text)
        return sock:close()
      end
      local about = sock:tls()
      print(about.version, about.alpn, about.server_name, about.peer and about.peer.subject)
      sock:read(function(good, data)
        if good then return sock:write(data) end
        print("ended", data)
        sock:close()
      end)
    end)"#;

/// `openssl s_client`, whose input stays open.
fn s_client_command(pki: &Pki, port: u16) -> Command {
    let mut command = Command::new("openssl");
    command.current_dir(pki.path("")).stdin(Stdio::piped());
    command.args(["s_client", "-CAfile", "ca.pem", "-connect", &format!("127.0.0.1:{port}")]);
    command
}

/// Runs `openssl s_client` with a line of input, which ends once it is answered.
fn s_client(pki: &Pki, port: u16, args: &[&str]) -> Done {
    let mut command = s_client_command(pki, port);
    command.arg("-verify_return_error").args(args.iter().flat_map(|arg| arg.split(' ')));
    let mut client = Server::spawn(&mut command);
    let mut input = client.input();
    // Nobody reads it if there is no handshake.
    drop(input.write_all(b"hello there\n"));
    let mut printed = String::new();
    while !printed.ends_with("hello there\n")
        && let Some(line) = client.next_line()
    {
        printed += &(line + "\n");
    }
    drop(input);
    let mut done = client.finish(PATIENCE);
    done.stdout.insert_str(0, &printed);
    done
}

#[test]
fn openssl_is_served() {
    if !has("openssl") {
        return;
    }
    let pki = Pki::new();
    pki.add("other", "other.example", &["other.example"], |_| {});
    let mut server = Server::spawn(&mut pki.node_lua(LINES));
    let port = server.port();
    let cases = [
        (
            &["-tls1_3", "-servername localhost"][..],
            "TLSv1.3\tnil\tlocalhost\tnil",
            "CN = localhost",
        ),
        (&["-tls1_2", "-alpn echo"], "TLSv1.2\techo\tnil\tnil", "CN = localhost"),
        (&["-servername other.example"], "TLSv1.3\tnil\tother.example\tnil", "CN = other.example"),
        (&["-cert client.pem -key client.key"], "TLSv1.3\tnil\tnil\tCN=alice", "CN = localhost"),
    ];
    for (args, told, subject) in cases {
        let mut args = args.to_vec();
        if !args.iter().any(|arg| arg.contains("-servername")) {
            args.push("-noservername");
        }
        let done = s_client(&pki, port, &args);
        assert_eq!(server.line(), told, "{done}");
        assert_eq!(server.line(), "ended\t1", "{done}");
        assert!(done.stdout.contains("hello there"), "{done}");
        assert!(done.stdout.contains(subject), "{done}");
        assert!(done.stdout.contains("Verify return code: 0 (ok)"), "{done}");
    }
    let done = s_client(&pki, port, &["-tls1_1", "-cipher ALL@SECLEVEL=0"]);
    assert_ne!(done.code(), Some(0), "{done}");
    let line = server.line();
    assert!(line.starts_with("failed\t220\t"), "{line}");
}

#[test]
fn openssl_resumes_what_it_has_begun() {
    if !has("openssl") {
        return;
    }
    let pki = Pki::new();
    pki.add("other", "other.example", &["other.example"], |_| {});
    let mut server = Server::spawn(&mut pki.node_lua(LINES));
    let port = server.port();
    for version in ["-tls1_2", "-tls1_3"] {
        s_client(&pki, port, &[version, "-sess_out session"]).succeeded();
        let done = s_client(&pki, port, &[version, "-sess_in session"]).succeeded();
        assert!(done.stdout.contains("Reused, "), "{version}: {done}");
    }
}

#[test]
fn openssl_is_asked_with_certificates_of_both_sides() {
    if !has("openssl") {
        return;
    }
    let pki = Pki::new();
    for version in ["-tls1_2", "-tls1_3"] {
        let port = free_port();
        let mut command = Command::new("openssl");
        command.current_dir(pki.path("")).stdin(Stdio::null());
        command.args(["s_server", "-accept", &port.to_string(), "-rev", version, "-naccept", "2"]);
        command.args(["-cert", "server.pem", "-key", "server.key", "-alpn", "turn"]);
        command.args(["-Verify", "1", "-CAfile", "ca.pem", "-verify_return_error"]);
        let mut peer = Server::spawn(&mut command);
        while !peer.line().starts_with("ACCEPT") {}
        let script = format!(
            r#"
            local function connect(options)
              local client = context.check(tls.client(options))
              local sock = context.check(tcp.connect("127.0.0.1", {port}))
              return sock, sock:start_tls(client, "localhost", 20)
            end
            local sock, ok, _, text = connect{{
              ca = "ca.pem", cert = "client.pem", key = "client.key", alpn = {{ "turn" }},
            }}
            print(ok, text, sock:tls().alpn, sock:tls().version)
            sock:write("hello\n")
            print(context.check(sock:read()):tostring())
            sock:close()
            local nobody, good, code = connect{{ ca = "ca.pem" }}
            if good then good, code = nobody:read(20) end
            print(good, code, nobody:tls().failure)
            os.exit(0)"#
        );
        let done = run_for(&mut pki.node_lua(&script), PATIENCE).succeeded();
        let lines: Vec<&str> = done.stdout.lines().collect();
        let spoken = version.replace("-tls1_", "TLSv1.");
        assert_eq!(lines[0], format!("true\tnil\tturn\t{spoken}"), "{done}");
        assert_eq!(lines[1], "olleh", "{done}");
        let refused = lines.last().unwrap();
        assert!(
            refused.starts_with("false\t221\t") || refused.starts_with("false\t220\t"),
            "{done}"
        );
    }
}

/// `tcp.shutdown`: the peer is told in its own words, and what it says afterwards is read.
#[test]
fn openssl_is_told_that_nothing_follows() {
    if !has("openssl") {
        return;
    }
    let pki = Pki::new();
    // As the server: its file is longer than what fits into the buffers on the way.
    pki.folder.write("file.txt", "line of a file\n".repeat(100_000));
    for version in ["-tls1_2", "-tls1_3"] {
        let port = free_port();
        let mut command = Command::new("openssl");
        command.current_dir(pki.path("")).stdin(Stdio::null());
        command.args(["s_server", "-accept", &port.to_string(), "-WWW", version, "-naccept", "1"]);
        command.args(["-cert", "server.pem", "-key", "server.key"]);
        let mut peer = Server::spawn(&mut command);
        while !peer.line().starts_with("ACCEPT") {}
        let script = format!(
            r#"
            local client = context.check(tls.client{{ ca = "ca.pem" }})
            local sock = context.check(tcp.connect("127.0.0.1", {port}))
            context.check(sock:start_tls(client, "localhost", 20))
            sock:write("GET /file.txt HTTP/1.0\r\n\r\n")
            sock:shutdown()
            local ok, data, n = true, nil, 0
            while ok do
              ok, data = sock:read(20)
              if ok then n = n + #data end
            end
            print(n > 1500000 and n < 1500100, data)
            sock:close()"#
        );
        let done = run_for(&mut pki.node_lua(&script), PATIENCE).succeeded();
        assert_eq!(done.stdout, "true\t1\n", "{version}: {done}");
    }
    // As the client, which then ends by itself, without complaining.
    let script = r#"
        local server = context.check(tls.server{ cert = "server.pem", key = "server.key" })
        local listener = context.check(tcp.listen("127.0.0.1", 0))
        print(tcp.local_port(listener))
        for _ = 1, 2 do
          local sock = context.check(listener:accept())
          context.check(sock:start_tls(server, 20))
          sock:write("last words\n")
          sock:shutdown()
          print(sock:read(20))
          sock:close()
        end"#;
    let mut server = Server::spawn(&mut pki.node_lua(script));
    let port = server.port();
    for version in ["-tls1_2", "-tls1_3"] {
        let done = run_for(s_client_command(&pki, port).arg(version), PATIENCE).succeeded();
        assert!(done.stdout.contains("last words\n"), "{done}");
        assert!(!done.stderr.contains("eof"), "{done}");
        assert_eq!(server.line(), "false\t1", "{done}");
    }
}

/// Answers requests, as little of HTTP as it takes.
const HTTP: &str = r#"
    local server = context.check(tls.server{
      cert = "server.pem", key = "server.key", alpn = { "http/1.1" },
      client_ca = CLIENT_CA,
    })
    local ok, listener = tcp.listen("127.0.0.1", 0)
    print(tcp.local_port(listener))
    listener:accept(function(_, sock)
      local ok, code, text = sock:start_tls(server, nil, 20)
      if not ok then return sock:close() end
      local peer = sock:tls().peer
      local body = ("%s\n"):format(peer and peer.subject or "nobody") .. ("x"):rep(3000000)
      local head = ""
      while not head:find("\r\n\r\n", 1, true) do
        local good, data = sock:read()
        if not good then return sock:close() end
        head = head .. data:tostring()
      end
      sock:write("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: " .. #body .. "\r\n\r\n")
      sock:write(body)
      sock:close()
    end)"#;

fn http_server(pki: &Pki, client_ca: &str) -> (Server, u16) {
    let mut server = Server::spawn(&mut pki.node_lua(&HTTP.replace("CLIENT_CA", client_ca)));
    let port = server.port();
    (server, port)
}

fn curl(pki: &Pki, port: u16, args: &[&str]) -> Done {
    let mut command = Command::new("curl");
    command.current_dir(pki.path("")).args(["-sS", "--max-time", "50", "--cacert", "ca.pem"]);
    run_for(command.args(args).arg(format!("https://localhost:{port}/")), PATIENCE)
}

#[test]
fn curl_is_served() {
    if !has("curl") {
        return;
    }
    let pki = Pki::new();
    let (_server, port) = http_server(&pki, "nil");
    for args in [&["--tlsv1.3"][..], &["--tls-max", "1.2"]] {
        let done = curl(&pki, port, args).succeeded();
        assert_eq!((done.stdout.len(), &done.stdout[..9]), (3_000_007, "nobody\nxx"));
    }
    let (_server, port) = http_server(&pki, "'ca.pem'");
    let done = curl(&pki, port, &["--cert", "client.pem", "--key", "client.key"]).succeeded();
    assert_eq!(&done.stdout[..9], "CN=alice\n");
    assert_ne!(curl(&pki, port, &[]).code(), Some(0));
}

/// Starts nginx with a server block; its port is in `PORT`.
fn nginx(pki: &Pki, block: &str) -> (Server, u16) {
    peers::nginx(&pki.folder, &format!("server {{ {block} }}"))
}

#[test]
fn nginx_is_asked_and_asks_with_certificates_of_both_sides() {
    if !has("nginx") || !has("curl") {
        return;
    }
    let pki = Pki::new();
    // As the server.
    let block = "listen 127.0.0.1:PORT ssl; ssl_protocols TLSv1.2 TLSv1.3;
        ssl_certificate server.pem;
        ssl_certificate_key server.key; ssl_client_certificate ca.pem; ssl_verify_client on;
        location / { return 200 \"$ssl_client_s_dn $ssl_protocol\\n\"; }";
    let (peer, port) = nginx(&pki, block);
    let script = format!(
        r#"
        local client = context.check(tls.client{{
          ca = "ca.pem", cert = "client.pem", key = "client.key", alpn = {{ "http/1.1" }},
        }})
        local sock = context.check(tcp.connect("127.0.0.1", {port}))
        context.check(sock:start_tls(client, "localhost", 20))
        sock:write("GET / HTTP/1.0\r\nHost: localhost\r\n\r\n")
        local ok, data = true
        repeat
          ok, data = sock:read()
          io.write(ok and data:tostring() or "ended with " .. data .. "\n")
        until not ok
        os.exit(0)"#
    );
    let done = run_for(&mut pki.node_lua(&script), PATIENCE).succeeded();
    assert!(done.stdout.contains("CN=alice TLSv1.3\n"), "{done}");
    assert!(done.stdout.ends_with("ended with 1\n"), "{done}");
    drop(peer);
    // As the client, in front of us.
    let (_server, behind) = http_server(&pki, "'ca.pem'");
    let block = format!(
        "listen 127.0.0.1:PORT ssl; ssl_certificate server.pem; ssl_certificate_key server.key;
         location / {{ proxy_pass https://127.0.0.1:{behind}; proxy_ssl_certificate client.pem;
           proxy_ssl_certificate_key client.key; proxy_ssl_trusted_certificate ca.pem;
           proxy_ssl_verify on; proxy_ssl_name localhost; proxy_ssl_server_name on; }}"
    );
    let (_peer, port) = nginx(&pki, &block);
    for _ in 0..3 {
        let done = curl(&pki, port, &[]).succeeded();
        assert_eq!((done.stdout.len(), &done.stdout[..9]), (3_000_009, "CN=alice\n"));
    }
}
