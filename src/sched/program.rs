//! What a context does with its turns.

use std::sync::Arc;

use super::context::Context;
use crate::message::Ending;

/// The state between two turns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing to do until the next event.
    Idle,
    /// The turn reached its bound: there is more to do at once.
    More,
    /// The turn was suspended by a cut: the next call of [`Program::turn`] resumes it.
    Cut,
    /// The context has ended.
    Ended,
}

/// Why a context ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// By itself: nothing was pending any more, or the script destroyed its own context without a
    /// reason.
    Normal,
    /// By itself, after its main chunk had failed: the text of the error, any bytes.
    Error(Vec<u8>),
    /// It was destroyed, by another context or the process's end, or by itself with a reason.
    Destroyed(Option<Vec<u8>>),
    /// It needed more memory than it may use; what has grown.
    Memory(String),
    /// A turn used more CPU time than it may; where, if known.
    Time(Option<String>),
}

impl End {
    /// The exit notice sent to watchers.
    pub fn ending(&self) -> Ending {
        let (reason, detail) = match self {
            End::Normal => ("normal", None),
            End::Error(text) => ("error", Some(&text[..])),
            End::Destroyed(reason) => ("killed", reason.as_deref()),
            End::Memory(text) => ("memory", Some(text.as_bytes())),
            End::Time(text) => ("time", text.as_ref().map(String::as_bytes)),
        };
        Ending { reason, detail: detail.map(<[u8]>::to_vec) }
    }
}

/// One context's program. All calls come from one thread at a time.
pub trait Program: Send {
    /// Runs until nothing is left to do or the turn's bound is reached. Returns what comes next and
    /// the cost of the turn, in messages' worth of work.
    fn turn(&mut self, context: &Arc<Context>) -> (Outcome, usize);

    /// Adds detail to the end that was requested, if the program has any: its turn is suspended.
    fn explain_end(&mut self) {}

    /// Releases everything the program holds. Called once, after the last turn.
    fn end(self: Box<Self>, context: &Arc<Context>, reason: &End);
}

/// A program that ends in its first turn, for tests of what surrounds one.
#[cfg(test)]
pub(super) struct Nothing;

#[cfg(test)]
impl Program for Nothing {
    fn turn(&mut self, _context: &Arc<Context>) -> (Outcome, usize) {
        (Outcome::Ended, 1)
    }

    fn end(self: Box<Self>, _context: &Arc<Context>, _reason: &End) {}
}
