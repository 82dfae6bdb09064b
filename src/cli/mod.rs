//! The command line.

pub mod args;
mod cluster;
mod paths;
pub mod run;
mod simulate;
