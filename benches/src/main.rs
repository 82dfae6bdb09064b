//! Measures node-lua against the same work written for other runtimes.
//!
//! `all` runs every row, `row NAME` one; `benches/README.md` tells what each means. Contestants
//! are child processes; the load generator runs in this one.

mod child;
mod contestants;
mod datagrams;
mod fan;
mod histogram;
mod load;
mod options;
mod plot;
mod proc;
mod random;
mod rows;
mod serve;
mod sys;
mod table;
mod targets;

use std::fs;
use std::path::Path;
use std::process::ExitCode;

use crate::contestants::{Contestants, root};
use crate::load::Load;
use crate::options::{Options, USAGE};
use crate::rows::Suite;

fn main() -> ExitCode {
    let result = Options::from_env().and_then(|options| {
        let words: Vec<&str> = options.words.iter().map(String::as_str).collect();
        match words[..] {
            ["all"] => run_rows(&options, None),
            ["row", ref names @ ..] if !names.is_empty() => run_rows(&options, Some(names)),
            ["list"] => run_list(&options),
            ["load", port, pid] => run_load(&options, port, pid),
            ["serve", name, ref arguments @ ..] => run_serve(name, arguments),
            _ => Err(USAGE.into()),
        }
    });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn suite(options: &Options) -> Suite {
    Suite {
        contestants: Contestants::find(&options.only, &options.node_lua, options.before.as_deref()),
        measure: options.measure,
        warm_up: options.warm_up,
        threads: options.threads,
        lighter: options.lighter,
    }
}

fn run_list(options: &Options) -> Result<(), String> {
    for row in rows::all(&suite(&Options { only: Vec::new(), ..options.clone() })) {
        println!("{:24} {}", row.name, row.title);
    }
    Ok(())
}

fn run_rows(options: &Options, names: Option<&[&str]>) -> Result<(), String> {
    let limit = sys::raise_descriptor_limit().map_err(|e| e.to_string())?;
    let suite = suite(options);
    let mut text = heading(options, limit);
    for line in &suite.contestants.skipped {
        text.push_str(&format!("{line}\n\n"));
    }
    println!("{text}");
    let mut rows = rows::all(&suite);
    if let Some(names) = names {
        let exact: Vec<&str> = rows.iter().map(|row| row.name).collect();
        rows.retain(|row| {
            let asked = |n: &&str| *n == row.name || !exact.contains(n) && row.name.starts_with(n);
            names.iter().any(asked)
        });
        if rows.is_empty() {
            return Err("no row of that name; `list` names them".into());
        }
    }
    let all_of = |name: &str| names.is_none().then(|| root().join(name));
    let out = options.out.clone().or(all_of("results.md"));
    let plot = options.plot.clone().or(all_of("curves.svg"));
    let mut panels = Vec::new();
    let mut results = Vec::new();
    for row in &rows {
        let all = table::run(row, options.rounds);
        let markdown = table::markdown(row, &all);
        println!("{markdown}");
        text.push_str(&markdown);
        text.push('\n');
        for &(metric, x_title) in row.curves {
            let y_title = row.metrics.iter().find(|m| m.name == metric).map_or("", |m| m.title);
            let title = format!("{}: {y_title}", row.title);
            panels.push(plot::panel(title, x_title, metric, &all));
        }
        // Written as it grows: a run that is stopped leaves what it found.
        if let Some(path) = &out {
            write(path, &text)?;
        }
        results.push((row.name, all));
    }
    let goals = targets::markdown(&results);
    println!("{goals}");
    text.push_str(&goals);
    if let Some(path) = &out {
        write(path, &text)?;
    }
    if let Some(path) = plot {
        write(&path, &plot::svg(&panels))?;
    }
    Ok(())
}

fn heading(options: &Options, limit: u64) -> String {
    let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpu.lines().find_map(|l| l.strip_prefix("model name")).unwrap_or("unknown");
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    format!(
        "{}, {cores} cores, Linux {}, {limit} descriptors; {} rounds of {:.1} s\n\n",
        model.trim_start_matches([' ', '\t', ':']),
        kernel.trim(),
        options.rounds,
        options.measure.as_secs_f64(),
    )
}

fn write(path: &Path, text: &str) -> Result<(), String> {
    fs::write(path, text).map_err(|e| format!("{}: {e}", path.display()))
}

fn run_load(options: &Options, port: &str, pid: &str) -> Result<(), String> {
    sys::raise_descriptor_limit().map_err(|e| e.to_string())?;
    let load = Load {
        port: number(port)?,
        threads: options.threads.unwrap_or(2),
        connections: options.connections,
        size: options.size,
        depth: options.depth,
        head_bytes: options.head_bytes,
        big_endian: options.big_endian,
        warm_up: options.warm_up,
        measure: options.measure,
    };
    let pid = number(pid)?;
    let mut cpu = Vec::new();
    let outcome = load::run(&load, || cpu.push(proc::cpu(pid)))?;
    let messages = outcome.messages as f64;
    let us = |q| outcome.latency.quantile(q) / 1e3;
    println!("messages/s               {:.0}", messages / outcome.seconds);
    println!("server CPU µs/message    {:.3}", (cpu[1] - cpu[0]) * 1e6 / messages);
    println!("generator CPU µs/message {:.3}", outcome.generator_cpu * 1e6 / messages);
    println!("  of it outside kernel   {:.3}", outcome.generator_user * 1e6 / messages);
    println!("p50 / p99 / p99.9 µs     {:.1} / {:.1} / {:.1}", us(0.5), us(0.99), us(0.999));
    println!("bytes verified           {}", outcome.verified);
    Ok(())
}

fn run_serve(name: &str, arguments: &[&str]) -> Result<(), String> {
    sys::raise_descriptor_limit().map_err(|e| e.to_string())?;
    let text = |e: std::io::Error| e.to_string();
    match (name, arguments) {
        ("raw-echo" | "raw-idle", [port, workers, head, ..]) => {
            serve::epoll_echo::run(number(port)?, number(workers)?, number(head)?).map_err(text)
        }
        ("async-std-echo", [port, workers, head, ..]) => {
            serve::async_echo::run(number(port)?, number(workers)?, number(head)?).map_err(text)
        }
        ("raw-broadcast", [port, _, _, batch]) => {
            serve::send_loop::run(number(port)?, *batch == "1").map_err(text)
        }
        ("raw-answer", [port]) => serve::fixed::run(number(port)?).map_err(text),
        ("raw-accessors", [count]) => {
            serve::accessors::run(number(count)?);
            Ok(())
        }
        ("raw-futex", [count]) => {
            serve::futex::run(number(count)?);
            Ok(())
        }
        ("lua", [script, rest @ ..]) => {
            serve::lua::run(Path::new(script), rest.iter().map(ToString::to_string).collect())
        }
        _ => Err(USAGE.into()),
    }
}

fn number<T: std::str::FromStr>(word: &str) -> Result<T, String> {
    word.parse().map_err(|_| format!("{word:?} is not a number"))
}
