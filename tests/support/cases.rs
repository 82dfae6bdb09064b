//! Runs scripts whose output is known: a folder of them, each beside what it is to print.
//!
//! Some use ports of their own between 24000 and 26300, so a few may run at once, but not two
//! folders on one machine: they take turns.

use std::fs;
use std::io::Read;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::{files, node_lua, repository, run, stem};

/// Cases that run at the same time. They mostly sleep.
const AT_ONCE: usize = 4;

/// Held by the one run of this test that may use the ports; no case listens on it.
const TURN_PORT: u16 = 24009;

/// What cases do that look at a clock, themselves or in their children: what they print depends on
/// what else the machine does, but for simulations, which they run in.
const TIMED: [&str; 3] = ["timer.", "sleeper.lua", "late.lua"];

/// Cases of these that need what no simulation has: other processes, threads, real memory.
const REAL: [&str; 3] = ["312_interrupted", "333_views_are_charged", "335_scripts_that_block"];

/// All of a folder pass, but for those that a build without JSON cannot run: their names say so.
pub(crate) fn assert_all_pass(folder: &str) {
    let _turn = turn();
    let mut cases = files(folder, "lua");
    cases.retain(|case| cfg!(feature = "json") || !stem(case).contains("_json_"));
    assert!(!cases.is_empty());
    let failed = failures(&cases);
    let (count, all) = (failed.len(), cases.len());
    assert!(failed.is_empty(), "{count} of {all} {folder} failed:\n{}", failed.join("\n"));
}

/// Runs the cases, several at a time, each once; what was wrong with those that failed, in order.
fn failures(cases: &[PathBuf]) -> Vec<String> {
    let next = AtomicUsize::new(0);
    let failed = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                while let Some(case) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
                    if let Err(why) = check(case) {
                        failed.lock().unwrap().push(why);
                    }
                }
            });
        }
    });
    let mut failed = failed.into_inner().unwrap();
    failed.sort();
    failed
}

fn check(case: &Path) -> Result<(), String> {
    let expected = fs::read(case.with_extension("expected")).unwrap();
    let children = repository("tests/conformance/cases/child");
    let name = stem(case);
    let code = fs::read(case).unwrap();
    let code = String::from_utf8_lossy(&code);
    let is_timed = TIMED.iter().any(|word| code.contains(word));
    let is_simulated = is_timed && !REAL.contains(&&*name);
    let simulate: &[&str] = if is_simulated { &["--simulate", "1"] } else { &[] };
    let done = run(node_lua().args(simulate).arg(case).arg(children));
    // Recorded output may hold any byte: both sides are compared the same lossy way.
    let expected = String::from_utf8_lossy(&expected);
    if done.stdout != expected {
        return Err(format!("FAIL {name}\n--- expected\n{expected}--- printed: {done}"));
    }
    match done.code() {
        Some(code) if code != 124 && code < 128 => Ok(()),
        _ => Err(format!("FAIL {name}: right output, but {done}")),
    }
}

/// Waits until no other run on this machine uses the ports of the cases.
fn turn() -> TcpListener {
    loop {
        if let Ok(listener) = TcpListener::bind(("127.0.0.1", TURN_PORT)) {
            return listener;
        }
        // The holder never accepts: this connection ends when the holder does.
        if let Ok(mut holder) = TcpStream::connect(("127.0.0.1", TURN_PORT)) {
            drop(holder.read(&mut [0]));
        }
    }
}
