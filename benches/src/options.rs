//! The command line of the runner.

use std::path::PathBuf;
use std::time::Duration;

use lexopt::prelude::*;

use crate::contestants::{ALL, Who, root};

/// How to use it.
pub const USAGE: &str = "\
usage: node-lua-bench COMMAND [options]
  all                   build and run every row and curve
  row NAME...           run these rows only (a name's beginning is enough for several: curve)
  list                  name the rows
  load PORT PID         the load generator alone, against a server that runs already
  serve NAME ARGS...    a contestant written in Rust (used by the runner)
options:
  --node-lua PATH       the binary to measure (default: target/release/node-lua)
  --before PATH         an older binary, which takes part as `before`
  --only A,B            contestants to run (default: all that are installed)
  --rounds N            rounds (default 5)
  --seconds S           measured time of a run against a server (default 1)
  --warm-up S           time before it (default 0.4)
  --threads N           generator threads (default: 2, or 1 where cores are few)
  --quick               a tenth of the work, two rounds, 0.3 s: does everything run?
  --out FILE            write the Markdown there too (default with all: benches/results.md)
  --plot FILE           write the curves there (default with all: benches/curves.svg)
for load:
  --connections N --size N --depth N --head-bytes 1|2|4 --big-endian";

/// What the command line says.
#[derive(Clone, Debug)]
pub struct Options {
    /// The command and its arguments.
    pub words: Vec<String>,
    /// The binary to measure.
    pub node_lua: PathBuf,
    /// An older one to compare with.
    pub before: Option<PathBuf>,
    /// Contestants to look for.
    pub only: Vec<Who>,
    /// Rounds.
    pub rounds: usize,
    /// Measured time.
    pub measure: Duration,
    /// Time before it.
    pub warm_up: Duration,
    /// Generator threads.
    pub threads: Option<usize>,
    /// Divides work.
    pub lighter: usize,
    /// Where the Markdown goes.
    pub out: Option<PathBuf>,
    /// Where the curves go.
    pub plot: Option<PathBuf>,
    /// The load generator's own.
    pub connections: usize,
    /// Bytes of a body.
    pub size: usize,
    /// Frames under way.
    pub depth: usize,
    /// Bytes of a head.
    pub head_bytes: usize,
    /// Order of a head's bytes.
    pub big_endian: bool,
}

impl Options {
    /// Reads the arguments of this process.
    ///
    /// # Errors
    ///
    /// With a sentence for the user.
    pub fn from_env() -> Result<Options, String> {
        let mut o = Options {
            words: Vec::new(),
            node_lua: root().join("../target/release/node-lua"),
            before: None,
            only: ALL.to_vec(),
            rounds: 5,
            measure: Duration::from_secs(1),
            warm_up: Duration::from_millis(400),
            threads: None,
            lighter: 1,
            out: None,
            plot: None,
            connections: 50,
            size: 64,
            depth: 1,
            head_bytes: 2,
            big_endian: false,
        };
        let mut parser = lexopt::Parser::from_env();
        o.read(&mut parser).map_err(|e| e.to_string())?;
        Ok(o)
    }

    fn read(&mut self, parser: &mut lexopt::Parser) -> Result<(), lexopt::Error> {
        while let Some(argument) = parser.next()? {
            match argument {
                Value(word) => {
                    self.words.push(word.string()?);
                    if self.words[0] == "serve" {
                        for word in parser.raw_args()? {
                            self.words.push(word.string()?);
                        }
                    }
                }
                Long("node-lua") => self.node_lua = parser.value()?.into(),
                Long("before") => self.before = Some(parser.value()?.into()),
                Long("only") => self.only = contestants(&parser.value()?.string()?)?,
                Long("rounds") => self.rounds = parser.value()?.parse()?,
                Long("seconds") => self.measure = duration(parser)?,
                Long("warm-up") => self.warm_up = duration(parser)?,
                Long("threads") => self.threads = Some(parser.value()?.parse()?),
                Long("quick") => {
                    self.lighter = 10;
                    self.rounds = 2;
                    self.measure = Duration::from_millis(300);
                    self.warm_up = Duration::from_millis(200);
                }
                Long("out") => self.out = Some(parser.value()?.into()),
                Long("plot") => self.plot = Some(parser.value()?.into()),
                Long("connections") => self.connections = parser.value()?.parse()?,
                Long("size") => self.size = parser.value()?.parse()?,
                Long("depth") => self.depth = parser.value()?.parse()?,
                Long("head-bytes") => self.head_bytes = parser.value()?.parse()?,
                Long("big-endian") => self.big_endian = true,
                other => return Err(other.unexpected()),
            }
        }
        Ok(())
    }
}

fn duration(parser: &mut lexopt::Parser) -> Result<Duration, lexopt::Error> {
    let seconds: f64 = parser.value()?.parse()?;
    Duration::try_from_secs_f64(seconds).map_err(|e| e.to_string().into())
}

fn contestants(names: &str) -> Result<Vec<Who>, lexopt::Error> {
    let find = |name: &str| {
        let who = ALL.into_iter().find(|who| who.name() == name);
        who.ok_or_else(|| format!("no contestant {name:?}").into())
    };
    names.split(',').map(find).collect()
}
