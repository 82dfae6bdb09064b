//! Peers that mean harm, in the frames of other people's protocols: each that `docs/api/tcp.md`
//! names. Whoever behaves is served all the same.

#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use support::{Server, connect, read_rest, resident_bytes, varint};

/// Longest body.
const MAX: usize = 1000;

/// A server for each kind of frame, which gives back the bytes of each frame as its hexadecimal
/// length and a line end, and says how a connection has ended.
const SERVERS: &str = r#"
    local kinds = {
      { read_head_bytes = 4, read_head_endian = "B", read_head_adjust = -4, read_head_offset = 1 },
      { read_head_bytes = 3, read_head_endian = "L", read_head_adjust = 1 },
      { read_head_bytes = "varint", read_head_offset = 1 },
      { read_head_bytes = 4, read_head_endian = "B" },
      { read_head_bytes = "varint" },
      { read_head_bytes = 8, read_head_endian = "B" },
      { read_delimiter = "\r\n" },
    }
    for _, options in ipairs(kinds) do
      options.read_head_max = 1000
      local listener = context.check(tcp.listen("127.0.0.1", 0))
      print(listener:local_port())
      listener:accept(function(_, sock)
        sock:set_rwopt(options)
        sock:read(function(good, data)
          if good then return sock:write(("%x\n"):format(#data)) end
          print(data, sock:stat().truncated)
          sock:close()
        end)
      end)
    end"#;

/// A kind of frame: the one for a body of so many bytes, how many of them `read` gives, and heads
/// that cannot be.
struct Kind {
    name: &'static str,
    frame: fn(usize) -> Vec<u8>,
    given: fn(usize) -> usize,
    impossible: &'static [u8],
}

fn with(head: &[u8], body: usize) -> Vec<u8> {
    [head, &vec![b'x'; body][..]].concat()
}

const KINDS: [Kind; 7] = [
    Kind {
        name: "PostgreSQL",
        frame: |n| with(&[&b"Q"[..], &(n as u32 + 4).to_be_bytes()].concat(), n),
        given: |n| n + 5,
        impossible: b"Q\0\0\0\x03xxxx",
    },
    Kind {
        name: "MySQL",
        // The body is the number of the packet and what it holds.
        frame: |n| with(&(n as u32 - 1).to_le_bytes()[..3], n),
        given: |n| n,
        impossible: b"",
    },
    Kind {
        name: "MQTT",
        frame: |n| with(&[&b"0"[..], &varint(n as u64)].concat(), n),
        given: |n| n + 1 + varint(n as u64).len(),
        impossible: b"0\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
    },
    Kind {
        name: "Kafka",
        frame: |n| with(&(n as u32).to_be_bytes(), n),
        given: |n| n,
        impossible: b"",
    },
    Kind {
        name: "protobuf",
        frame: |n| with(&varint(n as u64), n),
        given: |n| n,
        impossible: b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
    },
    Kind {
        name: "8 bytes",
        frame: |n| with(&(n as u64).to_be_bytes(), n),
        given: |n| n,
        impossible: b"",
    },
    Kind {
        name: "lines",
        frame: |n| [&vec![b'x'; n][..], b"\r\n"].concat(),
        given: |n| n,
        impossible: b"",
    },
];

fn servers() -> (Server, [u16; KINDS.len()]) {
    let mut server = Server::start(["-e", SERVERS]);
    let ports = std::array::from_fn(|_| server.port());
    (server, ports)
}

/// What `read` has given, of so many frames.
fn answers(stream: &mut TcpStream, count: usize) -> Vec<usize> {
    let mut answers = Vec::new();
    let mut number = 0;
    let mut space = [0; 4096];
    while answers.len() < count {
        let some = stream.read(&mut space).unwrap();
        assert!(some > 0, "{answers:?}");
        for byte in &space[..some] {
            match char::from(*byte).to_digit(16) {
                Some(digit) => number = 16 * number + digit as usize,
                None => answers.push(std::mem::take(&mut number)),
            }
        }
    }
    answers
}

fn is_served(kind: &Kind, port: u16) {
    let mut stream = connect(port);
    stream.write_all(&(kind.frame)(10)).unwrap();
    assert_eq!(answers(&mut stream, 1), [(kind.given)(10)], "{}", kind.name);
    stream.shutdown(Shutdown::Write).unwrap();
    read_rest(&mut stream);
}

#[test]
fn frames_of_every_kind_are_bounded_and_none_disturbs_another() {
    let (mut server, ports) = servers();
    for (kind, port) in KINDS.iter().zip(ports) {
        let name = kind.name;
        // One byte at a time, and many at once.
        let mut slow = connect(port);
        slow.set_nodelay(true).unwrap();
        for byte in (kind.frame)(200) {
            slow.write_all(&[byte]).unwrap();
        }
        assert_eq!(answers(&mut slow, 1), [(kind.given)(200)], "{name}");
        slow.write_all(&(kind.frame)(7).repeat(1000)).unwrap();
        assert_eq!(answers(&mut slow, 1000), [(kind.given)(7)].repeat(1000), "{name}");
        // As long as may be, and cut off behind half of one.
        let longest = (kind.frame)(MAX);
        slow.write_all(&longest).unwrap();
        assert_eq!(answers(&mut slow, 1), [(kind.given)(MAX)], "{name}");
        slow.write_all(&longest[..500]).unwrap();
        slow.shutdown(Shutdown::Write).unwrap();
        assert_eq!(server.line(), "1\t500", "{name}");
        read_rest(&mut slow);
        // Longer than may be: nobody waits for the rest.
        let mut long = connect(port);
        long.write_all(&(kind.frame)(MAX + 1)[..MAX / 2]).unwrap();
        let _ = long.write_all(&[b'x'; 2000]);
        assert!(server.line().starts_with("21\t"), "{name}");
        read_rest_of_refused(&mut long);
        // Heads that cannot be.
        if !kind.impossible.is_empty() {
            let mut wrong = connect(port);
            wrong.write_all(kind.impossible).unwrap();
            assert!(server.line().starts_with("215\t"), "{name}");
            read_rest_of_refused(&mut wrong);
        }
        // Reset in the middle, behind a frame that is answered.
        let mut gone = connect(port);
        gone.write_all(&[&(kind.frame)(5)[..], &longest[..100]].concat()).unwrap();
        assert_eq!(answers(&mut gone, 1), [(kind.given)(5)], "{name}");
        socket2::Socket::from(gone).set_linger(Some(Duration::ZERO)).unwrap();
        assert!(server.line().starts_with("13\t"), "{name}");
        is_served(kind, port);
        assert_eq!(server.line(), "1\t0", "{name}");
    }
}

/// What was not read may cost a reset.
fn read_rest_of_refused(stream: &mut TcpStream) {
    let _ = stream.read_to_end(&mut Vec::new());
}

#[test]
fn who_stops_within_a_frame_holds_no_memory_and_nobody_up() {
    let (server, ports) = servers();
    let before = resident_bytes(server.id());
    let mut stopped = Vec::new();
    for (kind, port) in KINDS.iter().zip(ports) {
        for number in 0..50 {
            let mut stream = connect(port);
            let longest = (kind.frame)(MAX);
            stream.write_all(&longest[..number * 20]).unwrap();
            stopped.push((stream, number * 20, longest, (kind.given)(MAX)));
        }
        is_served(kind, port);
    }
    assert!(resident_bytes(server.id()) < before + (32 << 20));
    for (stream, at, longest, given) in &mut stopped {
        stream.write_all(&longest[*at..]).unwrap();
        assert_eq!(answers(stream, 1), [*given]);
    }
}

/// What one peer sends of the smallest frames is answered, one by one, and others in between.
#[test]
fn floods_of_small_frames_of_every_kind_are_answered() {
    const FRAMES: usize = 50_000;
    let (server, ports) = servers();
    for (kind, port) in KINDS.iter().zip(ports) {
        let mut stream = connect(port);
        let mut sender = stream.try_clone().unwrap();
        let flood = (kind.frame)(1).repeat(FRAMES);
        let sending = std::thread::spawn(move || sender.write_all(&flood).unwrap());
        is_served(kind, port);
        let answers = answers(&mut stream, FRAMES);
        assert!(answers.iter().all(|given| *given == (kind.given)(1)), "{}", kind.name);
        sending.join().unwrap();
    }
    assert!(resident_bytes(server.id()) < 150 << 20);
}

/// Each drops its connection at another place of a frame, and every end is told.
#[test]
fn ten_thousand_connections_dropped_within_frames_leave_nothing() {
    const WAVES: usize = 20;
    const CONNECTIONS: usize = 72 * KINDS.len();
    support::with_many_files(
        "ten_thousand_connections_dropped_within_frames_leave_nothing",
        || {
            let (mut server, ports) = servers();
            let mut resident = Vec::new();
            for _ in 0..WAVES {
                let mut streams = Vec::new();
                for number in 0..CONNECTIONS {
                    let (kind, port) = (&KINDS[number % KINDS.len()], ports[number % KINDS.len()]);
                    let mut stream = connect(port);
                    let longest = (kind.frame)(MAX);
                    let cut = match number / KINDS.len() % 4 {
                        0 => 0,
                        1 => 1,
                        2 => MAX / 2,
                        _ => longest.len() - 1,
                    };
                    stream.write_all(&[&(kind.frame)(5)[..], &longest[..cut]].concat()).unwrap();
                    streams.push(stream);
                }
                for (number, stream) in streams.into_iter().enumerate() {
                    if number % 2 == 0 {
                        socket2::Socket::from(stream).set_linger(Some(Duration::ZERO)).unwrap();
                    }
                }
                for _ in 0..CONNECTIONS {
                    let line = server.line();
                    assert!(line.starts_with("1\t") || line.starts_with("13\t"), "{line}");
                }
                resident.push(resident_bytes(server.id()));
            }
            let (early, last) = (resident[2], resident[WAVES - 1]);
            assert!(last < early + (8 << 20), "resident after each wave: {resident:?}");
            for (kind, port) in KINDS.iter().zip(ports) {
                is_served(kind, port);
            }
        },
    );
}
