//! Turns that are cut between any two instructions: no program notices, and whoever does not return
//! holds nobody up.
//!
//! Programs are made from seeds (`tests/preempt/`), and print hashes of all that they have seen,
//! which must not depend on where they were cut, nor on what was compiled. In simulations cuts
//! follow from the seed, after any number of instructions, without the JIT. With it they come by
//! signals, because endless loops and contexts that ask each other run beside. For hours:
//!
//! ```sh
//! PREEMPT_MINUTES=60 cargo test --release --test preempt -- --ignored --nocapture
//! ```
//!
//! `PREEMPT_SEED` is the first seed.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "tests")]

mod support;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use support::{Folder, PATIENCE, c_module, node_lua, repository, run, run_for};

/// Settings with which the trace compiler is at work most of the time.
const EXTREME: &str = "-Ohotloop=1 -Ohotexit=1 -Ominstitch=1 -Omaxtrace=50";

/// Programs that run at once.
#[derive(Clone, Copy)]
struct Programs<'a> {
    /// Where the C module is found.
    modules: &'a str,
    seed: u64,
    contexts: u32,
    rounds: u32,
}

impl Programs<'_> {
    /// Their hashes, and how often they were cut, run with these options beside so much else.
    #[track_caller]
    fn run(&self, options: &str, noise: u32) -> (String, u64) {
        let mut command = node_lua();
        command
            .env("LUA_CPATH", self.modules)
            .args(options.split_whitespace())
            .arg(repository("tests/preempt/main.lua"));
        for number in [self.seed, self.contexts.into(), self.rounds.into(), noise.into()] {
            command.arg(number.to_string());
        }
        let done = run_for(&mut command, 10 * PATIENCE);
        let cuts = done.stderr.strip_suffix(" cuts\n").and_then(|count| count.parse().ok());
        let cuts = cuts.unwrap_or_else(|| panic!("{options}, seed {}: {done}", self.seed));
        let done = done.succeeded();
        assert_eq!(done.stdout.lines().count(), self.contexts as usize, "{done}");
        assert!(!done.stdout.contains("false"), "finalisers: {done}");
        (done.stdout, cuts)
    }

    /// Whether a run with these options is wrong at times although nothing is cut: LuaJIT, bare
    /// too, compiles one of some hundred programs (that of 41004) so that it depends on addresses.
    fn vary(&self, options: &str, expected: &str) -> bool {
        (0..40).any(|_| self.run(options, 0).0 != expected)
    }
}

#[test]
fn programs_that_are_cut_after_any_number_of_instructions_notice_nothing() {
    let folder = Folder::new();
    let modules = c_module(&folder, "coroutines");
    let mut cuts = 0;
    for seed in [10, 20, 30] {
        let programs = Programs { modules: &modules, seed, contexts: 2, rounds: 15 };
        let (expected, _) = programs.run("-joff", 0);
        for simulated in [seed, seed + 1, seed + 2] {
            let (found, cut) = programs.run(&format!("-joff --simulate {simulated} --cuts 1"), 0);
            assert_eq!(found, expected, "seed {seed}, simulation {simulated}");
            cuts += cut;
        }
    }
    assert!(cuts > 50_000, "{cuts} cuts");
}

#[test]
fn programs_that_are_cut_by_signals_notice_nothing() {
    let folder = Folder::new();
    let modules = c_module(&folder, "coroutines");
    let programs = Programs { modules: &modules, seed: 50, contexts: 2, rounds: 6 };
    let (expected, _) = programs.run("-joff", 0);
    for options in ["", EXTREME, "-joff"] {
        let (found, cuts) = programs.run(options, 2);
        assert_eq!(found, expected, "{options}");
        assert!(cuts > 20, "{options}: {cuts} cuts");
    }
}

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().expect("a number"))
}

#[test]
#[ignore = "as long as PREEMPT_MINUTES says"]
fn programs_from_many_seeds_notice_nothing() {
    let folder = Folder::new();
    let modules = c_module(&folder, "coroutines");
    let end = Instant::now() + Duration::from_secs(60 * setting("PREEMPT_MINUTES", 10));
    let (first, mut cuts) = (setting("PREEMPT_SEED", 1000), BTreeMap::new());
    for seed in (first..).step_by(10).take_while(|_| Instant::now() < end) {
        let programs = Programs { modules: &modules, seed, contexts: 4, rounds: 20 };
        let (expected, _) = programs.run("-joff", 0);
        let simulated = format!("-joff --simulate {seed} --cuts 1");
        let all =
            [("simulated", simulated.as_str(), 0), ("compiled", "", 4), ("extreme", EXTREME, 4)];
        for (name, options, noise) in all.into_iter().chain([("interpreted", "-joff", 4)]) {
            let (found, cut) = programs.run(options, noise);
            if found != expected && name != "simulated" && programs.vary(options, &expected) {
                println!("seed {seed}, {name}: what LuaJIT compiles varies without cuts too");
                continue;
            }
            assert_eq!(found, expected, "seed {seed}, {name}");
            *cuts.entry(name).or_insert(0) += cut;
        }
        println!("up to seed {seed}, cuts: {cuts:?}");
    }
}

/// In each place, others go on; a turn is cut where it can be, and only there; `destroy` and a
/// limit of CPU time end it.
#[test]
fn who_does_not_return_holds_nobody_up_wherever_that_is() {
    let folder = Folder::new();
    let mut command = node_lua();
    command.env("LUA_CPATH", c_module(&folder, "coroutines")).env("RUST_LOG", "off");
    let done = run(command.arg(repository("tests/preempt/endless.lua"))).succeeded();
    assert!(done.stdout.lines().count() > 30, "{done}");
    for line in done.stdout.lines() {
        let columns: Vec<&str> = line.split('\t').collect();
        let [place, is_cut, slices, states, ends @ ..] = &columns[..] else { panic!("{line}") };
        let slices: u32 = slices.parse().unwrap();
        if *is_cut == "true" {
            assert!(slices > 0, "{place} is not cut: {line}");
        } else {
            assert!(slices == 0 && !states.contains("suspended"), "{place} is cut: {line}");
        }
        let known = ["running", "suspended", "ready"];
        assert!(states.split(' ').all(|state| known.contains(&state)), "{line}");
        // Who waits for one that has ended already is told that there is none (205).
        let [code, "killed", late, "time"] = ends else { panic!("{line}") };
        assert!([code, late].iter().all(|code| ["0", "205"].contains(code)), "{line}");
    }
}
