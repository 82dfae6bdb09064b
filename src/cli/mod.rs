//! The command line.

pub mod args;
mod paths;
pub mod run;
mod simulate;
