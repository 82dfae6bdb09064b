//! Rows that measure a server from outside: echo, gate, broadcast, idle.

use std::thread;
use std::time::Duration;

use crate::child::{Child, free_port};
use crate::contestants::Who;
use crate::fan::{self, Fan};
use crate::load::{self, Load};
use crate::proc;
use crate::rows::Suite;
use crate::table::{Cell, Entry, Metric, Row, Sample, compared, plain};

/// The variant whose program writes the frames of one read together.
const BATCHED: &str = "batched";

/// The variant whose program reads all frames of a connection into one buffer.
const REUSING: &str = "reusing";

const START_LIMIT: Duration = Duration::from_secs(20);

/// Framed echo over the grid of sizes, connections and depths.
pub fn echo(suite: &Suite, workers: usize) -> Row<'_> {
    let mut cells = Vec::new();
    for size in [64, 1024, 16384] {
        for connections in [1, 50, 500] {
            // One connection keeps one worker busy at most.
            if workers > 1 && connections == 1 {
                continue;
            }
            for depth in [1, 16] {
                let load = load(suite, workers, connections, size, depth);
                cells.push(Cell {
                    label: format!("{} × {connections}, depth {depth}", bytes(size)),
                    x: 0.0,
                    entries: echo_entries(suite, &load, workers),
                });
            }
        }
    }
    let (name, title) = match workers {
        1 => ("echo", "Framed echo, one server worker"),
        _ => ("echo-two", "Framed echo, two server workers"),
    };
    Row { name, title, reference: Who::Raw, metrics: echo_metrics(), cells, curves: &[] }
}

/// The columns of everything that echoes.
pub fn echo_metrics() -> Vec<Metric> {
    vec![
        compared("messages_per_s", "messages/s"),
        compared("server_cpu_us", "server CPU µs/message"),
        plain("p50_us", "p50 µs"),
        plain("p99_us", "p99 µs"),
        plain("p999_us", "p99.9 µs"),
        plain("capacity_per_s", "messages per CPU-s of the busiest thread"),
        plain("server_cores", "server cores busy"),
        plain("generator_us", "generator CPU µs/message"),
    ]
}

/// All contestants of echo under one load.
pub fn echo_entries<'a>(suite: &'a Suite, load: &Load, workers: usize) -> Vec<Entry<'a>> {
    let mut who = suite.contestants.of("echo");
    // Its loop is one thread.
    who.retain(|&w| workers == 1 || w != Who::Luv);
    let mut entries = Vec::new();
    for who in who {
        entries.push(echo_entry(suite, who, "echo", "", load.clone(), workers));
        if who == Who::NodeLua {
            entries.push(echo_entry(suite, who, "echo", REUSING, load.clone(), workers));
        }
        let writes_each = matches!(who, Who::Luv | Who::NodeJs | Who::Go | Who::Erlang);
        if writes_each && load.depth > 1 {
            entries.push(echo_entry(suite, who, "echo", BATCHED, load.clone(), workers));
        }
    }
    entries
}

/// A load with a head that fits its size.
pub fn load(suite: &Suite, workers: usize, connections: usize, size: usize, depth: usize) -> Load {
    Load {
        port: 0,
        threads: suite.threads(workers),
        connections,
        size,
        depth,
        head_bytes: if size > usize::from(u16::MAX) { 4 } else { 2 },
        big_endian: false,
        warm_up: suite.warm_up,
        measure: suite.measure,
    }
}

fn echo_entry<'a>(
    suite: &'a Suite,
    who: Who,
    row: &'static str,
    variant: &'static str,
    load: Load,
    workers: usize,
) -> Entry<'a> {
    let by_hand = variant == BATCHED || variant == REUSING;
    let run = move || measure_echo(suite, who, row, &load, workers, by_hand);
    Entry { who, variant, run: Box::new(run) }
}

fn start_server(
    suite: &Suite,
    who: Who,
    row: &str,
    workers: usize,
    port: u16,
    head: usize,
    by_hand: bool,
) -> Result<Child, String> {
    let arguments = [port.into(), workers, head, by_hand.into()].map(|n: usize| n.to_string());
    let program = suite.contestants.program(who, row, workers, &arguments)?;
    let mut server = Child::start(&program)?;
    server.wait_for("ready", START_LIMIT)?;
    Ok(server)
}

fn measure_echo(
    suite: &Suite,
    who: Who,
    row: &str,
    load: &Load,
    workers: usize,
    by_hand: bool,
) -> Result<Sample, String> {
    let load = Load { port: free_port()?, ..load.clone() };
    let server = start_server(suite, who, row, workers, load.port, load.head_bytes, by_hand)?;
    let mut cpu = Vec::new();
    let mut threads = Vec::new();
    let outcome = load::run(&load, || {
        cpu.push(proc::cpu(server.pid()));
        threads.push(proc::threads(server.pid()));
    });
    let outcome = outcome.map_err(|e| server.complaint(&e))?;
    let used = cpu[1] - cpu[0];
    let messages = outcome.messages as f64;
    let us = |q| outcome.latency.quantile(q) / 1e3;
    Ok([
        ("messages_per_s", messages / outcome.seconds),
        ("server_cpu_us", used * 1e6 / messages),
        ("capacity_per_s", messages / proc::busiest(&threads[0], &threads[1])),
        ("server_cores", used / outcome.seconds),
        ("generator_us", outcome.generator_cpu * 1e6 / messages),
        ("p50_us", us(0.5)),
        ("p99_us", us(0.99)),
        ("p999_us", us(0.999)),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into())
}

/// Gate, agent, socket, with the plain echo of the same contestant beside it.
pub fn gate(suite: &Suite) -> Row<'_> {
    let mut cells = Vec::new();
    for workers in [1, 2] {
        for depth in [1, 16] {
            let load = load(suite, workers, 100, 64, depth);
            let mut entries = Vec::new();
            for who in suite.contestants.of("echo") {
                let takes_part = suite.contestants.of("gate").contains(&who);
                if takes_part || who == Who::Raw {
                    entries.push(echo_entry(
                        suite,
                        who,
                        "echo",
                        "plain echo",
                        load.clone(),
                        workers,
                    ));
                }
                if takes_part {
                    entries.push(echo_entry(suite, who, "gate", "gate", load.clone(), workers));
                }
            }
            let label = format!("64 B × 100, depth {depth}, {workers} worker(s)");
            cells.push(Cell { label, x: 0.0, entries });
        }
    }
    Row {
        name: "gate",
        title: "Gate → agent → socket",
        reference: Who::Raw,
        metrics: echo_metrics(),
        cells,
        curves: &[],
    }
}

/// 1 KiB to 500 clients.
pub fn broadcast(suite: &Suite) -> Row<'_> {
    let mut cells = Vec::new();
    for burst in [1, 16] {
        let fan = Fan {
            port: 0,
            threads: suite.threads(1),
            clients: 500,
            burst,
            warm_up: suite.warm_up,
            measure: suite.measure,
        };
        let entry = |who, variant| {
            let fan = fan.clone();
            let run = move || measure_broadcast(suite, who, &fan, variant == BATCHED);
            Entry { who, variant, run: Box::new(run) }
        };
        let mut entries = Vec::new();
        for who in suite.contestants.of("broadcast") {
            entries.push(entry(who, ""));
            if who == Who::Raw && burst > 1 {
                entries.push(entry(who, BATCHED));
            }
        }
        cells.push(Cell { label: format!("{burst} frame(s) an order"), x: 0.0, entries });
    }
    Row {
        name: "broadcast",
        title: "Broadcast of 1 KiB to 500 clients",
        reference: Who::Raw,
        metrics: vec![
            compared("mb_per_s", "MB/s"),
            compared("cpu_us_per_frame", "server CPU µs/frame"),
        ],
        cells,
        curves: &[],
    }
}

fn measure_broadcast(suite: &Suite, who: Who, fan: &Fan, batch: bool) -> Result<Sample, String> {
    let fan = Fan { port: free_port()?, ..fan.clone() };
    let server = start_server(suite, who, "broadcast", 1, fan.port, 2, batch)?;
    let mut cpu = Vec::new();
    let outcome = fan::run(&fan, || cpu.push(proc::cpu(server.pid())));
    let (frames, seconds) = outcome.map_err(|e| server.complaint(&e))?;
    Ok([
        ("mb_per_s".to_owned(), frames * 1026.0 / seconds / 1e6),
        ("cpu_us_per_frame".to_owned(), (cpu[1] - cpu[0]) * 1e6 / frames),
    ]
    .into())
}

/// A hundred contexts and a hundred connections that do nothing for ten seconds.
pub fn idle(suite: &Suite) -> Row<'_> {
    let entry = |who| Entry { who, variant: "", run: Box::new(move || measure_idle(suite, who)) };
    let entries = suite.contestants.of("idle").into_iter().map(entry).collect();
    Row {
        name: "idle",
        title: "Idle for 10 s",
        reference: Who::Raw,
        metrics: vec![
            plain("cpu_ms", "CPU ms"),
            plain("switches", "context switches"),
            plain("memory_mib", "memory MiB"),
        ],
        cells: vec![Cell { label: "100 connections".into(), x: 0.0, entries }],
        curves: &[],
    }
}

fn measure_idle(suite: &Suite, who: Who) -> Result<Sample, String> {
    let port = free_port()?;
    let server = start_server(suite, who, "idle", 2, port, 2, false)?;
    let clients: Result<Vec<_>, _> = (0..100).map(|_| load::connect(port)).collect();
    let clients = clients.map_err(|e| server.complaint(&e.to_string()))?;
    thread::sleep(Duration::from_secs(1));
    let before = proc::usage(server.pid());
    thread::sleep(Duration::from_secs(10) / suite.lighter as u32);
    let used = proc::usage(server.pid()) - before;
    if clients.iter().any(|c| c.set_nonblocking(true).is_err() || matches!(c.peek(&mut [0]), Ok(0)))
    {
        return Err(server.complaint("it closed an idle connection"));
    }
    Ok([
        ("cpu_ms".to_owned(), used.cpu * 1e3),
        ("switches".to_owned(), used.switches),
        ("memory_mib".to_owned(), before.memory / 1048576.0),
    ]
    .into())
}

/// A size as people write it.
pub fn bytes(size: usize) -> String {
    match size {
        s if s >= 1 << 20 => format!("{} MiB", s >> 20),
        s if s >= 1 << 10 => format!("{} KiB", s >> 10),
        s => format!("{s} B"),
    }
}
