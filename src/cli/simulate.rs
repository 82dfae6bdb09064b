//! Simulated runs: one seed in this process, or a process for each of many.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::Write;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::process::CommandExt;
use std::process::{self, ExitCode, Output};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, mpsc};
use std::time::Duration;

use super::args::{GRACE, Main, Run, Simulation};
use super::cluster;
use super::run::{FLUSH_PATIENCE, complain, prepare};
use crate::lua::Settings;
use crate::os::{self, Signal, stdio, thread};
use crate::sched::{End, Scheduler, run_together};
use crate::sync::lock;
use crate::{logging, net, rt, sim};

/// Real time that one of many seeds may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// Seeds that fail, of many, whose output is shown.
const SHOWN_MAX: usize = 10;

/// Contexts that are listed when nothing can happen any more.
const LISTED_MAX: usize = 20;

/// Runs what was asked for; returns the exit status.
pub(super) fn run(run: &Run, simulation: &Simulation) -> ExitCode {
    // Native functions show where they are in tracebacks.
    if os::fix_addresses() && !simulation.is_range {
        return execute_again();
    }
    if simulation.is_range { run_all(run, simulation) } else { run_one(run, simulation) }
}

/// Runs the same command line in place of this process.
fn execute_again() -> ExitCode {
    let error = std::env::current_exe()
        .map(|program| process::Command::new(program).args(std::env::args_os().skip(1)).exec());
    complain(&format!("not executed again: {}", error.unwrap_or_else(|error| error)));
    ExitCode::FAILURE
}

type World = OnceLock<(Arc<Scheduler>, Arc<Settings>)>;

fn run_one(run: &Run, options: &Simulation) -> ExitCode {
    let seed = *options.seeds.start();
    logging::init_simulated();
    let world: Arc<World> = Arc::default();
    let stalled = Arc::clone(&world);
    sim::start(sim::Config {
        seed,
        faults: options.faults,
        cuts: options.cuts,
        on_stall: Box::new(move || on_stall(&stalled)),
    });
    // The script finds the program's name; how it was called must not matter.
    let Some((scheduler, settings)) = prepare(&"node-lua".into(), run, 1) else {
        return ExitCode::FAILURE;
    };
    let others = match options.nodes {
        Some(count) => match cluster::simulate(run, options.faults, count, &scheduler) {
            Some(others) => Some(others),
            None => return ExitCode::FAILURE,
        },
        None => None,
    };
    let _ = world.set((Arc::clone(&scheduler), Arc::clone(&settings)));
    if let Some(until) = options.until {
        let scheduler = Arc::clone(&scheduler);
        rt::spawn(async move {
            rt::sleep(until).await;
            scheduler.destroy_all(&End::Destroyed(None));
        });
    }
    let (ended, end) = mpsc::channel();
    let work = move || {
        match &others {
            Some(all) => run_together(all),
            None => scheduler.run_worker(0),
        }
        net::wait_for_lingering(FLUSH_PATIENCE);
        // The other side may have lost patience.
        let _ = ended.send(());
    };
    if let Err(error) = thread::spawn("simulation", work) {
        complain(&error.to_string());
        return ExitCode::FAILURE;
    }
    let is_over = match options.patience {
        Some(patience) => end.recv_timeout(patience).is_ok(),
        None => end.recv().is_ok(),
    };
    if !is_over {
        complain(&format!("seed {seed}: not over yet, at {:.6} s", rt::now() as f64 / 1e9));
        return ExitCode::FAILURE;
    }
    if options.trace {
        let sim::Report { trace, steps, time } = sim::report();
        let time = time as f64 / 1e9;
        complain(&format!("seed {seed}: trace {trace:016x}, {steps} steps, {time:.6} s"));
    }
    if !stdio::finish() {
        settings.fail();
    }
    ExitCode::from(settings.status())
}

/// Nothing can happen any more. A simulation gets no signals from outside, so contexts that handle
/// SIGTERM are sent it now. Otherwise says who waits, and ends all contexts.
fn on_stall(world: &World) {
    let Some((scheduler, settings)) = world.get() else { return };
    let process = &settings.process;
    if process.tell(Signal::Term) > 0 {
        let (process, scheduler) = (Arc::clone(process), Arc::clone(scheduler));
        let grace = process.grace().unwrap_or(PATIENCE);
        rt::spawn(async move {
            rt::sleep(grace).await;
            process.end(&scheduler, Signal::Term.exit_status());
        });
        return;
    }
    let contexts = scheduler.registry().all();
    log::error!("nothing can happen any more; contexts that wait for ever: {}", contexts.len());
    for context in contexts.iter().take(LISTED_MAX) {
        let (label, messages) = (context.label(), context.waiting());
        let queries = context.unanswered();
        log::error!("{label}: {messages} messages unread, {queries} queries unanswered");
    }
    settings.fail();
    scheduler.destroy_all(&End::Destroyed(None));
}

/// The arguments of one run of many, up to the script and with what follows it.
fn arguments(run: &Run, options: &Simulation, seed: u64) -> Vec<OsString> {
    let mut all: Vec<OsString> = vec!["--simulate".into(), seed.to_string().into()];
    let mut add = |flag: &str, value: Option<String>| {
        if let Some(value) = value {
            all.extend([flag.into(), value.into()]);
        }
    };
    let seconds = |time: Duration| time.as_secs_f64().to_string();
    add("--faults", (options.faults > 0.0).then(|| options.faults.to_string()));
    add("--cuts", (options.cuts > 0.0).then(|| options.cuts.to_string()));
    add("--nodes", options.nodes.map(|count| count.to_string()));
    add("--until", options.until.map(seconds));
    add("--mailbox", run.mailbox_max.map(|count| count.to_string()));
    add("--memory-limit", run.memory_limit.map(|bytes| bytes.to_string()));
    add("--turn-limit", run.turn_limit.map(seconds));
    let grace = Some(run.grace.map_or("0".to_owned(), seconds));
    add("--grace", grace.filter(|_| run.grace != Some(GRACE)));
    all.extend(run.exits_with_main.then(|| "--exit-with-main".into()));
    all.extend(run.ignores_environment.then(|| "-E".into()));
    for step in &run.steps {
        let mut words = step.words.iter().cloned().map(OsString::from_vec);
        let mut option = OsString::from(format!("-{}", char::from(step.kind)));
        if step.kind == b'O' {
            option.extend(words.next());
        }
        all.extend(std::iter::once(option).chain(words));
    }
    match &run.main {
        Main::File(path) => all.push(path.into()),
        Main::Stdin => all.push("-".into()),
        Main::Unnamed | Main::Nothing => {}
    }
    all.extend(run.arguments.iter().cloned());
    all
}

/// What many runs have come to.
#[derive(Debug, Default)]
struct Results {
    failed: Vec<u64>,
    traces: BTreeMap<u64, String>,
    broken: Option<std::io::Error>,
}

fn run_all(run: &Run, options: &Simulation) -> ExitCode {
    let (first, last) = (*options.seeds.start(), *options.seeds.end());
    let next = AtomicU64::new(first);
    let results = Mutex::new(Results::default());
    let work = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed > last || seed < first {
                return;
            }
            let output = start(run, options, seed);
            let mut results = lock(&results);
            match output {
                Ok(output) => results.add(run, options, seed, &output),
                Err(error) => results.broken = Some(error),
            }
            if results.broken.is_some() {
                return;
            }
        }
    };
    let jobs = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(work);
        }
    });
    results.into_inner().unwrap_or_else(PoisonError::into_inner).finish(first, last)
}

/// Runs one seed in a process of its own, where nothing is left from others.
fn start(run: &Run, options: &Simulation, seed: u64) -> std::io::Result<Output> {
    let mut command = process::Command::new(std::env::current_exe()?);
    let patience = options.patience.unwrap_or(PATIENCE).as_secs_f64();
    command.arg("--patience").arg(patience.to_string());
    if options.trace {
        command.arg("--trace");
    }
    command.args(arguments(run, options, seed)).stdin(process::Stdio::null()).output()
}

impl Results {
    fn add(&mut self, run: &Run, options: &Simulation, seed: u64, output: &Output) {
        let errors = String::from_utf8_lossy(&output.stderr);
        if options.trace
            && let Some(line) = errors.lines().rev().find(|line| line.contains(": trace "))
        {
            self.traces.insert(seed, line.to_owned());
        }
        if output.status.success() {
            return;
        }
        self.failed.push(seed);
        if self.failed.len() <= SHOWN_MAX {
            let text = String::from_utf8_lossy(&output.stdout);
            let words = arguments(run, options, seed);
            let words: Vec<_> = words.iter().map(|word| word.to_string_lossy()).collect();
            let command = words.join(" ");
            let status = output.status;
            complain(&format!(
                "seed {seed} fails ({status})\n{text}{errors}replay: node-lua {command}\n"
            ));
        }
    }

    fn finish(self, first: u64, last: u64) -> ExitCode {
        for line in self.traces.values() {
            let _ = writeln!(std::io::stderr(), "{line}");
        }
        if let Some(error) = self.broken {
            complain(&format!("a seed cannot be run: {error}"));
            return ExitCode::FAILURE;
        }
        let (count, failures) = (last - first + 1, self.failed.len());
        let mut failed = self.failed;
        failed.sort_unstable();
        let list: Vec<String> = failed.iter().map(u64::to_string).collect();
        let which = if failures == 0 { String::new() } else { format!(": {}", list.join(" ")) };
        complain(&format!("{count} seeds, {failures} failed{which}"));
        if failures == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}
