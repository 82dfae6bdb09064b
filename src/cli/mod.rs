//! The command line.
//!
//! # Examples
//! ```
//! use node_lua::cli::args::{Command, parse};
//!
//! let words = ["--workers", "2", "main.lua", "first"].map(Into::into);
//! let Ok(Command::Run(run)) = parse(words, || true) else { panic!("a script is to be run") };
//! assert_eq!((run.workers, run.arguments.len()), (Some(2), 1));
//! assert!(parse(["--no-such-flag".into()], || true).is_err());
//! ```

pub mod args;
mod cluster;
mod paths;
pub mod run;
mod simulate;
