//! Drives a target: `node-lua-fuzz TARGET --seconds N [--seed S]` mutates what is in the corpus,
//! `node-lua-fuzz TARGET FILE…` runs it once on each file.
//!
//! The inputs are run by a second process, so that one that ends it is not lost: what is being run
//! is always in a file. It is kept in `fuzz/artifacts/`, printed, and the exit status is 1. An
//! input that takes longer than ten seconds counts as well.

#![allow(clippy::print_stdout, reason = "a command")]

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use lexopt::prelude::*;
use node_lua_fuzz::mutate::{Random, mutate};
use node_lua_fuzz::targets::{TARGETS, Target};

const USAGE: &str = "usage: node-lua-fuzz TARGET [--seconds N] [--seed N] [FILE…]";

/// An input that runs for longer hangs.
const PATIENCE: Duration = Duration::from_secs(10);

/// Set in the process that runs the inputs: the file for what is being run.
const INSIDE: &str = "NODE_LUA_FUZZ_CURRENT";

struct Order {
    name: &'static str,
    target: Target,
    seconds: u64,
    seed: u64,
    files: Vec<PathBuf>,
}

fn order() -> Result<Order, lexopt::Error> {
    let (mut found, mut seconds, mut seed, mut files) = (None, 60, None, Vec::new());
    let mut args = lexopt::Parser::from_env();
    while let Some(arg) = args.next()? {
        match arg {
            Long("seconds") => seconds = args.value()?.parse()?,
            Long("seed") => seed = Some(args.value()?.parse()?),
            Value(name) if found.is_none() => {
                let target = TARGETS.iter().find(|target| name == target.0);
                found = Some(*target.ok_or_else(|| {
                    let names: Vec<_> = TARGETS.iter().map(|target| target.0).collect();
                    format!("no target {name:?}, but {}", names.join(", "))
                })?);
            }
            Value(file) => files.push(file.into()),
            _ => return Err(arg.unexpected()),
        }
    }
    let (name, target) = found.ok_or(USAGE)?;
    let now = || SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_nanos());
    Ok(Order { name, target, seconds, seed: seed.unwrap_or_else(|| now() as u64), files })
}

fn main() -> ExitCode {
    let order = match order() {
        Ok(order) => order,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::from(2);
        }
    };
    if !order.files.is_empty() {
        for file in &order.files {
            println!("{}", file.display());
            (order.target)(&fs::read(file).expect("a file that can be read"));
        }
        return ExitCode::SUCCESS;
    }
    match std::env::var_os(INSIDE) {
        Some(current) => {
            run(&order, Path::new(&current));
            ExitCode::SUCCESS
        }
        None => supervise(&order),
    }
}

/// Has a process run the inputs, and keeps the one that ended it.
fn supervise(order: &Order) -> ExitCode {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("artifacts");
    fs::create_dir_all(&folder).expect("a folder for artifacts");
    let current = folder.join(format!("{}-current-{}", order.name, std::process::id()));
    println!("{}: seed {}, {} s", order.name, order.seed, order.seconds);
    let this = std::env::current_exe().expect("the own path");
    let mut command = Command::new(this);
    let (seconds, seed) = (order.seconds.to_string(), order.seed.to_string());
    command.args([order.name, "--seconds", &seconds, "--seed", &seed]).env(INSIDE, &current);
    let status = command.status().expect("a process of its own");
    if status.success() {
        fs::remove_file(&current).expect("what the process has written");
        return ExitCode::SUCCESS;
    }
    let kept = folder.join(format!("{}-{}", order.name, order.seed));
    let bytes = fs::read(&current).unwrap_or_default();
    // The length stands before the input.
    let (len, input) = bytes.split_first_chunk().expect("a length");
    let input = &input[..u64::from_ne_bytes(*len) as usize];
    fs::write(&kept, input).expect("an artifact");
    fs::remove_file(&current).expect("what the process has written");
    println!("FOUND {status}: {} bytes in {}", input.len(), kept.display());
    println!("{}", input.escape_ascii());
    ExitCode::FAILURE
}

/// Runs inputs until the time is up.
fn run(order: &Order, current: &Path) {
    let current = File::create(current).expect("a file for what is being run");
    let corpus = corpus(order.name);
    let count = Arc::new(AtomicU64::new(0));
    watch(Arc::clone(&count));
    let mut random = Random::new(order.seed);
    let (start, limit) = (Instant::now(), Duration::from_secs(order.seconds));
    let keep = |input: &[u8]| {
        let len = (input.len() as u64).to_ne_bytes();
        current.write_all_at(&[&len, input].concat(), 0).expect("room for an input");
        (order.target)(input);
        // Relaxed: a count.
        count.fetch_add(1, Ordering::Relaxed);
    };
    for input in &corpus {
        keep(input);
    }
    while start.elapsed() < limit {
        for _ in 0..64 {
            keep(&mutate(&mut random, &corpus));
        }
    }
    let (count, seconds) = (count.load(Ordering::Relaxed), start.elapsed().as_secs_f64());
    let each = count as f64 / seconds;
    println!("{}: {count} inputs in {seconds:.0} s, {each:.0} per second, no finding", order.name);
}

/// Ends the process if an input takes too long.
fn watch(count: Arc<AtomicU64>) {
    thread::spawn(move || {
        let mut last = u64::MAX;
        loop {
            let now = count.load(Ordering::Relaxed);
            if now == last {
                eprintln!("an input takes longer than {PATIENCE:?}");
                std::process::abort();
            }
            last = now;
            thread::sleep(PATIENCE);
        }
    });
}

/// The inputs that are kept for a target.
fn corpus(name: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(name);
    let mut paths: Vec<PathBuf> = fs::read_dir(folder)
        .map(|entries| entries.filter_map(|entry| Some(entry.ok()?.path())).collect())
        .unwrap_or_default();
    paths.sort();
    paths.iter().filter_map(|path| fs::read(path).ok()).collect()
}
