//! Rows whose programs measure themselves and end: messages, creation, timers, plain loops.
//!
//! A program says `begin` and `end` around its work, and `metric NAME VALUE` for each figure. CPU
//! time and memory are read from outside at those two words.

use std::time::{Duration, Instant};

use crate::child::Child;
use crate::contestants::Who;
use crate::proc;
use crate::rows::Suite;
use crate::table::{Cell, Entry, Metric, Row, Sample, compared, plain};

const LIMIT: Duration = Duration::from_secs(120);
const PAYLOADS: [&str; 3] = ["number", "string", "table"];

/// One run: which program, on how many workers, with which arguments.
#[derive(Clone)]
pub struct Job {
    /// Its row.
    pub row: &'static str,
    /// Workers of the runtime.
    pub workers: usize,
    /// Arguments after the row's.
    pub arguments: Vec<String>,
    /// Units of work: CPU time and memory are divided by it.
    pub units: f64,
}

/// A cell of all contestants of the job's row.
pub fn cell<'a>(suite: &'a Suite, label: String, x: f64, job: &Job) -> Cell<'a> {
    let entry = |who| {
        let job = job.clone();
        Entry { who, variant: "", run: Box::new(move || measure(suite, who, &job)) }
    };
    Cell { label, x, entries: suite.contestants.of(job.row).into_iter().map(entry).collect() }
}

fn measure(suite: &Suite, who: Who, job: &Job) -> Result<Sample, String> {
    let program = suite.contestants.program(who, job.row, job.workers, &job.arguments)?;
    let mut child = Child::start(&program)?;
    let deadline = Instant::now() + LIMIT;
    let mut sample = Sample::new();
    let (mut before, mut after) = (None, None);
    while let Some(line) = child.line(deadline)? {
        match line.split_whitespace().collect::<Vec<_>>()[..] {
            ["begin"] => before = Some(proc::usage(child.pid())),
            ["end"] => after = Some(proc::usage(child.pid())),
            ["metric", name, value] => {
                let value = value.parse().map_err(|_| format!("no number: {line}"))?;
                sample.insert(name.to_owned(), value);
            }
            _ => {}
        }
    }
    let (Some(before), Some(after)) = (before, after) else {
        return Err(child.complaint("it ended before its work was done"));
    };
    if sample.is_empty() {
        return Err(child.complaint("it gave no figure"));
    }
    let used = after - before;
    sample.insert("cpu_s".into(), used.cpu);
    sample.insert("cpu_us_per_unit".into(), used.cpu * 1e6 / job.units);
    sample.insert("kib_per_unit".into(), used.memory / 1024.0 / job.units);
    sample.insert("switches_per_unit".into(), used.switches / job.units);
    Ok(sample)
}

/// A row of jobs; ratios are to `reference`.
fn row<'a>(
    name: &'static str,
    title: &'static str,
    reference: Who,
    metrics: Vec<Metric>,
    cells: Vec<Cell<'a>>,
) -> Row<'a> {
    Row { name, title, reference, metrics, cells, curves: &[] }
}

/// All rows of this kind.
pub fn rows(suite: &Suite) -> Vec<Row<'_>> {
    vec![
        query(suite, false),
        query(suite, true),
        flood(suite),
        create(suite),
        timers(suite),
        accessors(suite),
        generators(suite),
    ]
}

/// The job of `pairs` asking each other, `total` times together.
pub fn query_job(pairs: usize, payload: &str, total: usize, workers: usize, place: &str) -> Job {
    let count = (total / pairs).max(1);
    Job {
        row: "query",
        workers,
        arguments: vec![pairs.to_string(), payload.into(), count.to_string(), place.into()],
        units: (pairs * count) as f64,
    }
}

fn query(suite: &Suite, apart: bool) -> Row<'_> {
    let workers: &[usize] = if apart { &[2] } else { &[1, 2] };
    let mut cells = Vec::new();
    for &workers in workers {
        for pairs in [1, 8] {
            for payload in PAYLOADS {
                let place = if apart { "apart" } else { "any" };
                let job = query_job(pairs, payload, 400_000 / suite.lighter, workers, place);
                let label = format!("{payload}, {pairs} pair(s), {workers} worker(s)");
                let mut cell = cell(suite, label, 0.0, &job);
                if apart {
                    cell.entries.retain(|e| matches!(e.who, Who::NodeLua | Who::Before));
                    if pairs == 1 {
                        cell.entries.extend(wake_ups(suite));
                    }
                }
                cells.push(cell);
            }
        }
    }
    let (name, title) = match apart {
        false => ("query", "Round trips between contexts"),
        true => ("query-apart", "Round trips, each pair forced onto two workers"),
    };
    let metrics = vec![
        compared("us_per_query", "wall µs/query"),
        compared("cpu_us_per_unit", "CPU µs/query"),
        plain("switches_per_unit", "switches/query"),
    ];
    row(name, title, if apart { Who::Raw } else { Who::NodeLua }, metrics, cells)
}

/// Two wake-ups by `futex`, what a query costs at least if both sides sleep.
fn wake_ups(suite: &Suite) -> Option<Entry<'_>> {
    let count = 200_000 / suite.lighter;
    let arguments = vec![count.to_string()];
    let job = Job { row: "futex", workers: 2, arguments, units: count as f64 };
    let found = suite.contestants.of(job.row).contains(&Who::Raw);
    let run = Box::new(move || measure(suite, Who::Raw, &job));
    found.then_some(Entry { who: Who::Raw, variant: "", run })
}

fn flood(suite: &Suite) -> Row<'_> {
    let mut cells = Vec::new();
    for workers in [1, 2] {
        for producers in [1, 8] {
            for payload in ["number", "table"] {
                let count = 2_000_000 / producers / suite.lighter;
                let job = Job {
                    row: "flood",
                    workers,
                    arguments: vec![producers.to_string(), payload.into(), count.to_string()],
                    units: (producers * count) as f64,
                };
                let label = format!("{payload}, {producers} → 1, {workers} worker(s)");
                cells.push(cell(suite, label, 0.0, &job));
            }
        }
    }
    let metrics = vec![
        compared("messages_per_s", "messages/s"),
        compared("cpu_us_per_unit", "CPU µs/message"),
    ];
    row("flood", "One-way messages", Who::NodeLua, metrics, cells)
}

/// The job of creating so many contexts.
pub fn create_job(count: usize) -> Job {
    Job { row: "create", workers: 2, arguments: vec![count.to_string()], units: count as f64 }
}

fn create(suite: &Suite) -> Row<'_> {
    let cell = |n: usize| cell(suite, format!("{n} contexts"), 0.0, &create_job(n));
    let metrics = vec![
        compared("wall_ms", "wall ms"),
        plain("cpu_us_per_unit", "CPU µs/context"),
        plain("kib_per_unit", "KiB/context"),
    ];
    let cells = vec![cell(1_000), cell(10_000)];
    row("create", "Creation of contexts", Who::NodeLua, metrics, cells)
}

/// The job of so many timers within three seconds.
pub fn timers_job(count: usize) -> Job {
    Job { row: "timers", workers: 1, arguments: vec![count.to_string()], units: count as f64 }
}

fn timers(suite: &Suite) -> Row<'_> {
    let metrics = vec![
        compared("cpu_s", "CPU s"),
        plain("error_p50_ms", "error p50 ms"),
        plain("error_p99_ms", "error p99 ms"),
        plain("early", "fired early"),
    ];
    let cells = vec![cell(suite, "100000 timers".into(), 0.0, &timers_job(100_000))];
    row("timers", "Timers within 0.5–3 s", Who::NodeLua, metrics, cells)
}

fn loops(row: &'static str, count: usize) -> Job {
    Job { row, workers: 1, arguments: vec![count.to_string()], units: count as f64 }
}

fn accessors(suite: &Suite) -> Row<'_> {
    let job = loops("accessors", 40_960_000 / suite.lighter);
    let metrics = ["u8_ns", "u16_ns", "u32_ns"].map(|name| compared(name, name)).to_vec();
    let cells = vec![cell(suite, "ns/read".into(), 0.0, &job)];
    row("accessors", "Reading numbers out of a buffer", Who::Raw, metrics, cells)
}

fn generators(suite: &Suite) -> Row<'_> {
    let job = loops("generators", 2_000_000 / suite.lighter);
    let names = ["range_ns", "filter_ns", "tree_ns", "start_ns"];
    let metrics = names.map(|name| compared(name, name)).to_vec();
    let cells = vec![cell(suite, "ns/value".into(), 0.0, &job)];
    row("generators", "Generators with coroutine.wrap", Who::LuaJit, metrics, cells)
}
