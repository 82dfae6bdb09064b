//! HTTP/2 servers against peers that do not keep to the protocol, or make use of it.

#![cfg(feature = "http")]
#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "support/http.rs"]
mod http;
#[path = "support/http2.rs"]
mod http2;
mod support;

use std::io::{self, Write};
use std::net::{Shutdown, TcpStream};

use http::{get, rest, serve, serve_within, statuses};
use http2::*;
use support::{Folder, Server, connect, resident_bytes, wait_until_below, with_many_files};

/// Sends this behind the beginning of a connection; what comes of it.
fn say(port: u16, bytes: &[u8]) -> String {
    let mut stream = open(port);
    // The server may have had enough before it has all.
    let _ = stream.write_all(bytes);
    outcome(&mut stream)
}

fn headers(flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    frame(HEADERS, flags, stream, payload)
}

const WHOLE: u8 = END_STREAM | END_HEADERS;

#[test]
fn frames_where_they_may_not_be_end_the_connection() {
    let (_server, port) = serve("http2 = true", "");
    let hello = block("GET", "/", &[]);
    let many = |frames: &[Vec<u8>]| frames.concat();
    let cases: Vec<(&str, Vec<u8>, &str)> = vec![
        ("DATA on stream 0", frame(DATA, 0, 0, b"a"), "goaway 1"),
        ("HEADERS on stream 0", headers(WHOLE, 0, &hello), "goaway 1"),
        ("HEADERS on an even stream", headers(WHOLE, 2, &hello), "goaway 1"),
        ("RST_STREAM on stream 0", frame(RST_STREAM, 0, 0, &[0; 4]), "goaway 1"),
        ("PRIORITY on stream 0", frame(PRIORITY, 0, 0, &[0; 5]), "goaway 1"),
        ("CONTINUATION on stream 0", frame(CONTINUATION, 4, 0, &hello), "goaway 1"),
        ("SETTINGS on a stream", frame(SETTINGS, 0, 1, &[]), "goaway 1"),
        ("PING on a stream", frame(PING, 0, 1, &[0; 8]), "goaway 1"),
        ("GOAWAY on a stream", frame(GOAWAY, 0, 1, &[0; 8]), "goaway 1"),
        ("DATA on an idle stream", frame(DATA, 0, 1, b"a"), "goaway 1"),
        ("RST_STREAM on an idle stream", frame(RST_STREAM, 0, 1, &[0; 4]), "goaway 1"),
        ("WINDOW_UPDATE on an idle stream", frame(WINDOW_UPDATE, 0, 1, &[0, 0, 0, 1]), "goaway 1"),
        ("CONTINUATION of nothing", frame(CONTINUATION, 4, 1, &hello), "goaway 1"),
        ("PUSH_PROMISE", frame(PUSH_PROMISE, 4, 1, &[0, 0, 0, 2]), "goaway 1"),
        (
            "DATA within headers",
            many(&[headers(0, 1, &hello), frame(DATA, 0, 1, b"a")]),
            "goaway 1",
        ),
        (
            "headers of another within headers",
            many(&[headers(0, 1, &hello), headers(WHOLE, 3, &hello)]),
            "goaway 1",
        ),
        (
            "CONTINUATION of another",
            many(&[headers(END_STREAM, 1, &hello), frame(CONTINUATION, 4, 3, &[])]),
            "goaway 1",
        ),
        ("a stream before the last", many(&[post(5, "/text"), asking(3, "/")]), "goaway 1"),
        ("SETTINGS of 5 bytes", frame(SETTINGS, 0, 0, &[0; 5]), "goaway 1"),
        ("an answer to SETTINGS with some", frame(SETTINGS, ACK, 0, &[0; 6]), "goaway 1"),
        ("ENABLE_PUSH 2", setting(2, 2), "goaway 1"),
        ("a window beyond 31 bits", setting(4, 1 << 31), "goaway 1"),
        ("frames of less than 16 KiB", setting(5, 16_383), "goaway 1"),
        ("frames of more than 24 bits", setting(5, 1 << 24), "goaway 1"),
        ("PING of 7 bytes", frame(PING, 0, 0, &[0; 7]), "goaway 1"),
        (
            "RST_STREAM of 3 bytes",
            many(&[post(1, "/text"), frame(RST_STREAM, 0, 1, &[0; 3])]),
            "goaway 1",
        ),
        ("WINDOW_UPDATE of 3 bytes", frame(WINDOW_UPDATE, 0, 0, &[0; 3]), "goaway 1"),
        ("a window opened by 0", frame(WINDOW_UPDATE, 0, 0, &[0; 4]), "goaway 1"),
        ("a window opened too far", frame(WINDOW_UPDATE, 0, 0, &[0x7f, 255, 255, 255]), "goaway 3"),
        ("a frame beyond 16 KiB", frame(DATA, 0, 1, &[0; 16_385]), "goaway 6"),
        (
            "more padding than there is",
            many(&[post(1, "/text"), frame(DATA, PADDED, 1, &[5, 0])]),
            "goaway 1",
        ),
        ("an index of nothing", headers(WHOLE, 1, &[0x80 | 70]), "goaway 1"),
        ("the index 0", headers(WHOLE, 1, &[0x80]), "goaway 1"),
        (
            "a table beyond what was allowed",
            headers(WHOLE, 1, &[0x3f, 0xff, 0xff, 0x7f]),
            "goaway 1",
        ),
        ("a text that does not end", headers(WHOLE, 1, &[0x00, 0x05, b'a']), "goaway 1"),
        (
            "a number that does not end",
            headers(WHOLE, 1, &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff]),
            "goaway 1",
        ),
        (
            "Huffman's end in a text",
            headers(WHOLE, 1, &[0x00, 0x84, 255, 255, 255, 255, 0]),
            "goaway 1",
        ),
    ];
    let wrong: Vec<String> = cases
        .iter()
        .map(|(name, bytes, expected)| (name, say(port, bytes), expected))
        .filter(|(_, found, expected)| *found != format!("{expected} closed"))
        .map(|(name, found, expected)| format!("{name}: {found}, not {expected}"))
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    // What nobody knows is nothing, as the protocol has it.
    let unknown = many(&[frame(0x50, 7, 0, b"abc"), setting(0x99, 1), asking(1, "/")]);
    assert_eq!(say(port, &unknown), "status 200");
    assert!(get_hello(port));
}

/// Whether a server still serves, in either version.
fn get_hello(port: u16) -> bool {
    say(port, &asking(1, "/")) == "status 200" && get(port, "/").ends_with("hello")
}

#[test]
fn what_does_not_begin_as_it_should_is_no_http2() {
    let (_server, port) = serve("http2 = true", "");
    let bad = [
        &b"PRI * HTTP/2.0\r\n\r\nSM\r\n\rX"[..],
        b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n",
        b"PRI / HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ];
    for bytes in bad {
        let mut stream = connect(port);
        stream.write_all(bytes).unwrap();
        assert_eq!(statuses(&rest(stream)), "505", "{}", String::from_utf8_lossy(bytes));
    }
    // Its beginning, and then something that is none of it.
    let mut stream = connect(port);
    stream.write_all(&[PREFACE, &[b'x'; 100]].concat()).unwrap();
    assert_eq!(outcome(&mut stream), "goaway 6 closed");
    assert!(get_hello(port));
}

/// Requests of HTTP/2 that somebody may make others of, of HTTP/1, which two servers take
/// differently.
#[test]
fn requests_that_would_be_two_of_http1_are_refused() {
    let (mut server, port) = serve(
        "http2 = true",
        "routes['/seen'] = function(req) print('seen', req.path, req.headers.host) return 200 end",
    );
    let usual = [(":method", "POST"), (":scheme", "http"), (":path", "/echo"), (":authority", "x")];
    let with = |others: &[(&str, &str)]| fields(&[&usual, others].concat());
    let but = |name: &str, value: &str| {
        let all: Vec<_> = usual
            .iter()
            .map(|(known, it)| (*known, if *known == name { value } else { it }))
            .collect();
        fields(&all)
    };
    let without = |name: &str| {
        let all: Vec<_> = usual.iter().filter(|(known, _)| *known != name).copied().collect();
        fields(&all)
    };
    // What cannot even be read as headers ends the connection.
    let (broken, malformed, bad) = ("goaway 1 closed", "reset 1", "status 400");
    let cases: Vec<(&str, Vec<u8>, &str)> = vec![
        ("no method", without(":method"), malformed),
        ("no path", without(":path"), malformed),
        ("no scheme", without(":scheme"), malformed),
        ("no host", without(":authority"), bad),
        ("two paths", with(&[(":path", "/next")]), malformed),
        ("two methods", fields(&[&[(":method", "GET")], &usual[..]].concat()), malformed),
        ("a pseudo header of answers", with(&[(":status", "200")]), malformed),
        ("one that nobody knows", with(&[(":x", "y")]), broken),
        ("one behind others", fields(&[&[("a", "b")], &usual[..]].concat()), malformed),
        ("capitals", with(&[("A", "b")]), broken),
        ("a space in a name", with(&[("a b", "c")]), broken),
        ("a colon in a name", with(&[("a:b", "c")]), broken),
        ("a line in a name", with(&[("a: b\r\nc", "d")]), broken),
        ("no name", with(&[("", "d")]), broken),
        ("a line in a value", with(&[("a", "b\r\nContent-Length: 3")]), broken),
        ("CR in a value", with(&[("a", "b\rc")]), broken),
        ("LF in a value", with(&[("a", "b\nc")]), broken),
        ("NUL in a value", with(&[("a", "b\0c")]), broken),
        ("connection", with(&[("connection", "close")]), malformed),
        ("keep-alive", with(&[("keep-alive", "5")]), malformed),
        ("proxy-connection", with(&[("proxy-connection", "x")]), malformed),
        ("transfer-encoding", with(&[("transfer-encoding", "chunked")]), malformed),
        ("upgrade", with(&[("upgrade", "websocket")]), malformed),
        ("te", with(&[("te", "gzip")]), malformed),
        ("a length that is none", with(&[("content-length", "+3")]), malformed),
        ("a list of lengths", with(&[("content-length", "3, 3")]), malformed),
        ("two lengths", with(&[("content-length", "3"), ("content-length", "4")]), malformed),
        ("one length twice", with(&[("content-length", "3"), ("content-length", "3")]), bad),
        ("too little", with(&[("content-length", "4")]), malformed),
        ("too much", with(&[("content-length", "2")]), malformed),
        ("a line in the path", but(":path", "/ HTTP/1.1\r\nHost: y\r\n\r\n"), malformed),
        ("a space in the path", but(":path", "/a b"), malformed),
        ("no slash", but(":path", "echo"), malformed),
        ("an empty path", but(":path", ""), malformed),
        ("a URL for a path", but(":path", "http://y/"), malformed),
        ("a line in the method", but(":method", "GET / HTTP/1.1\r\nA: b\r\n\r\nGET"), broken),
        ("a space in the method", but(":method", "GET /next"), broken),
        ("a line in the scheme", but(":scheme", "http\r\na: b"), malformed),
        ("a URL for a scheme", but(":scheme", "http://y/next?"), malformed),
        ("a line in the host", but(":authority", "x\r\nA: b"), malformed),
        ("a path in the host", but(":authority", "x/next"), malformed),
        ("a user", but(":authority", "me@x"), bad),
        ("two hosts", with(&[("host", "y")]), bad),
        ("two hosts of one kind", with(&[("host", "x"), ("host", "x")]), bad),
        ("an expectation", with(&[("expect", "y 100-continue")]), "status 417"),
        ("101 headers", with(&[("a", "b"); 101]), "status 431"),
        ("much in the headers", with(&[("a", "b".repeat(15_000).as_str()); 5]), "status 431"),
    ];
    let mut wrong = Vec::new();
    for (name, block, expected) in &cases {
        let mut bytes = Vec::new();
        for (number, piece) in block.chunks(16_000).enumerate() {
            let kind = if number == 0 { HEADERS } else { CONTINUATION };
            let is_last = (number + 1) * 16_000 >= block.len();
            bytes.extend(frame(kind, if is_last { END_HEADERS } else { 0 }, 1, piece));
        }
        bytes.extend(frame(DATA, END_STREAM, 1, b"abc"));
        let found = say(port, &bytes);
        let found = found.split(" reset").next().unwrap();
        if found != *expected && found != format!("status 200 {expected}") {
            wrong.push(format!("{name}: {found}, not {expected}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    // CONNECT has no scheme and no path; nobody here is a proxy.
    let connect = fields(&[(":method", "CONNECT"), (":authority", "x:80")]);
    assert_eq!(say(port, &headers(END_HEADERS, 1, &connect)), "status 501");
    // Behind a body too.
    for behind in [("content-length", "3"), ("host", "y"), ("transfer-encoding", "x"), ("A", "b")] {
        let trailers = headers(WHOLE, 1, &fields(&[behind]));
        let found = say(port, &[post(1, "/text"), frame(DATA, 0, 1, b"abc"), trailers].concat());
        assert!(
            ["status 400", "reset 1", "goaway 1 closed"].contains(&found.as_str()),
            "{behind:?}: {found}"
        );
    }
    let open_end = headers(END_HEADERS, 1, &fields(&[("a", "b")]));
    assert_eq!(say(port, &[post(1, "/text"), open_end].concat()), "reset 1");
    // What may be said in parts.
    let parts = [("cookie", "a=b"), ("cookie", "c=d")];
    assert_eq!(say(port, &headers(WHOLE, 1, &block("GET", "/seen#/next", &parts))), "status 200");
    assert_eq!(server.line(), "seen\t/seen\tx");
    assert!(get_hello(port));
}

/// A server with a second context, which serves as well: the ports of both, and what the other is
/// in.
fn serve_two() -> (Server, u16, u16, Folder) {
    let routes = "routes['/never'] = function() timer.sleep(1000) return 200 end";
    let folder = Folder::new();
    let hostile = folder.write("hostile.lua", http::script("http2 = true", routes));
    let other =
        folder.write("other.lua", http::script("http2 = true", "routes['/other'] = routes['/']"));
    let main = format!(
        "context.create({{ file = '{}', memory = 2 ^ 26 }}) context.create('{}')",
        hostile.display(),
        other.display()
    );
    let mut server = Server::start(["-e", &main]);
    let (one, two) = (server.port(), server.port());
    // Which of them was the first to say so is not known.
    let is_other = |port| say(port, &asking(1, "/other")) == "status 200";
    if is_other(one) { (server, two, one, folder) } else { (server, one, two, folder) }
}

/// Sends something over and over, and whatever comes is not read, until the server has had enough,
/// or takes no more; how often.
fn flood(stream: &mut TcpStream, most: usize, mut next: impl FnMut(usize) -> Vec<u8>) -> usize {
    stream.set_write_timeout(Some(std::time::Duration::from_millis(500))).unwrap();
    for number in 0..most {
        if stream.write_all(&next(number)).is_err() {
            return number;
        }
    }
    most
}

#[test]
fn floods_are_cut_off_and_cost_little() {
    let (server, port, other, _folder) = serve_two();
    let before = resident_bytes(server.id());
    let id = |number: usize| u32::try_from(number * 2 + 1).unwrap();
    let gone = frame(RST_STREAM, 0, 0, &[0, 0, 0, 8]);
    // Requests that are taken back at once (rapid reset).
    let mut stream = open(port);
    flood(&mut stream, 100_000, |number| {
        let mut reset = gone.clone();
        reset[5..9].copy_from_slice(&id(number).to_be_bytes());
        [asking(id(number), "/never"), reset].concat()
    });
    let found = outcome(&mut stream);
    assert!(found.contains("goaway 11") || found == "closed", "{found}");
    assert!(get(other, "/").ends_with("hello"));
    // Requests that the server itself has to take back.
    let mut stream = open(port);
    flood(&mut stream, 100_000, |number| {
        [post(id(number), "/never"), frame(WINDOW_UPDATE, 0, id(number), &[0; 4])].concat()
    });
    let found = outcome(&mut stream);
    assert!(found.contains("goaway") || found.contains("closed"), "{found}");
    // Heads that never end: empty pieces, small ones, and large ones.
    for size in [0, 1, 16_000] {
        let mut stream = open(port);
        let begin = headers(END_STREAM, 1, &block("GET", "/", &[]));
        stream.write_all(&begin).unwrap();
        let piece = frame(CONTINUATION, 0, 1, &header(b"a", &vec![b'b'; size])[..size]);
        let count = flood(&mut stream, 200_000, |_| piece.clone());
        assert!(count < 200_000, "{size}");
        let found = outcome(&mut stream);
        assert!(found.contains("goaway") || found == "closed", "{size}: {found}");
    }
    // A header that is remembered, and stands for itself 16,000 times a frame.
    let mut stream = open(port);
    let bomb = [block("GET", "/", &[]), remembered(b"a", &[b'b'; 4000]), vec![0x80 | 62; 12_000]];
    stream.write_all(&headers(WHOLE, 1, &bomb.concat())).unwrap();
    let found = outcome(&mut stream);
    assert!(["status 431", "goaway 11 closed", "reset 1"].contains(&found.as_str()), "{found}");
    // What asks for an answer each time, which nobody takes.
    for asked in [frame(PING, 0, 0, b"pingpong"), setting(4, 1000), frame(SETTINGS, 0, 0, &[])] {
        let mut stream = open(port);
        let block = asked.repeat(500);
        flood(&mut stream, 5_000, |_| block.clone());
        assert!(get(other, "/").ends_with("hello"));
        assert!(get(port, "/").ends_with("hello"));
        let after = resident_bytes(server.id());
        assert!(after < before + (40 << 20), "{before} {after}");
    }
    // What means nothing.
    for idle in
        [frame(DATA, 0, 1, &[]), frame(PRIORITY, 0, 3, &[0, 0, 0, 0, 1]), frame(0x77, 0, 0, &[])]
    {
        let mut stream = open(port);
        stream.write_all(&post(1, "/text")).unwrap();
        let block = idle.repeat(500);
        flood(&mut stream, 500, |_| block.clone());
        assert!(get(other, "/").ends_with("hello"));
    }
    let after = resident_bytes(server.id());
    assert!(after < before + (40 << 20), "{before} {after}");
    assert!(get_hello(port));
}

/// A client that takes answers and never opens a window holds what there may be, and no longer than
/// it may.
#[test]
fn who_opens_no_window_holds_little_and_is_cut_off() {
    let (mut server, port) = serve(
        "http2 = true, body_rate = 1000000",
        "routes['/endless'] = function(_, res)
             local piece = ('x'):rep(65536)
             local ok, code = true
             while ok do ok, code = res:write(piece) end
             print('gone', code)
         end
         routes['/much'] = function() return 200, nil, ('x'):rep(2 ^ 22) end",
    );
    let before = resident_bytes(server.id());
    let mut stream = open(port);
    stream.write_all(&setting(4, 0)).unwrap();
    for number in 0..20 {
        let path = if number % 2 == 0 { "/endless" } else { "/much" };
        stream.write_all(&asking(number * 2 + 1, path)).unwrap();
    }
    assert!(get_hello(port));
    let after = resident_bytes(server.id());
    assert!(after < before + (100 << 20), "{before} {after}");
    // It goes on saying that it is there.
    let mut alive = stream.try_clone().unwrap();
    for _ in 0..10 {
        assert_eq!(server.line(), "gone\t203");
        let _ = alive.write_all(&frame(PING, 0, 0, &[0; 8]));
    }
    drop(stream);
    assert!(get_hello(port));
}

#[test]
fn data_beyond_a_window_is_refused() {
    let (_server, port) =
        serve("http2 = true", "routes['/never'] = function() timer.sleep(1000) return 200 end");
    let mut stream = open(port);
    stream.write_all(&post(1, "/never")).unwrap();
    let piece = frame(DATA, 0, 1, &[0; 16_000]);
    flood(&mut stream, 1000, |_| piece.clone());
    let found = outcome(&mut stream);
    assert!(
        found.contains("reset 3") || found.contains("goaway 3") || found == "closed",
        "{found}"
    );
    // More streams than there may be: what is beyond them is refused, the others go on.
    let mut stream = open(port);
    let all: Vec<u8> = (0..101).flat_map(|number| asking(number * 2 + 1, "/never")).collect();
    stream.write_all(&all).unwrap();
    assert_eq!(outcome(&mut stream), "reset 7");
    assert!(get_hello(port));
}

/// Whatever comes, comes one byte at a time, in halves, or not at all.
#[test]
fn peers_that_are_slow_or_break_off_harm_nobody() {
    let (mut server, port) = serve("http2 = true", "");
    let whole = [
        PREFACE,
        &frame(SETTINGS, 0, 0, &[]),
        &post(1, "/echo"),
        &frame(DATA, END_STREAM, 1, b"abc"),
    ]
    .concat();
    let mut stream = connect(port);
    for byte in &whole {
        stream.write_all(&[*byte]).unwrap();
    }
    assert_eq!(outcome(&mut stream), "status 200");
    // Broken off anywhere, by an end and by a reset.
    for count in (1..whole.len()).step_by(3) {
        let mut stream = connect(port);
        stream.write_all(&whole[..count]).unwrap();
        if count % 2 == 0 {
            stream.shutdown(Shutdown::Write).unwrap();
            outcome(&mut stream);
        }
    }
    // Who has only said all still gets an answer.
    let mut stream = connect(port);
    stream.write_all(&whole).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    assert_eq!(outcome(&mut stream), "status 200");
    // Half a head, and nothing else: cut off in time.
    let (_strict, strict_port) = serve("http2 = true, idle_timeout = 0.3", "");
    let mut stream = open(strict_port);
    stream.write_all(&headers(END_STREAM, 1, &block("GET", "/", &[]))).unwrap();
    assert!(outcome(&mut stream).ends_with("closed"));
    // A body that does not come whole.
    for kind in [RST_STREAM, GOAWAY] {
        let mut stream = open(port);
        stream.write_all(&[post(1, "/read"), frame(DATA, 0, 1, b"abc")].concat()).unwrap();
        assert_eq!(server.line(), "reading");
        if kind == RST_STREAM {
            stream.write_all(&frame(RST_STREAM, 0, 1, &[0, 0, 0, 8])).unwrap();
        } else {
            drop(stream);
        }
        assert_eq!(server.line(), "read 11");
    }
    assert!(get_hello(port));
}

/// Who has said all is answered, however late; whose body is not whole has not said all.
#[test]
fn an_end_of_the_stream_waits_for_answers() {
    let (mut server, port) = serve(
        "http2 = true",
        "routes['/slow'] = function(req)
             local text = req:text()
             timer.sleep(0.05)
             return 200, nil, text
         end
         routes['/later'] = function(req)
             timer.sleep(0.05)
             print('later', req:read())
             print('and', req:read())
         end",
    );
    let open_half = |path: &str, flags: u8| {
        let mut stream = open(port);
        let both = [post(1, path), frame(DATA, flags, 1, b"abc")].concat();
        stream.write_all(&both).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        stream
    };
    let mut stream = open_half("/slow", END_STREAM);
    assert_eq!(outcome(&mut stream), "status 200");
    assert_eq!(outcome(&mut stream), "closed");
    let mut waiting = open_half("/read", 0);
    assert_eq!(server.line(), "reading");
    assert_eq!(server.line(), "read 11");
    assert!(outcome(&mut waiting).ends_with("closed"));
    let mut later = open_half("/later", 0);
    assert!(server.line().starts_with("later\ttrue\t"));
    assert_eq!(server.line(), "and\tfalse\t11");
    assert!(outcome(&mut later).ends_with("closed"));
    assert!(get_hello(port));
}

/// Headers of two bytes, each of which is remembered in place of others, are much more work than
/// other bytes: some requests of them are read before others have their turn, not a mebibyte.
#[test]
fn headers_that_are_remembered_and_forgotten_hold_nobody_up() {
    let (_server, port) = serve(
        "http2 = true, head_bytes = 2 ^ 20, headers = 10000",
        "local calls, seen, most = 0, 0, 0
         local function look()
             most, seen = math.max(most, calls - seen), calls
             timer.timeout(0, look)
         end
         look()
         routes['/many'] = function() calls = calls + 1 return 200 end
         routes['/most'] = function() return 200, nil, calls .. ' ' .. most end",
    );
    // accept-encoding, without a value.
    let block = [block("GET", "/many", &[]), [0x50, 0].repeat(8000)].concat();
    let asks = |number: u32| frame(HEADERS, END_STREAM | END_HEADERS, 2 * number + 1, &block);
    let mut stream = open(port);
    stream.write_all(&(0..64).flat_map(asks).collect::<Vec<u8>>()).unwrap();
    for _ in 0..64 {
        assert_eq!(outcome(&mut stream), "status 200");
    }
    let found = get(port, "/most");
    let (calls, most) = found.rsplit_once("\r\n").unwrap().1.split_once(' ').unwrap();
    assert_eq!(calls, "64");
    // All but a few at once, as long as bytes alone were counted.
    assert!(most.parse::<u32>().unwrap() <= 32, "{most}");
}

/// Frames of bodies take more than their bytes: what waits of them counts for the context.
#[test]
fn bodies_in_small_frames_count_against_the_limit() {
    const LIMIT: u64 = 1 << 24;
    let code = "routes['/hold'] = function() timer.sleep(1000) end";
    let (server, port, _folder) = serve_within(LIMIT, "http2 = true", code);
    let before = resident_bytes(server.id());
    // As small and as many as h2 takes.
    let (head, body) = (post(1, "/hold"), frame(DATA, 0, 1, &[b'a'; 50]).repeat(2500));
    let ping = frame(PING, 0, 0, &[0; 8]);
    let attack = || -> io::Result<TcpStream> {
        let mut stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.write_all(&[PREFACE, &frame(SETTINGS, 0, 0, &[])].concat())?;
        while next(&mut stream).is_some_and(|frame| frame.kind != WINDOW_UPDATE) {}
        // Whoever is refused is refused before or while it writes.
        let known = frame(SETTINGS, ACK, 0, &[]);
        let _ = stream.write_all(&[&known[..], &head, &body, &ping].concat());
        // It has read all of that then.
        while next(&mut stream).is_some_and(|frame| frame.kind != PING) {}
        Ok(stream)
    };
    let kept: Vec<_> = (0..400).map(|_| attack()).collect();
    let after = resident_bytes(server.id());
    assert!(after < before + 2 * LIMIT + (16 << 20), "{before} {after}");
    drop(kept);
}

#[test]
fn ten_thousand_connections_leave_nothing_behind() {
    with_many_files("ten_thousand_connections_leave_nothing_behind", || {
        let (server, port) =
            serve("http2 = true", "routes['/never'] = function() timer.sleep(1000) return 200 end");
        let round = |count: usize| {
            let mut kept = Vec::new();
            for number in 0..count {
                let mut stream = open(port);
                let bytes = match number % 4 {
                    0 => asking(1, "/"),
                    1 => post(1, "/never"),
                    2 => [post(1, "/echo"), frame(DATA, 0, 1, b"abc")].concat(),
                    _ => Vec::new(),
                };
                let _ = stream.write_all(&bytes);
                kept.push(stream);
                if kept.len() == 500 {
                    kept.clear();
                }
            }
        };
        round(1000);
        assert!(get_hello(port));
        let before = resident_bytes(server.id());
        round(9000);
        assert!(get_hello(port));
        wait_until_below(server.id(), before + (60 << 20));
    });
}
