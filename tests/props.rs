//! The fuzz targets on small budgets: the inputs that are kept in `fuzz/corpus/`, and random ones.
//!
//! How to fuzz for longer is in `tests/README.md`.

#![allow(clippy::unwrap_used, reason = "a test")]

#[allow(dead_code, unreachable_pub, reason = "shared with the drivers")]
#[path = "../fuzz/src/mutate.rs"]
mod mutate;
mod support;
#[allow(unreachable_pub, reason = "shared with the drivers")]
#[path = "../fuzz/src/targets/mod.rs"]
mod targets;

use std::fs;

use mutate::{Random, mutate};
use proptest::prelude::*;
use support::{repository, vm};
use targets::{INPUT_MAX, TARGETS};

/// The inputs kept for a target.
fn corpus(name: &str) -> Vec<Vec<u8>> {
    let folder = repository(&format!("fuzz/corpus/{name}"));
    let entries = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{folder:?}: {error}"));
    let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths.iter().map(|path| fs::read(path).unwrap()).collect()
}

#[test]
fn kept_inputs_have_no_finding() {
    for (name, target) in TARGETS {
        let corpus = corpus(name);
        assert!(!corpus.is_empty(), "nothing is kept for {name}");
        for input in corpus {
            assert!(input.len() <= INPUT_MAX, "{name}: an input of {} bytes", input.len());
            target(&input);
        }
    }
}

#[test]
fn changed_inputs_have_no_finding() {
    for (name, target) in TARGETS {
        let corpus = corpus(name);
        let mut random = Random::new(1);
        for _ in 0..500 {
            target(&mutate(&mut random, &corpus));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_have_no_finding(
        target in 0..TARGETS.len(),
        input in proptest::collection::vec(any::<u8>(), 0..300),
    ) {
        TARGETS[target].1(&input);
    }
}
