//! What HTTP servers answer, to raw sockets and curl.

#![cfg(feature = "http")]
#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "support/http.rs"]
mod http;
mod support;

use std::io::Write;
use std::net::{Shutdown, TcpStream};

use http::{ask, curl, get, rest, script, serve, statuses, until};
use support::{Folder, PATIENCE, Server, connect, node_lua, run};

/// Some bytes that look like nothing.
fn noise(count: usize) -> Vec<u8> {
    let mut state = 1_u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    (0..count).map(|_| next()).collect()
}

#[test]
fn answers_are_what_handlers_return_or_write() {
    let (_server, port) = serve(
        "",
        "routes['/json'] = function(_, res) return res:json({ a = 1 }) end
         routes['/iterate'] = function()
             local n = 0
             return 201, { x = { 'a', 'b' } }, function()
                 n = n + 1
                 if n < 4 then return 'piece ' .. n end
             end
         end
         routes['/used'] = function(_, res)
             res:status(202):header('x', 1):header('x', { 1, 'two' })
             res:write('a') res:write(buffer.new('b'))
             return res:finish(3)
         end
         routes['/length'] = function(_, res)
             res:header('content-length', 4)
             res:write('ab') res:write('cd')
         end
         routes['/short'] = function(_, res)
             res:header('content-length', 4)
             res:write('ab')
         end
         routes['/empty'] = function() return 204 end",
    );
    assert_eq!(
        get(port, "/"),
        "HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\nconnection: close\r\n\
         content-length: 5\r\n\r\nhello"
    );
    let text = get(port, "/iterate");
    assert!(text.starts_with("HTTP/1.1 201 Created\r\nx: a\r\nx: b\r\n"), "{text}");
    assert!(text.ends_with("7\r\npiece 1\r\n7\r\npiece 2\r\n7\r\npiece 3\r\n0\r\n\r\n"), "{text}");
    let text = get(port, "/used");
    assert!(text.starts_with("HTTP/1.1 202 Accepted\r\nx: 1\r\nx: two\r\n"), "{text}");
    assert!(text.ends_with("\r\n\r\n1\r\na\r\n1\r\nb\r\n1\r\n3\r\n0\r\n\r\n"), "{text}");
    assert!(get(port, "/length").ends_with("content-length: 4\r\nconnection: close\r\n\r\nabcd"));
    // Less than was said is cut off, if it was sent at all.
    let text = get(port, "/short");
    assert!(text.is_empty() || text.ends_with("\r\n\r\nab"), "{text}");
    assert!(get(port, "/empty").starts_with("HTTP/1.1 204 No Content\r\n"));
    let text = get(port, "/nowhere");
    assert!(text.starts_with("HTTP/1.1 404 Not Found\r\n"), "{text}");
    assert!(text.ends_with("\r\n\r\nno /nowhere"), "{text}");
    if cfg!(feature = "json") {
        let text = get(port, "/json");
        assert!(text.contains("content-type: application/json\r\n"), "{text}");
        assert!(text.ends_with("\r\n\r\n{\"a\":1}"), "{text}");
    }
    // To HEAD the same without a body.
    let text = ask(port, "HEAD / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    assert!(text.ends_with("content-length: 5\r\n\r\n"), "{text}");
}

#[test]
fn requests_tell_what_the_client_has_sent() {
    let (_server, port) = serve(
        "",
        "routes['/head'] = function(req)
             local h = req.headers
             local args = req:args()
             return 200, nil, table.concat({ req.method, req.path, tostring(req.query),
                 req.version, req.remote_addr, type(req.remote_port), tostring(req.tls),
                 h['X-One'], h.many, #h:all('MANY'), #h:all('no'), args.a[2], args['b c'], args.d,
             }, ' ')
         end
         routes['/trailers'] = function(req)
             local before = req.trailers
             local text = req:text()
             return 200, nil, tostring(before) .. text .. req.trailers['x-sum']
         end",
    );
    let text = ask(
        port,
        "PUT /head?a=1&a=%41+&b%20c=x&d HTTP/1.1\r\nHost: x\r\nx-ONE: one\r\nMany: 1\r\n\
         many: 2\r\nConnection: close\r\n\r\n",
    );
    let expected = "PUT /head a=1&a=%41+&b%20c=x&d 1.1 127.0.0.1 number nil one 1, 2 2 0 A  x ";
    assert!(text.ends_with(&format!("\r\n\r\n{expected}")), "{text}");
    let text = ask(
        port,
        "POST /trailers HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\
         Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX-Sum: 7\r\n\r\n",
    );
    assert!(text.ends_with("\r\n\r\nnilabc7"), "{text}");
}

#[test]
fn forms_are_taken_apart() {
    let (_server, port) = serve(
        "",
        "routes['/form'] = function(req, res)
             local form, code, why = req:form(30)
             if not form then return 400, nil, code .. ' ' .. why end
             return res:json(json.object(form))
         end",
    );
    let form = |arguments: &[&str]| String::from_utf8(curl(port, "/form", arguments)).unwrap();
    assert_eq!(form(&["-d", "a=1%20%C3%A4+b"]), "{\"a\":\"1 \u{e4} b\"}");
    assert_eq!(form(&["-d", "a=1&a=2"]), r#"{"a":["1","2"]}"#);
    assert_eq!(form(&["-d", "", "-H", "Content-Type:"]), "{}");
    let charset = "Content-Type: Application/X-WWW-Form-URLencoded; charset=utf-8";
    assert_eq!(form(&["-d", "a=1", "-H", charset]), r#"{"a":"1"}"#);
    assert_eq!(
        form(&["-d", "a=1", "-H", "Content-Type: text/plain"]),
        "18 no form, but text/plain"
    );
    assert!(form(&["-F", "a=1"]).starts_with("18 no form, but multipart/form-data"));
    assert_eq!(form(&["-d", &"a".repeat(31)]), "21 a body of more than 30 bytes");
}

#[test]
fn connections_are_kept_and_requests_on_them_answered_in_order() {
    let (_server, port) =
        serve("", "routes['/slow'] = function() timer.sleep(0.02) return 200, nil, 'slow' end");
    let mut stream = connect(port);
    for _ in 0..3 {
        stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
        assert!(until(&mut stream, "hello").starts_with("HTTP/1.1 200 OK\r\n"));
    }
    // All at once, with bodies that nobody reads in between.
    let mut all = String::new();
    for path in ["/slow", "/", "/nowhere", "/slow"] {
        all += &format!("POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc");
    }
    all += "GET /last HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    stream.write_all(all.as_bytes()).unwrap();
    let text = rest(stream);
    let bodies: Vec<&str> = text.split("\r\n\r\n").skip(1).map(|rest| &rest[..4]).collect();
    assert_eq!(bodies, ["slow", "hell", "no /", "slow", "no /"], "{text}");
    let old = ask(port, "GET / HTTP/1.0\r\n\r\n");
    assert!(old.starts_with("HTTP/1.0 200 OK\r\n") && old.ends_with("hello"), "{old}");
}

#[test]
fn a_handler_that_fails_is_logged_and_costs_its_own_client_only() {
    let (server, port) = serve(
        "",
        "routes['/fail'] = function() error('failed on purpose') end
         routes['/late'] = function(_, res)
             res:write('part') timer.sleep(0.01) error('failed late')
         end
         routes['/empty'] = function(_, res)
             res:status(204):write('') timer.sleep(0.01) error('failed late')
         end
         routes['/nothing'] = function() end
         routes['/both'] = function(_, res) res:status(200) return 200 end
         routes['/bad'] = function() return 99 end
         routes['/type'] = function() return 200, nil, {} end
         routes['/name'] = function() return 200, { ['a b'] = 'c' } end
         routes['/value'] = function() return 200, { a = 'b\\r\\nc: d' } end
         routes['/coding'] = function() return 200, { ['Transfer-Encoding'] = 'chunked' } end
         routes['/more'] = function(_, res) res:header('content-length', 1) res:write('ab') end",
    );
    for path in ["/fail", "/nothing", "/bad", "/type", "/name", "/value", "/coding"] {
        let text = get(port, path);
        let head = "HTTP/1.1 500 Internal Server Error\r\nconnection: close\r\n";
        assert!(text.starts_with(head), "{path}: {text}");
    }
    // What has begun is cut off, not ended.
    assert!(get(port, "/late").ends_with("\r\n\r\n4\r\npart\r\n"));
    assert!(!get(port, "/more").contains("ab"));
    // Where there is no body to be cut off the end of the connection tells as much.
    for request in ["HEAD /late", "GET /empty"] {
        let text = ask(port, format!("{request} HTTP/1.1\r\nHost: x\r\n\r\n"));
        assert!(text.starts_with("HTTP/1.1 20"), "{request}: {text}");
    }
    assert!(get(port, "/").ends_with("hello"));
    server.signal("TERM");
    let log = server.finish(PATIENCE).stderr;
    for text in [
        "failed on purpose",
        "failed late",
        "the handler has neither returned an answer nor used res",
        "status from 200 to 999 expected, got number 99",
        "string, buffer or iterator expected, got table",
        "name of a header expected, got string \"a b\"",
        "value of header a expected, got string",
        "transfer-encoding is not for scripts to say",
        "the body has 2 bytes, but content-length says 1",
    ] {
        assert!(log.contains(text), "{text}:\n{log}");
    }
}

#[test]
fn large_bodies_stream_both_ways_whatever_the_version() {
    let (server, port) = serve("http2 = true", "");
    let folder = Folder::new();
    let body = noise(8 << 20);
    let file = folder.write("body", &body);
    let sent = format!("@{}", file.display());
    for version in ["--http1.0", "--http1.1", "--http2-prior-knowledge"] {
        let found = curl(port, "/echo", &[version, "-H", "Expect:", "--data-binary", &sent]);
        assert!(found == body, "{version}: {} bytes", found.len());
    }
    let chunked = curl(port, "/echo", &["-X", "POST", "-T", file.to_str().unwrap()]);
    assert!(chunked == body, "{} bytes", chunked.len());
    let chunked =
        curl(port, "/echo", &["-H", "Transfer-Encoding: chunked", "--data-binary", &sent]);
    assert!(chunked == body, "in chunks: {} bytes", chunked.len());
    assert!(support::resident_bytes(server.id()) < 200 << 20);
}

#[test]
fn a_body_is_asked_for_before_it_is_sent() {
    let (_server, port) = serve("", "routes['/refuse'] = function() return 403, nil, 'no' end");
    let mut stream = connect(port);
    let head = "HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n";
    stream.write_all(format!("POST /text {head}").as_bytes()).unwrap();
    assert_eq!(until(&mut stream, "\r\n\r\n"), "HTTP/1.1 100 Continue\r\n\r\n");
    stream.write_all(b"abc").unwrap();
    assert!(until(&mut stream, "\r\n\r\nabc").starts_with("HTTP/1.1 200 OK\r\n"));
    // Who does not want it says so instead.
    stream.write_all(format!("POST /refuse {head}").as_bytes()).unwrap();
    assert!(rest(stream).starts_with("HTTP/1.1 403 Forbidden\r\n"));
}

/// What a kept connection answers to a request that ends so, and to one behind it: a head's lines
/// in order, without the date.
fn kept(port: u16, request: &str, end: &str) -> (Vec<String>, String) {
    let mut stream = connect(port);
    stream.write_all(request.as_bytes()).unwrap();
    let text = until(&mut stream, end);
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    let mut lines: Vec<String> = head.lines().map(str::to_owned).collect();
    assert_eq!(lines.iter().filter(|line| line.starts_with("date: ")).count(), 1, "{text}");
    lines.retain(|line| !line.starts_with("date: ") || line.ends_with("mine"));
    lines.sort();
    lines.push(body.to_owned());
    // It may have been closed.
    let _ = stream.write_all(b"GET /last HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    (lines, rest(stream))
}

#[test]
fn a_request_that_says_little_is_answered_as_one_that_says_more() {
    let (_server, port) = serve(
        "headers = 20",
        "local function add(name, handler) routes['/' .. name] = handler end
         add('seen', function(req)
             local all = {}
             for name in pairs(req.headers) do
                 if name ~= 'content-length' then
                     all[#all + 1] = name .. '=' .. req.headers[name]
                 end
             end
             table.sort(all)
             local args = req:args()
             return 200, nil, table.concat({ req.method, req.path, tostring(req.query),
                 req.version, req:text(), table.concat(all, '&'), tostring(args.b),
                 table.concat(req.headers:all('x-two'), '|'), req.remote_addr, 'END' }, ' ')
         end)
         add('number', function() return 299, { n = 1, ['X-A'] = 'b' }, 'END' end)
         add('list', function() return 201, { a = { 'x', 'y' } }, buffer.new('END') end)
         add('length', function() return 200, { ['content-length'] = 100 }, 'END' end)
         add('date', function() return 200, { Date = 'mine' }, 'END' end)
         add('none', function() return 204 end)
         add('old', function() return 304, { etag = '1' } end)
         add('empty', function() return 404, nil, '' end)
         add('close', function() return 200, { Connection = 'close' }, 'END' end)
         add('long', function() return 200, nil, ('x'):rep(50000) .. 'END' end)
         add('wide', function() return 200, { a = ('x'):rep(5000) }, 'END' end)
         add('pieces', function() local n = 0 return 200, nil, function()
             n = n + 1
             return ({ 'a', 'END' })[n]
         end end)
         add('writes', function(_, res) res:write('a') res:finish('END') end)
         add('behind', function(_, res) res:trailer('x', 'y') res:finish('END') end)
         add('finish', function(_, res) res:status(202):header('b', 1):finish('END') end)
         add('nothing', function(_, res) res:status(203) end)
         add('late', function() timer.sleep(0.01) return 200, nil, 'END' end)
         add('name', function() return 200, { ['a b'] = 'c' }, 'END' end)
         add('value', function() return 200, { a = 'c\\r\\nd: e' }, 'END' end)
         add('coding', function() return 200, { ['Transfer-Encoding'] = 'chunked' }, 'END' end)
         add('body', function() return 200, nil, {} end)
         add('fails', function() error('no') end)
         add('file', function(_, res) res:sendfile('/no/such') end)",
    );
    let failed = "Internal Server Error\n";
    let ends = [
        ("seen", "END"),
        ("seen?a=%20&b=c", "END"),
        ("seen%41/../b", "no /seen%41/../b"),
        ("number", "END"),
        ("list", "END"),
        ("length", "END"),
        ("date", "END"),
        ("none", "\r\n\r\n"),
        ("old", "\r\n\r\n"),
        ("empty", "\r\n\r\n"),
        ("close", "END"),
        ("long", "END"),
        ("wide", "END"),
        ("pieces", "END\r\n0\r\n\r\n"),
        ("writes", "END\r\n0\r\n\r\n"),
        ("behind", "0\r\n\r\n"),
        ("finish", "END"),
        ("nothing", "\r\n\r\n"),
        ("late", "END"),
        ("name", failed),
        ("value", failed),
        ("coding", failed),
        ("body", failed),
        ("fails", failed),
        ("file", "\r\n\r\n"),
        ("nowhere", "no /nowhere"),
    ];
    for (path, end) in ends {
        let head = format!("GET /{path} HTTP/1.1\r\nhOst: x\r\nX-Two:  a \r\nx-two: b\r\n");
        let little = kept(port, &format!("{head}\r\n"), end);
        // All that has a length is read by hyper.
        let more = kept(port, &format!("{head}Content-Length: 0\r\n\r\n"), end);
        assert_eq!(little, more, "{path}");
        assert_eq!(little.1.is_empty(), end == failed || path == "close", "{path}: {}", little.1);
    }
}

#[test]
fn a_plain_request_may_come_in_pieces_before_its_turn_and_at_the_end() {
    let (_server, port) =
        serve("", "routes['/slow'] = function() timer.sleep(0.05) return 200, nil, 'slow' end");
    let mut stream = connect(port);
    let get = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n");
    for piece in get("/").as_bytes().chunks(5) {
        stream.write_all(piece).unwrap();
    }
    assert!(until(&mut stream, "hello").starts_with("HTTP/1.1 200 OK\r\n"));
    // While another is answered, and two and a half at once.
    stream.write_all(get("/slow").as_bytes()).unwrap();
    stream.write_all(get("/").as_bytes()).unwrap();
    assert!(until(&mut stream, "hello").contains("slow"));
    let all = get("/") + &get("/slow") + &get("/");
    stream.write_all(&all.as_bytes()[..all.len() - 9]).unwrap();
    assert_eq!(statuses(&until(&mut stream, "slow")), "200 200");
    stream.write_all(&all.as_bytes()[all.len() - 9..]).unwrap();
    assert_eq!(statuses(&until(&mut stream, "hello")), "200");
    // Who has said all still listens; what is refused behind a sound one is answered after it.
    let mut refused = connect(port);
    refused.write_all((get("/slow") + "GET / HTTP/1.1\r\nHost: x y\r\n\r\n").as_bytes()).unwrap();
    assert_eq!(statuses(&rest(refused)), "200 400");
    stream.write_all(get("/slow").as_bytes()).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    assert_eq!(statuses(&rest(stream)), "200");
}

#[test]
fn files_are_sent_in_parts_and_if_they_are_new() {
    let folder = Folder::new();
    let file = folder.write("page.html", "0123456789");
    let large = folder.write("large", noise(3 << 20));
    let (_server, port) = serve(
        "",
        &format!(
            "routes['/page'] = function(_, res) return res:sendfile('{}') end
             routes['/large'] = function(_, res) return res:sendfile('{}') end
             routes['/none'] = function(_, res) return res:sendfile('/no/such/file') end
             routes['/own'] = function(_, res)
                 local ok, code, text = res:sendfile('/no/such/file')
                 return res:finish(tostring(ok) .. code .. text)
             end
             routes['/folder'] = function(_, res) return res:sendfile('/') end",
            file.display(),
            large.display()
        ),
    );
    let page = |lines: &str| {
        ask(port, format!("GET /page HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{lines}\r\n"))
    };
    let text = page("");
    assert!(text.starts_with("HTTP/1.1 200 OK\r\n") && text.ends_with("0123456789"), "{text}");
    assert!(text.contains("content-type: text/html; charset=utf-8\r\n"), "{text}");
    let tag = text.split("etag: ").nth(1).unwrap().split("\r\n").next().unwrap();
    let part = page("Range: bytes=2-4\r\n");
    assert!(part.starts_with("HTTP/1.1 206 Partial Content\r\n"), "{part}");
    assert!(part.contains("content-range: bytes 2-4/10\r\n") && part.ends_with("234"), "{part}");
    assert_eq!(statuses(&page("Range: bytes=10-\r\n")), "416");
    assert_eq!(statuses(&page(&format!("If-None-Match: {tag}\r\n"))), "304");
    assert_eq!(statuses(&page(&format!("If-Match: {tag}\r\n"))), "200");
    assert_eq!(statuses(&page("If-Match: \"other\"\r\n")), "412");
    let head = ask(port, "HEAD /page HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    assert!(head.contains("content-length: 10\r\n") && head.ends_with("\r\n\r\n"), "{head}");
    assert!(curl(port, "/large", &[]) == noise(3 << 20));
    assert_eq!(statuses(&get(port, "/none")), "404");
    assert_eq!(statuses(&get(port, "/folder")), "404");
    assert!(get(port, "/own").ends_with("false34no such file or directory: /no/such/file"));
}

#[test]
fn a_server_that_closes_answers_what_has_come_and_takes_no_more() {
    let (server, port) = serve(
        "",
        "routes['/slow'] = function(_, _, server)
             print('working')
             timer.sleep(0.1)
             return 200, nil, 'done'
         end
         routes['/close'] = function(_, _, server)
             return 200, nil, tostring(server:close(20)) .. tostring(server:close())
         end",
    );
    let mut server = server;
    let mut busy = connect(port);
    let idle = connect(port);
    busy.write_all(b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    assert_eq!(server.line(), "working");
    assert!(get(port, "/close").ends_with("truefalse"));
    assert!(rest(busy).ends_with("done"));
    assert_eq!(rest(idle), "");
    // Nothing is left that would keep the process.
    server.finish(PATIENCE).succeeded();
}

#[test]
fn what_has_come_when_a_server_closes_is_answered_although_nobody_has_looked() {
    let folder = Folder::new();
    let file = folder.path("go");
    let code = format!(
        "routes['/close'] = function(_, _, server)
             print('working')
             while not io.open('{}') do end
             server:close(20)
             return 200
         end",
        file.display()
    );
    let (mut server, port) = serve("http2 = true", &code);
    let request = |stream: &mut TcpStream, more: &str| {
        stream.write_all(format!("GET / HTTP/1.1\r\nHost: x\r\n{more}\r\n").as_bytes()).unwrap();
    };
    // One that was answered before, by either reader of heads, and one that has said nothing yet.
    let mut streams = vec![connect(port), connect(port), connect(port)];
    for (stream, more) in streams.iter_mut().zip(["", "Range: x\r\n"]) {
        request(stream, more);
        assert!(until(stream, "hello").ends_with("hello"));
    }
    let mut closing = connect(port);
    closing.write_all(b"GET /close HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    assert_eq!(server.line(), "working");
    // And those that nobody has accepted.
    streams.extend([connect(port), connect(port)]);
    for (stream, more) in streams.iter_mut().zip(["", "Range: x\r\n", "", "", "Range: x\r\n"]) {
        request(stream, more);
    }
    std::fs::write(&file, "").unwrap();
    for stream in streams {
        let text = rest(stream);
        assert!(text.contains("connection: close") && text.ends_with("hello"), "{text:?}");
    }
    assert!(rest(closing).starts_with("HTTP/1.1 200"));
    server.finish(PATIENCE).succeeded();
}

#[test]
fn a_server_ends_what_takes_longer_than_it_is_given() {
    let code = script("", "routes['/never'] = function() print('here') timer.sleep(1000) end");
    let code = format!(
        "{code}
         context.on_signal('USR1', function() print(server:close(0.05)) context.exit() end)"
    );
    let mut server = Server::start(["-e", &code]);
    let port = server.port();
    let mut stream = connect(port);
    stream.write_all(b"GET /never HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    assert_eq!(server.line(), "here");
    server.signal("USR1");
    assert_eq!(rest(stream), "");
    assert_eq!(server.line(), "true");
}

#[test]
fn what_handlers_do_wrong_is_named_and_answered() {
    let calls = [
        ("req:read('x')", "#1 to 'read' (number of seconds expected, got string \"x\")"),
        ("req:text(-1)", "#1 to 'text' (number of bytes expected, got number -1)"),
        ("req.args(5)", "#1 to 'args' (request expected, got number 5)"),
        ("req.headers:all(1)", "#1 to 'all' (name of a header expected, got number 1)"),
        ("req.headers.all(1, 'a')", "#1 to 'all' (table of headers expected, got number 1)"),
        ("res:json(print)", "json: value is a function, which cannot be written"),
        ("res:status(100)", "#1 to 'status' (status from 200 to 999 expected, got number 100)"),
        ("res:header('a b', 1)", "#1 to 'header' (name of a header expected, got string \"a b\")"),
        ("res:header('a', true)", "#2 to 'header' (value of header a expected, got boolean true)"),
        ("res:header('content-length', -1)", "header content-length expected, got number -1)"),
        ("res:header('content-length', { 1, 2 })", "#2 to 'header' (one content-length expected"),
        ("res:trailer('host', 'x')", "#1 to 'trailer' (host has to come before the body)"),
        ("res:write({})", "#1 to 'write' (string, number or buffer expected, got table)"),
        ("res:finish({})", "#1 to 'finish' (string, number or buffer expected, got table)"),
        ("res:sendfile(1)", "#1 to 'sendfile' (path of a file expected, got number 1)"),
    ];
    let routes: String = calls
        .iter()
        .zip(0..)
        .map(|((call, _), number): (_, usize)| {
            format!("routes['/{number}'] = function(req, res)\n {call} end ")
        })
        .collect();
    let (server, port) = serve("", &routes);
    for number in 0..calls.len() {
        assert!(get(port, &format!("/{number}")).starts_with("HTTP/1.1 500 "), "{number}");
    }
    server.signal("TERM");
    let log = server.finish(PATIENCE).stderr;
    for ((call, why), number) in calls.iter().zip(0..) {
        let found = log.lines().find(|line| line.contains(why));
        let found = found.unwrap_or_else(|| panic!("{call}: {why}\n{log}"));
        // Each on a line of its own.
        assert!(!found.contains("[node-lua]"), "{number}: {found}");
    }
}

#[test]
fn wrong_arguments_and_options_are_named() {
    for (call, why) in [
        ("http.serve()", "#1 to 'serve' (address or tcp listen socket expected, got nil)"),
        ("http.serve(print)", "#1 to 'serve' (address or tcp listen socket expected, got function"),
        ("http.serve('127.0.0.1')", "#2 to 'serve' (port from 0 to 65535 expected, got nil)"),
        ("http.serve('127.0.0.1', 'x', print)", "#2 to 'serve' (port from 0 to 65535 expected"),
        ("http.serve('127.0.0.1', 0)", "#3 to 'serve' (function expected, got nil)"),
        ("http.serve('127.0.0.1', 0, 'x')", "#3 to 'serve' (function expected, got string"),
        ("http.serve('127.0.0.1', 0, {}, 1)", "#4 to 'serve' (function expected, got number 1)"),
        ("http.serve('127.0.0.1', 0, {}, print, 1)", "#5 to 'serve' (no more arguments expected"),
        (
            "local _, l = tcp.listen('127.0.0.1', 0) tcp.close(l) http.serve(l, print)",
            "tcp listen socket has been closed: 'serve' needs an open one",
        ),
        ("http.serve('127.0.0.1', 0, { heads = 1 }, print)", "no option named string \"heads\""),
        ("http.serve('127.0.0.1', 0, { http2 = 1 }, print)", "option 'http2' of 'serve' (boolean"),
        ("http.serve('127.0.0.1', 0, { headers = 0 }, print)", "whole number from 1 to 10000"),
        ("http.serve('127.0.0.1', 0, { tls = 1 }, print)", "option 'tls' of 'serve'"),
        ("http.serve('127.0.0.1', 0, print, 1)", "#3 to 'serve' (table of options expected"),
    ] {
        let done = run(node_lua().args(["-e", call]));
        assert!(done.stderr.contains(why), "{call}: {done}");
        assert_eq!(done.code(), Some(1), "{call}: {done}");
    }
}

/// An answer may say that it is the last one: that holds, whatever has come behind its request.
#[test]
fn nothing_follows_an_answer_that_says_so() {
    let (_server, port) = serve(
        "",
        "routes['/fail'] = function() error('on purpose', 0) end
         routes['/close'] = function() return 200, { connection = 'close' }, 'bye' end",
    );
    let bad = "GET / HTTP/1.1\r\nHost: a\r\nContent-Length:/ 0\r\n\r\n";
    for (first, kept) in [
        ("GET / HTTP/1.1\r\nHot: a\r\n\r\n", false),
        ("GET /fail HTTP/1.1\r\nHost: a\r\nX: y\r\nContent-Length: 0\r\n\r\n", false),
        ("GET /close HTTP/1.1\r\nHost: a\r\n\r\n", false),
        ("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", false),
        ("GET / HTTP/1.1\r\nHost: a\r\n\r\n", true),
    ] {
        for good in 0..2 {
            let mut peer = connect(port);
            let head = "GET / HTTP/1.1\r\nHost: a\r\n\r\n".repeat(good);
            peer.write_all([&head, first, bad].concat().as_bytes()).unwrap();
            let text = rest(peer);
            let answers = text.matches("HTTP/1.1 ").count();
            assert_eq!(answers, good + 1 + usize::from(kept), "{first}: {text}");
            let (_, last) = text.rsplit_once("HTTP/1.1 ").unwrap();
            assert!(last.contains("\r\nconnection: close\r\n"), "{first}: {text}");
            let closes = text.matches("\r\nconnection: close\r\n").count();
            assert_eq!(closes, 1, "{first}: {text}");
        }
    }
}
