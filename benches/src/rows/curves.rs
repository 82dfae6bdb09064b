//! The same work at growing sizes: what grows faster than its work shows as a slope.

use crate::contestants::Who;
use crate::rows::Suite;
use crate::rows::scripts::{cell, create_job, query_job, timers_job};
use crate::rows::sockets::{bytes, echo_entries, echo_metrics, load};
use crate::table::{Cell, Row, compared, plain};

/// All curves.
pub fn rows(suite: &Suite) -> Vec<Row<'_>> {
    vec![
        connections(suite, 1),
        connections(suite, 16),
        payload(suite),
        contexts(suite),
        queries(suite),
        timers(suite),
    ]
}

fn connections(suite: &Suite, depth: usize) -> Row<'_> {
    let cell = |n: usize| Cell {
        label: format!("{n} connection(s), depth {depth}"),
        x: n as f64,
        entries: echo_entries(suite, &load(suite, 1, n, 64, depth), 1),
    };
    let (name, title) = match depth {
        1 => ("curve-connections", "Echo of 64 B by connections, depth 1"),
        _ => ("curve-connections-deep", "Echo of 64 B by connections, depth 16"),
    };
    Row {
        name,
        title,
        reference: Who::Raw,
        metrics: echo_metrics(),
        cells: [1, 10, 100, 1_000, 3_000, 9_000].map(cell).into(),
        curves: &[("server_cpu_us", "connections"), ("p99_us", "connections")],
    }
}

fn payload(suite: &Suite) -> Row<'_> {
    let cell = |size: usize| Cell {
        label: bytes(size),
        x: size as f64,
        entries: echo_entries(suite, &load(suite, 1, 10, size, 1), 1),
    };
    Row {
        name: "curve-payload",
        title: "Echo by payload, 10 connections, depth 1",
        reference: Who::Raw,
        metrics: echo_metrics(),
        cells: [8, 64, 512, 4096, 32 << 10, 256 << 10, 1 << 20].map(cell).into(),
        curves: &[("server_cpu_us", "bytes"), ("messages_per_s", "bytes")],
    }
}

fn contexts(suite: &Suite) -> Row<'_> {
    let cells =
        [1, 10, 100, 1_000, 10_000].map(|n| cell(suite, n.to_string(), n as f64, &create_job(n)));
    Row {
        name: "curve-contexts",
        title: "Contexts by number",
        reference: Who::NodeLua,
        metrics: vec![
            plain("wall_ms", "wall ms"),
            compared("cpu_us_per_unit", "CPU µs/context"),
            plain("kib_per_unit", "KiB/context"),
        ],
        cells: cells.into(),
        curves: &[("cpu_us_per_unit", "contexts"), ("kib_per_unit", "contexts")],
    }
}

fn queries(suite: &Suite) -> Row<'_> {
    let cells = [1, 10, 100, 1_000, 5_000].map(|pairs| {
        // Enough for each pair that compiling its code is not most of its work.
        let total = (400_000 / suite.lighter).max(pairs * 400);
        let mut cell = cell(
            suite,
            format!("{pairs} pair(s)"),
            2.0 * pairs as f64,
            &query_job(pairs, "number", total, 2, "any"),
        );
        // Its worker threads are not meant by the thousand.
        cell.entries.retain(|e| e.who != Who::NodeJs || pairs <= 10);
        cell
    });
    Row {
        name: "curve-queries",
        title: "Round trips by number of contexts, two workers",
        reference: Who::NodeLua,
        metrics: vec![
            compared("us_per_query", "wall µs/query"),
            plain("cpu_us_per_unit", "CPU µs/query"),
        ],
        cells: cells.into(),
        curves: &[("us_per_query", "contexts")],
    }
}

fn timers(suite: &Suite) -> Row<'_> {
    let cells = [100, 1_000, 10_000, 100_000, 1_000_000]
        .map(|n| cell(suite, format!("{n} timers"), n as f64, &timers_job(n)));
    Row {
        name: "curve-timers",
        title: "Timers by number",
        reference: Who::NodeLua,
        metrics: vec![
            compared("cpu_us_per_unit", "CPU µs/timer"),
            plain("error_p99_ms", "error p99 ms"),
        ],
        cells: cells.into(),
        curves: &[("cpu_us_per_unit", "timers"), ("error_p99_ms", "timers")],
    }
}
