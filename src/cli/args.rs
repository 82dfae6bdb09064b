//! Flags and their meaning.

use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;

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
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// The main script.
    pub main: Main,
    /// What follows it.
    pub arguments: Vec<OsString>,
    /// `--workers`.
    pub workers: Option<usize>,
    /// `--mailbox`.
    pub mailbox_max: Option<usize>,
}

/// What the command line asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
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
            Some(Value(value)) if value == "-" => main = Some(Main::Stdin),
            Some(Value(value)) => main = Some(Main::File(value.into())),
            Some(other) => return Err(other.unexpected().into()),
            None => return Err(UsageError("no script given".into())),
        }
    }
    let main = main.unwrap_or(Main::Stdin);
    // What follows the script is the script's, flags included.
    let arguments = parser.raw_args()?.collect();
    Ok(Command::Run(Run { main, arguments, workers, mailbox_max }))
}

fn number(parser: &mut lexopt::Parser, flag: &str, max: usize) -> Result<usize, UsageError> {
    let text = parser.value()?.string()?;
    match text.parse() {
        Ok(number) if (1..=max).contains(&number) => Ok(number),
        _ => Err(UsageError(format!("{flag} {text}: not a number in 1..{max}"))),
    }
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
    fn wrong_values_are_named_with_the_limit() {
        for value in ["0", "1025", "many", "-1"] {
            let error = run(&["--workers", value, "a.lua"]).unwrap_err().to_string();
            assert!(error.contains(value) && error.contains("1..1024"), "{error}");
        }
        assert!(run(&[]).is_err());
        assert!(run(&["--no-such-flag"]).is_err());
    }
}
