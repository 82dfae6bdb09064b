//! HTTP servers against clients that mean no good, or do not care.

#![cfg(feature = "http")]
#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "support/http.rs"]
mod http;
#[path = "support/http2.rs"]
mod http2;
mod support;

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use http::{ask, curl, get, rest, serve, serve_within, statuses, until};
use http2::{DATA, END_HEADERS, END_STREAM, HEADERS, block, frame, open, outcome};
use support::{
    Folder, PATIENCE, Server, connect, resident_bytes, wait_until_below, with_many_files,
};

const CHUNKED: &str = "Transfer-Encoding: chunked\r\n\r\n";

#[test]
fn limits_of_bodies_hold_for_all_of_them() {
    let (_server, port) = serve("body_bytes = 1000, http2 = true", "");
    let body = |count: usize| "a".repeat(count);
    for version in ["--http1.1", "--http2-prior-knowledge"] {
        let found = curl(port, "/echo", &[version, "-d", &body(1000)]);
        assert_eq!(String::from_utf8_lossy(&found), body(1000), "{version}");
    }
    let arguments = ["-d", &body(1001), "-o", "/dev/null", "-w", "%{http_code}"];
    let found = curl(port, "/echo", &arguments);
    assert!(found.starts_with(b"413"), "{}", String::from_utf8_lossy(&found));
    // This curl loses an answer that is followed by the news that no more of a body is wanted.
    let others = [("content-length", "1001")];
    let head = frame(HEADERS, END_HEADERS, 1, &block("POST", "/echo", &others));
    let mut stream = open(port);
    stream.write_all(&[head, frame(DATA, END_STREAM, 1, body(1001).as_bytes())].concat()).unwrap();
    assert_eq!(outcome(&mut stream), "status 413");
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
        "routes['/write'] = function(_, res)
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

/// By an end or a reset, at every place of a head and of both kinds of bodies.
#[test]
fn requests_that_are_broken_off_are_none_or_lack_their_body() {
    let (mut server, port) = serve("", "");
    let chunks = "5;a=b\r\n01234\r\n5\r\n56789\r\n0\r\nX: y\r\n\r\n";
    for request in [
        "GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_owned(),
        "POST /read HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n0123456789".to_owned(),
        format!("POST /read HTTP/1.1\r\nHost: x\r\n{CHUNKED}{chunks}"),
    ] {
        let head = request.find("\r\n\r\n").unwrap() + 4;
        for count in 0..request.len() {
            let mut stream = connect(port);
            stream.write_all(&request.as_bytes()[..count]).unwrap();
            if count >= head {
                assert_eq!(server.line(), "reading", "{count}");
            }
            if count % 2 == 0 {
                stream.shutdown(std::net::Shutdown::Write).unwrap();
                // The handler finds nothing to answer.
                let wanted = if count < head { "" } else { "500" };
                assert_eq!(statuses(&rest(stream)), wanted, "{count}");
            } else {
                socket2::Socket::from(stream).set_linger(Some(Duration::ZERO)).unwrap();
            }
            if count >= head {
                assert_eq!(server.line(), "read 11", "{count}");
            }
        }
        assert!(get(port, "/").ends_with("hello"));
    }
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
        wait_until_below(server.id(), before + (30 << 20));
    });
}

#[test]
fn a_memory_limit_holds_whatever_clients_do() {
    let code = "routes['/hold'] = function(req) req:read() timer.sleep(1000) end
         routes['/much'] = function() return 200, nil, ('x'):rep(2 ^ 20) end";
    let (server, port, _folder) = serve_within(1 << 24, "http2 = true", code);
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
    // It serves on once they are gone, reset ones among them whose bodies nobody reads; until it
    // has seen that, it may refuse.
    for stream in kept {
        socket2::Socket::from(stream).set_linger(Some(Duration::ZERO)).unwrap();
    }
    let is_served = || -> io::Result<bool> {
        let mut stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")?;
        Ok(rest(stream).ends_with("hello"))
    };
    let end = Instant::now() + PATIENCE;
    while !is_served().unwrap_or(false) {
        assert!(Instant::now() < end, "it still refuses");
    }
}

/// However small the pieces are in which a script writes what nobody reads, they count with what
/// they wait in.
#[test]
fn answers_in_small_pieces_count_against_the_limit() {
    const LIMIT: u64 = 1 << 24;
    let code = "local all = {}
         routes['/small'] = function(req, res)
             all[#all + 1] = res
             if all[40] then
                 for _, res in ipairs(all) do
                     for i = 1, 131000 do if not res:write('x') then break end end
                 end
                 print('written')
             end
             timer.sleep(1000)
         end";
    let (mut server, port, _folder) = serve_within(LIMIT, "http2 = true", code);
    let before = resident_bytes(server.id());
    let ask = |number| {
        let mut stream = if number % 2 == 0 { connect(port) } else { open(port) };
        let asked = match number % 2 {
            0 => b"GET /small HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(),
            _ => frame(HEADERS, END_STREAM | END_HEADERS, 1, &block("GET", "/small", &[])),
        };
        stream.write_all(&asked).unwrap();
        stream
    };
    let streams: Vec<_> = (0..40).map(ask).collect();
    assert_eq!(server.line(), "written");
    let after = resident_bytes(server.id());
    assert!(after < before + 2 * LIMIT + (16 << 20), "{before} {after}");
    drop(streams);
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

/// A body in the smallest pieces takes no more than others of its length, and one that does not end
/// keeps no other client waiting, whether the script reads or collects it.
#[test]
fn bodies_in_small_pieces_cost_no_more_than_they_are_long() {
    let (server, port) = serve(
        "body_bytes = 2 ^ 40",
        "routes['/read'] = function(req) while req:read() do end return 200, nil, 'read' end
         routes['/collect'] = function(req) return 200, nil, #req:text(2 ^ 40) .. '' end",
    );
    let head = |path| format!("POST {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{CHUNKED}");
    let piece = "1\r\nx\r\n";
    let mut stream = connect(port);
    stream.write_all(head("/collect").as_bytes()).unwrap();
    let before = resident_bytes(server.id());
    let many = piece.repeat(10_000);
    for _ in 0..150 {
        stream.write_all(many.as_bytes()).unwrap();
    }
    let after = resident_bytes(server.id());
    assert!(after < before + (16 << 20), "{before} {after}");
    stream.write_all(b"0\r\n\r\n").unwrap();
    assert!(rest(stream).ends_with("1500000"));
    let floods: Vec<_> = (0..4)
        .map(|_| {
            let mut stream = connect(port);
            stream.write_all(head("/read").as_bytes()).unwrap();
            let (other, many) = (stream.try_clone().unwrap(), many.clone());
            let flood =
                std::thread::spawn(move || while stream.write_all(many.as_bytes()).is_ok() {});
            (other, flood)
        })
        .collect();
    for _ in 0..5 {
        assert!(get(port, "/").ends_with("hello"));
    }
    for (stream, flood) in floods {
        stream.shutdown(std::net::Shutdown::Both).unwrap();
        flood.join().unwrap();
    }
}
