//! One thing fails at a time: an allocation of a VM, a socket call, the encoding of a message. The
//! context that meets the failure gets an error or ends; nobody else notices, and nobody hangs.
//!
//! The script is `tests/failpoints/main.lua`, the switch is `src/failpoint.rs`. As many numbers are
//! tried as take some seconds; `FAILPOINT_STEP=1 cargo test --test failpoints` tries every one.

#![cfg(debug_assertions)]
#![allow(clippy::unwrap_used, reason = "a test")]

mod support;

use support::{Done, Folder, node_lua, run};

fn failpoint(order: &str, workers: &str) -> Done {
    run(node_lua().env("NODE_LUA_FAILPOINT", order).args([
        "--workers",
        workers,
        "tests/failpoints/main.lua",
    ]))
}

/// How many lines of the output begin like this.
fn count(done: &Done, start: &str) -> usize {
    done.stdout.lines().filter(|line| line.starts_with(start)).count()
}

/// How many failures of a kind a run without failures has occasion for, at least: two workers may
/// compile the same file of the library at a time, and so allocate a quarter more.
fn occasions(kind: &str) -> u64 {
    let done = failpoint("count", "1").succeeded();
    assert_eq!(count(&done, "complete"), 3, "{done}");
    let figures = done.stderr.lines().find_map(|line| line.strip_prefix("failpoint: ")).unwrap();
    let figure = figures.split(", ").find_map(|figure| figure.strip_prefix(kind)).unwrap();
    figure.trim().parse().unwrap()
}

/// Makes each `step`-th of a kind fail, and one that is never reached.
fn check(kind: &str, step: u64) {
    let total = occasions(kind);
    assert!(total > 10, "{kind}: {total}");
    let step = match std::env::var("FAILPOINT_STEP") {
        Ok(step) => step.parse().unwrap(),
        Err(_) => step,
    };
    // Runs differ by some allocations, which the slack is for.
    let mut reached = 0;
    for number in (1..=total).step_by(step as usize) {
        reached += u64::from(check_one(&format!("{kind} {number}")));
    }
    // Runs differ by some allocations.
    let slack = 10 * step + total / 50;
    assert!(reached * step + slack > total, "{reached} of {total} {kind}s failed");
    assert!(!check_one(&format!("{kind} {}", 2 * total)), "there are not as many");
}

/// Runs with one failure ordered; whether it came to that.
fn check_one(order: &str) -> bool {
    let done = failpoint(order, "2");
    let (created, complete) = (count(&done, "created"), count(&done, "complete"));
    let is_main_complete = count(&done, "complete main") == 1;
    let complete_pairs = complete - usize::from(is_main_complete);
    let may_panic = order.starts_with("native");
    assert!(may_panic || !done.stderr.contains("panicked"), "{order}: {done}");
    assert!(!done.stdout.contains("timeout"), "{order}: somebody waits for nothing: {done}");
    match done.code() {
        Some(0) => {
            assert!(is_main_complete && created == 2, "{order}: {done}");
            // Those that give up say so, or have their error in the log.
            assert!(complete_pairs >= 1, "{order}: {done}");
            let is_told = count(&done, "gave up") > 0 || done.stderr.contains("ERROR");
            assert!(complete_pairs == 2 || is_told, "{order}: {done}");
        }
        Some(1) => {
            let is_told = ["node-lua: ", "context 1"].iter().any(|by| done.stderr.contains(by));
            // What is allocated behind the last line fails when all has been done.
            let is_whole = created == 2 && complete == 3;
            assert!((!is_main_complete || is_whole) && is_told, "{order}: {done}");
            // It may have created one more than it could say.
            assert!(complete_pairs >= created, "{order}: {done}");
        }
        _ => panic!("{order}: {done}"),
    }
    let has_failed = done.stderr.contains(&format!("failpoint: {order} fails"));
    assert!(has_failed || complete == 3, "{order}: {done}");
    has_failed
}

/// Every one of them, up to those that the library is compiled with.
#[test]
fn a_failed_allocation_of_the_start_is_survived_or_told() {
    let folder = Folder::new();
    let script = folder.write("main.lua", "print('runs')");
    let mut number = 0;
    loop {
        number += 1;
        let order = format!("allocation {number}");
        let done = run(node_lua().env("NODE_LUA_FAILPOINT", &order).arg(&script));
        assert!(done.stderr.contains(&format!("{order} fails")), "{order}: {done}");
        assert!(!done.stderr.contains("panicked"), "{order}: {done}");
        match done.code() {
            Some(0) => assert_eq!(done.stdout, "runs\n", "{order}: {done}"),
            Some(1) => assert!(done.stderr.contains(" memory"), "{order}: {done}"),
            _ => panic!("{order}: {done}"),
        }
        if done.stderr.contains("the library does not load") {
            break;
        }
    }
    assert!(number > 200, "{number} before the library");
}

#[test]
fn a_failed_allocation_is_one_contexts_affair() {
    check("allocation", 41);
}

#[test]
fn a_failed_socket_call_is_one_contexts_affair() {
    check("socket", 1);
}

#[test]
fn a_failed_encoding_is_one_contexts_affair() {
    check("encode", 1);
}

/// Where the VM catches a panic it is an error of the context, whatever function it comes from.
#[test]
fn a_panic_in_a_native_function_is_one_contexts_affair() {
    check("native", 1);
}
