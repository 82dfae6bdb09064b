//! HTTP servers against clients that mean no good, or do not care.

#![cfg(feature = "http")]
#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "support/http.rs"]
mod http;
mod support;

use std::io::{Read, Write};
use std::net::Shutdown;
use std::time::Duration;

use http::{ask, curl, get, rest, script, serve, statuses, until};
use support::{Folder, Server, connect, resident_bytes, with_many_files};

const POST: &str = "POST /echo HTTP/1.1\r\nHost: x\r\n";
const CHUNKED: &str = "Transfer-Encoding: chunked\r\n\r\n";

/// Sends a request, and no more after it.
fn send(port: u16, request: &[u8]) -> String {
    let mut stream = connect(port);
    stream.write_all(request).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    rest(stream)
}

/// Requests that have been used to have two servers disagree, and others that are simply wrong:
/// what they are, what is sent, and the statuses that come.
fn corpus() -> Vec<(&'static str, Vec<u8>, &'static str)> {
    let get = |lines: &str| format!("GET / HTTP/1.1\r\n{lines}\r\n").into_bytes();
    let post = |rest: &str| format!("{POST}{rest}").into_bytes();
    let chunked = |body: &str| format!("{POST}{CHUNKED}{body}").into_bytes();
    let next = "GET /next HTTP/1.1\r\nHost: x\r\n\r\n";
    let many: String = (0..100).map(|number| format!("a{number}: b\r\n")).collect();
    vec![
        (
            "both lengths",
            post(&format!("Content-Length: 4\r\n{CHUNKED}5\r\nabcde\r\n0\r\n\r\n{next}")),
            "400",
        ),
        (
            "both, the other way",
            post(&format!(
                "Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n{next}"
            )),
            "400",
        ),
        ("two lengths", post("Content-Length: 5\r\nContent-Length: 6\r\n\r\nabcdef"), "400"),
        ("the same twice", post("Content-Length: 5\r\nContent-Length: 5\r\n\r\nabcde"), "400"),
        ("a list of lengths", post("Content-Length: 5, 5\r\n\r\nabcde"), "400"),
        ("a signed length", post("Content-Length: +5\r\n\r\nabcde"), "400"),
        ("too long a length", post("Content-Length: 18446744073709551621\r\n\r\nabcde"), "400"),
        ("no length", post("Content-Length: \r\n\r\nabcde"), "400"),
        ("space before a colon", post("Content-Length : 5\r\n\r\nabcde"), "400"),
        ("bare LF", b"GET / HTTP/1.1\nHost: x\n\n".to_vec(), "400"),
        ("bare CR", get("Host: x\r\nA: b\rc\r\n"), "400"),
        ("NUL", get("Host: x\r\nA: b\0c\r\n"), "400"),
        ("a folded line", get("Host: x\r\nA: b\r\n c: d\r\n"), "400"),
        ("an extension", chunked("5;a=\"b\"\r\nabcde\r\n0\r\n\r\n"), "200"),
        ("LF in an extension", chunked("5;a\nabcde\r\n0\r\n\r\n"), "400"),
        (
            "a long extension",
            chunked(&format!("5;{}\r\nabcde\r\n0\r\n\r\n", "a".repeat(20480))),
            "400",
        ),
        ("LF behind a size", chunked("5\nabcde\r\n0\r\n\r\n"), "400"),
        ("a size of C", chunked("0x5\r\nabcde\r\n0\r\n\r\n"), "400"),
        ("a negative size", chunked("-5\r\nabcde\r\n0\r\n\r\n"), "400"),
        ("space behind a size", chunked("5 \r\nabcde\r\n0\r\n\r\n"), "400"),
        ("too long a size", chunked("10000000000000005\r\nabcde\r\n0\r\n\r\n"), "400"),
        ("a chunk without an end", chunked("5\r\nabcdeXX0\r\n\r\n"), "400"),
        ("two codings", post("Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n"), "400"),
        ("chunked twice", post("Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n"), "400"),
        (
            "two of the same",
            post("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
            "400",
        ),
        ("chunked first", post("Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n"), "400"),
        ("a coding nobody knows", post("Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n"), "400"),
        (
            "chunks of 1.0",
            b"POST /echo HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n".to_vec(),
            "400",
        ),
        ("two names", b"GET http://a/ HTTP/1.1\r\nHost: b\r\n\r\n".to_vec(), "400"),
        ("one name twice", b"GET http://a/ HTTP/1.1\r\nHost: A\r\n\r\n".to_vec(), "200"),
        ("no host", get(""), "400"),
        ("two hosts", get("Host: a\r\nHost: b\r\n"), "400"),
        ("a host that is none", get("Host: a/b\r\n"), "400"),
        ("somebody's host", get("Host: me@a\r\n"), "400"),
        (
            "garbage behind",
            [get("Host: x\r\n"), b"\0\x01garbage\r\n\r\n".to_vec()].concat(),
            "200 400",
        ),
        (
            "a body behind",
            [get("Host: x\r\n"), format!("xyz=1&{next}").into_bytes()].concat(),
            "200 400",
        ),
        ("another version", b"GET / HTTP/1.2\r\nHost: x\r\n\r\n".to_vec(), "505"),
        ("yet another", b"GET / HTTP/2.0\r\nHost: x\r\n\r\n".to_vec(), "505"),
        ("the preface", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(), "505"),
        ("101 headers", get(&format!("Host: x\r\n{many}")), "431"),
        ("a long header", get(&format!("Host: x\r\nA: {}\r\n", "b".repeat(70000))), "431"),
        ("a long path", format!("GET /{} HTTP/1.1\r\n\r\n", "b".repeat(70000)).into_bytes(), "414"),
        ("two spaces", b"GET  / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(), "400"),
        (
            "a length in the trailers",
            chunked("5\r\nabcde\r\n0\r\nContent-Length: 3\r\nX: y\r\n\r\n"),
            "200",
        ),
        ("a bad trailer", chunked("5\r\nabcde\r\n0\r\nX : y\r\n\r\n"), "200 cut"),
        ("half a body", post("Content-Length: 10\r\n\r\nabc"), "200 cut"),
        ("half a chunk", chunked("5\r\nab"), "200 cut"),
        ("half a head", b"GET / HTTP/1.1\r\nHo".to_vec(), ""),
        ("all, and then nothing", get("Host: x\r\n"), "200"),
    ]
}

#[test]
fn requests_with_two_readings_are_refused_and_end_the_connection() {
    let (_server, port) = serve("", "");
    for (name, request, expected) in corpus() {
        let text = send(port, &request);
        let found = statuses(&text);
        // What was echoed before the fault is cut off, or 400 has come first.
        let is_same = found == expected || expected.ends_with("cut") && found == "400";
        assert!(is_same, "{name}: {found}, not {expected}\n{text}");
        assert!(!text.contains("no /next"), "{name}: {text}");
    }
    assert!(get(port, "/").ends_with("hello"));
}

#[test]
fn what_is_refused_does_not_depend_on_how_it_comes() {
    let (_server, port) = serve("http2 = true", "");
    let usual =
        |request: &&(&str, Vec<u8>, &str)| request.1.len() < 300 && request.0 != "the preface";
    for (name, request, expected) in corpus().iter().filter(usual) {
        let mut stream = connect(port);
        stream.set_nodelay(true).unwrap();
        for byte in request {
            // The server may have had enough.
            if stream.write_all(&[*byte]).is_err() {
                break;
            }
        }
        let _ = stream.shutdown(Shutdown::Write);
        let found = statuses(&rest(stream));
        let is_same = found == *expected
            || expected.ends_with("cut") && found == "400"
            // The answer has begun before the fault came.
            || *expected == "400" && found == "200 cut";
        assert!(is_same, "{name}: {found}, not {expected}");
    }
}

#[test]
fn limits_of_bodies_hold_for_all_of_them() {
    let (_server, port) = serve("body_bytes = 1000, http2 = true", "");
    let body = |count: usize| "a".repeat(count);
    for (version, at, beyond) in
        [("--http1.1", 1000, 1001), ("--http2-prior-knowledge", 1000, 1001)]
    {
        let found = curl(port, "/echo", &[version, "-d", &body(at)]);
        assert_eq!(String::from_utf8_lossy(&found), body(at), "{version}");
        let arguments = [version, "-d", &body(beyond), "-o", "/dev/null", "-w", "%{http_code}"];
        let found = curl(port, "/echo", &arguments);
        assert!(found.starts_with(b"413"), "{version}: {}", String::from_utf8_lossy(&found));
    }
    // Of unknown length: as much as there may be, then no more.
    let chunk = |count: usize| format!("{count:x}\r\n{}\r\n", body(count));
    let send = |count| {
        ask(
            port,
            format!(
                "POST /text HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{CHUNKED}{}{}0\r\n\r\n",
                chunk(500),
                chunk(count)
            ),
        )
    };
    assert_eq!(statuses(&send(500)), "200");
    assert_eq!(statuses(&send(501)), "413");
}

#[test]
fn clients_that_take_too_long_are_told_and_cut_off() {
    let (_server, port) = serve("head_timeout = 0.2, idle_timeout = 0.3", "");
    // Nothing at all, and a part of a head.
    assert_eq!(rest(connect(port)), "");
    assert_eq!(statuses(&ask(port, "GET / HTTP/1.1\r\nHost")), "408");
    // One that comes byte by byte.
    let mut stream = connect(port);
    let mut has_ended = false;
    for byte in b"GET / HTTP/1.1\r\nA: ".iter().chain(std::iter::repeat_n(&b'b', 100_000)) {
        has_ended = stream.write_all(&[*byte]).is_err();
        if has_ended {
            break;
        }
    }
    assert!(has_ended || statuses(&rest(stream)) == "408");
    // The second head counts from its first byte; between two the connection is idle.
    let mut stream = connect(port);
    stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\nGET / HT").unwrap();
    assert_eq!(statuses(&rest(stream)), "200 408");
    let mut stream = connect(port);
    stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    assert_eq!(statuses(&rest(stream)), "200");
}

#[test]
fn clients_that_vanish_take_their_requests_with_them() {
    let (mut server, port) = serve(
        "",
        "routes['/read'] = function(req)
             print('reading')
             local ok, data
             repeat ok, data = req:read() until not ok
             print('read ' .. data)
         end
         routes['/write'] = function(_, res)
             print('writing')
             local piece, ok, code = ('x'):rep(65536)
             repeat ok, code = res:write(piece) until not ok
             print('wrote ' .. code)
         end",
    );
    let reset = |request: &str, server: &mut Server, line: &str| {
        let mut stream = connect(port);
        stream.write_all(request.as_bytes()).unwrap();
        assert_eq!(server.line(), line);
        // What comes and is not read has the system answer with a reset.
        let mut some = [0; 10];
        if line == "writing" {
            stream.read_exact(&mut some).unwrap();
        }
        drop(stream);
    };
    let head = "HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nabc";
    reset(&format!("POST /read {head}"), &mut server, "reading");
    assert_eq!(server.line(), "read 11");
    reset("GET /write HTTP/1.1\r\nHost: x\r\n\r\n", &mut server, "writing");
    assert_eq!(server.line(), "wrote 203");
    assert!(get(port, "/").ends_with("hello"));
}

#[test]
fn who_does_not_read_holds_little() {
    let (server, port) = serve(
        "http2 = true",
        "routes['/endless'] = function()
             local piece = ('x'):rep(1048576)
             return 200, nil, function() return piece end
         end",
    );
    let before = resident_bytes(server.id());
    let streams: Vec<_> = (0..20)
        .map(|_| {
            let mut stream = connect(port);
            stream.write_all(b"GET /endless HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
            until(&mut stream, "\r\n\r\n");
            stream
        })
        .collect();
    assert!(get(port, "/").ends_with("hello"));
    let after = resident_bytes(server.id());
    assert!(after < before + (150 << 20), "{before} {after}");
    drop(streams);
    assert!(get(port, "/").ends_with("hello"));
}

#[test]
fn ten_thousand_connections_leave_nothing_behind() {
    with_many_files("ten_thousand_connections_leave_nothing_behind", || {
        let (server, port) = serve("", "");
        let round = |count: usize| {
            let mut kept = Vec::new();
            for number in 0..count {
                let mut stream = connect(port);
                match number % 4 {
                    0 => stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").unwrap(),
                    1 => stream.write_all(b"GET / HT").unwrap(),
                    2 => stream
                        .write_all(b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\na")
                        .unwrap(),
                    _ => {}
                }
                kept.push(stream);
                if kept.len() == 500 {
                    kept.clear();
                }
            }
        };
        round(1000);
        assert!(get(port, "/").ends_with("hello"));
        let before = resident_bytes(server.id());
        round(9000);
        assert!(get(port, "/").ends_with("hello"));
        let after = resident_bytes(server.id());
        assert!(after < before + (30 << 20), "{before} {after}");
    });
}

#[test]
fn a_memory_limit_holds_whatever_clients_do() {
    let child = script(
        "http2 = true",
        "routes['/hold'] = function(req) req:read() timer.sleep(1000) end
         routes['/much'] = function() return 200, nil, ('x'):rep(2 ^ 20) end",
    );
    let folder = Folder::new();
    let child = folder.write("child.lua", child);
    let main = format!("context.create({{ file = '{}', memory = 2 ^ 24 }})", child.display());
    let mut server = Server::start(["-e", &main]);
    let port = server.port();
    assert!(get(port, "/").ends_with("hello"));
    let before = resident_bytes(server.id());
    let mut kept = Vec::new();
    for number in 0..400 {
        let mut stream = connect(port);
        // Whoever is refused is refused before or while it writes.
        let _ = match number % 2 {
            0 => {
                let head = "POST /hold HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n";
                stream.set_write_timeout(Some(Duration::from_millis(20))).unwrap();
                stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&[0; 300_000]))
            }
            _ => stream.write_all(b"GET /much HTTP/1.1\r\nHost: x\r\n\r\n"),
        };
        kept.push(stream);
    }
    let after = resident_bytes(server.id());
    assert!(after < before + (48 << 20), "{before} {after}");
    drop(kept);
    // It serves on once they are gone; until it has seen that, it may refuse.
    while !get(port, "/").ends_with("hello") {}
}

#[test]
fn what_is_streamed_is_not_kept() {
    let folder = Folder::new();
    let body = folder.write("body", vec![b'a'; 40 << 20]);
    let (server, port) = serve("", "");
    let before = resident_bytes(server.id());
    let sent = format!("@{}", body.display());
    let arguments =
        ["-H", "Expect:", "--data-binary", &sent, "-o", "/dev/null", "-w", "%{size_download}"];
    let found = curl(port, "/echo", &arguments);
    assert_eq!(String::from_utf8_lossy(&found), (40 << 20).to_string());
    let after = resident_bytes(server.id());
    assert!(after < before + (30 << 20), "{before} {after}");
}
