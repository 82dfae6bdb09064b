//! From the command line to the exit status.

use std::ffi::{CString, OsString};
use std::fs::File;
use std::io::{IsTerminal, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use super::args::{self, Command, Main, Run, USAGE};
use super::{cluster, paths, simulate};
use crate::lua::{self, CommandLine, Deny, LuaProgram, Quota, Script, Settings, Source, Step};
use crate::message::{Text, Value};
use crate::os::{self, memory, stdio, thread};
use crate::sched::{Process, Scheduler};
use crate::{failpoint, logging, net};

/// How long the process waits, at its end, for what was written to be read.
pub(super) const FLUSH_PATIENCE: Duration = Duration::from_secs(4);

/// Workers that there are at least: one that is stuck must not stop the others.
const WORKERS_MIN: usize = 2;

const USAGE_STATUS: u8 = 2;

/// Runs the command line; returns the exit status.
pub fn run(arguments: Vec<OsString>) -> ExitCode {
    let program = arguments.first().cloned().unwrap_or_else(|| "node-lua".into());
    let program = from_any_folder(program);
    match args::parse(arguments.into_iter().skip(1), || std::io::stdin().is_terminal()) {
        Ok(Command::Help) => print(USAGE),
        Ok(Command::Version) => print(&version()),
        Ok(Command::Run(run)) => run_script(&program, &run),
        Err(error) => {
            complain(&format!("{error}\n{USAGE}"));
            ExitCode::from(USAGE_STATUS)
        }
    }
}

fn version() -> String {
    format!("node-lua {} ({})\n", env!("CARGO_PKG_VERSION"), crate::vm::prelude::vm_version())
}

/// Writes to standard error; that it may be closed, or its disk full, changes no exit status.
pub(super) fn complain(text: &str) {
    let _ = writeln!(std::io::stderr(), "node-lua: {text}");
}

fn print(text: &str) -> ExitCode {
    match std::io::stdout().write_all(text.as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

/// A name of this program that holds in any folder, since scripts run it again as `arg[-1]`: a path
/// is made absolute, a name that is looked up stays.
fn from_any_folder(program: OsString) -> OsString {
    let is_path = program.as_bytes().contains(&b'/');
    match std::path::absolute(&program) {
        Ok(path) if is_path => path.into_os_string(),
        _ => program,
    }
}

fn run_script(program: &OsString, run: &Run) -> ExitCode {
    let has_init = init(run).is_some();
    if run.tells_version && !has_init && print(&version()) != ExitCode::SUCCESS {
        return ExitCode::FAILURE;
    }
    let has_more = has_init || run.is_interactive || !run.steps.is_empty();
    if run.main == Main::Nothing && !has_more {
        return ExitCode::SUCCESS;
    }
    if let Some(simulation) = &run.simulation {
        return simulate::run(run, simulation);
    }
    logging::init();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let workers = run.workers.unwrap_or(cores.max(WORKERS_MIN));
    let Some((scheduler, settings)) = prepare(program, run, workers) else {
        return ExitCode::FAILURE;
    };
    let joined = cluster::join(run, &scheduler);
    if let Err(error) = joined.and_then(|()| start(&scheduler, &settings)) {
        complain(&error.to_string());
        return ExitCode::FAILURE;
    }
    scheduler.wait_until_done();
    cluster::leave();
    net::wait_for_lingering(FLUSH_PATIENCE);
    failpoint::report();
    if !stdio::finish() {
        settings.fail();
    }
    if scheduler.is_stuck() {
        // The C library may want to write what is stuck.
        os::exit::exit_soon(settings.status().into());
    }
    ExitCode::from(settings.status())
}

/// A scheduler with the main script, which no worker runs yet; `None` after printing the reason if
/// that fails.
pub(super) fn prepare(
    program: &OsString,
    run: &Run,
    workers: usize,
) -> Option<(Arc<Scheduler>, Arc<Settings>)> {
    if run.is_interactive {
        os::stdio::unbuffer_input();
    }
    let script = match script(program, run) {
        Ok(script) => script,
        Err(error) => {
            let place = match &run.main {
                Main::File(path) => path.display().to_string(),
                _ => "standard input".to_owned(),
            };
            complain(&format!("{place}: {error}"));
            return None;
        }
    };
    let mut settings = Settings::default();
    if let Some(mailbox_max) = run.mailbox_max {
        settings.limits.mailbox = mailbox_max;
    }
    if let Some(bytes) = run.memory_limit {
        settings.limits.set_memory(bytes);
    }
    settings.limits.turn = run.turn_limit;
    settings.compiler = run.steps.iter().filter_map(for_all).collect();
    settings.ignores_environment = run.ignores_environment;
    settings.process = Arc::new(Process::new(run.grace, run.exits_with_main));
    let settings = Arc::new(settings);
    lua::init();
    // One more for the threads that run no contexts.
    memory::limit_pools(workers + 1);
    let scheduler = Scheduler::new(workers);
    let main = LuaProgram::new(&settings, script);
    scheduler.spawn(None, settings.limits, main)?;
    Some((scheduler, settings))
}

/// Starts the workers, and what watches for signals.
fn start(scheduler: &Arc<Scheduler>, settings: &Settings) -> std::io::Result<()> {
    settings.process.start(scheduler)?;
    for index in 0..scheduler.workers() {
        let scheduler = Arc::clone(scheduler);
        thread::spawn(&format!("worker-{index}"), move || scheduler.run_worker(index))?;
    }
    scheduler.start_watchdog()
}

/// The options that hold for the VMs of all contexts: `-O`, and the compiler on or off. What traces
/// or profiles is for the main script's VM alone.
fn for_all(step: &Step) -> Option<(u8, Vec<u8>)> {
    let word = step.words.first()?;
    let is_for_all = step.kind == b'O' || step.kind == b'j' && (word == b"on" || word == b"off");
    is_for_all.then(|| (step.kind, word.clone()))
}

/// What is to run before all else, and before the version is told.
fn init(run: &Run) -> Option<OsString> {
    std::env::var_os("LUA_INIT").filter(|_| !run.ignores_environment)
}

fn script(program: &OsString, run: &Run) -> std::io::Result<Script> {
    let mut steps = Vec::new();
    if let Some(text) = init(run) {
        steps.push(Step::new(b'I', [text]));
        if run.tells_version {
            steps.push(Step::new(b'v', [version().into()]));
        }
    }
    steps.extend(run.steps.iter().cloned());
    let (name, mut source) = match &run.main {
        Main::File(path) => (Some(path.clone().into_os_string()), Source::File(path.clone(), None)),
        Main::Nothing => (None, Source::Nothing),
        Main::Stdin => (Some("-".into()), Source::Stdin),
        Main::Unnamed => (None, Source::Stdin),
    };
    if matches!(source, Source::Stdin) && steps.is_empty() && !run.is_interactive {
        let mut text = Vec::new();
        // By a descriptor of its own: Rust's `Stdin` takes one that is closed for an empty one.
        let input = std::io::stdin().as_fd().try_clone_to_owned()?;
        File::from(input).read_to_end(&mut text)?;
        source = Source::Text { name: CString::from(c"=stdin"), text };
    }
    if let Main::File(path) = &run.main
        && steps.is_empty()
        && std::fs::metadata(path).is_ok_and(|found| !found.is_file() && !found.is_dir())
    {
        // A pipe, of a shell's `<(…)` perhaps: no context has a thread wait for that.
        let name = CString::new([b"@", path.as_os_str().as_bytes()].concat())?;
        source = Source::Text { name, text: std::fs::read(path)? };
    }
    // The usual case: a single text runs as the script itself.
    if run.main == Main::Nothing
        && !run.is_interactive
        && let [Step { kind: b'e', words }] = &mut steps[..]
    {
        let text = words.pop().unwrap_or_default();
        source = Source::Text { name: c"=(command line)".into(), text };
        steps.clear();
    }
    let script_path = match &run.main {
        Main::File(path) => Some(path.as_path()),
        _ => None,
    };
    let paths = Some(paths::find(script_path, run.ignores_environment)?);
    let texts: Vec<Vec<u8>> = run.arguments.iter().cloned().map(OsString::into_vec).collect();
    let arguments = texts.iter().map(|text| Value::String(Text::new(text))).collect();
    // How a simulation is called must not matter.
    let before = if run.simulation.is_none() { &run.before[..] } else { &[] };
    let before = std::iter::once(program.clone()).chain(before.iter().cloned());
    let command_line = CommandLine {
        before: before.map(OsStringExt::into_vec).collect(),
        script: name.into_iter().map(OsString::into_vec).chain(texts).collect(),
        steps,
        is_interactive: run.is_interactive,
    };
    let deny = Deny::default();
    let command_line = Some(command_line);
    let (held, is_secret, quota) = (None, false, Quota::default());
    Ok(Script { source, arguments, paths, command_line, deny, held, is_secret, quota })
}
