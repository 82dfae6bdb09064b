//! The goals of the project, checked against what one run measured.
//!
//! Absolute goals were set where raw epoll's echo of 64 B over 50 connections at depth 16 cost
//! 0.28 µs of CPU; they are scaled by what it costs in this run.

use std::fmt::Write;

use crate::contestants::Who;
use crate::table::{Series, ratio};

/// How the name of the program ends that reads into one buffer.
const REUSING: &str = "reusing";

/// CPU per message of raw epoll on the machine that the goals were set on.
const RAW_US: f64 = 0.28;

/// What was measured, by row.
pub type Results = Vec<(&'static str, Vec<Series>)>;

struct Check<'a> {
    results: &'a Results,
    text: String,
}

/// A Markdown table of the goals that the rows of this run allow to check.
pub fn markdown(results: &Results) -> String {
    let mut check = Check { results, text: String::new() };
    check.echo();
    check.echo_against_others();
    check.two_workers();
    check.messages();
    check.contexts_and_timers();
    check.sockets();
    check.endless_loops();
    check.loops();
    if check.text.is_empty() {
        return String::new();
    }
    format!("### Goals\n\n| goal | wanted | measured | |\n|---|--:|--:|---|\n{}", check.text)
}

impl Check<'_> {
    fn row(&self, name: &str) -> &[Series] {
        self.results.iter().find(|r| r.0 == name).map_or(&[], |r| &r.1)
    }

    /// The series of node-lua in the cells of a row whose label has `part`.
    fn ours(&self, row: &str, part: &str) -> Vec<&Series> {
        let mine = |s: &&Series| {
            s.who == Who::NodeLua && s.cell.contains(part) && !s.name.ends_with(REUSING)
        };
        self.row(row).iter().filter(mine).collect()
    }

    /// The same of the program that reads into one buffer.
    fn reusing(&self, row: &str, part: &str) -> Vec<&Series> {
        let mine = |s: &&Series| {
            s.who == Who::NodeLua && s.cell.contains(part) && s.name.ends_with(REUSING)
        };
        self.row(row).iter().filter(mine).collect()
    }

    fn other(&self, row: &str, cell: &str, who: Who) -> Option<&Series> {
        self.row(row).iter().find(|s| s.cell == cell && s.who == who)
    }

    fn one(&self, row: &str, cell: &str, metric: &str) -> Option<f64> {
        self.ours(row, cell).iter().find(|s| s.cell == cell)?.median(metric)
    }

    fn at_most(&mut self, goal: &str, wanted: f64, measured: Option<f64>) {
        let Some(measured) = measured else { return };
        self.line(goal, &format!("≤ {wanted:.2}"), measured, measured <= wanted);
    }

    fn at_least(&mut self, goal: &str, wanted: f64, measured: Option<f64>) {
        let Some(measured) = measured else { return };
        self.line(goal, &format!("≥ {wanted:.2}"), measured, measured >= wanted);
    }

    /// As [`Check::at_most`], of the largest of many, with the cell it comes from.
    fn all_at_most(&mut self, goal: &str, wanted: f64, measured: Vec<(f64, String)>) {
        let Some((worst, cell)) =
            measured.into_iter().reduce(|a, b| if a.0 >= b.0 { a } else { b })
        else {
            return;
        };
        self.at_most(&format!("{goal}; worst: {cell}"), wanted, Some(worst));
    }

    /// As [`Check::at_least`], of the smallest of many, with the cell it comes from.
    fn all_at_least(&mut self, goal: &str, wanted: f64, measured: Vec<(f64, String)>) {
        let Some((worst, cell)) =
            measured.into_iter().reduce(|a, b| if a.0 <= b.0 { a } else { b })
        else {
            return;
        };
        self.at_least(&format!("{goal}; worst: {cell}"), wanted, Some(worst));
    }

    fn line(&mut self, goal: &str, wanted: &str, measured: f64, met: bool) {
        let word = if met { "met" } else { "**not met**" };
        let _ = writeln!(self.text, "| {goal} | {wanted} | {measured:.2} | {word} |");
    }

    /// How much slower this machine is than the one the goals were set on.
    fn scale(&self) -> f64 {
        let raw = self.other("echo", "64 B × 50, depth 16", Who::Raw);
        raw.and_then(|s| s.median("server_cpu_us")).map_or(1.0, |us| us / RAW_US)
    }

    /// Ratios to `who` in every cell whose label has `part`.
    fn ratios(&self, ours: &[&Series], row: &str, who: Who, metric: &str) -> Vec<(f64, String)> {
        let of =
            |s: &&Series| Some((ratio(s, self.other(row, &s.cell, who)?, metric)?, s.cell.clone()));
        ours.iter().filter_map(of).collect()
    }

    fn echo(&mut self) {
        for (size, wanted) in [("64 B", 1.2), ("1 KiB", 1.2), ("16 KiB", 1.1)] {
            let part = format!("{size} ×");
            let goal = format!("echo {size}: CPU per message ÷ raw epoll");
            let all = self.ratios(&self.ours("echo", &part), "echo", Who::Raw, "server_cpu_us");
            self.all_at_most(&goal, wanted, all);
            let all = self.ratios(&self.reusing("echo", &part), "echo", Who::Raw, "server_cpu_us");
            self.all_at_most(&format!("{goal}, {REUSING}"), wanted, all);
        }
    }

    fn echo_against_others(&mut self) {
        let against = |check: &Self, part: &str, batched: bool| {
            let ratio_in = |mine: &&Series| {
                let others = check.row("echo").iter().filter(|s| {
                    s.cell == mine.cell
                        && s.who != Who::NodeLua
                        && s.who != Who::Before
                        && s.who != Who::Raw
                        && (batched || s.name == s.who.name() && s.who != Who::AsyncStd)
                });
                let best = max(others.filter_map(|s| s.median("messages_per_s")).collect())?;
                Some((mine.median("messages_per_s")? / best, mine.cell.clone()))
            };
            check.ours("echo", part).iter().filter_map(ratio_in).collect()
        };
        let all = [
            ("echo: messages/s ÷ best other program", "", false, 1.0),
            ("echo 64 B, depth 16: the same", "64 B × 50, depth 16", false, 3.0),
            ("echo: messages/s ÷ best of async-std and batched programs", "", true, 1.0),
            ("echo 64 B, depth 16: the same", "64 B × 50, depth 16", true, 3.0),
        ];
        for (goal, part, batched, wanted) in all {
            let measured = against(self, part, batched);
            self.all_at_least(goal, wanted, measured);
        }
    }

    fn two_workers(&mut self) {
        let gain = |two: &&Series| {
            let one = self.other("echo", &two.cell, Who::NodeLua)?;
            Some((two.median("capacity_per_s")? / one.median("capacity_per_s")?, two.cell.clone()))
        };
        let all = self.ours("echo-two", "").iter().filter_map(gain).collect();
        let goal = "echo on two workers ÷ one, per CPU time of the busiest thread";
        self.all_at_least(goal, 1.6, all);
    }

    fn messages(&mut self) {
        let scale = self.scale();
        let query = |check: &Self, row, cell| check.one(row, cell, "us_per_query");
        let one = query(self, "query", "table, 1 pair(s), 2 worker(s)");
        self.at_most("query, table, 1 pair, 2 workers, µs", 1.0 * scale, one);
        let eight = query(self, "query", "table, 8 pair(s), 2 worker(s)");
        self.at_most("query, table, 8 pairs, 2 workers, µs", 0.55 * scale, eight);
        let apart = self.ours("query-apart", ", 1 pair(s)");
        let apart = self.ratios(&apart, "query-apart", Who::Raw, "us_per_query");
        self.all_at_most("query, 1 pair forced apart ÷ two futex wake-ups", 1.5, apart);
        let cell = "table, 8 pair(s), 2 worker(s)";
        let forced = self.one("query-apart", cell, "forced") == Some(1.0);
        let apart = query(self, "query-apart", cell).filter(|_| forced);
        let single = query(self, "query", "table, 8 pair(s), 1 worker(s)");
        let goal = "query, table, 8 pairs forced apart ÷ one worker";
        self.at_most(goal, 2.0, apart.zip(single).map(|(a, s)| a / s));
        for (payload, wanted) in [("number", 10.0), ("table", 2.5)] {
            let cell = format!("{payload}, 1 → 1, 2 worker(s)");
            let rate = self.one("flood", &cell, "messages_per_s").map(|r| r / 1e6);
            self.at_least(&format!("flood 1 → 1, {payload}, M/s"), wanted / scale, rate);
        }
    }

    fn contexts_and_timers(&mut self) {
        let seconds = self.one("create", "10000 contexts", "wall_ms").map(|ms| ms / 1e3);
        self.at_most("10,000 contexts, s", 0.6, seconds);
        let memory = self.one("create", "10000 contexts", "kib_per_unit");
        self.at_most("10,000 contexts, KiB each", 64.0, memory);
        for (goal, wanted, metric) in [
            ("100,000 timers, CPU s", 0.15, "cpu_s"),
            ("100,000 timers, error p99 ms", 2.0, "error_p99_ms"),
            ("100,000 timers, fired early", 0.0, "early"),
        ] {
            let measured = self.one("timers", "100000 timers", metric);
            self.at_most(goal, wanted, measured);
        }
    }

    fn sockets(&mut self) {
        let idle = |check: &Self, metric| check.one("idle", "100 connections", metric);
        let (switches, cpu) = (idle(self, "switches"), idle(self, "cpu_ms"));
        self.at_most("idle: context switches", 0.0, switches);
        self.at_most("idle: CPU ms", 0.0, cpu);
        let cell = "16 frame(s) an order";
        let rate = self.one("broadcast", cell, "mb_per_s");
        self.at_least("broadcast, 16 frames an order, MB/s", 1200.0, rate);
        let all =
            self.ratios(&self.ours("broadcast", ""), "broadcast", Who::Raw, "cpu_us_per_frame");
        self.all_at_most("broadcast: CPU per frame ÷ raw send loop", 1.15, all);
        let mut worst = Vec::new();
        for gate in self.ours("gate", "depth 16").iter().filter(|s| s.name.ends_with("gate")) {
            let plain = self.other("gate", &gate.cell, Who::NodeLua);
            let share = plain.and_then(|plain| ratio(gate, plain, "messages_per_s"));
            worst.extend(share.map(|share| (share, gate.cell.clone())));
        }
        self.all_at_least("gate ÷ plain echo, depth 16, messages/s", 0.8, worst);
    }

    fn endless_loops(&mut self) {
        for (cell, metric, wanted) in [
            ("64 loops", "p50_ms", 0.05),
            ("64 loops", "p99_ms", 4.0),
            ("64 loops", "most_ms", 20.0),
            ("64 loops", "most_share", 1.1),
            ("1000 loops", "p99_ms", 20.0),
            ("1000 loops", "created_most_ms", 20.0),
        ] {
            let measured = self.one("loops", cell, metric);
            self.at_most(&format!("echo beside {cell}, {metric}"), wanted, measured);
        }
        let least = self.one("loops", "64 loops", "least_share");
        self.at_least("echo beside 64 loops, least_share", 0.9, least);
    }

    fn loops(&mut self) {
        let worst = |check: &Self, row: &str, who, metrics: &[&str]| {
            max(metrics
                .iter()
                .flat_map(|m| check.ratios(&check.ours(row, ""), row, who, m))
                .map(|r| r.0)
                .collect())
        };
        let all = worst(self, "accessors", Who::Raw, &["u8_ns", "u16_ns", "u32_ns"]);
        self.at_most("buffer accessors ÷ loop in Rust, worst", 1.1, all);
        let metrics = ["range_ns", "filter_ns", "tree_ns"];
        let all = worst(self, "generators", Who::LuaJit, &metrics).map(|slower| 1.0 / slower);
        self.at_least("generators: speed ÷ bare LuaJIT, worst", 0.7, all);
    }
}

fn max(values: Vec<f64>) -> Option<f64> {
    values.into_iter().reduce(f64::max)
}
