//! What is measured: each row's work, as cells of the suite.

mod curves;
mod datagrams;
mod loops;
mod scripts;
mod sockets;

use std::thread;
use std::time::Duration;

use crate::contestants::Contestants;
use crate::table::Row;

/// What all rows share.
#[derive(Debug)]
pub struct Suite {
    /// Who takes part.
    pub contestants: Contestants,
    /// Measured time of a run against a server.
    pub measure: Duration,
    /// Time before it.
    pub warm_up: Duration,
    /// Generator threads; by default two where cores are left for them.
    pub threads: Option<usize>,
    /// Divides the amount of work of the rows that run to an end.
    pub lighter: usize,
}

impl Suite {
    /// Generator threads against so many workers: two if the machine has cores for all.
    fn threads(&self, workers: usize) -> usize {
        let cores = thread::available_parallelism().map_or(1, usize::from);
        self.threads.unwrap_or(if workers > 1 || cores > workers + 1 { 2 } else { 1 })
    }
}

/// Every row, in the order of the output.
pub fn all(suite: &Suite) -> Vec<Row<'_>> {
    let mut rows = vec![
        sockets::echo(suite, 1),
        sockets::echo(suite, 2),
        datagrams::row(suite),
        sockets::gate(suite),
        sockets::broadcast(suite),
        sockets::idle(suite),
        loops::row(suite),
    ];
    rows.extend(scripts::rows(suite));
    rows.extend(curves::rows(suite));
    rows
}
