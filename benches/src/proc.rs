//! What the kernel knows about another process and its children: CPU time, switches, memory.

use std::collections::BTreeMap;
use std::fs;
use std::ops::Sub;

use crate::sys;

/// A reading of the counters of a process tree.
#[derive(Clone, Copy, Debug, Default)]
pub struct Usage {
    /// CPU seconds of all threads, ended ones included.
    pub cpu: f64,
    /// Context switches of the living threads, voluntary and not.
    pub switches: f64,
    /// Resident bytes, shared pages counted in parts.
    pub memory: f64,
}

impl Sub for Usage {
    type Output = Usage;

    fn sub(self, earlier: Usage) -> Usage {
        Usage {
            cpu: self.cpu - earlier.cpu,
            switches: self.switches - earlier.switches,
            memory: self.memory - earlier.memory,
        }
    }
}

/// Sums the counters of `pid` and all its descendants; what is gone counts nothing.
pub fn usage(pid: u32) -> Usage {
    let mut sum = Usage::default();
    for pid in tree(pid) {
        sum.cpu += sys::process_cpu(pid).map_or(0.0, |t| t.as_secs_f64());
        sum.switches += switches(pid);
        sum.memory += memory(pid);
    }
    sum
}

/// CPU seconds only: cheap enough for the edges of a measurement.
pub fn cpu(pid: u32) -> f64 {
    tree(pid).iter().map(|&p| sys::process_cpu(p).map_or(0.0, |t| t.as_secs_f64())).sum()
}

/// CPU seconds of each living thread, by number.
pub fn threads(pid: u32) -> BTreeMap<String, f64> {
    let of = |task: String| {
        let stat = fs::read_to_string(format!("{task}/schedstat")).ok()?;
        let ns: f64 = stat.split_whitespace().next()?.parse().ok()?;
        Some((task, ns / 1e9))
    };
    tree(pid).into_iter().flat_map(tasks).filter_map(of).collect()
}

/// CPU seconds of the thread that worked most between two readings.
pub fn busiest(before: &BTreeMap<String, f64>, after: &BTreeMap<String, f64>) -> f64 {
    let used = |(task, cpu): (&String, &f64)| cpu - before.get(task).unwrap_or(&0.0);
    after.iter().map(used).fold(0.0, f64::max)
}

fn tree(root: u32) -> Vec<u32> {
    let mut found = vec![root];
    let mut at = 0;
    while at < found.len() {
        for task in tasks(found[at]) {
            let children = fs::read_to_string(format!("{task}/children")).unwrap_or_default();
            found.extend(children.split_whitespace().filter_map(|s| s.parse::<u32>().ok()));
        }
        at += 1;
    }
    found
}

fn tasks(pid: u32) -> Vec<String> {
    let Ok(list) = fs::read_dir(format!("/proc/{pid}/task")) else { return Vec::new() };
    list.flatten().map(|entry| entry.path().display().to_string()).collect()
}

fn switches(pid: u32) -> f64 {
    let fields = ["voluntary_ctxt_switches:", "nonvoluntary_ctxt_switches:"];
    let of_task = |task: &String| {
        let status = fs::read_to_string(format!("{task}/status")).unwrap_or_default();
        fields.iter().filter_map(|field| number_after(&status, field)).sum::<f64>()
    };
    tasks(pid).iter().map(of_task).sum()
}

fn memory(pid: u32) -> f64 {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    number_after(&rollup, "Pss:").unwrap_or(0.0) * 1024.0
}

fn number_after(text: &str, field: &str) -> Option<f64> {
    let line = text.lines().find(|line| line.starts_with(field))?;
    line[field.len()..].split_whitespace().next()?.parse().ok()
}
