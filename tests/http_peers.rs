//! Clients of HTTP that others have written, against servers of ours: curl, wrk, h2load, ab and
//! nghttp. One that is not there is skipped, and that is said; with `NODE_LUA_PEERS=all`, as in
//! `.ci/run`, it fails. `--nocapture` shows which versions they are.

#![cfg(feature = "http")]
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "tests")]

#[path = "support/http.rs"]
mod http;
#[path = "support/peers.rs"]
mod peers;
#[path = "support/pki.rs"]
mod pki;
mod support;

use std::process::Command;

use http::{script, serve};
use peers::{lacks_program, peer};
use pki::Pki;
use support::{Done, Folder, PATIENCE, Server, repository, run_for};

/// The example, as its description says that it is called.
fn example() -> (Server, u16) {
    let mut server = Server::start([repository("examples/http_server.lua").to_str().unwrap(), "0"]);
    let port = server.port();
    (server, port)
}

/// A server over TLS, with certificates for localhost in the folder of `pki`.
fn serve_tls(pki: &Pki) -> (Server, u16) {
    let code = "
        local config = context.check(tls.server{
            cert = 'server.pem', key = 'server.key', alpn = { 'h2', 'http/1.1' } })";
    let script = script("tls = config, http2 = true", code);
    let mut server = Server::spawn(&mut pki.node_lua(&script));
    let port = server.port();
    (server, port)
}

/// Runs a client to its end.
fn ask(program: &str, args: &[&str]) -> Done {
    run_for(peer(program).args(args), 3 * PATIENCE).succeeded()
}

/// What curl says of the version and status, behind the body.
const SAID: [&str; 3] = ["-sS", "-w", " %{http_version} %{http_code}"];

fn curl(args: &[&str]) -> Done {
    run_for(Command::new("curl").args(SAID).args(args), 3 * PATIENCE)
}

#[test]
fn curl_speaks_every_version() {
    if lacks_program("curl") {
        return;
    }
    let (_server, port) = example();
    let url = |path: &str| format!("http://127.0.0.1:{port}{path}");
    let versions = [
        (&["--http1.0"][..], "1"),
        (&["--http1.1"], "1.1"),
        (&["--http2"], "1.1"), // asks for an upgrade, which is not given
        (&["--http2-prior-knowledge"], "2"),
    ];
    for (args, version) in versions {
        let get = |more: &[&str], path: &str| {
            let url = url(path);
            curl(&[args, more, &[&url]].concat()).succeeded().stdout
        };
        assert_eq!(get(&[], "/"), format!("hello {version} 200"), "{args:?}");
        assert_eq!(get(&[], "/none"), format!("there is no /none\n {version} 404"), "{args:?}");
        assert_eq!(get(&["-d", "abc"], "/echo"), format!("abc {version} 200"), "{args:?}");
        assert_eq!(get(&["-X", "POST"], "/echo"), format!(" {version} 200"), "{args:?}");
        if cfg!(feature = "json") {
            let json = format!("{{\"hello\":\"world\"}} {version} 200");
            assert_eq!(get(&[], "/json"), json, "{args:?}");
        }
        let head = get(&["-I"], "/").to_lowercase();
        assert!(head.contains("content-length: 5\r\n"), "{args:?}: {head}");
        if args[0] != "--http1.0" {
            let chunked = ["-d", "abcdef", "-H", "Transfer-Encoding: chunked"];
            assert_eq!(get(&chunked, "/echo"), format!("abcdef {version} 200"), "{args:?}");
        }
        // Two on one connection; of HTTP/2 this curl can do it over TLS only.
        if version == "2" {
            continue;
        }
        let url = url("/");
        let done = curl(&[args, &["-v", &url, &url]].concat()).succeeded();
        let is_kept = done.stderr.contains("Re-using existing connection");
        assert!(is_kept || version == "1", "{args:?}: {done}");
    }
}

#[test]
fn curl_waits_until_a_body_is_asked_for() {
    if lacks_program("curl") {
        return;
    }
    let (_server, port) = serve("", "routes['/refuse'] = function() return 403, nil, 'no' end");
    let url = |path: &str| format!("http://127.0.0.1:{port}{path}");
    // Longer than anybody may wait for it: curl sends nothing before it is asked.
    let wait = ["-v", "-H", "Expect: 100-continue", "--expect100-timeout", "3000"];
    let done = curl(&[&wait[..], &["-d", "abc", &url("/echo")]].concat()).succeeded();
    assert_eq!(done.stdout, "abc 1.1 200");
    assert!(done.stderr.contains("HTTP/1.1 100 Continue"), "{done}");
    let done = curl(&[&wait[..], &["-d", "abc", &url("/refuse")]].concat()).succeeded();
    assert_eq!(done.stdout, "no 1.1 403");
    assert!(!done.stderr.contains("100 Continue"), "{done}");
}

#[cfg(feature = "tls")]
#[test]
fn curl_agrees_on_a_version_over_tls() {
    if lacks_program("curl") {
        return;
    }
    let pki = Pki::new();
    let (_server, port) = serve_tls(&pki);
    for (args, version) in [
        (&["--http2"][..], "2"),
        (&["--http1.1"], "1.1"),
        (&["--http2", "--no-alpn"], "1.1"),
        (&["--http2", "--tls-max", "1.2"], "2"),
    ] {
        let ca = pki.path("ca.pem").display().to_string();
        let url = format!("https://localhost:{port}/echo");
        let all = [args, &["-v", "--cacert", &ca, "-d", "abc", &url, &url]].concat();
        let done = curl(&all).succeeded();
        assert_eq!(done.stdout, format!("abc {version} 200").repeat(2), "{args:?}");
        assert!(done.stderr.contains("Re-using existing connection"), "{args:?}: {done}");
    }
}

/// The most that a process has had resident, where the system tells; 0 elsewhere.
fn peak_bytes(process: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap_or_default();
    line.split_whitespace().nth(1).map_or(0, |count| count.parse::<u64>().unwrap() * 1024)
}

#[test]
fn a_gibibyte_goes_both_ways_in_bounded_memory() {
    const GIBIBYTE: u64 = 1 << 30;
    if lacks_program("curl") {
        return;
    }
    let folder = Folder::new();
    let path = folder.path("body");
    // Without blocks of its own; what is in it says where it belongs.
    let file = std::fs::File::create(&path).unwrap();
    file.set_len(GIBIBYTE).unwrap();
    for part in 0..64_u64 {
        let at = part * (GIBIBYTE / 64) + part;
        std::os::unix::fs::FileExt::write_all_at(&file, &at.to_be_bytes(), at).unwrap();
    }
    let (server, port) = example();
    for version in ["--http1.1", "--http2-prior-knowledge"] {
        // What comes is compared as it comes.
        let script = format!(
            "curl -sS {version} -X POST -T {0} http://127.0.0.1:{port}/echo | cmp - {0}
             curl -sS {version} http://127.0.0.1:{port}/big/1024 | wc -c",
            path.display()
        );
        let done = run_for(Command::new("sh").args(["-c", &script]), 10 * PATIENCE).succeeded();
        assert_eq!(done.stdout.trim(), GIBIBYTE.to_string(), "{version}: {done}");
        assert_eq!(done.stderr, "", "{version}: {done}");
    }
    let peak = peak_bytes(server.id());
    println!("the most memory that the server had: {} MiB", peak >> 20);
    assert!(peak < 100 << 20, "{peak}");
}

#[test]
fn wrk_finds_nothing_wrong() {
    if lacks_program("wrk") {
        return;
    }
    let (_server, port) = example();
    let done = ask("wrk", &["-t1", "-c50", "-d1s", &format!("http://127.0.0.1:{port}/")]);
    assert!(done.stdout.contains("Requests/sec"), "{done}");
    assert!(!done.stdout.contains("Non-2xx") && !done.stdout.contains("Socket errors"), "{done}");
}

#[test]
fn h2load_gets_all_that_it_asks_for() {
    if lacks_program("h2load") {
        return;
    }
    let folder = Folder::new();
    let body = folder.write("body", "x".repeat(100_000)).display().to_string();
    let (_server, port) = example();
    let pki = Pki::new();
    let (_secure, secure) = if cfg!(feature = "tls") { serve_tls(&pki) } else { example() };
    let plain = |path: &str| format!("http://127.0.0.1:{port}{path}");
    let tls = format!("https://127.0.0.1:{secure}/");
    let mut runs = vec![
        vec!["-n2000", "-c10", "-m20"],
        vec!["-n2000", "-c10", "--h1"],
        vec!["-n200", "-c4", "-m10", "-d", &body],
        vec!["-n200", "-c4", "-m10", "-d", &body, "--h1"],
        // Windows of a kibibyte.
        vec!["-n20", "-c2", "-m5", "-w10", "-W10", "-d", &body],
    ];
    if cfg!(feature = "tls") {
        runs.push(vec!["-n500", "-c5", "-m10", &tls]);
        runs.push(vec!["-n500", "-c5", "--npn-list=http/1.1", &tls]);
    }
    for mut args in runs {
        let count = args[0].trim_start_matches("-n").to_owned();
        let url = plain(if args.contains(&"-d") { "/echo" } else { "/" });
        if args.last() != Some(&tls.as_str()) {
            args.push(&url);
        }
        let done = ask("h2load", &args);
        let expected = format!("{count} succeeded, 0 failed, 0 errored, 0 timeout");
        assert!(done.stdout.contains(&expected), "{args:?}: {done}");
        assert!(done.stdout.contains(&format!("status codes: {count} 2xx")), "{args:?}: {done}");
    }
}

#[test]
fn ab_gets_all_that_it_asks_for() {
    if lacks_program("ab") {
        return;
    }
    let folder = Folder::new();
    let body = folder.write("body", "x".repeat(5000)).display().to_string();
    let (_server, port) = example();
    let (hello, echo) =
        (format!("http://127.0.0.1:{port}/"), format!("http://127.0.0.1:{port}/echo"));
    for args in [
        &["-n1000", "-c20", &hello][..],
        &["-n1000", "-c20", "-k", &hello],
        &["-n500", "-c20", "-p", &body, "-T", "text/plain", &echo],
    ] {
        let done = ask("ab", args);
        let count = args[0].trim_start_matches("-n");
        let complete = format!("Complete requests:      {count}\n");
        assert!(done.stdout.contains(&complete), "{args:?}: {done}");
        assert!(done.stdout.contains("Failed requests:        0\n"), "{args:?}: {done}");
        assert!(!done.stdout.contains("Non-2xx"), "{args:?}: {done}");
        let kept = done.stdout.contains("Keep-Alive requests:    1000\n");
        assert_eq!(kept, args.contains(&"-k"), "{args:?}: {done}");
    }
}

#[test]
fn nghttp_sends_and_gets_trailers() {
    if lacks_program("nghttp") {
        return;
    }
    let folder = Folder::new();
    let body = folder.write("body", "x".repeat(300_000)).display().to_string();
    let (_server, port) = serve(
        "http2 = true",
        "routes['/sum'] = function(req, res)
             local text = req:text()
             res:status(201):trailer('x-sum', #text):trailer('x-sent', req.trailers['x-sent'])
             return res:finish('got it')
         end",
    );
    let url = format!("http://127.0.0.1:{port}/sum");
    let done = ask("nghttp", &["-v", "-d", &body, "--trailer", "x-sent: all", &url]);
    for line in [":status: 201", "got it", "x-sum: 300000", "x-sent: all", "recv HEADERS frame"] {
        assert!(done.stdout.contains(line), "{line}: {done}");
    }
    // Many at a time, in frames that are padded and with windows that are small.
    let url = format!("http://127.0.0.1:{port}/echo");
    let args = ["-d", &body, "-m20", "-b", "100", "-w", "10", "-W", "12", "-s", "-n", &url];
    let done = ask("nghttp", &args);
    assert_eq!(done.stdout.matches(" 200 292K /echo").count(), 20, "{done}");
}
