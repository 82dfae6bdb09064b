//! WebSocket: peers that mean harm, or do not keep to the protocol; idle ones; simulations. What
//! scripts alone can show is in tests/lua/websocket_test.lua, other programs are in
//! tests/websocket_peers.rs.

#![cfg(feature = "websocket")]
#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use support::{Server, connect, node_lua, read_rest, resident_bytes, run};

/// Echoes messages; `sockets` and `turns` are answered with what `context.stat` says. Says how each
/// conversation has ended, unless it is told that there are many.
const ECHO: &str = r#"
    local ok, listener = tcp.listen("127.0.0.1", 0, 4096)
    local options, many = { max_message = 100000, deflate = true, timeout = 50 }, false
    listener:accept(function(_, sock)
      local good, ws, text = websocket.accept(sock, options)
      if not good then
        if not many then print("refused", ws, text) end
        return
      end
      while true do
        local got, data, kind = ws:recv()
        if not got then
          if not many then print("ended", data, kind) end
          return ws:close()
        end
        local answer = data:tostring()
        if answer == "many" then many = true end
        if answer == "sockets" then answer = context.stat().sockets end
        if answer == "collect" then collectgarbage() end
        ws:send(answer, kind)
      end
    end)
    print(tcp.local_port(listener))"#;

fn echo_server() -> (Server, u16) {
    let mut server = Server::start(["-e", ECHO]);
    let port = server.port();
    (server, port)
}

const REQUEST: &str = "GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

/// Reads up to the end of a head, and not further.
fn read_head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    String::from_utf8(head).unwrap()
}

fn shake_hands(port: u16, more: &str) -> TcpStream {
    let mut stream = connect(port);
    stream.write_all(format!("{REQUEST}{more}\r\n").as_bytes()).unwrap();
    assert!(read_head(&mut stream).starts_with("HTTP/1.1 101 "));
    stream
}

/// A frame as a client sends it, with a mask that is none.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first];
    match payload.len() {
        length @ 0..126 => bytes.push(0x80 | length as u8),
        length @ 126..0x1_0000 => {
            bytes.push(0x80 | 126);
            bytes.extend_from_slice(&(length as u16).to_be_bytes());
        }
        length => {
            bytes.push(0x80 | 127);
            bytes.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
    bytes.extend_from_slice(&[0; 4]);
    bytes.extend_from_slice(payload);
    bytes
}

const TEXT: u8 = 0x81;
const BINARY: u8 = 0x82;
const CLOSE: u8 = 0x88;
const PING: u8 = 0x89;
const PONG: u8 = 0x8a;

/// Reads a frame of a server's.
fn read_frame(stream: &mut TcpStream) -> (u8, Vec<u8>) {
    let mut head = [0; 2];
    stream.read_exact(&mut head).unwrap();
    let length = match head[1] {
        126 => {
            let mut length = [0; 2];
            stream.read_exact(&mut length).unwrap();
            u64::from(u16::from_be_bytes(length))
        }
        127 => {
            let mut length = [0; 8];
            stream.read_exact(&mut length).unwrap();
            u64::from_be_bytes(length)
        }
        length => u64::from(length),
    };
    let mut payload = vec![0; length as usize];
    stream.read_exact(&mut payload).unwrap();
    (head[0], payload)
}

#[track_caller]
fn assert_closed_with(stream: &mut TcpStream, code: u16) {
    let (first, payload) = read_frame(stream);
    assert_eq!((first, &payload[..2]), (CLOSE, &code.to_be_bytes()[..]));
    assert_eq!(read_rest(stream), b"");
}

fn ask(stream: &mut TcpStream, what: &str) -> String {
    stream.write_all(&frame(TEXT, what.as_bytes())).unwrap();
    String::from_utf8(read_frame(stream).1).unwrap()
}

#[test]
fn one_byte_at_a_time_is_as_good() {
    let (_server, port) = echo_server();
    let mut stream = connect(port);
    let mut bytes = format!("{REQUEST}\r\n").into_bytes();
    // Behind the request, before the answer: it is not lost.
    for part in [
        frame(0x01, "h\u{e4}".as_bytes()),
        frame(PING, b"ping"),
        frame(0x80, b"llo"),
        frame(BINARY, &[7; 200]),
        frame(CLOSE, b"\x0f\xa0bye"),
    ] {
        bytes.extend_from_slice(&part);
    }
    for byte in bytes {
        stream.write_all(&[byte]).unwrap();
    }
    assert!(read_head(&mut stream).contains("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
    assert_eq!(read_frame(&mut stream), (PONG, b"ping".to_vec()));
    assert_eq!(read_frame(&mut stream), (TEXT, "h\u{e4}llo".into()));
    assert_eq!(read_frame(&mut stream), (BINARY, vec![7; 200]));
    assert_closed_with(&mut stream, 4000);
}

#[test]
fn who_does_not_keep_to_the_protocol_is_told() {
    let (mut server, port) = echo_server();
    let mut good = shake_hands(port, "");
    let unmasked = b"\x81\x01a".to_vec();
    let cases = [
        (unmasked, 1002, "a frame that is not masked"),
        (frame(0xc1, b"\xff\xff\xff"), 1007, "a compressed message that is none"),
        (frame(0xa1, b"a"), 1002, "a frame with a reserved bit"),
        (frame(0x91, b"a"), 1002, "a frame with a reserved bit"),
        (frame(0xc9, b""), 1002, "a control frame that is a part of something"),
        (frame(0x83, b""), 1002, "a frame of a reserved kind"),
        (frame(0x8f, b""), 1002, "a frame of a reserved kind"),
        (frame(0x80, b"a"), 1002, "a frame that continues nothing"),
        ([frame(0x01, b"a"), frame(0x01, b"b")].concat(), 1002, "a message inside of another one"),
        (frame(0x09, b"a"), 1002, "a control frame that is a part of something"),
        (frame(PING, &[0; 126]), 1002, "a control frame of more than 125 bytes"),
        (frame(CLOSE, b"\x03"), 1002, "a close frame of one byte"),
        (frame(CLOSE, b"\x03\xed"), 1002, "a close code that no frame may have"),
        (frame(CLOSE, b"\x03\xe8\xff"), 1007, "the reason of a close frame is no UTF-8"),
        (frame(BINARY, &[0; 100_001]), 1009, "a message of more than 100000 bytes"),
        (vec![0x82, 0xff, 0x7f, 255, 255, 255, 255, 255, 255, 255, 0, 0, 0, 0], 1009, "more than"),
    ];
    for (bytes, code, why) in cases {
        let mut stream = shake_hands(port, "Sec-WebSocket-Extensions: permessage-deflate\r\n");
        // Refused before all of it is there: the rest may meet the end.
        let _ = stream.write_all(&bytes);
        assert_closed_with(&mut stream, code);
        let line = server.line();
        assert!(line.starts_with(&format!("ended\t{code}\t")) && line.contains(why), "{line}");
        assert_eq!(ask(&mut good, "still here"), "still here");
    }
}

#[test]
fn text_that_is_none_is_refused_wherever_it_is_cut() {
    let (_server, port) = echo_server();
    let text = "\u{e4}\u{20ac}\u{1f600}".as_bytes();
    for at in 0..text.len() {
        let mut stream = shake_hands(port, "");
        stream.write_all(&frame(0x01, &text[..at])).unwrap();
        stream.write_all(&frame(0x80, &text[at..])).unwrap();
        assert_eq!(read_frame(&mut stream), (TEXT, text.to_vec()));
        // The byte there is wrong now, which shows before the message is whole.
        let mut wrong = text.to_vec();
        wrong[at] = 0xff;
        stream.write_all(&frame(0x01, &wrong[..at])).unwrap();
        stream.write_all(&frame(0x00, &wrong[at..])).unwrap();
        assert_closed_with(&mut stream, 1007);
    }
}

#[test]
fn a_bomb_is_unpacked_up_to_the_limit() {
    let (server, port) = echo_server();
    let offer = "Sec-WebSocket-Extensions: permessage-deflate\r\n";
    let mut stream = shake_hands(port, "");
    assert_eq!(ask(&mut stream, "many"), "many");
    // Stored blocks of deflate, each of 65,535 zeros, would be long: these are blocks of one
    // distance, as zlib makes them of 64 MiB of zeros.
    let mut bomb = Vec::new();
    let mut packer = flate2::Compress::new(flate2::Compression::best(), false);
    let zeros = vec![0; 1 << 20];
    for _ in 0..64 {
        bomb.reserve(1 << 20);
        packer.compress_vec(&zeros, &mut bomb, flate2::FlushCompress::None).unwrap();
    }
    bomb.reserve(1 << 20);
    packer.compress_vec(&[], &mut bomb, flate2::FlushCompress::Sync).unwrap();
    assert!(bomb.len() < 100_000);
    let before = resident_bytes(server.id());
    for _ in 0..20 {
        let mut bomber = shake_hands(port, offer);
        bomber.write_all(&frame(0xc2, &bomb)).unwrap();
        assert_closed_with(&mut bomber, 1009);
    }
    let after = resident_bytes(server.id());
    assert!(after < before + (16 << 20), "{before} bytes resident before, {after} after");
    assert_eq!(ask(&mut stream, "still here"), "still here");
}

#[test]
fn ends_without_a_word_are_told() {
    let (mut server, port) = echo_server();
    let stream = shake_hands(port, "");
    drop(stream);
    assert_eq!(server.line(), "ended\t1\tnil");
    // In a message.
    let mut stream = shake_hands(port, "");
    stream.write_all(&frame(TEXT, b"half")[..8]).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    assert_eq!(server.line(), "ended\t1\tnil");
    assert_eq!(read_frame(&mut stream).0, CLOSE);
    let mut stream = shake_hands(port, "");
    stream.write_all(&frame(TEXT, b"half")[..8]).unwrap();
    socket2::Socket::from(stream).set_linger(Some(Duration::ZERO)).unwrap();
    assert_eq!(server.line(), "ended\t13\tnil");
    // In a handshake.
    let mut stream = connect(port);
    stream.write_all(&REQUEST.as_bytes()[..20]).unwrap();
    drop(stream);
    assert_eq!(server.line(), "refused\t1\tend of file");
    let mut stream = connect(port);
    stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    assert!(read_head(&mut stream).starts_with("HTTP/1.1 426 "));
    assert_eq!(server.line(), "refused\t223\tthe client does not ask for a WebSocket");
    let mut stream = connect(port);
    let _ = stream.write_all(&[b'x'; 20_000]);
    assert_eq!(server.line(), "refused\t223\ta head of more than 16384 bytes");
}

#[test]
fn pings_without_end_are_answered_as_far_as_their_sender_reads() {
    let (server, port) = echo_server();
    let mut stream = shake_hands(port, "");
    let pings = frame(PING, &[b'x'; 100]).repeat(1000);
    let before = resident_bytes(server.id());
    stream.set_nonblocking(true).unwrap();
    // As long as the server takes any: it must not keep the answers.
    let mut sent = 0;
    while sent < 40 << 20 {
        match stream.write(&pings[sent % pings.len()..]) {
            Ok(count) => sent += count,
            Err(error) if error.kind() == ErrorKind::WouldBlock => std::thread::yield_now(),
            Err(error) => panic!("{error}"),
        }
    }
    let after = resident_bytes(server.id());
    assert!(after < before + (16 << 20), "{before} bytes resident before, {after} after");
}

#[test]
fn silence_is_asked_about_and_ends() {
    const SCRIPT: &str = r#"
        local ok, listener = tcp.listen("127.0.0.1", 0)
        print(tcp.local_port(listener))
        local sock = context.check(listener:accept())
        local ws = context.check(websocket.accept(sock, { ping_interval = 0.5 }))
        print(ws:recv())"#;
    let mut server = Server::start(["-e", SCRIPT]);
    let port = server.port();
    let mut stream = shake_hands(port, "");
    for _ in 0..2 {
        assert_eq!(read_frame(&mut stream), (PING, Vec::new()));
        stream.write_all(&frame(PONG, b"")).unwrap();
    }
    assert_eq!(read_frame(&mut stream), (PING, Vec::new()));
    assert_closed_with(&mut stream, 1001);
    assert_eq!(server.line(), "false\t40\tnothing came for 1 s");
}

#[test]
fn ten_thousand_connections_leave_nothing_behind() {
    const WAVES: usize = 20;
    const CONNECTIONS: usize = 500;
    support::with_many_files("ten_thousand_connections_leave_nothing_behind", || {
        let (server, port) = echo_server();
        let mut control = shake_hands(port, "");
        assert_eq!(ask(&mut control, "many"), "many");
        let mut resident = Vec::new();
        for _ in 0..WAVES {
            let streams: Vec<TcpStream> = (0..CONNECTIONS)
                .map(|number| {
                    let mut stream = connect(port);
                    match number % 5 {
                        0 => {}
                        1 => stream.write_all(&REQUEST.as_bytes()[..30]).unwrap(),
                        kind => {
                            stream.write_all(format!("{REQUEST}\r\n").as_bytes()).unwrap();
                            let payload = vec![7; if kind == 2 { 10 } else { 50_000 }];
                            let bytes = frame(BINARY, &payload);
                            let end = if kind == 3 { bytes.len() / 2 } else { bytes.len() };
                            stream.write_all(&bytes[..end]).unwrap();
                        }
                    }
                    stream
                })
                .collect();
            for stream in streams {
                socket2::Socket::from(stream).set_linger(Some(Duration::ZERO)).unwrap();
            }
            while ask(&mut control, "sockets") != "2" {}
            resident.push(resident_bytes(server.id()));
        }
        let (early, last) = (resident[4], resident[WAVES - 1]);
        assert!(last < early + (12 << 20), "resident after each wave: {resident:?}");
    });
}

#[test]
fn idle_connections_hold_no_buffer() {
    const CONNECTIONS: usize = 1000;
    support::with_many_files("idle_connections_hold_no_buffer", || {
        let (server, port) = echo_server();
        let mut control = shake_hands(port, "");
        assert_eq!(ask(&mut control, "many"), "many");
        let mut resident = Vec::new();
        let mut streams = Vec::new();
        for _ in 0..3 {
            for _ in 0..CONNECTIONS {
                let mut stream = shake_hands(port, "");
                // Each has received and sent much before.
                let body = vec![7; 50_000];
                stream.write_all(&frame(BINARY, &body)).unwrap();
                assert_eq!(read_frame(&mut stream), (BINARY, body));
                streams.push(stream);
            }
            assert_eq!(ask(&mut control, "collect"), "collect");
            resident.push(resident_bytes(server.id()));
        }
        // Coroutines of their own that wait among it.
        let each = (resident[2] - resident[0]) / (2 * CONNECTIONS as u64);
        assert!(each < 8192, "{each} bytes each, resident: {resident:?}");
    });
}

#[test]
fn a_peer_that_does_not_read_meets_the_write_limit() {
    const SCRIPT: &str = r#"
        local ok, listener = tcp.listen("127.0.0.1", 0)
        print(tcp.local_port(listener))
        local ws = context.check(websocket.accept(context.check(listener:accept())))
        ws:set_write_limit(1000000)
        local message = buffer.new(("x"):rep(100000))
        local sent = 0
        while true do
          local good, code = ws:send(message)
          if not good then break end
          sent = sent + 1
          timer.sleep(0.001)
        end
        print(sent > 5, ws:send("more"))
        os.exit(0)"#;
    let mut server = Server::start(["-e", SCRIPT]);
    let port = server.port();
    let stream = shake_hands(port, "");
    assert_eq!(server.line(), "true\tfalse\t212\tnil");
    drop(stream);
}

#[test]
fn simulations_repeat_with_their_websockets() {
    const SCRIPT: &str = r#"
        local listener = context.check(tcp.listen("127.0.0.1", 0))
        listener:accept(function(_, sock)
          local good, ws = websocket.accept(sock, { ping_interval = 1, deflate = true })
          if not good then return print("refused", ws) end
          while true do
            local got, data, kind = ws:recv()
            if not got then return print("server", timer.now(), data, kind) end
            ws:send(data, kind)
          end
        end)
        local url = "ws://127.0.0.1:" .. tcp.local_port(listener)
        for i = 1, 5 do
          local good, ws = websocket.connect(url, { deflate = i % 2 == 0, timeout = 100 })
          print("connected", timer.now(), good)
          if good then
            ws:send(("x"):rep(i * 1000))
            local got, data = ws:recv(100)
            print(timer.now(), got, got and #data)
            print(ws:recv(5))
            ws:close(3000 + i, "enough")
          end
        end
        timer.sleep(3)
        listener:close()"#;
    let simulate = |seed: &str| {
        let done = run(node_lua().args(["--simulate", seed, "-e", SCRIPT])).succeeded();
        (done.stdout, done.stderr)
    };
    let first = simulate("7");
    assert!(first.0.contains("enough"), "{first:?}");
    assert_eq!(first, simulate("7"));
}
