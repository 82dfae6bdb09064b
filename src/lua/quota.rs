//! How many of a context's uncaught errors are logged, and how much of what a confined script logs.

use std::sync::Arc;

use crate::logging::Throttle;
use crate::sched::Context;

/// Errors of one context in 10 s, and bytes of them.
const ERRORS_MAX: u32 = 100;
const ERROR_BYTES_MAX: usize = 1 << 20;

/// The same for entries of a confined script.
const LINES_MAX: u32 = 10_000;
const LINE_BYTES_MAX: usize = 4 << 20;

/// Made when something is logged: most contexts never fail.
#[derive(Debug, Default)]
pub(super) struct Quota {
    errors: Option<Box<Throttle>>,
    lines: Option<Box<Throttle>>,
}

impl Quota {
    /// Whether an error of so many bytes is logged; it is counted otherwise.
    pub(super) fn admits_error(&mut self, bytes: usize, context: &Arc<Context>) -> bool {
        let new = || Box::new(Throttle::new("errors", ERRORS_MAX, ERROR_BYTES_MAX));
        self.errors.get_or_insert_with(new).admits(bytes, &context.label())
    }

    /// The same for an entry of a confined script.
    pub(super) fn admits_line(&mut self, bytes: usize, context: &Arc<Context>) -> bool {
        let new = || Box::new(Throttle::new("entries", LINES_MAX, LINE_BYTES_MAX));
        self.lines.get_or_insert_with(new).admits(bytes, &context.label())
    }

    /// Has the log tell of what was left out.
    pub(super) fn tell(&self) {
        [&self.errors, &self.lines].into_iter().flatten().for_each(|throttle| throttle.tell());
    }
}
