//! What the log calls a context.

use std::fmt;
use std::sync::Arc;

use crate::logging;
use crate::message::Id;

/// A context, as the log names it: `context 7 (gate)`.
#[derive(Clone, Debug)]
pub struct Label {
    id: Id,
    name: Option<Arc<str>>,
}

impl Label {
    pub(super) fn new(id: Id, name: Option<Arc<str>>) -> Label {
        Label { id, name }
    }
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "context {}", self.id)?;
        let Some(name) = &self.name else { return Ok(()) };
        f.write_str(" (")?;
        logging::write_name(f, name)?;
        f.write_str(")")
    }
}
