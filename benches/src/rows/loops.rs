//! How an echo server answers beside contexts that never return, what those get, and how soon new
//! contexts run.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use crate::child::{Child, free_port};
use crate::contestants::Who;
use crate::load::connect;
use crate::rows::Suite;
use crate::table::{Cell, Entry, Row, Sample, compared, plain};

/// Between two probes.
const INTERVAL: Duration = Duration::from_millis(5);

/// What starting, and one answer, may take.
const LIMIT: Duration = Duration::from_secs(20);

/// A run lasts so many times the measured time of others: p99 needs some hundred probes.
const LENGTH: u32 = 4;

/// Without loops, with 64, and with 1,000.
pub fn row(suite: &Suite) -> Row<'_> {
    let cell = |loops: usize| {
        let entry =
            |who| Entry { who, variant: "", run: Box::new(move || measure(suite, who, loops)) };
        let entries = suite.contestants.of("loops").into_iter().map(entry).collect();
        Cell { label: format!("{loops} loops"), x: 0.0, entries }
    };
    let metrics = vec![
        compared("p50_ms", "p50 ms"),
        compared("p99_ms", "p99 ms"),
        compared("most_ms", "most ms"),
        plain("least_share", "least CPU ÷ mean"),
        plain("most_share", "most CPU ÷ mean"),
        plain("created_p50_ms", "new context runs, p50 ms"),
        plain("created_most_ms", "most ms"),
        plain("created", "of them"),
    ];
    Row {
        name: "loops",
        title: "Echo beside endless loops, two workers, a probe every 5 ms",
        reference: Who::NodeLua,
        metrics,
        cells: [0, 64, 1_000].map(cell).into(),
        curves: &[],
    }
}

/// Probes from the moment the loops are created; their CPU time counts from the middle on.
fn measure(suite: &Suite, who: Who, loops: usize) -> Result<Sample, String> {
    let port = free_port()?;
    let arguments = [port.to_string(), loops.to_string()];
    let program = suite.contestants.program(who, "loops", 2, &arguments)?;
    let mut server = Child::start(&program)?;
    server.wait_for("ready", LIMIT)?;
    let text = |e: std::io::Error| e.to_string();
    let mut stream = connect(port).map_err(text)?;
    stream.set_read_timeout(Some(LIMIT)).map_err(text)?;
    let half = suite.measure * LENGTH / 2;
    let mut times = Vec::new();
    probe(&mut stream, half, &mut times).map_err(|e| server.complaint(&e.to_string()))?;
    stream.write_all(b"s").map_err(text)?;
    // By itself, for the server tells orders apart by what one read brings.
    thread::sleep(INTERVAL);
    probe(&mut stream, half, &mut times).map_err(|e| server.complaint(&e.to_string()))?;
    stream.write_all(b"e").map_err(text)?;
    let mut sample = Sample::new();
    let deadline = Instant::now() + LIMIT;
    loop {
        let line = server.line(deadline)?.ok_or_else(|| server.complaint("it ended"))?;
        match line.split_whitespace().collect::<Vec<_>>()[..] {
            ["metric", name, value] => {
                let value = value.parse().map_err(|_| format!("no number: {line}"))?;
                sample.insert(name.to_owned(), value);
            }
            _ => break,
        }
    }
    times.sort_unstable();
    let at = |share: f64| {
        let rank = (times.len() as f64 * share).ceil() as usize;
        times[rank.clamp(1, times.len()) - 1].as_secs_f64() * 1e3
    };
    for (name, share) in [("p50_ms", 0.5), ("p99_ms", 0.99), ("most_ms", 1.0)] {
        sample.insert(name.into(), at(share));
    }
    Ok(sample)
}

fn probe(stream: &mut TcpStream, time: Duration, times: &mut Vec<Duration>) -> std::io::Result<()> {
    let end = Instant::now() + time;
    while Instant::now() < end {
        let began = Instant::now();
        stream.write_all(b"x")?;
        stream.read_exact(&mut [0])?;
        times.push(began.elapsed());
        thread::sleep(INTERVAL.saturating_sub(began.elapsed()));
    }
    Ok(())
}
