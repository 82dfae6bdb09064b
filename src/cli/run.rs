//! From the command line to the exit status.

use std::ffi::{CString, OsString};
use std::io::{Read, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use super::args::{self, Command, Main, Run, USAGE};
use super::simulate;
use crate::context::{End, Scheduler};
use crate::lua::{CommandLine, Deny, Paths, Program, Script, Settings, Source, interrupt};
use crate::message::{Text, Value};
use crate::{logging, net, rt, stdio, thread, torture};

/// How long the process waits, at its end, for what was written to be read.
pub(super) const FLUSH_PATIENCE: Duration = Duration::from_secs(4);

/// How long the process runs on after a signal, at most: contexts may be busy, or peers slow.
const TERMINATION_PATIENCE: Duration = Duration::from_millis(4500);

/// Workers that there are at least: one that is stuck must not stop the others.
const WORKERS_MIN: usize = 2;

const USAGE_STATUS: u8 = 2;

/// Runs the command line; returns the exit status.
pub fn run(arguments: Vec<OsString>) -> ExitCode {
    let program = arguments.first().cloned().unwrap_or_else(|| "node-lua".into());
    match args::parse(arguments.into_iter().skip(1)) {
        Ok(Command::Help) => print(USAGE),
        Ok(Command::Version) => print(&version()),
        Ok(Command::Run(run)) => run_script(&program, run),
        Err(error) => {
            complain(&format!("{error}\n{USAGE}"));
            ExitCode::from(USAGE_STATUS)
        }
    }
}

fn version() -> String {
    format!("node-lua {} ({})\n", env!("CARGO_PKG_VERSION"), crate::lua::library::vm_version())
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

fn run_script(program: &OsString, run: Run) -> ExitCode {
    if let Some(simulation) = &run.simulation {
        return simulate::run(&run, simulation);
    }
    logging::init();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let workers = run.workers.unwrap_or(cores.max(WORKERS_MIN));
    let Some((scheduler, settings)) = prepare(program, &run, workers) else {
        return ExitCode::FAILURE;
    };
    if let Err(error) = start(&scheduler) {
        complain(&error.to_string());
        return ExitCode::FAILURE;
    }
    scheduler.wait_until_done();
    net::wait_for_lingering(FLUSH_PATIENCE);
    torture::report();
    if !stdio::finish() {
        settings.fail();
    }
    if settings.has_failed() { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// A scheduler with the main script, which no worker runs yet; nothing, after a word on it, if
/// that is not possible.
pub(super) fn prepare(
    program: &OsString,
    run: &Run,
    workers: usize,
) -> Option<(Arc<Scheduler>, Arc<Settings>)> {
    let script = match script(program, run) {
        Ok(script) => script,
        Err(error) => {
            complain(&format!("standard input: {error}"));
            return None;
        }
    };
    let mut settings = Settings::default();
    if let Some(mailbox_max) = run.mailbox_max {
        settings.limits.mailbox = mailbox_max;
    }
    if let Some(bytes) = run.memory_limit {
        settings.limits.memory = bytes;
        settings.limits.mailbox_bytes = bytes.min(settings.limits.mailbox_bytes);
    }
    settings.limits.turn = run.turn_limit;
    let settings = Arc::new(settings);
    interrupt::init();
    // One more for the threads that run no contexts.
    thread::limit_pools(workers + 1);
    let scheduler = Scheduler::new(workers);
    let main = Program::new(&settings, script);
    scheduler.spawn(None, settings.limits, main)?;
    Some((scheduler, settings))
}

/// Starts the workers, and what watches for signals.
fn start(scheduler: &Arc<Scheduler>) -> std::io::Result<()> {
    let terminated = rt::termination_signals()?;
    for index in 0..scheduler.workers() {
        let scheduler = Arc::clone(scheduler);
        thread::spawn(&format!("worker-{index}"), move || scheduler.run_worker(index))?;
    }
    scheduler.start_watchdog()?;
    let scheduler = Arc::clone(scheduler);
    rt::spawn(async move {
        terminated.await;
        log::info!("terminated by a signal");
        std::thread::spawn(|| {
            std::thread::sleep(TERMINATION_PATIENCE);
            log::warn!("contexts are still busy, or peers slow to read: the process ends");
            std::process::exit(0);
        });
        scheduler.destroy_all(&End::Destroyed(None));
    });
    Ok(())
}

fn script(program: &OsString, run: &Run) -> std::io::Result<Script> {
    let (name, source, paths) = match &run.main {
        Main::File(path) => (
            path.clone().into_os_string(),
            Source::File(path.clone()),
            Paths::Before(paths_beside(path)),
        ),
        Main::Code(code) => {
            let source = Source::Text { name: c"=(-e)".into(), text: code.clone().into_bytes() };
            ("-e".into(), source, Paths::Default)
        }
        Main::Stdin => {
            let mut text = Vec::new();
            std::io::stdin().lock().read_to_end(&mut text)?;
            ("-".into(), Source::Text { name: CString::from(c"=stdin"), text }, Paths::Default)
        }
    };
    let texts: Vec<Vec<u8>> =
        run.arguments.iter().map(|argument| argument.clone().into_vec()).collect();
    let arguments = texts.iter().map(|text| Value::String(Text::new(text))).collect();
    let script = std::iter::once(name.into_vec()).chain(texts).collect();
    let command_line = Some(CommandLine { program: program.as_bytes().to_vec(), script });
    Ok(Script { source, arguments, paths, command_line, deny: Deny::default() })
}

/// Templates that find modules beside the main script.
fn paths_beside(script: &Path) -> Vec<u8> {
    let folder = match script.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder.as_os_str().as_bytes(),
        _ => b".",
    };
    [folder, b"/?.lua;", folder, b"/?/init.lua;"].concat()
}
