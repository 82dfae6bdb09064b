//! Clients that ask in frames: every request ends in one reply, error or timeout, or with its
//! connection.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use super::ledger::{Ledger, Random};
use super::{ANSWER_WITHIN, Gate, Plan, dial, reset};

/// A request that nothing has been heard of yet.
struct Asked {
    kind: u8,
    content: Vec<u8>,
    at: Instant,
}

/// Why nothing more comes.
enum Broken {
    /// The connection is over.
    Ended(String),
    /// Nothing came in time.
    Silent,
}

/// A connection with what is asked on it.
pub(crate) struct Connection {
    stream: TcpStream,
    /// The gate's life that serves it.
    pub(crate) life: u32,
    /// How it ended, once it has.
    how: String,
    /// What was answered, by id: its kind, and the mark of the answer.
    answered: HashMap<u32, (u8, u8)>,
    input: Vec<u8>,
}

impl Connection {
    /// Connects and waits for the greeting; `None` if the gate is down just now.
    pub(crate) fn open(gate: &Gate) -> Option<Connection> {
        let stream = dial(gate.framed)?;
        let mut connection = Connection {
            stream,
            life: 0,
            how: String::new(),
            answered: HashMap::new(),
            input: Vec::new(),
        };
        let greeting = connection.frame().ok()?;
        assert!(greeting.len() == 5 && greeting[0] == b'H', "a greeting: {greeting:?}");
        connection.life = u32::from_be_bytes(greeting[1..5].try_into().unwrap());
        Some(connection)
    }

    pub(crate) fn send(&mut self, kind: u8, id: u32, content: &[u8]) -> io::Result<()> {
        self.stream.write_all(&request(kind, id, content))
    }

    /// The next frame.
    fn frame(&mut self) -> Result<Vec<u8>, Broken> {
        loop {
            if let [high, low, rest @ ..] = &self.input[..] {
                let length = usize::from(u16::from_be_bytes([*high, *low]));
                if rest.len() >= length {
                    let frame = rest[..length].to_vec();
                    self.input.drain(..2 + length);
                    return Ok(frame);
                }
            }
            let mut space = [0; 16 * 1024];
            match self.stream.read(&mut space) {
                Ok(0) => return Err(Broken::Ended("the end".to_owned())),
                Ok(count) => self.input.extend_from_slice(&space[..count]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error)
                    if [io::ErrorKind::WouldBlock, io::ErrorKind::TimedOut]
                        .contains(&error.kind()) =>
                {
                    return Err(Broken::Silent);
                }
                Err(error) => return Err(Broken::Ended(error.to_string())),
            }
        }
    }

    /// The next frame, or `None` at the end; silence is a fault.
    pub(crate) fn next(&mut self, ledger: &Ledger, what: &str) -> Option<Vec<u8>> {
        match self.frame() {
            Ok(frame) => Some(frame),
            Err(Broken::Ended(how)) => {
                self.how = how;
                None
            }
            Err(Broken::Silent) => {
                ledger.fault(format!("silence: {what}"));
                None
            }
        }
    }
}

fn request(kind: u8, id: u32, content: &[u8]) -> Vec<u8> {
    let mut body = vec![kind];
    body.extend_from_slice(&id.to_be_bytes());
    body.extend_from_slice(content);
    super::support::frame(&body)
}

/// A request's kind and content, as often as they are to come.
fn choose(random: &mut Random) -> (u8, Vec<u8>) {
    let text = |random: &mut Random, longest| {
        let length = random.below(longest) as usize;
        let seed = random.below(251) as usize;
        (0..length).map(|at| ((at * 7 + seed) % 251) as u8).collect::<Vec<u8>>()
    };
    match random.below(1000) {
        0..400 => (b'E', text(random, 3000)),
        400..650 => (b'A', text(random, 1500)),
        650..800 => {
            // Some deadlines are shorter than the work.
            let work = [0, 0, 0, 1, 5, 30][random.below(6) as usize];
            let deadline = if random.chance(10) { 1 + work / 2 } else { 10_000 };
            (b'Q', [u16::to_be_bytes(work), u16::to_be_bytes(deadline)].concat())
        }
        800..920 => (b'T', u16::to_be_bytes(random.below(60) as u16).to_vec()),
        920..950 => (b'P', text(random, 8000).into_iter().chain([1]).collect()),
        950..975 => (b'B', Vec::new()),
        975..990 => {
            let fate = ["normal", "error", "memory", "killed", "time"];
            // Endless loops cost the most.
            let which = if random.chance(5) { 4 } else { random.below(4) as usize };
            (b'C', fate[which].as_bytes().to_vec())
        }
        _ => (b'K', Vec::new()),
    }
}

/// How a burst is sent, and what follows it.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Manner {
    Whole,
    /// One byte at a time.
    Bytes,
    /// A reset after some of the replies.
    Reset,
    /// Our side is shut down; all replies must come, then the end.
    HalfClose,
    /// Half a frame and our side's end; likewise.
    Truncated,
    /// A head above the limit; likewise.
    Oversize,
}

fn manner(random: &mut Random) -> Manner {
    match random.below(100) {
        0..2 => Manner::Reset,
        2..4 => Manner::HalfClose,
        4..6 => Manner::Truncated,
        6..8 => Manner::Oversize,
        8..10 => Manner::Bytes,
        _ => Manner::Whole,
    }
}

/// Checks what came for a request.
fn settle(ledger: &Ledger, asked: &Asked, id: u32, mark: u8, content: &[u8]) {
    let kind = char::from(asked.kind);
    match mark {
        b'=' => {
            let is_right = match asked.kind {
                b'E' | b'A' | b'P' => asked.content == content,
                // One that ends by itself may have done so before it is watched.
                b'C' if asked.content != b"killed" && content == b"gone" => {
                    ledger.count("ended before they were watched", 1);
                    true
                }
                b'C' => asked.content == content,
                _ => content.is_empty(),
            };
            if !is_right {
                let content = String::from_utf8_lossy(content);
                ledger.fault(format!("{kind} {id}: a wrong reply: {content:?}"));
            }
            if asked.kind == b'T' {
                let ms = u64::from(u16::from_be_bytes([asked.content[0], asked.content[1]]));
                let passed = asked.at.elapsed();
                if passed < Duration::from_millis(ms) {
                    ledger.fault(format!("a timer of {ms} ms after {passed:?}"));
                }
            }
            ledger.count("replies", 1);
        }
        b'!' => {
            let code = String::from_utf8_lossy(content).into_owned();
            // Its helper was killed, or (P) the gate was about to be.
            let allowed: &[&str] = match asked.kind {
                b'A' | b'Q' => &["205", "207"],
                _ => &[],
            };
            if !allowed.contains(&code.as_str()) {
                ledger.fault(format!("{kind} {id}: failed with code {code}"));
            }
            ledger.count("errors (helper killed)", 1);
        }
        _ => {
            if asked.kind != b'Q' {
                ledger.fault(format!("{kind} {id}: a timeout"));
            }
            ledger.count("timeouts (as asked for)", 1);
        }
    }
}

/// One client until the plan is over.
pub(crate) fn client(plan: &Plan, number: u64) {
    let ledger = plan.ledger;
    let mut random = Random::new(plan.seed ^ (number << 20));
    let mut id = 0;
    let mut connection: Option<(Connection, usize)> = None;
    // The gate whose connection ended by itself, and its life then: it must have been killed.
    let mut ended: Option<(usize, u32, String)> = None;
    for burst in 0.. {
        if plan.is_over(burst) {
            break;
        }
        plan.think(&mut random);
        let (mut open, gate) = match connection.take() {
            Some(open) => open,
            None => {
                let gate = match &ended {
                    Some((gate, ..)) => *gate,
                    None => random.below(plan.gates.len() as u64) as usize,
                };
                let Some(open) = Connection::open(&plan.gates[gate]) else {
                    ledger.count("connections refused (gate down)", 1);
                    thread::sleep(Duration::from_millis(5));
                    continue;
                };
                ledger.count("connections", 1);
                if let Some((_, life, how)) = ended.take()
                    && open.life <= life
                {
                    ledger
                        .fault(format!("a connection ended in life {life} of gate {gate}: {how}"));
                }
                (open, gate)
            }
        };
        let manner = manner(&mut random);
        match run_burst(ledger, &mut open, &mut random, &mut id, manner) {
            After::Goes if random.below(50) > 0 => connection = Some((open, gate)),
            After::Goes | After::Over => {}
            After::EndedByGate(how) => ended = Some((gate, open.life, how)),
        }
    }
}

/// What became of a connection.
enum After {
    Goes,
    /// It is over, as this client wanted.
    Over,
    EndedByGate(String),
}

fn run_burst(
    ledger: &Ledger,
    open: &mut Connection,
    random: &mut Random,
    id: &mut u32,
    manner: Manner,
) -> After {
    let mut waiting = HashMap::new();
    let mut bytes = Vec::new();
    for _ in 0..1 + random.below(12) {
        let (kind, content) = choose(random);
        *id += 1;
        bytes.extend(request(kind, *id, &content));
        waiting.insert(*id, Asked { kind, content, at: Instant::now() });
    }
    let asked = waiting.len() as u64;
    let began = Instant::now();
    ledger.count("requests", asked);
    match manner {
        Manner::Truncated => bytes.extend(&request(b'E', 0, b"never whole")[..9]),
        Manner::Oversize => bytes.extend([0xff, 0xff, 1, 2, 3]),
        _ => {}
    }
    let piece = if manner == Manner::Bytes { 1 } else { bytes.len() };
    let sent = bytes.chunks(piece).try_for_each(|piece| open.stream.write_all(piece));
    if sent.is_ok() && [Manner::HalfClose, Manner::Truncated].contains(&manner) {
        // The connection may be gone already: then the reads below tell.
        let _ = open.stream.shutdown(Shutdown::Write);
    }
    let enough = if manner == Manner::Reset { random.below(asked) } else { 0 } as usize;
    while waiting.len() > enough {
        let Some(frame) = open.next(ledger, "a reply") else {
            for (id, asked) in
                waiting.iter().filter(|(_, asked)| asked.at.elapsed() >= ANSWER_WITHIN)
            {
                ledger.count("LOST", 1);
                ledger.fault(format!("lost: {} {id}", char::from(asked.kind)));
            }
            ledger.count("ended with their connection (gate killed)", waiting.len() as u64);
            let kinds: String = waiting.values().map(|asked| char::from(asked.kind)).collect();
            let how = &open.how;
            let how = format!("{how} after {:?}, {manner:?}, {kinds} of {asked}", began.elapsed());
            return After::EndedByGate(how);
        };
        match &frame[..] {
            [b'b', ..] => {}
            [mark @ (b'=' | b'!' | b'~'), a, b, c, d, content @ ..] => {
                let id = u32::from_be_bytes([*a, *b, *c, *d]);
                // A kill may come between an agent's write and its word of it: then both arrive.
                match (waiting.remove(&id), open.answered.get(&id)) {
                    (Some(asked), _) => {
                        settle(ledger, &asked, id, *mark, content);
                        open.answered.insert(id, (asked.kind, *mark));
                    }
                    (None, Some((b'A', before))) if before != mark => {
                        ledger.count("both a reply and an error (agent killed)", 1);
                    }
                    (None, before) => ledger.fault(format!("{id}: one more reply ({before:?})")),
                }
            }
            _ => ledger.fault(format!("a strange frame: {frame:?}")),
        }
    }
    match manner {
        Manner::Whole | Manner::Bytes => After::Goes,
        Manner::Reset => {
            ledger.count("ended with their connection (reset by us)", waiting.len() as u64);
            if let Ok(stream) = open.stream.try_clone() {
                reset(stream);
            }
            After::Over
        }
        Manner::HalfClose | Manner::Truncated | Manner::Oversize => {
            while let Some(frame) = open.next(ledger, "the end after ours") {
                if frame.first() != Some(&b'b') && !open.answered.contains_key(&id_of(&frame)) {
                    ledger.fault(format!("after all replies: {frame:?}"));
                }
            }
            After::Over
        }
    }
}

fn id_of(frame: &[u8]) -> u32 {
    frame.get(1..5).map_or(0, |id| u32::from_be_bytes(id.try_into().unwrap()))
}

/// A subscriber until the plan is over: broadcasts come in order, none missing. The slow ones read
/// in sips, or not at all until they are dropped.
pub(crate) fn subscriber(plan: &Plan, number: u64, is_slow: bool) {
    let ledger = plan.ledger;
    let mut random = Random::new(plan.seed ^ (number << 40));
    while !plan.is_over(0) {
        let gate = random.below(plan.gates.len() as u64) as usize;
        let Some(mut open) = Connection::open(&plan.gates[gate]) else {
            thread::sleep(Duration::from_millis(20));
            continue;
        };
        if open.send(b'S', 1, b"").is_err() {
            continue;
        }
        let mut last = None;
        let silence = open.stream.set_read_timeout(Some(Duration::from_millis(300)));
        silence.expect("a time above 0");
        for _ in 0..200 + random.below(400) {
            if is_slow {
                thread::sleep(Duration::from_millis(random.below(100)));
            }
            let frame = match open.frame() {
                Ok(frame) => frame,
                Err(Broken::Silent) if !plan.is_over(0) => continue,
                Err(_) => break,
            };
            let count = match (&frame[..], last) {
                ([b'=', _, _, _, _, count @ ..], None) if count.len() == 4 => {
                    u32::from_be_bytes(count.try_into().unwrap())
                }
                ([b'b', life @ ..], Some(last)) if life.len() == 8 + 40 * 26 => {
                    let count = u32::from_be_bytes(life[4..8].try_into().unwrap());
                    if life[..4] != open.life.to_be_bytes() || count != last + 1 {
                        ledger.fault(format!("broadcast {count} after {last} of gate {gate}"));
                    }
                    ledger.count("broadcasts received", 1);
                    count
                }
                // Those before the answer to our subscription.
                ([b'b', ..], None) => continue,
                _ => {
                    ledger.fault(format!("a subscriber gets {frame:?}"));
                    break;
                }
            };
            last = Some(count);
        }
        ledger.count(if is_slow { "slow subscriptions" } else { "subscriptions" }, 1);
    }
}
