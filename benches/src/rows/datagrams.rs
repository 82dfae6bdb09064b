//! Datagram echo.

use std::time::Duration;

use crate::child::{Child, free_port};
use crate::contestants::Who;
use crate::datagrams::{Asking, run};
use crate::proc;
use crate::rows::Suite;
use crate::table::{Cell, Entry, Row, Sample, compared, plain};

const START_LIMIT: Duration = Duration::from_secs(20);

/// Echo of 64 bytes, one server worker.
pub fn row(suite: &Suite) -> Row<'_> {
    let mut cells = Vec::new();
    for sockets in [1, 50, 500] {
        for depth in [1, 16] {
            let asking = Asking {
                port: 0,
                sockets,
                size: 64,
                depth,
                warm_up: suite.warm_up,
                measure: suite.measure,
            };
            let entries = suite.contestants.of("udp").into_iter().map(|who| {
                let asking = asking.clone();
                let run = move || measure(suite, who, &asking);
                Entry { who, variant: "", run: Box::new(run) }
            });
            let label = format!("64 B × {sockets}, depth {depth}");
            cells.push(Cell { label, x: 0.0, entries: entries.collect() });
        }
    }
    let metrics = vec![
        compared("messages_per_s", "datagrams/s"),
        compared("server_cpu_us", "server CPU µs/datagram"),
        compared("per_cpu_s", "datagrams per server CPU-s"),
        plain("server_cores", "server cores busy"),
        plain("generator_us", "generator CPU µs/datagram"),
        plain("again", "askers that asked again"),
    ];
    let title = "Datagram echo, one server worker";
    Row { name: "udp", title, reference: Who::Go, metrics, cells, curves: &[] }
}

fn measure(suite: &Suite, who: Who, asking: &Asking) -> Result<Sample, String> {
    let asking = Asking { port: free_port()?, ..asking.clone() };
    let program = suite.contestants.program(who, "udp", 1, &[asking.port.to_string()])?;
    let mut server = Child::start(&program)?;
    server.wait_for("ready", START_LIMIT)?;
    let mut cpu = Vec::new();
    let answered = run(&asking, || cpu.push(proc::cpu(server.pid())));
    let answered = answered.map_err(|error| server.complaint(&error.to_string()))?;
    let (used, datagrams) = (cpu[1] - cpu[0], answered.datagrams as f64);
    Ok([
        ("messages_per_s", datagrams / answered.seconds),
        ("server_cpu_us", used * 1e6 / datagrams),
        ("per_cpu_s", datagrams / used),
        ("server_cores", used / answered.seconds),
        ("generator_us", answered.generator_cpu * 1e6 / datagrams),
        ("again", answered.again as f64),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into())
}
