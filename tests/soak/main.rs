//! The soak: mixed load on the real binary, with contexts, connections and whole gates killed at
//! random. Every request must end in exactly one of: reply, error, timeout, or the end of its
//! connection; nothing is lost, memory stays flat, and nothing crashes.
//!
//! `cargo test` runs a short one. The long one, of 30 minutes unless told otherwise:
//!
//! ```sh
//! SOAK_MINUTES=30 cargo test --release --test soak -- --ignored --nocapture
//! ```
//!
//! `NODE_LUA` names another binary to be tested, `SOAK_SEED` the seed of all choices, `SOAK_THINK`
//! the milliseconds that a client thinks between bursts, on average.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "tests")]

mod framed;
mod ledger;
mod stream;
#[path = "../support/mod.rs"]
mod support;

use std::net::TcpStream;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use ledger::{Ledger, Random, Sample, median, slope};
use support::{PATIENCE, Server, node_lua, repository};

/// How long an answer may take on a machine that does much else besides; later is lost.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);

/// Clients of frames, of streams, and subscribers; the last subscriber is slow.
const FRAMED: u64 = 16;
const STREAMS: u64 = 3;
const SUBSCRIBERS: u64 = 4;

/// Memory is flat if the last third holds no more than this above the first after a minute.
const FLAT_BYTES: u64 = 8 << 20;

/// The ports of a gate.
#[derive(Clone, Copy, Debug)]
struct Gate {
    framed: u16,
    raw: u16,
}

/// What the clients do.
#[derive(Debug)]
struct Plan<'a> {
    ledger: &'a Ledger,
    gates: Vec<Gate>,
    seed: u64,
    /// Bursts of each client; no bound without.
    bursts: Option<u64>,
    is_over: AtomicBool,
    think_ms: u64,
}

impl Plan<'_> {
    fn is_over(&self, burst: u64) -> bool {
        self.is_over.load(Ordering::Relaxed) || self.bursts.is_some_and(|bursts| burst >= bursts)
    }

    /// The pause before a burst.
    fn think(&self, random: &mut Random) {
        if self.think_ms > 0 {
            thread::sleep(Duration::from_millis(random.below(2 * self.think_ms)));
        }
    }
}

/// Connects; `None` if nobody listens. Silence of [`ANSWER_WITHIN`] ends reads and writes.
fn dial(port: u16) -> Option<TcpStream> {
    let stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream.set_read_timeout(Some(ANSWER_WITHIN)).ok()?;
    stream.set_write_timeout(Some(ANSWER_WITHIN)).ok()?;
    stream.set_nodelay(true).ok()?;
    Some(stream)
}

/// Closes with a reset instead of an end.
fn reset(stream: TcpStream) {
    let socket = socket2::Socket::from(stream);
    // Fails if the connection is gone already, which is as good.
    let _ = socket.set_linger(Some(Duration::ZERO));
}

fn start(gates: usize, seconds: f64) -> (Server, Vec<Gate>) {
    let mut command = match std::env::var_os("NODE_LUA") {
        Some(binary) => {
            let mut command = Command::new(binary);
            command.env_remove("RUST_LOG");
            command
        }
        None => node_lua(),
    };
    let script = repository("tests/soak/server.lua");
    command.arg(script).args(["main", &gates.to_string(), &seconds.to_string()]);
    let mut server = Server::spawn(&mut command);
    let gates = (0..gates).map(|_| Gate { framed: server.port(), raw: server.port() }).collect();
    (server, gates)
}

/// Runs all clients; `watch` runs beside them until it returns, then they end.
fn run(plan: &Plan, watch: impl FnOnce()) {
    thread::scope(|scope| {
        let mut busy = Vec::new();
        for number in 0..FRAMED {
            busy.push(scope.spawn(move || framed::client(plan, 1 + number)));
        }
        for number in 0..STREAMS {
            busy.push(scope.spawn(move || stream::client(plan, 101 + number)));
        }
        for number in 0..SUBSCRIBERS {
            let is_slow = number + 1 == SUBSCRIBERS;
            scope.spawn(move || framed::subscriber(plan, 201 + number, is_slow));
        }
        watch();
        for client in busy {
            client.join().expect("a client does not panic");
        }
        plan.is_over.store(true, Ordering::Relaxed);
    });
}

/// Every request is accounted for, once.
fn check(ledger: &Ledger) {
    let ends = [
        "replies",
        "errors (helper killed)",
        "timeouts (as asked for)",
        "ended with their connection (gate killed)",
        "ended with their connection (reset by us)",
    ];
    let ended: u64 = ends.iter().map(|what| ledger.get(what)).sum();
    assert_eq!(ended, ledger.get("requests"), "every request ends once");
    let faults = ledger.faults();
    assert!(faults.is_empty(), "{} faults:\n{}", faults.len(), faults.join("\n"));
}

/// Waits until the contexts have ended that clients have had created, also where the gate was
/// killed that should have seen to it.
fn wait_until_none_is_left_behind(server: &mut Server) {
    let until = Instant::now() + ANSWER_WITHIN;
    loop {
        server.signal("USR1");
        let left = server.line();
        if left == "0" {
            return;
        }
        assert!(Instant::now() < until, "{left} contexts are left behind");
    }
}

/// Ends the server and looks at what it leaves behind.
fn finish(server: Server) {
    server.signal("TERM");
    let done = server.finish(PATIENCE);
    assert_eq!(done.code(), Some(143), "{:?}", done.status);
    for word in ["panicked", "the runtime failed", "server.lua:0:"] {
        assert!(!done.stderr.contains(word), "{word}");
    }
    let unexpected: Vec<&str> = done
        .stderr
        .lines()
        .filter(|line| line.contains(" ERROR ") || line.contains(" WARN "))
        .filter(|line| !line.contains("(mortal)"))
        .collect();
    assert!(unexpected.is_empty(), "\n{}", unexpected.join("\n"));
}

#[test]
fn under_kills_and_resets_every_request_ends_once() {
    let ledger = Ledger::default();
    let (mut server, gates) = start(2, 0.5);
    let plan = Plan {
        ledger: &ledger,
        gates,
        seed: 1,
        bursts: Some(40),
        is_over: AtomicBool::new(false),
        think_ms: 0,
    };
    run(&plan, || {});
    check(&ledger);
    assert!(ledger.get("replies") > 1000, "{}", ledger.report());
    wait_until_none_is_left_behind(&mut server);
    finish(server);
}

fn setting(name: &str, default: f64) -> f64 {
    std::env::var(name).map_or(default, |text| text.parse().expect("a number"))
}

#[test]
#[ignore = "half an hour"]
fn a_soak_of_half_an_hour() {
    let ledger = Ledger::default();
    let (mut server, gates) = start(3, 5.0);
    let seed = setting("SOAK_SEED", 1.0) as u64;
    let think_ms = setting("SOAK_THINK", 100.0) as u64;
    let length = Duration::from_secs_f64(60.0 * setting("SOAK_MINUTES", 30.0));
    println!("seed {seed}, {length:?}, clients think for {think_ms} ms on average");
    let plan = Plan {
        ledger: &ledger,
        gates,
        seed,
        bursts: None,
        is_over: AtomicBool::new(false),
        think_ms,
    };
    let began = Instant::now();
    let mut samples = Vec::new();
    run(&plan, || {
        while began.elapsed() < length && ledger.get("LOST") == 0 {
            thread::sleep(Duration::from_secs(5).min(length / 10));
            let sample = Sample::take(server.id(), began.elapsed());
            println!("{sample:?} requests {}", ledger.get("requests"));
            samples.push(sample);
        }
        plan.is_over.store(true, Ordering::Relaxed);
    });
    let after = Sample::take(server.id(), began.elapsed());
    let seconds = began.elapsed().as_secs_f64();
    println!("\n{}", ledger.report());
    println!("  LOST: {}, faults: {}", ledger.get("LOST"), ledger.faults().len());
    println!(
        "  {:.0} requests a second, server {:.0} % of one core",
        ledger.get("requests") as f64 / seconds,
        after.ticks as f64 / seconds
    );
    print!("{}", ledger::table(&samples, 10));
    let minute = Duration::from_secs(60).min(length / 4);
    let steady: Vec<Sample> = samples.iter().copied().filter(|one| one.at > minute).collect();
    println!("  slope after {minute:?}: {:.1} KiB a minute", slope(&steady) / 1024.0);
    println!("  at the end, without clients: {after:?}");
    check(&ledger);
    let (first, last) = (&steady[..steady.len() / 3], &steady[steady.len() * 2 / 3..]);
    let (first, last) = (median(first, |one| one.resident), median(last, |one| one.resident));
    assert!(last <= first + FLAT_BYTES, "resident memory: {first}, then {last}");
    let early = median(&steady[..steady.len() / 3], |one| one.descriptors as u64);
    assert!(after.descriptors as u64 <= early, "descriptors: {early}, then {after:?}");
    wait_until_none_is_left_behind(&mut server);
    finish(server);
}
