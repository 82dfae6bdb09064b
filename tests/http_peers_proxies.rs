//! nginx and haproxy, in front of servers of ours and behind clients of ours. One that is not there
//! is skipped, and that is said; with `NODE_LUA_PEERS=all`, as in `.ci/run`, it fails.

#![cfg(feature = "http")]
#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "support/http.rs"]
mod http;
#[path = "support/peers.rs"]
mod peers;
#[path = "support/pki.rs"]
mod pki;
mod support;

use std::process::Command;

use http::{script, serve};
use peers::{haproxy, lacks_program, nginx};
use pki::Pki;
use support::{Done, Folder, PATIENCE, Server, node_lua, run_for};

/// Settings of TLS in a folder of [`Pki`].
const TLS: &str = "local config = context.check(tls.server{
    cert = 'server.pem', key = 'server.key', alpn = { 'h2', 'http/1.1' } })";

/// What servers have beside the usual.
const MORE: &str = "
    routes['/about'] = function(req)
        return 200, nil, ('%s %s'):format(req.version, req.headers['x-by'])
    end
    routes['/big'] = function()
        local n = 0
        return 200, nil, function() n = n + 1 if n <= 20 then return ('x'):rep(2 ^ 20) end end
    end
    routes['/cut'] = function(_, res)
        res:write(('x'):rep(1000))
        error('cut off on purpose')
    end";

/// Runs curl, which fails if it must; what it has got.
fn curl(folder: &Folder, args: &[&str]) -> Done {
    let mut command = Command::new("curl");
    command.current_dir(folder.path("")).args(["-sS", "--max-time", "50", "--cacert", "ca.pem"]);
    run_for(command.args(args), PATIENCE)
}

/// Has curl ask for everything through a proxy; `version` is what the server of ours is spoken to
/// with.
fn ask_through(folder: &Folder, base: &str, args: &[&str], version: &str) {
    let ask = |more: &[&str], path: &str| {
        curl(folder, &[args, more, &[&format!("{base}{path}")]].concat())
    };
    assert_eq!(ask(&[], "/").succeeded().stdout, "hello");
    assert_eq!(ask(&[], "/about").succeeded().stdout, format!("{version} proxy"));
    assert_eq!(ask(&["-d", "abc"], "/echo").succeeded().stdout, "abc");
    let body = folder.write("body", "0123456789".repeat(500_000));
    let sent = format!("@{}", body.display());
    let chunked = ["--data-binary", &sent, "-H", "Transfer-Encoding: chunked", "-H", "Expect:"];
    let length = ["--data-binary", &sent, "-H", "Expect: 100-continue"];
    for more in [&chunked[..], &length] {
        // To /text: nginx sends no more of a body once an answer has begun.
        let done = ask(more, "/text").succeeded();
        assert_eq!(done.stdout.len(), 5_000_000, "{more:?}");
        assert!(done.stdout.ends_with("0123456789"), "{more:?}");
    }
    assert_eq!(ask(&[], "/big").succeeded().stdout.len(), 20 << 20);
    assert!(ask(&["-I"], "/").succeeded().stdout.to_lowercase().contains("content-length: 5"));
    assert_eq!(ask(&["-w", "%{http_code}"], "/none").succeeded().stdout, "no /none404");
    // What is cut off on one side is on the other.
    assert_ne!(ask(&["-f", "-o", "/dev/null"], "/cut").code(), Some(0));
    // Several at once, and one after the other.
    let url = format!("{base}/?[1-200]");
    let done =
        curl(folder, &[args, &["-Z", "-o", "/dev/null", "-w", "%{http_code}\n", &url]].concat());
    assert_eq!(done.succeeded().stdout, "200\n".repeat(200));
}

#[test]
fn nginx_stands_in_front() {
    if lacks_program("nginx") || lacks_program("curl") {
        return;
    }
    let pki = Pki::new();
    let (_plain, port) = serve("", MORE);
    let listen = if cfg!(feature = "tls") {
        "ssl http2; ssl_certificate server.pem; ssl_certificate_key server.key"
    } else {
        ""
    };
    let lines = format!(
        "upstream ours {{ server 127.0.0.1:{port}; keepalive 8; }}
         server {{ listen 127.0.0.1:PORT {listen};
           location / {{ proxy_pass http://ours; proxy_http_version 1.1;
             proxy_set_header X-By proxy; proxy_set_header Connection '';
             client_max_body_size 0; proxy_request_buffering off; }} }}"
    );
    let (_nginx, front) = nginx(&pki.folder, &lines);
    if cfg!(feature = "tls") {
        ask_through(&pki.folder, &format!("https://localhost:{front}"), &["--http1.1"], "1.1");
        ask_through(&pki.folder, &format!("https://localhost:{front}"), &["--http2"], "1.1");
    } else {
        ask_through(&pki.folder, &format!("http://localhost:{front}"), &[], "1.1");
    }
}

#[cfg(feature = "tls")]
#[test]
fn nginx_asks_over_tls() {
    if lacks_program("nginx") || lacks_program("curl") {
        return;
    }
    let pki = Pki::new();
    let script = script("tls = config", &format!("{TLS} {MORE}"));
    let mut server = Server::spawn(&mut pki.node_lua(&script));
    let lines = format!(
        "server {{ listen 127.0.0.1:PORT;
           location / {{ proxy_pass https://localhost:{}; proxy_http_version 1.1;
             proxy_ssl_verify on; proxy_ssl_trusted_certificate ca.pem; proxy_ssl_name localhost;
             proxy_set_header X-By proxy; client_max_body_size 0; }} }}",
        server.port()
    );
    let (_nginx, front) = nginx(&pki.folder, &lines);
    ask_through(&pki.folder, &format!("http://127.0.0.1:{front}"), &[], "1.1");
}

#[test]
fn haproxy_stands_in_front_and_speaks_either_version() {
    if lacks_program("haproxy") || lacks_program("curl") {
        return;
    }
    let pki = Pki::new();
    let (_server, port) = serve("http2 = true", MORE);
    for (proto, version) in [("", "1.1"), ("proto h2", "2")] {
        let back =
            format!("http-request set-header x-by proxy\n server s 127.0.0.1:{port} {proto}");
        let (_haproxy, front) = haproxy(&pki.folder, "", &back);
        ask_through(&pki.folder, &format!("http://127.0.0.1:{front}"), &[], version);
    }
    if cfg!(feature = "tls") {
        let pair = ["server.pem", "server.key"].map(|file| std::fs::read(pki.path(file)).unwrap());
        pki.folder.write("pair.pem", pair.concat());
        let back =
            format!("http-request set-header x-by proxy\n server s 127.0.0.1:{port} proto h2");
        let front = "ssl crt pair.pem alpn h2,http/1.1";
        let (_haproxy, front) = haproxy(&pki.folder, front, &back);
        for version in ["--http1.1", "--http2"] {
            ask_through(&pki.folder, &format!("https://localhost:{front}"), &[version], "2");
        }
    }
}

/// Asks a server, at `base`, for everything.
const CLIENT: &str = r#"
    local function ask(path, more)
        local all = { url = base .. path, timeout = 50, tls = config }
        for name, value in pairs(more or {}) do all[name] = value end
        return context.check(http.request(all))
    end
    local res = ask("/")
    print(res.status, res:text(), res.version)
    res = ask("/none")
    print(res.status, #res:text() > 0)
    res = ask("/moved")
    print(res.status, res.url == base .. "/", res:text())
    local n = 0
    for chunk in ask("/big").chunks do n = n + #chunk end
    print(n)
    res = ask("/", { method = "HEAD" })
    print(res.status, res.headers["content-length"], res:text())
    n = 0
    res = ask("/echo", { body = function()
        n = n + 1
        if n <= 300 then return ("y"):rep(10000) end
    end })
    print(res.status, #res:text(2 ^ 24))
    print(#ask("/echo", { body = ("z"):rep(100000) }):text())
    res = ask("/big")
    print(res:close(), ask("/").status)
    local left = 100
    for _ = 1, 100 do
        context.run(function()
            if ask("/"):text() ~= "hello" then print("differs") end
            left = left - 1
            if left == 0 then print("all") os.exit(0) end
        end)
    end"#;

fn assert_answers(folder: &Folder, base: &str, tls: &str, version: &str) {
    let code = format!("local base, config = '{base}', {tls}\n{CLIENT}");
    let mut command = node_lua();
    let done = run_for(command.current_dir(folder.path("")).args(["-e", &code]), 2 * PATIENCE);
    let done = done.succeeded();
    let expected = format!(
        "200\thello\t{version}\n404\ttrue\n200\ttrue\thello\n20971520\n200\t5\t\n\
         200\t3000000\n100000\ntrue\t200\nall\n"
    );
    assert_eq!(done.stdout, expected, "{base} {tls}: {done}");
}

#[test]
fn nginx_and_haproxy_answer() {
    if lacks_program("nginx") || lacks_program("haproxy") {
        return;
    }
    let pki = Pki::new();
    let pair = ["server.pem", "server.key"].map(|file| std::fs::read(pki.path(file)).unwrap());
    pki.folder.write("pair.pem", pair.concat());
    pki.folder.write("files/big", vec![b'x'; 20 << 20]);
    let (_ours, port) = serve("", "");
    let locations = format!(
        "location = / {{ return 200 hello; }} location = /moved {{ return 302 /; }}
         location = /echo {{ proxy_pass http://127.0.0.1:{port}; client_max_body_size 0;
           proxy_http_version 1.1; proxy_request_buffering off; }}
         location / {{ root files; }} absolute_redirect off;"
    );
    let (_nginx, plain) =
        nginx(&pki.folder, &format!("server {{ listen 127.0.0.1:PORT; {locations} }}"));
    assert_answers(&pki.folder, &format!("http://127.0.0.1:{plain}"), "nil", "1.1");
    let client =
        |alpn: &str| format!("context.check(tls.client{{ ca = 'ca.pem', alpn = {{ {alpn} }} }})");
    let back = format!("server s 127.0.0.1:{plain}");
    let (_haproxy, front) = haproxy(&pki.folder, "", &back);
    assert_answers(&pki.folder, &format!("http://127.0.0.1:{front}"), "nil", "1.1");
    if cfg!(feature = "tls") {
        let lines = format!(
            "server {{ listen 127.0.0.1:PORT ssl http2; ssl_certificate server.pem;
               ssl_certificate_key server.key; {locations} }}"
        );
        let (_secure, secure) = nginx(&pki.folder, &lines);
        let front = "ssl crt pair.pem alpn h2,http/1.1";
        let (_haproxy, front) = haproxy(&pki.folder, front, &back);
        for port in [secure, front] {
            let base = format!("https://localhost:{port}");
            assert_answers(&pki.folder, &base, &client("'h2', 'http/1.1'"), "2");
            assert_answers(&pki.folder, &base, &client("'http/1.1'"), "1.1");
        }
    }
}
