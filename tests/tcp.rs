//! Raw bytes against live servers: frames split anywhere, lengths at and past every limit, peers
//! that stop half-way, reset, or never read.

#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::thread;
use std::time::Duration;

use support::{Folder, Server, connect, frame, read_frame, read_rest, resident_bytes};

fn echo_server() -> (Server, u16) {
    let mut server = Server::start(["examples/echo_server.lua", "0"]);
    let port = server.port();
    (server, port)
}

/// A server that reads frames as `options` say and prints each: its length, or its code.
fn reporting_server(options: &str) -> (Server, u16) {
    let code = format!(
        "local ok, listener = tcp.listen('127.0.0.1', 0)
         listener:accept(function(_, sock)
           sock:set_rwopt({{ {options} }})
           sock:read(function(good, data)
             print(good, good and #data or data)
             if not good then sock:close() end
           end)
         end)
         print(tcp.local_port(listener))"
    );
    let mut server = Server::start(["-e", &code]);
    let port = server.port();
    (server, port)
}

/// Closes with a reset instead of an end.
fn reset(stream: TcpStream) {
    let socket = socket2::Socket::from(stream);
    socket.set_linger(Some(Duration::ZERO)).unwrap();
}

/// A body that tells frames and positions apart.
fn body(number: usize, length: usize) -> Vec<u8> {
    (0..length).map(|at| (number.wrapping_mul(31) + at * 7 + at / 251) as u8).collect()
}

#[test]
fn frames_arrive_whole_when_sent_one_byte_at_a_time() {
    let (_server, port) = echo_server();
    let mut stream = connect(port);
    for number in 0..3 {
        let body = body(number, 40 * number);
        for byte in frame(&body) {
            stream.write_all(&[byte]).unwrap();
        }
        assert_eq!(read_frame(&mut stream), body);
    }
}

#[test]
fn many_frames_in_one_write_arrive_one_by_one() {
    let (_server, port) = echo_server();
    let mut stream = connect(port);
    let bodies: Vec<Vec<u8>> = (0..500).map(|number| body(number, number * 3 % 700)).collect();
    stream.write_all(&bodies.iter().flat_map(|body| frame(body)).collect::<Vec<u8>>()).unwrap();
    for body in &bodies {
        assert_eq!(&read_frame(&mut stream), body);
    }
}

#[test]
fn a_stream_of_frames_may_be_split_at_any_byte() {
    let (_server, port) = echo_server();
    let bodies = [body(1, 3), body(2, 0), body(3, 9)];
    let bytes: Vec<u8> = bodies.iter().flat_map(|body| frame(body)).collect();
    let mut stream = connect(port);
    for at in 0..=bytes.len() {
        let (first, second) = bytes.split_at(at);
        stream.write_all(first).unwrap();
        // The answer to the frames before the split shows that the server has read the first part.
        let mut end = 0;
        let mut answered = 0;
        for body in &bodies {
            end += 2 + body.len();
            if end <= at {
                assert_eq!(&read_frame(&mut stream), body, "split at {at}");
                answered += 1;
            }
        }
        stream.write_all(second).unwrap();
        for body in &bodies[answered..] {
            assert_eq!(&read_frame(&mut stream), body, "split at {at}");
        }
    }
}

#[test]
fn a_frame_of_the_largest_length_comes_back() {
    let (_server, port) = echo_server();
    let mut stream = connect(port);
    for length in [65_534, 65_535] {
        let body = body(5, length);
        stream.write_all(&frame(&body)).unwrap();
        assert_eq!(read_frame(&mut stream), body);
    }
}

#[test]
fn each_width_and_order_has_its_limit() {
    /// The head that says so many bytes.
    type Head = fn(u32) -> Vec<u8>;
    let cases: &[(&str, usize, Head)] = &[
        ("read_head_bytes = 1", 255, |n| vec![n as u8]),
        ("read_head_bytes = 2, read_head_endian = 'B'", 65_535, |n| {
            (n as u16).to_be_bytes().to_vec()
        }),
        ("read_head_bytes = 2", 65_535, |n| (n as u16).to_le_bytes().to_vec()),
        ("read_head_bytes = 4, read_head_endian = 'B'", 70_000, |n| n.to_be_bytes().to_vec()),
        ("read_head_bytes = 4", 70_000, |n| n.to_le_bytes().to_vec()),
    ];
    for (options, longest, head) in cases {
        let (mut server, port) = reporting_server(options);
        let mut stream = connect(port);
        for length in [0, 1, longest - 1, *longest] {
            stream.write_all(&head(length as u32)).unwrap();
            stream.write_all(&body(1, length)).unwrap();
            assert_eq!(server.line(), format!("true\t{length}"), "{options}");
        }
    }
}

#[test]
fn a_frame_over_the_limit_ends_reading_with_code_21() {
    let options = "read_head_bytes = 2, read_head_endian = 'B', read_head_max = 100";
    let (mut server, port) = reporting_server(options);
    for (length, line) in [(99, "true\t99"), (100, "true\t100"), (101, "false\t21")] {
        let mut stream = connect(port);
        // The head alone decides: no byte of the body is waited for.
        let bytes = frame(&body(1, length));
        stream.write_all(if length > 100 { &bytes[..2] } else { &bytes }).unwrap();
        assert_eq!(server.line(), line);
        drop(stream);
        if length <= 100 {
            assert_eq!(server.line(), "false\t1");
        }
    }
}

#[test]
fn a_length_with_its_top_bit_set_is_too_long_and_allocates_nothing() {
    let (mut server, port) = reporting_server("read_head_bytes = 4");
    for head in [[0xff; 4], [0, 0, 0, 0x80]] {
        let mut stream = connect(port);
        stream.write_all(&head).unwrap();
        assert_eq!(server.line(), "false\t21", "{head:?}");
    }
    // The longest allowed one is only a promise until its bytes come.
    let mut streams = Vec::new();
    for _ in 0..20 {
        let mut stream = connect(port);
        stream.write_all(&[0xff, 0xff, 0xff, 0x7f, 1, 2, 3]).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        assert_eq!(server.line(), "false\t1");
        streams.push(stream);
    }
    assert!(resident_bytes(server.id()) < 200 << 20);
}

#[test]
fn half_a_frame_is_dropped_at_the_end() {
    let (mut server, port) = reporting_server("read_head_bytes = 2, read_head_endian = 'B'");
    for cut in 1..7 {
        let mut stream = connect(port);
        let mut bytes = frame(b"whole");
        bytes.extend_from_slice(&frame(b"other")[..cut]);
        stream.write_all(&bytes).unwrap();
        drop(stream);
        assert_eq!(server.line(), "true\t5");
        assert_eq!(server.line(), "false\t1", "cut at {cut}");
    }
}

#[test]
fn a_reset_is_told_and_harms_nobody_else() {
    let (mut server, port) = reporting_server("read_head_bytes = 2, read_head_endian = 'B'");
    let mut other = connect(port);
    other.write_all(&frame(b"hello")).unwrap();
    assert_eq!(server.line(), "true\t5");
    for _ in 0..5 {
        let mut stream = connect(port);
        stream.write_all(&frame(b"four")).unwrap();
        assert_eq!(server.line(), "true\t4");
        reset(stream);
        assert_eq!(server.line(), "false\t13");
    }
    other.write_all(&frame(b"still there")).unwrap();
    assert_eq!(server.line(), "true\t11");
}

#[test]
fn resets_while_much_is_being_echoed_leave_the_server_well() {
    let (_server, port) = echo_server();
    for number in 0..50 {
        let mut stream = connect(port);
        let bytes: Vec<u8> = (0..20).flat_map(|_| frame(&body(number, 3000))).collect();
        stream.write_all(&bytes[..bytes.len() - number]).unwrap();
        reset(stream);
    }
    let mut stream = connect(port);
    stream.write_all(&frame(b"after the storm")).unwrap();
    assert_eq!(read_frame(&mut stream), b"after the storm");
}

#[test]
fn the_answer_still_comes_after_the_client_has_shut_down_its_side() {
    let (_server, port) = echo_server();
    let mut stream = connect(port);
    let bytes: Vec<u8> = (0..300).flat_map(|number| frame(&body(number, 900))).collect();
    let mut sender = stream.try_clone().unwrap();
    let sent = bytes.clone();
    let sending = thread::spawn(move || {
        sender.write_all(&sent).unwrap();
        sender.shutdown(Shutdown::Write).unwrap();
    });
    assert!(read_rest(&mut stream) == bytes);
    sending.join().unwrap();
}

#[test]
fn a_thousand_clients_at_once_get_every_byte_back() {
    const CLIENTS: usize = 1000;
    const FRAMES: usize = 20;
    const THREADS: usize = 4;
    support::with_many_files("a_thousand_clients_at_once_get_every_byte_back", || {
        let (_server, port) = echo_server();
        thread::scope(|scope| {
            for part in 0..THREADS {
                scope.spawn(move || {
                    let clients: Vec<usize> = (part..CLIENTS).step_by(THREADS).collect();
                    let mut streams: Vec<_> = clients.iter().map(|_| connect(port)).collect();
                    for round in 0..FRAMES {
                        let bodies: Vec<Vec<u8>> = clients
                            .iter()
                            .map(|client| {
                                body(client * FRAMES + round, (client * 13 + round * 97) % 2000)
                            })
                            .collect();
                        for (stream, body) in streams.iter_mut().zip(&bodies) {
                            stream.write_all(&frame(body)).unwrap();
                        }
                        for (stream, body) in streams.iter_mut().zip(&bodies) {
                            assert!(&read_frame(stream) == body, "round {round}");
                        }
                    }
                });
            }
        });
    });
}

#[test]
fn a_peer_that_never_reads_makes_the_socket_fail_at_its_write_limit() {
    let code = "
      local ok, listener = tcp.listen('127.0.0.1', 0)
      print(tcp.local_port(listener))
      local _, sock = listener:accept()
      tcp.set_write_limit(sock, 1048576)
      local piece, most, writes = string.rep('x', 65536), 0, 0
      local failed
      repeat
        sock:write(piece, function(ok) failed = failed or not ok end)
        writes = writes + 1
        most = math.max(most, tcp.stat(sock).write_queue_bytes)
        if writes % 16 == 0 then timer.sleep(0.001) end
      until failed or writes == 5000
      print(most < 2 * 1048576, sock:write(piece, true))
      print(tcp.is_closed(sock), context.strerror(212))";
    let mut server = Server::start(["-e", code]);
    let port = server.port();
    let stream = connect(port);
    assert_eq!(server.line(), "true\tfalse\t212");
    assert_eq!(server.line(), "false\twrite queue full");
    drop(stream);
}

#[test]
fn a_socket_written_to_by_another_context_is_closed_when_its_owner_closes_it() {
    let folder = Folder::new();
    let script = folder.write(
        "gate.lua",
        "if ... == 'agent' then
           local _, fd, from, session = context.recv(0)
           tcp.write(fd, 'from the agent')
           context.reply(from, session, true)
           -- The owner closes the socket while this turn still goes on.
           local stop = os.clock() + 0.05
           while os.clock() < stop do end
           context.recv(0)
           return
         end
         local _, listener = tcp.listen('127.0.0.1', 0)
         local agent = context.create(arg[0], 'agent')
         listener:accept(function(_, sock)
           sock:set_wshared(true)
           context.query(agent, sock:fd())
           sock:close()
         end)
         print(listener:local_port())",
    );
    let mut server = Server::start([script.to_str().unwrap()]);
    let mut client = connect(server.port());
    let mut text = String::new();
    client.read_to_string(&mut text).unwrap();
    assert_eq!(text, "from the agent");
}

#[test]
fn what_was_written_arrives_although_input_is_left_unread_at_the_close() {
    const BYTES: usize = 3 << 20;
    let folder = Folder::new();
    let script = folder.write(
        "last_words.lua",
        "local _, listener = tcp.listen('127.0.0.1', 0)
         listener:accept(function(_, sock)
           sock:read()
           sock:write(('x'):rep(3 * 2 ^ 20))
           sock:close()
         end)
         print(listener:local_port())",
    );
    let mut server = Server::start([script.to_str().unwrap()]);
    let mut client = connect(server.port());
    client.write_all(b"first").unwrap();
    let (mut total, mut space) = (0, vec![0; 50_000]);
    loop {
        // What comes after the very last byte may be the end or, since we go on sending, a reset.
        match client.read(&mut space) {
            Ok(0) => break,
            Ok(count) => total += count,
            Err(error) if error.kind() == ErrorKind::ConnectionReset => break,
            Err(error) => panic!("{error}"),
        }
        // More that nobody reads, before and after the close.
        let _ = client.write_all(b"more");
    }
    assert_eq!(total, BYTES);
}

#[test]
fn a_slow_reader_slows_a_script_that_waits_for_its_writes_and_loses_nothing() {
    const PIECES: usize = 300;
    let code = format!(
        "local ok, listener = tcp.listen('127.0.0.1', 0)
         print(tcp.local_port(listener))
         local _, sock = listener:accept()
         for i = 1, {PIECES} do
           assert(sock:write(string.rep(string.char(i % 256), 65536), true))
           if i % 50 == 0 then print(i) end
         end
         sock:close()"
    );
    let mut server = Server::start(["-e", &code]);
    let mut stream = connect(server.port());
    let mut piece = vec![0; 65_536];
    for number in 1..=PIECES {
        stream.read_exact(&mut piece).unwrap();
        assert!(piece.iter().all(|byte| *byte == (number % 256) as u8), "piece {number}");
    }
    assert_eq!(stream.read(&mut piece).unwrap(), 0);
}

#[test]
fn a_script_that_does_not_read_slows_its_peer() {
    let code = "
      local ok, listener = tcp.listen('127.0.0.1', 0)
      print(tcp.local_port(listener))
      local _, sock = listener:accept()
      sock:set_rwopt({ read_head_bytes = 2, read_head_endian = 'B' })
      sock:read()
      print('one frame read')
      context.recv(0)";
    let mut server = Server::start(["-e", code]);
    let mut stream = connect(server.port());
    let bytes = frame(&body(1, 60_000));
    stream.write_all(&bytes).unwrap();
    assert_eq!(server.line(), "one frame read");
    stream.set_write_timeout(Some(Duration::from_secs(1))).unwrap();
    let mut sent = 0;
    let blocked = loop {
        match stream.write(&bytes) {
            Ok(count) => sent += count,
            Err(error) => break error,
        }
        assert!(sent < 256 << 20, "the server takes everything");
    };
    assert!(matches!(blocked.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut), "{blocked}");
    assert!(resident_bytes(server.id()) < 100 << 20);
}
