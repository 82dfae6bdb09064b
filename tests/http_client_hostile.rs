//! `http.get` and its like against servers that mean no good, or do not care.

#![cfg(feature = "http")]
#![allow(clippy::unwrap_used, reason = "tests")]

#[cfg(feature = "tls")]
#[path = "support/pki.rs"]
mod pki;
mod support;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;

use support::{Done, PATIENCE, node_lua, run_for, with_many_files};

/// Runs a script without proxies of the environment.
fn client(code: &str) -> Done {
    run_for(node_lua().env("no_proxy", "*").args(["-e", code]), 2 * PATIENCE)
}

/// A server that treats each connection so, once a head has come; its port.
fn server(serve: impl Fn(TcpStream) + Send + 'static) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            stream.set_nodelay(true).unwrap();
            let (mut head, mut byte) = (Vec::new(), [0]);
            while !head.ends_with(b"\r\n\r\n") && matches!(stream.read(&mut byte), Ok(1)) {
                head.push(byte[0]);
            }
            serve(stream);
        }
    });
    port
}

/// What is behind an answer.
#[derive(Clone, Copy, PartialEq)]
enum Then {
    /// The end.
    Closed,
    /// Nothing, and no end.
    Silence,
}

/// Answers that are none, or not whole, and what becomes of each: the status and the length of the
/// body, or codes.
fn answers() -> Vec<(&'static str, Vec<u8>, Then, &'static str)> {
    use Then::{Closed, Silence};
    let ok = |rest: &str| format!("HTTP/1.1 200 OK\r\n{rest}").into_bytes();
    let chunked = |rest: &str| ok(&format!("Transfer-Encoding: chunked\r\n\r\n{rest}"));
    vec![
        ("all of it", ok("Content-Length: 3\r\n\r\nabc"), Silence, "200 3"),
        ("up to the end", ok("\r\nabc"), Closed, "200 3"),
        ("in chunks", chunked("3\r\nabc\r\n0\r\n\r\n"), Silence, "200 3"),
        ("nothing", vec![], Closed, "11"),
        ("half a head", ok("Content-"), Closed, "11"),
        ("half a body", ok("Content-Length: 3\r\n\r\na"), Closed, "200 11"),
        ("half a chunk", chunked("3\r\na"), Closed, "200 11"),
        ("no last chunk", chunked("3\r\nabc\r\n"), Closed, "200 11"),
        ("another protocol", b"220 mail.example ready\r\n\r\n".to_vec(), Silence, "11"),
        ("TLS", b"\x15\x03\x01\x00\x02\x02\x46".to_vec(), Closed, "11"),
        ("another version", b"HTTP/3.7 200 OK\r\n\r\n".to_vec(), Silence, "11"),
        ("no status", b"HTTP/1.1 abc OK\r\n\r\n".to_vec(), Silence, "11"),
        ("NUL in a header", ok("A: b\0c\r\n\r\n"), Silence, "11"),
        ("a space in a name", ok("A b: c\r\n\r\n"), Silence, "11"),
        ("two lengths", ok("Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd"), Silence, "11"),
        ("a length that is none", ok("Content-Length: -3\r\n\r\nabc"), Silence, "11"),
        (
            "both lengths",
            ok("Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"),
            Silence,
            "11",
        ),
        ("a chunk of no size", chunked("x\r\nabc\r\n"), Silence, "200 11"),
        ("a chunk beyond 64 bits", chunked("fffffffffffffffff\r\nabc\r\n"), Silence, "200 11"),
        ("a chunk that does not end", chunked("3\r\nabcdef\r\n"), Silence, "200 11"),
        ("a header without end", ok(&format!("A: {}", "b".repeat(1 << 20))), Closed, "11"),
        ("many headers", ok(&"A: b\r\n".repeat(100_000)), Closed, "11"),
        ("a head that does not come", vec![], Silence, "208"),
        ("half a head, and no more", ok("A: b\r\n"), Silence, "208"),
        ("half a body, and no more", ok("Content-Length: 3\r\n\r\na"), Silence, "200 208"),
        ("only news", b"HTTP/1.1 102 Processing\r\n\r\n".repeat(1000), Silence, "208"),
        // The handshake of a WebSocket is for module websocket.
        (
            "another protocol by itself",
            ok("").replace_status("101 Switching Protocols"),
            Closed,
            "101 0",
        ),
        (
            "more than is wanted",
            ok("Content-Length: 9000000000\r\n\r\n").and(10 << 20),
            Closed,
            "200 21",
        ),
    ]
}

/// Changes of an answer.
trait Changed {
    fn replace_status(self, status: &str) -> Self;
    fn and(self, bytes: usize) -> Self;
}

impl Changed for Vec<u8> {
    fn replace_status(self, status: &str) -> Vec<u8> {
        let text = String::from_utf8(self).unwrap();
        format!("{}Upgrade: x\r\nConnection: upgrade\r\n\r\n", text.replace("200 OK", status))
            .into()
    }

    fn and(mut self, bytes: usize) -> Vec<u8> {
        self.extend(vec![b'x'; bytes]);
        self
    }
}

/// Asks for something: the status and the length of the body, or codes.
const ASK: &str = "
    local function ask(url, more)
        local options = {}
        for name, value in pairs(more or {}) do options[name] = value end
        local ok, res, text = http.get(url, options)
        if not ok then
            if not text then print('without a text') end
            return tostring(res)
        end
        local body, code = res:text(2 ^ 20)
        return res.status .. ' ' .. (body and #body or code)
    end ";

#[test]
fn answers_that_are_none_fail_in_time() {
    for (name, answer, then, expected) in answers() {
        let is_slow = answer.len() < 200;
        // At once, and one byte at a time.
        for step in [answer.len().max(1), 1] {
            if step == 1 && !is_slow {
                continue;
            }
            let answer = answer.clone();
            let port = server(move |mut stream| {
                for piece in answer.chunks(step) {
                    // The client may have had enough.
                    if stream.write_all(piece).is_err() {
                        return;
                    }
                }
                if then == Then::Silence {
                    let _ = stream.read(&mut [0]);
                }
            });
            // What is to come may take its time.
            let timeout = if expected.ends_with("208") { 1.5 } else { 30.0 };
            let ask = format!("print(ask('http://127.0.0.1:{port}/', {{ timeout = {timeout} }}))");
            let code = format!("{ASK} {ask}");
            let done = client(&code).succeeded();
            assert_eq!(done.stdout.trim_end(), expected, "{name} by {step}: {done}");
        }
    }
}

/// What a server says on a connection that is kept is no answer to what is asked later.
#[test]
fn what_nobody_has_asked_for_is_no_answer() {
    let answer = "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc";
    for more in [answer, "HTTP/1.1 200 OK\r\n", "x"] {
        let port = server(move |mut stream| {
            stream.write_all(format!("{answer}{more}").as_bytes()).unwrap();
            let _ = stream.read(&mut [0]);
        });
        let code = format!(
            "for _ = 1, 3 do
                 local res = context.check(http.get('http://127.0.0.1:{port}/', {{ timeout = 5 }}))
                 print(res:text())
             end"
        );
        let done = client(&code).succeeded();
        assert_eq!(done.stdout, "abc\nabc\nabc\n", "{more}: {done}");
    }
}

#[test]
fn redirects_lead_nowhere_but_to_servers() {
    for (location, text) in [
        ("/", "more than 10 redirects"),
        ("file:///etc/passwd", "a URL of http or https expected"),
        ("javascript:alert(1)", "an absolute URL"),
        ("http://[::1", "a URL with a host"),
        ("//", "a URL with a host"),
        ("http://127.0.0.1:99999/", "port up to 65535"),
    ] {
        let port = server(move |mut stream| {
            let head = "HTTP/1.1 302 Found\r\nConnection: close\r\nContent-Length: 0";
            let _ = stream.write_all(format!("{head}\r\nLocation: {location}\r\n\r\n").as_bytes());
        });
        let done = client(&format!("print(http.get('http://127.0.0.1:{port}/'))")).succeeded();
        assert!(done.stdout.starts_with("false\t18\t"), "{location}: {done}");
        assert!(done.stdout.contains(text), "{location}: {done}");
    }
}

#[test]
fn ten_thousand_servers_that_drop_everybody_leave_nothing_behind() {
    with_many_files("ten_thousand_servers_that_drop_everybody_leave_nothing_behind", || {
        let port = server(|mut stream| {
            // By turns: nothing, a part of an answer, a whole one; which says that the connection
            // ends, since a POST that finds it gone is not sent again.
            static COUNT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
            let number = COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            let _ = match number % 3 {
                0 => Ok(()),
                1 => stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab"),
                _ => stream.write_all(
                    b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nab",
                ),
            };
        });
        let code = format!(
            "local function resident()
                 for line in io.lines('/proc/self/status') do
                     local size = line:match('^VmRSS:%s+(%d+)')
                     if size then return tonumber(size) / 1024 end
                 end
             end
             local counts = {{}}
             local function round(count)
                 local left = 50
                 local done = 0
                 for _ = 1, 50 do
                     context.run(function()
                         for _ = 1, count / 50 do
                             local ok, res = http.post('http://127.0.0.1:{port}/', 'x')
                             local text = ok and res:text()
                             local what = ok and tostring(text) or 'failed'
                             counts[what] = (counts[what] or 0) + 1
                         end
                         left = left - 1
                     end)
                 end
                 while left > 0 do timer.sleep(0.01) end
             end
             round(1000)
             collectgarbage()
             local before = resident()
             round(9000)
             collectgarbage()
             local after = resident()
             if after > before + 20 then print('grown', before, after) end
             print(counts.failed > 3000, counts['false'] > 3000, counts.ab > 3000)"
        );
        let done = client(&code).succeeded();
        assert_eq!(done.stdout, "true\ttrue\ttrue\n", "{done}");
    });
}

/// A server that agrees on HTTP/2 and then says whatever it likes, on its first connection.
#[cfg(feature = "tls")]
const HTTP2: &str = r#"
    local config = context.check(tls.server{
        cert = "server.pem", key = "server.key", alpn = { "h2" } })
    local ok, listener = tcp.listen("127.0.0.1", 0)
    local port = tcp.local_port(listener)
    local char, floor = string.char, math.floor
    local function frame(kind, flags, stream, payload)
        local n = #payload
        return char(floor(n / 65536), floor(n / 256) % 256, n % 256, kind, flags, 0, 0, 0, stream)
            .. payload
    end
    local SETTINGS = frame(4, 0, 0, "")
    local function header(name, value)
        local n = #value
        local size = n < 127 and char(n) or char(127, (n - 127) % 128 + 128, floor((n - 127) / 128))
        return char(0, #name) .. name .. size .. value
    end
    local OK = char(0x88)
    local HEAD = frame(1, 4, 1, OK)
    local cases = {
        { "whole", SETTINGS .. HEAD .. frame(0, 1, 1, "abc") },
        { "garbage", ("x"):rep(1000) },
        { "HTTP/1.1", "HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n" },
        { "nothing", "" },
        { "GOAWAY", SETTINGS .. frame(7, 0, 0, ("\0"):rep(8)) },
        { "a reset", SETTINGS .. frame(3, 0, 1, "\0\0\0\2") },
        { "a reset within", SETTINGS .. HEAD .. frame(0, 0, 1, "a") .. frame(3, 0, 1, "\0\0\0\2") },
        { "half of it", SETTINGS .. HEAD .. frame(0, 0, 1, "a") },
        { "DATA before the head", SETTINGS .. frame(0, 1, 1, "abc") },
        { "DATA on an idle stream", SETTINGS .. frame(0, 1, 7, "abc") },
        { "DATA on stream 0", SETTINGS .. frame(0, 0, 0, "abc") },
        { "PUSH_PROMISE", SETTINGS .. frame(5, 4, 1, "\0\0\0\2" .. char(0x82)) },
        { "no status", SETTINGS .. frame(1, 5, 1, header("a", "b")) },
        { "a line in a value", SETTINGS .. frame(1, 5, 1, OK .. header("a", "b\r\nc: d")) },
        { "a coding", SETTINGS .. frame(1, 5, 1, OK .. header("transfer-encoding", "chunked")) },
        { "a length that is wrong", SETTINGS .. frame(1, 4, 1, OK .. header("content-length", "9"))
            .. frame(0, 1, 1, "abc") },
        { "HPACK of nothing", SETTINGS .. frame(1, 5, 1, ("\255"):rep(5)) },
        { "a bomb", SETTINGS .. frame(1, 5, 1, OK .. char(0x40, 1) .. "a"
            .. header("", ("b"):rep(4000)):sub(3) .. char(0x80 + 62):rep(12000)) },
        { "headers without end", SETTINGS .. frame(1, 0, 1, OK)
            .. frame(9, 0, 1, header("a", "b")):rep(20000) },
        { "settings without end", SETTINGS:rep(100000) },
        { "pings without end", SETTINGS .. frame(6, 0, 0, "pingpong"):rep(100000) },
        { "empty frames without end", SETTINGS .. HEAD .. frame(0, 0, 1, ""):rep(100000) },
        { "a frame beyond all", SETTINGS .. char(255, 255, 255, 0, 0, 0, 0, 0, 1)
            .. ("x"):rep(100000) },
        { "more than the window", SETTINGS .. HEAD .. frame(0, 0, 1, ("x"):rep(16384)):rep(1000) },
    }
    -- Reads until the head of the request has come.
    local function wait_for_head(sock)
        local text, at = "", 25
        repeat
            local good, data = sock:read(20)
            if not good then return end
            text = text .. data:tostring()
            while #text >= at + 8 do
                local a, b, c = text:byte(at, at + 2)
                if text:byte(at + 3) == 1 then return end
                at = at + 9 + (a * 256 + b) * 256 + c
            end
        until false
    end
    context.run(function()
        for _, case in ipairs(cases) do
            local sock = context.check(listener:accept())
            if sock:start_tls(config, 20) then
                wait_for_head(sock)
                sock:write(case[2])
                -- What has come is read, so that nothing is answered with a reset.
                sock:read(0.05)
                sock:close()
            end
        end
    end)
    local client = context.check(tls.client{ ca = "ca.pem", alpn = { "h2" } })
    for _, case in ipairs(cases) do
        print(case[1], ask("https://localhost:" .. port .. "/", { tls = client, timeout = 20 }))
    end
    os.exit(0)"#;

#[cfg(feature = "tls")]
#[test]
fn servers_that_break_http2_fail_their_own_requests() {
    let pki = pki::Pki::new();
    let code = format!("{ASK}{HTTP2}");
    let mut command = pki.node_lua(&code);
    let done = run_for(command.env("no_proxy", "*"), 3 * PATIENCE).succeeded();
    for line in done.stdout.lines() {
        let (name, found) = line.split_once('\t').unwrap_or((line, ""));
        let expected: &[&str] = match name {
            "whole" => &["200 3"],
            // What follows an answer that has begun may fail too late for its head.
            "half of it"
            | "a reset within"
            | "empty frames without end"
            | "a length that is wrong" => &["200 11", "11"],
            "more than the window" => &["200 11", "11", "200 21"],
            _ => &["11"],
        };
        assert!(expected.contains(&found), "{name}: {found}\n{done}");
    }
    assert_eq!(done.stdout.lines().count(), 24, "{done}");
}
