//! What a context does with its turns.

use std::sync::Arc;

use super::Context;
use crate::error::Code;

/// The state between two turns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing to do until the next event.
    Idle,
    /// The turn was cut short: there is more to do at once.
    More,
    /// The context has ended.
    Ended,
}

/// Why a context ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// By itself: nothing was pending any more, or the script destroyed its own context.
    Normal,
    /// Another context, or the process's end, destroyed it; with the reason given, if any.
    Destroyed(Option<String>),
    /// It broke a limit.
    Limit(Code),
}

/// One context's program. All calls come from one thread at a time.
pub trait Behavior: Send {
    /// Runs until nothing is left to do or the turn's bound is reached. Returns what comes next and
    /// the cost of the turn, in messages' worth of work.
    fn turn(&mut self, context: &Arc<Context>) -> (Outcome, usize);

    /// Releases everything the program holds. Called once, after the last turn.
    fn end(self: Box<Self>, reason: &End);
}
