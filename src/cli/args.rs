//! Flags and their meaning: those of `luajit`, and long ones.

use std::ffi::OsString;
use std::fmt;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use lexopt::prelude::*;

use crate::cluster;
use crate::lua::Step;

/// What `--help` prints.
pub const USAGE: &str = "\
Usage: node-lua [options] [script.lua [arguments]]
       node-lua [options] -e CODE [script.lua [arguments]]
       node-lua [options] - [arguments]        the script comes from standard input
       node-lua -b [options] ...               saves or lists bytecode, see node-lua -b

Options:
  -e CODE          run CODE, before the script; may be given several times, as -l, -j and -O
  -l NAME          require NAME
  -i               after the script, read lines from standard input and run them
  -j CMD           control the compiler: -jon, -joff, -jv, -jdump[=...], -jp[=...]
  -O[OPTIONS]      what the compiler optimises
  -E               ignore LUA_INIT, LUA_PATH and LUA_CPATH
  --workers N      worker threads (default: one per core, at least 2)
  --mailbox N      messages a mailbox holds (default: 65536)
  --memory-limit N bytes that one context may use, with K, M or G for more (default: no limit)
  --turn-limit S   seconds of CPU time that one turn of a context may use (default: no limit)
  --cluster URLS   be part of the cluster of these NATS servers: nats://host:port or
                   tls://host:port, with commas between several
  --cluster-creds FILE  credentials, or the seed of an nkey, for them (or environment variable
                        NODE_LUA_CLUSTER_CREDS)
  --cluster-ca FILE     certificates of authorities to trust, in place of the system's
  --cluster-cert FILE   certificate to show them, and its key
  --cluster-key FILE    its key, if that is in a file of its own
  --node NAME      what this process is called in the cluster (default: host name and process id)
  --exit-with-main end the process with the main script's context
  --grace S        seconds that a callback for INT or TERM has to end the process
                   (default: 5; 0: no limit)
  --simulate SEED  run in virtual time, on a simulated network, all chance from SEED;
                   A..B: one run for each seed from A to B
  --faults X       what goes wrong in a simulation, from 0 (nothing, the default) to 1
  --cuts X         how often turns are cut in a simulation, from 0 (never, the default) to 1
  --nodes N        simulate a cluster of N processes, each of which runs the script
  --until S        end a simulation after S virtual seconds
  --patience S     give a simulation up after S real seconds (default for A..B: 60)
  --trace          print a fingerprint of a simulation at its end
  -v               print the version, then go on
  --version        print the version
  -h, --help       print this text
  --               end of the options

Without script and -e: a program from standard input, or lines one by one if that is a terminal.
Exit status: 0 on success, 1 if the script failed, 2 for wrong usage, 130 and 143 after SIGINT and
SIGTERM.
LUA_INIT (code, or @file) runs first; LUA_PATH and LUA_CPATH say where modules are, ;; standing for
the default. RUST_LOG sets what is logged, on standard error (default: warn; scripts log at info).
";

/// More workers than this are refused.
const WORKERS_MAX: usize = 1024;

/// Processes of a simulated cluster.
const SIMULATED_NODES_MAX: usize = 100;

/// Bytes of a name of `--node`.
const NODE_NAME_MAX: usize = 253;

/// How long callbacks for signals have, unless told otherwise.
pub(super) const GRACE: Duration = Duration::from_secs(5);

/// Where the main script comes from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Main {
    /// A file.
    File(PathBuf),
    /// `-`.
    Stdin,
    /// Standard input too, without a word for it.
    Unnamed,
    /// There is none: `-e` alone, or `-i`.
    #[default]
    Nothing,
}

/// A command line that asks for a run.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Run {
    /// What comes before the main script: `-e`, `-l`, `-j` and `-O` with a word each, and `-b` with
    /// all that follows.
    pub steps: Vec<Step>,
    /// The main script.
    pub main: Main,
    /// What follows it.
    pub arguments: Vec<OsString>,
    /// What stands before it, as it was given.
    pub before: Vec<OsString>,
    /// `-i`.
    pub is_interactive: bool,
    /// `-v`.
    pub tells_version: bool,
    /// `-E`.
    pub ignores_environment: bool,
    /// `--workers`: 1 to 1,024; one per core, and at least 2, if it is absent.
    pub workers: Option<usize>,
    /// `--mailbox`: messages, at least 1.
    pub mailbox_max: Option<usize>,
    /// `--memory-limit`, in bytes.
    pub memory_limit: Option<usize>,
    /// `--turn-limit`: CPU time.
    pub turn_limit: Option<Duration>,
    /// `--exit-with-main`.
    pub exits_with_main: bool,
    /// `--grace`, in real time; `None` for no limit.
    pub grace: Option<Duration>,
    /// `--cluster`, and what belongs to it.
    pub cluster: Option<cluster::Options>,
    /// `--node`.
    pub node: Option<String>,
    /// `--simulate`, and what belongs to it.
    pub simulation: Option<Simulation>,
}

/// How to simulate.
#[derive(Clone, Debug, PartialEq)]
pub struct Simulation {
    /// The first and the last seed.
    pub seeds: RangeInclusive<u64>,
    /// Several seeds may be asked for, each of them a run.
    pub is_range: bool,
    /// `--faults`: 0 to 1.
    pub faults: f64,
    /// `--cuts`: 0 to 1.
    pub cuts: f64,
    /// `--nodes`: 1 to 100 processes.
    pub nodes: Option<usize>,
    /// `--until`, in virtual time.
    pub until: Option<Duration>,
    /// `--patience`, in real time.
    pub patience: Option<Duration>,
    /// `--trace`.
    pub trace: bool,
}

impl Default for Simulation {
    /// Of seed 0, in which nothing goes wrong.
    fn default() -> Simulation {
        let (faults, cuts, nodes, until, patience) = (0.0, 0.0, None, None, None);
        let (seeds, is_range, trace) = (0..=0, false, false);
        Simulation { seeds, is_range, faults, cuts, nodes, until, patience, trace }
    }
}

/// What the command line asks for.
#[derive(Clone, Debug, PartialEq)]
pub enum Command {
    /// `--help`.
    Help,
    /// `--version`.
    Version,
    /// A script to run.
    Run(Box<Run>),
}

/// A command line that makes no sense.
#[derive(Debug)]
pub struct UsageError(String);

impl fmt::Display for UsageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for UsageError {}

impl From<&str> for UsageError {
    fn from(text: &str) -> UsageError {
        UsageError(text.to_owned())
    }
}

impl From<lexopt::Error> for UsageError {
    fn from(error: lexopt::Error) -> UsageError {
        UsageError(error.to_string())
    }
}

/// Reads the arguments after the program's name. Standard input, where nothing else is named, holds
/// a script unless it is a terminal.
///
/// # Errors
/// Unknown flags, wrong values.
pub fn parse(
    arguments: impl IntoIterator<Item = OsString>,
    is_terminal: impl FnOnce() -> bool,
) -> Result<Command, UsageError> {
    let words: Vec<OsString> = arguments.into_iter().collect();
    let mut parser = lexopt::Parser::from_args(words.iter().cloned());
    let run = Run { grace: Some(GRACE), ..Run::default() };
    let mut given = Given { run, ..Given::default() };
    while let Some(argument) = parser.next()? {
        match argument {
            Short('h') | Long("help") => return Ok(Command::Help),
            Long("version") => return Ok(Command::Version),
            Short('b') => {
                given.take_bytecode(&mut parser)?;
                break;
            }
            Short(flag) => given.take_short(flag, &mut parser)?,
            Long(flag) => {
                let flag = flag.to_owned();
                given.take_long(&flag, &mut parser)?;
            }
            Value(value) => {
                given.run.main = match value == "-" {
                    true => Main::Stdin,
                    false => Main::File(value.into()),
                };
                // What follows the script is the script's, flags included.
                given.run.arguments = parser.raw_args()?.collect();
                break;
            }
        }
    }
    given.finish(words, is_terminal).map(|run| Command::Run(Box::new(run)))
}

/// What the flags so far have said.
#[derive(Default)]
struct Given {
    run: Run,
    servers: Option<String>,
    cluster: cluster::Options,
    seeds: Option<(RangeInclusive<u64>, bool)>,
    simulation: Simulation,
    /// A flag that needs `--simulate` was among them.
    needs_simulation: bool,
}

impl Given {
    /// Flags of `luajit`.
    fn take_short(&mut self, flag: char, parser: &mut lexopt::Parser) -> Result<(), UsageError> {
        let run = &mut self.run;
        match flag {
            'v' => run.tells_version = true,
            'i' => (run.is_interactive, run.tells_version) = (true, true),
            'E' => run.ignores_environment = true,
            'e' | 'l' | 'j' => run.steps.push(Step::new(flag as u8, [parser.value()?])),
            'O' => {
                run.steps.push(Step::new(b'O', [parser.optional_value().unwrap_or_default()]));
            }
            _ => return Err(Short(flag).unexpected().into()),
        }
        Ok(())
    }

    /// `-b` with all that follows: what is attached to it is an option of its own.
    fn take_bytecode(&mut self, parser: &mut lexopt::Parser) -> Result<(), UsageError> {
        let run = &mut self.run;
        if !run.steps.is_empty() || run.is_interactive || run.tells_version {
            return Err("-b does not go together with -e, -l, -j, -O, -i and -v".into());
        }
        let attached = parser.optional_value().map(|rest| {
            let mut word = OsString::from("-");
            word.push(rest);
            word
        });
        run.steps.push(Step::new(b'b', attached.into_iter().chain(parser.raw_args()?)));
        Ok(())
    }

    /// Flags of node-lua.
    fn take_long(&mut self, flag: &str, parser: &mut lexopt::Parser) -> Result<(), UsageError> {
        let (run, cluster, simulation) = (&mut self.run, &mut self.cluster, &mut self.simulation);
        self.needs_simulation |=
            matches!(flag, "faults" | "cuts" | "nodes" | "until" | "patience" | "trace");
        match flag {
            "workers" => run.workers = Some(number(parser, flag, WORKERS_MAX)?),
            "mailbox" => run.mailbox_max = Some(number(parser, flag, u32::MAX as usize)?),
            "memory-limit" => run.memory_limit = Some(bytes(&parser.value()?.string()?)?),
            "turn-limit" => run.turn_limit = Some(seconds(parser, flag)?),
            "cluster" => self.servers = Some(parser.value()?.string()?),
            "cluster-creds" => cluster.credentials = Some(parser.value()?.into()),
            "cluster-ca" => cluster.authorities = Some(parser.value()?.into()),
            "cluster-cert" => cluster.certificates = Some(parser.value()?.into()),
            "cluster-key" => cluster.key = Some(parser.value()?.into()),
            "node" => run.node = Some(node_name(parser.value()?.string()?)?),
            "exit-with-main" => run.exits_with_main = true,
            "grace" => run.grace = grace(&parser.value()?.string()?)?,
            "simulate" => self.seeds = Some(seed_range(&parser.value()?.string()?)?),
            "faults" => simulation.faults = share(parser, flag)?,
            "cuts" => simulation.cuts = share(parser, flag)?,
            "nodes" => simulation.nodes = Some(number(parser, flag, SIMULATED_NODES_MAX)?),
            "until" => simulation.until = Some(seconds(parser, flag)?),
            "patience" => simulation.patience = Some(seconds(parser, flag)?),
            "trace" => simulation.trace = true,
            _ => return Err(Long(flag).unexpected().into()),
        }
        Ok(())
    }

    /// The run that all `words` ask for.
    fn finish(
        self,
        mut words: Vec<OsString>,
        is_terminal: impl FnOnce() -> bool,
    ) -> Result<Run, UsageError> {
        let mut run = self.run;
        let has_script = run.main != Main::Nothing;
        words.truncate(words.len() - run.arguments.len() - usize::from(has_script));
        run.before = words;
        let runs_nothing = |step: &Step| matches!(step.kind, b'l' | b'j' | b'O');
        if !has_script && run.steps.iter().all(runs_nothing) && !run.tells_version {
            match is_terminal() {
                true => (run.is_interactive, run.tells_version) = (true, true),
                false => run.main = Main::Unnamed,
            }
        }
        run.simulation = self.simulation.with(self.seeds, self.needs_simulation, &run)?;
        run.cluster = cluster_of(self.servers, self.cluster)?;
        if run.cluster.is_some() && run.simulation.is_some() {
            return Err("--simulate and --cluster exclude each other".into());
        }
        Ok(run)
    }
}

/// The cluster of these servers; nothing if there are none.
fn cluster_of(
    servers: Option<String>,
    options: cluster::Options,
) -> Result<Option<cluster::Options>, UsageError> {
    if servers.is_none() && options != cluster::Options::default() {
        return Err("--cluster-creds, -ca, -cert and -key need --cluster".into());
    }
    if options.key.is_some() && options.certificates.is_none() {
        return Err("--cluster-key needs --cluster-cert".into());
    }
    Ok(servers.map(|servers| cluster::Options { servers, ..options }))
}

impl Simulation {
    /// One with these seeds; nothing without. Options of simulations `are_given`, or are not.
    fn with(
        self,
        seeds: Option<(RangeInclusive<u64>, bool)>,
        are_given: bool,
        run: &Run,
    ) -> Result<Option<Simulation>, UsageError> {
        let Some((seeds, is_range)) = seeds else {
            return match are_given {
                true => Err("--faults, --cuts, --nodes, --until, --patience and --trace need \
                             --simulate"
                    .into()),
                false => Ok(None),
            };
        };
        if is_range && matches!(run.main, Main::Stdin | Main::Unnamed) {
            return Err("a script from standard input runs with one seed only".into());
        }
        if run.is_interactive {
            return Err(
                "a simulation is not interactive: -i and --simulate exclude each other".into()
            );
        }
        Ok(Some(Simulation { seeds, is_range, ..self }))
    }
}

/// Seeds: `17`, or `1..1000`; and whether it is the second form.
fn seed_range(text: &str) -> Result<(RangeInclusive<u64>, bool), UsageError> {
    let (first, last) = text.split_once("..").unwrap_or((text, text));
    match (first.parse(), last.parse()) {
        (Ok(first), Ok(last)) if first <= last => Ok((first..=last, text.contains(".."))),
        _ => {
            Err(UsageError(format!("--simulate {text}: not a seed, as 17, nor seeds, as 1..1000")))
        }
    }
}

/// A share of the whole: `0.3`.
fn share(parser: &mut lexopt::Parser, flag: &str) -> Result<f64, UsageError> {
    let text = parser.value()?.string()?;
    let number = text.parse().ok().filter(|number| (0.0..=1.0).contains(number));
    number.ok_or_else(|| UsageError(format!("--{flag} {text}: not a number from 0 to 1")))
}

fn number(parser: &mut lexopt::Parser, flag: &str, max: usize) -> Result<usize, UsageError> {
    let text = parser.value()?.string()?;
    match text.parse() {
        Ok(number) if (1..=max).contains(&number) => Ok(number),
        _ => Err(UsageError(format!("--{flag} {text}: not a number in 1..{max}"))),
    }
}

/// A number of bytes: `64M`.
fn bytes(text: &str) -> Result<usize, UsageError> {
    let (digits, shift) = match text.as_bytes().last() {
        Some(b'k' | b'K') => (&text[..text.len() - 1], 10),
        Some(b'm' | b'M') => (&text[..text.len() - 1], 20),
        Some(b'g' | b'G') => (&text[..text.len() - 1], 30),
        _ => (text, 0),
    };
    let number = digits.parse().ok().filter(|number| (1..=usize::MAX >> shift).contains(number));
    let wrong = || UsageError(format!("--memory-limit {text}: not a number of bytes, as in 64M"));
    number.map(|number| number << shift).ok_or_else(wrong)
}

/// What a process is called: a line of text.
fn node_name(text: String) -> Result<String, UsageError> {
    match (1..=NODE_NAME_MAX).contains(&text.len()) && !text.contains(char::is_control) {
        true => Ok(text),
        false => Err(UsageError(format!(
            "--node {text:?}: not a name of 1 to {NODE_NAME_MAX} bytes without control characters"
        ))),
    }
}

/// A time: `0.5`.
fn seconds(parser: &mut lexopt::Parser, flag: &str) -> Result<Duration, UsageError> {
    let text = parser.value()?.string()?;
    let number = text.parse().ok().filter(|seconds| *seconds > 0.0);
    let wrong = || UsageError(format!("--{flag} {text}: not a number of seconds above 0"));
    number.and_then(|number| Duration::try_from_secs_f64(number).ok()).ok_or_else(wrong)
}

/// How long callbacks for signals have: `2.5`; nothing for 0.
fn grace(text: &str) -> Result<Option<Duration>, UsageError> {
    let number = text.parse().ok().filter(|seconds| *seconds >= 0.0);
    let wrong = || UsageError(format!("--grace {text}: not a number of seconds, 0 for no limit"));
    let time =
        number.and_then(|number| Duration::try_from_secs_f64(number).ok()).ok_or_else(wrong)?;
    Ok((!time.is_zero()).then_some(time))
}

#[cfg(test)]
#[path = "args_test.rs"]
mod tests;
