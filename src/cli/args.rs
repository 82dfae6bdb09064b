//! Flags and their meaning.

use std::ffi::OsString;
use std::fmt;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use lexopt::prelude::*;

/// What `--help` prints.
pub const USAGE: &str = "\
Usage: node-lua [options] script.lua [arguments]
       node-lua [options] -e CODE [arguments]
       node-lua [options] - [arguments]        the script comes from standard input

Options:
  -e CODE          run CODE
  --workers N      worker threads (default: one per core, at least 2)
  --mailbox N      messages a mailbox holds (default: 65536)
  --memory-limit N bytes that one context may use, with K, M or G for more (default: no limit)
  --turn-limit S   seconds of CPU time that one turn of a context may use (default: no limit)
  --simulate SEED  run in virtual time, on a simulated network, all chance from SEED;
                   A..B: one run for each seed from A to B
  --faults X       what goes wrong in a simulation, from 0 (nothing, the default) to 1
  --until S        end a simulation after S virtual seconds
  --patience S     give a simulation up after S real seconds (default for A..B: 60)
  --trace          print a fingerprint of a simulation at its end
  -v, --version    print the version
  -h, --help       print this text

Exit status: 0 on success, 1 if the script failed, 2 for wrong usage.
RUST_LOG sets what is logged, on standard error (default: warn; scripts log at info).
";

/// More workers than this are refused.
const WORKERS_MAX: usize = 1024;

/// Where the main script comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Main {
    /// A file.
    File(PathBuf),
    /// `-e`.
    Code(String),
    /// `-`.
    Stdin,
}

/// A command line that asks for a run.
#[derive(Clone, Debug, PartialEq)]
pub struct Run {
    /// The main script.
    pub main: Main,
    /// What follows it.
    pub arguments: Vec<OsString>,
    /// `--workers`.
    pub workers: Option<usize>,
    /// `--mailbox`.
    pub mailbox_max: Option<usize>,
    /// `--memory-limit`.
    pub memory_limit: Option<usize>,
    /// `--turn-limit`.
    pub turn_limit: Option<Duration>,
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
    /// `--faults`.
    pub faults: f64,
    /// `--until`, in virtual time.
    pub until: Option<Duration>,
    /// `--patience`, in real time.
    pub patience: Option<Duration>,
    /// `--trace`.
    pub trace: bool,
}

/// What the command line asks for.
#[derive(Clone, Debug, PartialEq)]
pub enum Command {
    /// `--help`.
    Help,
    /// `--version`.
    Version,
    /// A script to run.
    Run(Run),
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

/// Reads the arguments after the program's name.
///
/// # Errors
/// Unknown flags, wrong values, no script.
pub fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Command, UsageError> {
    let mut parser = lexopt::Parser::from_args(arguments);
    let (mut main, mut workers, mut mailbox_max) = (None, None, None);
    let (mut memory_limit, mut turn_limit) = (None, None);
    let (mut seeds, mut simulated) = (None, Simulated::default());
    while main.is_none() {
        match parser.next()? {
            Some(Short('h') | Long("help")) => return Ok(Command::Help),
            Some(Short('v') | Long("version")) => return Ok(Command::Version),
            Some(Short('e')) => main = Some(Main::Code(parser.value()?.string()?)),
            Some(Long("workers")) => {
                workers = Some(number(&mut parser, "--workers", WORKERS_MAX)?);
            }
            Some(Long("mailbox")) => {
                mailbox_max = Some(number(&mut parser, "--mailbox", u32::MAX as usize)?);
            }
            Some(Long("memory-limit")) => memory_limit = Some(bytes(&parser.value()?.string()?)?),
            Some(Long("turn-limit")) => turn_limit = Some(seconds(&mut parser, "--turn-limit")?),
            Some(Long("simulate")) => seeds = Some(seed_range(&parser.value()?.string()?)?),
            Some(Long("faults")) => simulated.faults = Some(share(&parser.value()?.string()?)?),
            Some(Long("until")) => simulated.until = Some(seconds(&mut parser, "--until")?),
            Some(Long("patience")) => {
                simulated.patience = Some(seconds(&mut parser, "--patience")?);
            }
            Some(Long("trace")) => simulated.trace = true,
            Some(Value(value)) if value == "-" => main = Some(Main::Stdin),
            Some(Value(value)) => main = Some(Main::File(value.into())),
            Some(other) => return Err(other.unexpected().into()),
            None => return Err("no script given".into()),
        }
    }
    let main = main.unwrap_or(Main::Stdin);
    // What follows the script is the script's, flags included.
    let arguments = parser.raw_args()?.collect();
    let simulation = simulated.with(seeds, &main)?;
    Ok(Command::Run(Run {
        main,
        arguments,
        workers,
        mailbox_max,
        memory_limit,
        turn_limit,
        simulation,
    }))
}

/// What was asked for that only makes sense in a simulation.
#[derive(Debug, Default)]
struct Simulated {
    faults: Option<f64>,
    until: Option<Duration>,
    patience: Option<Duration>,
    trace: bool,
}

impl Simulated {
    fn with(
        self,
        seeds: Option<(RangeInclusive<u64>, bool)>,
        main: &Main,
    ) -> Result<Option<Simulation>, UsageError> {
        let Some((seeds, is_range)) = seeds else {
            let options = [self.faults.is_some(), self.until.is_some(), self.patience.is_some()];
            return match self.trace || options.contains(&true) {
                true => Err("--faults, --until, --patience and --trace need --simulate".into()),
                false => Ok(None),
            };
        };
        if is_range && *main == Main::Stdin {
            return Err("a script from standard input runs with one seed only".into());
        }
        Ok(Some(Simulation {
            seeds,
            is_range,
            faults: self.faults.unwrap_or_default(),
            until: self.until,
            patience: self.patience,
            trace: self.trace,
        }))
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
fn share(text: &str) -> Result<f64, UsageError> {
    let number = text.parse().ok().filter(|number| (0.0..=1.0).contains(number));
    number.ok_or_else(|| UsageError(format!("--faults {text}: not a number from 0 to 1")))
}

fn number(parser: &mut lexopt::Parser, flag: &str, max: usize) -> Result<usize, UsageError> {
    let text = parser.value()?.string()?;
    match text.parse() {
        Ok(number) if (1..=max).contains(&number) => Ok(number),
        _ => Err(UsageError(format!("{flag} {text}: not a number in 1..{max}"))),
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

/// A time: `0.5`.
fn seconds(parser: &mut lexopt::Parser, flag: &str) -> Result<Duration, UsageError> {
    let text = parser.value()?.string()?;
    let number = text.parse().ok().filter(|seconds| *seconds > 0.0);
    let wrong = || UsageError(format!("{flag} {text}: not a number of seconds above 0"));
    number.and_then(|number| Duration::try_from_secs_f64(number).ok()).ok_or_else(wrong)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn run(arguments: &[&str]) -> Result<Command, UsageError> {
        parse(arguments.iter().map(OsString::from))
    }

    #[test]
    fn flags_after_the_script_are_the_scripts() {
        let Command::Run(run) = run(&["--workers", "3", "a.lua", "--help", "-e"]).unwrap() else {
            panic!("not a run");
        };
        assert_eq!(run.main, Main::File("a.lua".into()));
        assert_eq!(run.arguments, ["--help", "-e"]);
        assert_eq!(run.workers, Some(3));
    }

    #[test]
    fn code_and_standard_input_are_scripts() {
        let Command::Run(code) = run(&["-e", "print(1)", "x"]).unwrap() else { panic!() };
        assert_eq!((code.main, code.arguments.len()), (Main::Code("print(1)".into()), 1));
        let Command::Run(stdin) = run(&["-", "x"]).unwrap() else { panic!() };
        assert_eq!((stdin.main, stdin.arguments.len()), (Main::Stdin, 1));
    }

    #[test]
    fn seeds_and_what_belongs_to_them_describe_a_simulation() {
        let simulation = |arguments: &[&str]| match run(arguments).unwrap() {
            Command::Run(run) => run.simulation,
            _ => panic!("not a run"),
        };
        assert_eq!(simulation(&["a.lua", "--simulate", "1"]), None);
        let one = simulation(&["--simulate", "7", "a.lua"]).unwrap();
        assert_eq!((one.seeds, one.is_range, one.faults), (7..=7, false, 0.0));
        let line = ["--simulate", "1..9", "--faults", "0.5", "--until", "60", "--trace", "a.lua"];
        let many = simulation(&line).unwrap();
        assert_eq!((many.seeds, many.is_range, many.faults), (1..=9, true, 0.5));
        assert_eq!((many.until, many.patience), (Some(Duration::from_secs(60)), None));
        assert!(many.trace && !one.trace);
        for wrong in [
            &["--simulate", "x", "a.lua"][..],
            &["--simulate", "9..1", "a.lua"],
            &["--simulate", "1", "--faults", "1.5", "a.lua"],
            &["--simulate", "1", "--until", "-1", "a.lua"],
            &["--simulate", "1..2", "-"],
            &["--faults", "0.5", "a.lua"],
            &["--trace", "a.lua"],
        ] {
            assert!(run(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn wrong_values_are_named_with_the_limit() {
        for value in ["0", "1025", "many", "-1"] {
            let error = run(&["--workers", value, "a.lua"]).unwrap_err().to_string();
            assert!(error.contains(value) && error.contains("1..1024"), "{error}");
        }
        assert!(run(&[]).is_err());
        assert!(run(&["--no-such-flag"]).is_err());
    }
}
