//! A process of a cluster whose server, or another process, means no good: bytes that no server
//! sends, frames that ask for more than they cost, tables that no writer makes, numbers that were
//! never told. It goes on, with what it holds bounded, and answers those that keep to the protocol.

#![cfg(feature = "cluster")]
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "tests")]

mod support;

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use node_lua::cluster::wire::{Frame, Reader, Target, VERSION};
use node_lua::message::Value;
use support::{PATIENCE, Server, node_lua, resident_bytes, varint};

/// Another process.
const OTHER: u64 = 0x1234;

/// The value true.
const TRUE: &[u8] = &[2];

/// The value false.
const FALSE: &[u8] = &[1];

/// Bytes that are not read at once.
const LARGE: usize = 2 << 20;

/// The connection, with what the client has subscribed to.
type Client = Arc<Mutex<Option<(TcpStream, HashMap<String, String>)>>>;

/// What takes the place of a nats-server, and says what it is told to.
struct Fake {
    port: u16,
    client: Client,
    /// What the client publishes.
    published: Receiver<(String, Vec<u8>)>,
    parcels: u32,
}

/// What a server says first, with this `max_payload`.
fn info(max_payload: usize) -> String {
    format!(
        "INFO {{\"server_id\":\"x\",\"version\":\"2.10.0\",\"go\":\"\",\"host\":\"127.0.0.1\",\
         \"port\":1,\"headers\":true,\"max_payload\":{max_payload},\"proto\":1}}\r\n"
    )
}

/// Serves one connection until it ends.
fn serve(
    mut stream: TcpStream,
    max_payload: usize,
    client: &Client,
    published: &mpsc::Sender<(String, Vec<u8>)>,
) -> std::io::Result<()> {
    stream.write_all(info(max_payload).as_bytes())?;
    *client.lock().unwrap() = Some((stream.try_clone()?, HashMap::new()));
    let mut input = BufReader::new(stream.try_clone()?);
    let mut line = String::new();
    while input.read_line(&mut line)? > 0 {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[..] {
            ["PING"] => {
                // In turn with what the test sends.
                let _turn = client.lock().unwrap();
                stream.write_all(b"PONG\r\n")?;
            }
            ["SUB", subject, id] => {
                if let Some((_, subjects)) = &mut *client.lock().unwrap() {
                    subjects.insert(subject.to_owned(), id.to_owned());
                }
            }
            ["PUB", subject, .., length] => {
                let length: usize = length.parse().unwrap();
                if length > max_payload {
                    stream.write_all(b"-ERR 'Maximum Payload Violation'\r\n")?;
                    return stream.shutdown(std::net::Shutdown::Both);
                }
                // Nothing as large as that is read: it waits until the connection ends.
                if length > LARGE {
                    loop {
                        std::thread::park();
                    }
                }
                let mut bytes = vec![0; length + 2];
                input.read_exact(&mut bytes)?;
                bytes.truncate(bytes.len() - 2);
                drop(published.send((subject.to_owned(), bytes)));
            }
            _ => {}
        }
        line.clear();
    }
    Ok(())
}

/// The frame of a message with any bytes as its value.
fn message(to: Target<'_>, session: u64, value: &[u8]) -> Vec<u8> {
    let to = match to {
        Target::Name(name) => [&[8][..], &varint(name.len() as u64), name].concat(),
        Target::Context(context) => [vec![9], varint(context)].concat(),
    };
    let head = [to, varint(7), varint(session), varint(value.len() as u64)].concat();
    [&head, value].concat()
}

impl Fake {
    fn start() -> Fake {
        Fake::with(vec![1 << 20])
    }

    /// Each connection has the next of these limits, the last one for good.
    fn with(max_payloads: Vec<usize>) -> Fake {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let client = Client::default();
        let (sender, published) = mpsc::channel();
        let shared = Arc::clone(&client);
        std::thread::spawn(move || {
            for (index, stream) in listener.incoming().enumerate() {
                let max = *max_payloads.get(index).or(max_payloads.last()).unwrap();
                let (shared, sender) = (Arc::clone(&shared), sender.clone());
                std::thread::spawn(move || serve(stream.unwrap(), max, &shared, &sender));
            }
        });
        Fake { port, client, published, parcels: 0 }
    }

    fn node(&self, code: &str) -> Server {
        self.node_that_logs("off", code)
    }

    fn node_that_logs(&self, level: &str, code: &str) -> Server {
        let url = format!("nats://127.0.0.1:{}", self.port);
        let mut command = node_lua();
        command.env("RUST_LOG", level).args(["--cluster", &url, "--node", "victim", "-e", code]);
        Server::spawn(&mut command)
    }

    /// Sends bytes as they are; false if there is no connection.
    fn send(&self, bytes: &[u8]) -> bool {
        let mut client = self.client.lock().unwrap();
        client.as_mut().is_some_and(|(stream, _)| stream.write_all(bytes).is_ok())
    }

    /// Ends the connection.
    fn hang_up(&self) {
        if let Some((stream, _)) = &*self.client.lock().unwrap() {
            drop(stream.shutdown(std::net::Shutdown::Both));
        }
    }

    /// Sends a message to whoever has subscribed to what begins so.
    fn tell(&self, start: &str, bytes: &[u8]) -> bool {
        let found = self.client.lock().unwrap().as_ref().and_then(|(_, subjects)| {
            let of_it = |(subject, _): &(&String, &String)| {
                subject.starts_with(start) && !subject.ends_with('*')
            };
            subjects.iter().find(of_it).map(|(subject, id)| format!("{subject} {id}"))
        });
        let Some(found) = found else { return false };
        let head = format!("MSG {found} {}\r\n", bytes.len());
        self.send(&[head.as_bytes(), bytes, b"\r\n"].concat())
    }

    /// Tells all some frames of [`OTHER`].
    fn tell_all(&self, frames: &[Frame<'_>]) -> bool {
        let mut bytes = [&[VERSION][..], &OTHER.to_le_bytes()].concat();
        frames.iter().for_each(|frame| frame.put(&mut bytes));
        self.tell("node-lua.all", &bytes)
    }

    /// Sends the process a parcel of [`OTHER`].
    fn parcel(&mut self, frames: &[u8]) -> bool {
        let head = [&[VERSION][..], &OTHER.to_le_bytes(), &[0; 4], &self.parcels.to_le_bytes()];
        self.parcels += 1;
        self.tell("node-lua.node.", &[&head.concat(), frames].concat())
    }

    /// Asks until there is an answer; it, and bytes of all that has come for [`OTHER`] before.
    fn query(&mut self, to: Target<'_>, value: &[u8]) -> (Result<Value, u16>, usize) {
        static SESSIONS: Mutex<u64> = Mutex::new(1 << 20);
        let subject = format!("node-lua.node.{OTHER:016x}");
        let (until, mut bytes) = (Instant::now() + PATIENCE, 0);
        while Instant::now() < until {
            let mut sessions = SESSIONS.lock().unwrap();
            *sessions += 1;
            let wanted = *sessions;
            drop(sessions);
            self.tell_all(&[Frame::Alive { state: 0, node: b"other", is_new: false }]);
            self.parcel(&message(to, wanted, value));
            // A message is lost if the connection is being made anew.
            while let Ok((to, parcel)) = self.published.recv_timeout(Duration::from_millis(500)) {
                if to != subject {
                    continue;
                }
                bytes += parcel.len();
                // Without its number.
                let frames = [&parcel[..9], &parcel[17..]].concat();
                let (_, mut reader) = Reader::new(&frames).unwrap();
                while !reader.is_empty() {
                    if let Frame::Reply { session, result, .. } = reader.frame().unwrap()
                        && session == wanted
                    {
                        return (result.map_err(|failure| failure.code.0), bytes);
                    }
                }
            }
        }
        panic!("no answer");
    }

    #[track_caller]
    fn assert_answers(&mut self) {
        let (answer, _) = self.query(Target::Name(b"store"), TRUE);
        assert_eq!(answer, Ok(Value::Bool(true)));
    }
}

/// Answers under "store" with what it is asked, and has many names.
const STORE: &str = "
    context.register('store')
    for i = 1, 1000 do context.register(('n'):rep(100) .. i) end
    context.recv(0, function(_, value, from, session) context.reply(from, session, value) end)
    print(('%.0f'):format(context.self()))";

/// Answers, and sends whoever sends it a message much.
const GENEROUS: &str = "
        context.register('store')
        context.recv(0, function(_, value, from, session)
          if session > 0 then return context.reply(from, session, value) end
          for _ = 1, 20 do context.send(from, ('x'):rep(3 * 2 ^ 20)) end
          print('sent')
        end)
        print('ready')";

/// A process that answers, and its first context.
fn victim(fake: &mut Fake) -> (Server, u64) {
    let mut server = fake.node(STORE);
    let id = server.line().parse().unwrap();
    fake.assert_answers();
    (server, id)
}

#[test]
fn servers_that_do_not_keep_to_their_protocol_are_left_and_tried_again() {
    let mut fake = Fake::start();
    let (server, _) = victim(&mut fake);
    let large = format!("INFO {{\"version\":\"{}\"}}\r\n", "x".repeat(3 << 20));
    for bytes in [
        "-ERR\r\n",
        "-ERR \r\n",
        "MSG\r\n",
        "MSG a 1 18446744073709551615\r\n",
        "MSG a 1 18446744073709551610\r\nx\r\n",
        "MSG a b c\r\n",
        "MSG a 99999 3\r\nabc\r\nMSG a 4294967295 b 0\r\n\r\n",
        "HMSG a 1 18446744073709551615 18446744073709551615\r\n",
        "HMSG a 1 5 3\r\nabcde\r\n",
        "HMSG a 1 12 12\r\nNATS/1.0 xx\n\r\n",
        "INFO\r\n",
        "INFO {}\r\n",
        "INFO {\"max_payload\":0}\r\n",
        &large,
        "\r\n",
        "no word that a server knows\r\n",
    ] {
        println!("{}", &bytes[..bytes.len().min(80)]);
        // It may be about to connect again.
        while !fake.send(bytes.as_bytes()) {
            fake.assert_answers();
        }
        fake.assert_answers();
    }
    // Floods of what is harmless alone.
    for bytes in ["-ERR 'no'\r\n", "PING\r\n", "PONG\r\n", "+OK\r\n", "MSG a 77 0\r\n\r\n"] {
        println!("many of {bytes}");
        fake.send(bytes.repeat(100_000).as_bytes());
        fake.assert_answers();
    }
    drop(server);
}

/// What was put together for a server that took more is lost with it, and nothing else is. Nor does
/// it end the process, which has no other sockets, that a server is gone while much is on its way.
#[test]
fn a_server_that_takes_less_than_the_one_before_is_dealt_with() {
    for _ in 0..4 {
        let mut fake = Fake::with(vec![4 << 20, 1 << 20]);
        let mut server = fake.node(GENEROUS);
        assert_eq!(server.line(), "ready");
        fake.assert_answers();
        fake.parcel(&message(Target::Name(b"store"), 0, &[0]));
        assert_eq!(server.line(), "sent");
        fake.hang_up();
        fake.assert_answers();
    }
}

#[test]
fn what_costs_more_than_asking_for_it_is_done_some_times_in_a_tick() {
    let mut fake = Fake::start();
    let (server, _) = victim(&mut fake);
    let before = resident_bytes(server.id());
    let mut frames = Vec::new();
    for _ in 0..300_000 {
        Frame::Ask.put(&mut frames);
    }
    fake.parcel(&frames);
    let mut alive = Vec::new();
    for _ in 0..50_000 {
        alive.push(Frame::Alive { state: 9, node: b"other", is_new: true });
    }
    fake.tell_all(&alive);
    let (answer, bytes) = fake.query(Target::Name(b"store"), TRUE);
    assert_eq!(answer, Ok(Value::Bool(true)));
    // A list of all names takes 105 KB, and there are eight, and so many in each tick that it took.
    assert!(bytes < 40 << 20, "{bytes}");
    let grown = resident_bytes(server.id()).saturating_sub(before);
    assert!(grown < 64 << 20, "{grown}");
}

/// Scripts would get another number, or a negative one, and could not answer.
#[test]
fn sessions_that_no_number_of_lua_holds_are_refused() {
    let mut fake = Fake::start();
    let mut server = fake.node(
        "context.register('store')
        context.recv(0, function(_, value, from, session)
          if value then return context.reply(from, session, value) end
          print(('%.0f'):format(session))
        end)
        print('ready')",
    );
    assert_eq!(server.line(), "ready");
    fake.assert_answers();
    for session in [u64::MAX, 1 << 63, 1 << 53, (1 << 53) - 1] {
        fake.parcel(&message(Target::Name(b"store"), session, FALSE));
        fake.assert_answers();
    }
    assert_eq!(server.line(), "9007199254740991");
}

/// A table that announces what does not follow, or has a number twice as a key, is none.
#[test]
fn tables_that_no_writer_makes_are_refused() {
    let mut fake = Fake::start();
    let (_server, _) = victim(&mut fake);
    let mut table = |positional: u32, keys: Vec<f64>, pairs: u32, nils: usize| {
        let mut wire = vec![0, 10];
        wire.extend([positional, pairs].map(u32::to_le_bytes).concat());
        for (index, key) in keys.iter().enumerate() {
            wire.push(14);
            wire.extend(key.to_le_bytes());
            wire.extend(if index < nils { &[0][..] } else { &[2] });
        }
        let value = [&[8][..], &varint(wire.len() as u64), &wire, &[0]].concat();
        let (answer, _) = fake.query(Target::Name(b"store"), &value);
        answer.map(|_| ())
    };
    let keys = |count: u32| (0..count).map(|key| -0.5 - f64::from(key)).collect::<Vec<_>>();
    assert_eq!(table(0, keys(600), 600, 0), Ok(()));
    assert_eq!(table(1000, keys(1512), 512, 514), Err(206));
    assert_eq!(table(0, vec![0.5; 600], 600, 0), Err(206));
    fake.assert_answers();
}

/// Only those may be sent something by their number who have told it.
#[test]
fn contexts_that_nobody_has_heard_of_are_not_reached_by_number() {
    let mut fake = Fake::start();
    let (_server, id) = victim(&mut fake);
    let (answer, _) = fake.query(Target::Context(id), TRUE);
    assert_eq!(answer, Err(205));
    fake.assert_answers();
}

/// However many processes say that they have this one's name, one after the other, and however much
/// comes at once, the log has a word on it and not one for each.
#[test]
fn floods_of_others_are_told_of_once() {
    let mut fake = Fake::start();
    let mut server = fake.node_that_logs("warn", STORE);
    server.line();
    fake.assert_answers();
    for node in 1..=2000_u64 {
        let mut bytes = [&[VERSION][..], &node.to_le_bytes()].concat();
        Frame::Alive { state: 0, node: b"victim", is_new: false }.put(&mut bytes);
        Frame::Bye.put(&mut bytes);
        assert!(fake.tell("node-lua.all", &bytes));
    }
    fake.assert_answers();
    server.signal("TERM");
    let log = server.finish(PATIENCE).stderr;
    assert_eq!(log.matches("is called victim too").count(), 1, "{log}");
    assert!(log.lines().count() <= 2, "{log}");
}
