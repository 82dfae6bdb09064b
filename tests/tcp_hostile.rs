//! Peers that mean harm, and a system short of descriptors: whoever behaves is served all the same,
//! and the memory comes back.

#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use support::{Server, connect, frame, node_lua, read_frame, read_rest, resident_bytes};

/// Echoes frames; `sockets` and `turns` are answered with what `context.stat` says, `second` with
/// the turns that a second took.
const ECHO: &str = "
    local ok, listener = tcp.listen('127.0.0.1', 0)
    local answers = {
      sockets = function() return context.stat().sockets end,
      second = function()
        local before = context.stat().turns
        timer.sleep(1)
        return context.stat().turns - before
      end,
    }
    listener:accept(function(_, sock)
      sock:set_rwopt({
        read_head_bytes = 2, read_head_endian = 'B', read_head_max = 1000,
        write_head_bytes = 2, write_head_endian = 'B',
      })
      sock:read(function(good, data)
        if not good then return sock:close() end
        local answer = answers[data:tostring()]
        sock:write(answer and answer() or data)
      end)
    end)
    print(tcp.local_port(listener))";

fn echo_server() -> (Server, u16) {
    let mut server = Server::start(["-e", ECHO]);
    let port = server.port();
    (server, port)
}

fn ask(stream: &mut TcpStream, what: &str) -> u64 {
    stream.write_all(&frame(what.as_bytes())).unwrap();
    String::from_utf8(read_frame(stream)).unwrap().parse().unwrap()
}

/// Closes with a reset: no port waits for stray packets afterwards.
fn reset(stream: TcpStream) {
    socket2::Socket::from(stream).set_linger(Some(Duration::ZERO)).unwrap();
}

/// Waits until the server has no sockets but its listener and that of `control`.
fn wait_until_alone(control: &mut TcpStream) {
    // `stat` tells how things were after the turn before: each question is a turn.
    while ask(control, "sockets") != 2 {}
}

#[test]
fn ten_thousand_connections_leave_no_memory_behind() {
    const WAVES: usize = 20;
    const CONNECTIONS: usize = 500;
    support::with_many_files("ten_thousand_connections_leave_no_memory_behind", || {
        let (server, port) = echo_server();
        let mut control = connect(port);
        let mut resident = Vec::new();
        for _ in 0..WAVES {
            let streams: Vec<TcpStream> = (0..CONNECTIONS)
                .map(|number| {
                    let mut stream = connect(port);
                    match number % 4 {
                        0 => {}
                        1 => stream.write_all(&frame(b"hello")).unwrap(),
                        2 => stream.write_all(&frame(b"half a frame")[..5]).unwrap(),
                        _ => stream.write_all(&frame(&[7; 900]).repeat(10)).unwrap(),
                    }
                    stream
                })
                .collect();
            streams.into_iter().for_each(reset);
            wait_until_alone(&mut control);
            resident.push(resident_bytes(server.id()));
        }
        let (early, last) = (resident[2], resident[WAVES - 1]);
        assert!(last < early + (8 << 20), "resident after each wave: {resident:?}");
    });
}

#[test]
fn garbage_ends_its_own_connection_at_most() {
    let (_server, port) = echo_server();
    let mut good = connect(port);
    let mut random = 88_172_645_463_325_252_u64;
    for round in 0..200_usize {
        let garbage: Vec<u8> = (0..round * 7 % 3000)
            .map(|_| {
                random ^= random << 13;
                random ^= random >> 7;
                random ^= random << 17;
                (random >> 24) as u8
            })
            .collect();
        let mut stream = connect(port);
        // Refused from the first head above the limit on: the rest may meet a reset.
        let _ = stream.write_all(&garbage);
        let _ = stream.shutdown(Shutdown::Write);
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest);
        good.write_all(&frame(&garbage[..garbage.len().min(1000)])).unwrap();
        assert_eq!(read_frame(&mut good), garbage[..garbage.len().min(1000)]);
    }
}

#[test]
fn a_flood_of_empty_frames_is_answered_one_by_one() {
    const FRAMES: usize = 200_000;
    let (server, port) = echo_server();
    let mut other = connect(port);
    let mut stream = connect(port);
    let mut sender = stream.try_clone().unwrap();
    let sending = thread::spawn(move || {
        sender.write_all(&[0, 0].repeat(FRAMES)).unwrap();
        sender.shutdown(Shutdown::Write).unwrap();
    });
    other.write_all(&frame(b"beside it")).unwrap();
    assert_eq!(read_frame(&mut other), b"beside it");
    let answers = read_rest(&mut stream);
    assert!(answers.len() == 2 * FRAMES && answers.iter().all(|byte| *byte == 0));
    sending.join().unwrap();
    assert!(resident_bytes(server.id()) < 100 << 20);
}

#[test]
fn peers_that_stop_within_a_head_hold_nobody_up() {
    const STOPPED: usize = 400;
    support::with_many_files("peers_that_stop_within_a_head_hold_nobody_up", || {
        let (_server, port) = echo_server();
        let mut stopped: Vec<TcpStream> = (0..STOPPED)
            .map(|_| {
                let mut stream = connect(port);
                stream.write_all(&[0]).unwrap();
                stream
            })
            .collect();
        let mut good = connect(port);
        good.write_all(&frame(b"good")).unwrap();
        assert_eq!(read_frame(&mut good), b"good");
        // They are not forgotten either.
        for stream in &mut stopped {
            stream.write_all(&[1, b'x']).unwrap();
        }
        for stream in &mut stopped {
            assert_eq!(read_frame(stream), b"x");
        }
    });
}

/// The server with so few descriptors; `script` is the rest of the command line.
fn with_few_files(limit: u32, code: &str) -> Server {
    let node_lua = node_lua();
    let mut command = Command::new("sh");
    command.stdin(Stdio::null());
    command.args(["-c", &format!("ulimit -n {limit}; exec \"$0\" \"$@\"")]);
    command.arg(node_lua.get_program()).args(["-e", code]);
    Server::spawn(&mut command)
}

#[test]
fn without_descriptors_it_serves_whom_it_has_and_later_the_others() {
    const CLIENTS: usize = 60;
    let mut server = with_few_files(40, ECHO);
    let port = server.port();
    let mut first = connect(port);
    first.write_all(&frame(b"first")).unwrap();
    assert_eq!(read_frame(&mut first), b"first");
    let mut waiting: Vec<TcpStream> = (0..CLIENTS).map(|_| connect(port)).collect();
    for stream in &mut waiting {
        stream.write_all(&frame(b"hello")).unwrap();
    }
    // Some of them are accepted, until descriptors are out. It tries again 20 times a second, and
    // does nothing between: a loop would take thousands of turns.
    let turns = ask(&mut first, "second");
    assert!(turns < 500, "{turns} turns in a second");
    // Each that goes makes room for one that waits.
    for mut stream in waiting {
        assert_eq!(read_frame(&mut stream), b"hello");
    }
}

#[test]
fn without_descriptors_a_connect_fails_with_a_code() {
    let code = format!(
        "{ECHO}
         local held, got, why = {{}}
         repeat
           got, why = tcp.connect('127.0.0.1', tcp.local_port(listener), 5)
           if got then held[#held + 1] = why end
         until not got
         print(why, context.strerror(why))
         for i = 1, #held do held[i]:close() end
         timer.sleep(0.1)
         print((tcp.connect('127.0.0.1', tcp.local_port(listener), 20)))"
    );
    let mut server = with_few_files(40, &code);
    server.line();
    assert_eq!(server.line(), "20\ttoo many open files");
    assert_eq!(server.line(), "true");
}

#[test]
fn a_listen_queue_that_overflows_loses_nobody() {
    const CLIENTS: usize = 12;
    let code = "
      local _, control = tcp.listen('127.0.0.1', 0)
      local _, listener = tcp.listen('127.0.0.1', 0, 1)
      print(tcp.local_port(control))
      print(tcp.local_port(listener))
      control:accept()
      listener:accept(function(_, sock)
        sock:read(function(good, data) if good then sock:write(data) else sock:close() end end)
      end)";
    let mut server = Server::start(["-e", code]);
    let control = server.port();
    let port = server.port();
    let clients: Vec<_> = (0..CLIENTS)
        .map(|number| {
            thread::spawn(move || {
                let mut stream = connect(port);
                stream.write_all(&[number as u8]).unwrap();
                let mut answer = [0];
                stream.read_exact(&mut answer).unwrap();
                assert_eq!(usize::from(answer[0]), number);
            })
        })
        .collect();
    let _go = connect(control);
    clients.into_iter().for_each(|client| client.join().unwrap());
}

#[test]
fn subscribers_that_do_not_read_are_dropped_and_the_others_get_everything() {
    const STUCK: usize = 20;
    const PIECES: usize = 400;
    const PIECE: usize = 65_536;
    let code = format!(
        "local _, listener = tcp.listen('127.0.0.1', 0)
         print(tcp.local_port(listener))
         local stuck = {{}}
         for i = 1, {STUCK} do
           local _, sock = listener:accept()
           sock:set_write_limit(2 ^ 20)
           stuck[i] = sock
         end
         local _, healthy = listener:accept()
         local piece, failed = buffer.new(('x'):rep({PIECE})), 0
         for _ = 1, {PIECES} do
           for i = 1, #stuck do stuck[i]:write(piece) end
           assert(healthy:write(piece, true))
         end
         for i = 1, #stuck do
           local ok, code = stuck[i]:write('more', true)
           if code == 212 then failed = failed + 1 end
         end
         print(failed)
         healthy:read()"
    );
    let mut server = Server::start(["-e", &code]);
    let port = server.port();
    let _stuck: Vec<TcpStream> = (0..STUCK).map(|_| connect(port)).collect();
    let mut healthy = connect(port);
    let mut bytes = vec![0; PIECE];
    for _ in 0..PIECES {
        healthy.read_exact(&mut bytes).unwrap();
        assert!(bytes.iter().all(|byte| *byte == b'x'));
    }
    assert_eq!(server.line(), STUCK.to_string());
    assert!(resident_bytes(server.id()) < 100 << 20);
}

#[test]
fn who_reads_one_byte_at_a_time_gets_every_byte() {
    let (_server, port) = echo_server();
    let mut stream = connect(port);
    let body: Vec<u8> = (0..900).map(|at| (at % 251) as u8).collect();
    stream.write_all(&frame(&body)).unwrap();
    let mut found = Vec::new();
    let mut byte = [0];
    while found.len() < 902 {
        match stream.read(&mut byte) {
            Ok(0) => panic!("the end after {} bytes", found.len()),
            Ok(_) => found.push(byte[0]),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => panic!("{error}"),
        }
    }
    assert_eq!(found, frame(&body));
}

#[test]
fn a_closed_output_is_told_to_who_looks_and_ends_nobody() {
    let code = format!(
        "{ECHO}
         answers.print = function()
           for _ = 1, 1000 do print(('x'):rep(100)) end
           io.write('more')
           local _, _, code = io.stdout:flush()
           return code or 0
         end
         answers.log = function() context.log('still here') return 1 end"
    );
    let mut command = node_lua();
    let mut child =
        command.args(["-e", &code]).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut output = std::io::BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    std::io::BufRead::read_line(&mut output, &mut line).unwrap();
    drop(output);
    let port = line.trim().parse().unwrap();
    let mut stream = connect(port);
    // EPIPE, and not a signal.
    assert_eq!(ask(&mut stream, "print"), 32);
    let mut other = connect(port);
    other.write_all(&frame(b"goes on")).unwrap();
    assert_eq!(read_frame(&mut other), b"goes on");
    assert_eq!(ask(&mut stream, "log"), 1);
    child.kill().unwrap();
    child.wait().unwrap();
}

/// Without descriptors there is one word on it, however many calls fail.
#[test]
fn a_want_of_descriptors_is_warned_of_once() {
    let node_lua = node_lua();
    let script = "local _, l = tcp.listen('127.0.0.1', 0)
                  local held, port, failed = {}, tcp.local_port(l), 0
                  for i = 1, 60 do
                    local ok, sock = tcp.connect('127.0.0.1', port, 0.2)
                    held[i] = sock
                    if not ok then failed = failed + 1 end
                    if failed > 5 then break end
                  end
                  print(failed)
                  os.exit(0)";
    let mut command = Command::new("sh");
    command.env_remove("RUST_LOG").stdin(Stdio::null());
    command.args(["-c", "ulimit -n 40; exec \"$0\" \"$@\""]);
    command.arg(node_lua.get_program()).args(["-e", script]);
    let done = support::run(&mut command).succeeded();
    assert_eq!(done.stdout, "6\n", "{done}");
    assert_eq!(done.stderr.matches("no descriptor is left").count(), 1, "{done}");
    assert!(done.stderr.contains("40 open") && done.stderr.contains("ulimit"), "{done}");
}

/// Number keys that LuaJIT's tables all look for in the same place. The turn of whoever receives
/// them is limited to a tenth of what it takes to put them in one by one.
#[test]
fn keys_that_collide_are_received_like_others() {
    let script = "
      local ffi = require('ffi')
      local u = ffi.new('union { double d; uint32_t w[2]; }')
      local rol, bxor, band, bor, lshift = bit.rol, bit.bxor, bit.band, bit.bor, bit.lshift
      local keys = {}
      for k = 1, 4 do
        -- The middle of the upper half, and a word with which they collide.
        local middle, b = bor(lshift(1000 * k, 13), 0x40000000), 0
        local known = rol(middle, 19)
        while band(bxor(known, b) - rol(b, 13), 0x1ffff) ~= 5 do b = b + 1 end
        for low = 0, 4095 do
          local upper = bor(middle, 2 * low)
          for free = 0, 3 do
            u.w[0] = bxor(bit.tobit(bxor(b, lshift(free, 17)) + rol(upper, 14)), upper)
            u.w[1] = bit.rshift(upper, 1)
            keys[#keys + 1] = u.d
          end
        end
      end
      local t, start = {}, os.clock()
      for i, key in ipairs(keys) do
        t[key] = i % 3 == 0 and { i } or i % 3 == 1 and 'v' .. i or i
      end
      local took = os.clock() - start
      t.name, t[1], t[2] = 'word', 'first', true
      local f = io.open((...), 'w')
      f:write('local _, t = context.recv(0) local n = 0 for _ in pairs(t) do n = n + 1 end '
        .. 'context.send(context.parent(), n) context.send(context.parent(), t)')
      f:close()
      local h = context.create({ file = (...), turn_limit = took / 10 })
      context.send(h, t)
      print(context.recv(h, 60))
      local _, copy = context.recv(h, 60)
      local same = copy.name == 'word' and copy[1] == 'first' and copy[2] == true
      for i, key in ipairs(keys) do
        if i % 97 == 0 then
          local value = copy[key]
          same = same and (i % 3 == 0 and value[1] == i or value == t[key])
        end
      end
      print(same)";
    let folder = support::Folder::new();
    let main = folder.write("main.lua", script);
    let done = support::run(node_lua().arg(main).arg(folder.path("child.lua"))).succeeded();
    let mut lines = done.stdout.lines();
    assert!(lines.next().unwrap().starts_with("true\t65539\t"), "{done}");
    assert_eq!(lines.next(), Some("true"), "{done}");
}
