//! Messages that the script was given and that nothing in it receives yet: how many bytes they
//! hold, which count for their senders while they wait.

use std::collections::HashMap;
use std::sync::Arc;

use crate::error::Code;
use crate::logging::Seldom;
use crate::message::{Allowance, Counted, Event, Value};
use crate::sched::{Context, Refused};

/// The unread messages of a context.
#[derive(Debug, Default)]
pub(super) struct Unread {
    /// The bytes of the event that was taken last; if that is a message which is handed out, that
    /// its sender counts them.
    pub(super) bytes: usize,
    counted: Option<Counted>,
    /// The same of those that wait, by the number that the library gives them.
    kept: HashMap<u64, Counted>,
}

impl Unread {
    /// Notes that this message is handed out.
    #[inline]
    pub(super) fn note(&mut self, value: &Value) {
        if let Value::Counted(inner) = value {
            self.counted = Some(inner.1.clone());
        } else if self.counted.is_some() {
            self.counted = None;
        }
    }

    /// The last message was received, or is kept already.
    #[inline]
    pub(super) fn forget(&mut self) {
        self.counted = None;
    }

    /// The message that was handed out last waits again, under this number; returns its bytes, and
    /// whether `context` has sent it to itself.
    pub(super) fn keep(&mut self, number: u64, context: &Context) -> (usize, bool) {
        let counted = self.counted.take();
        let is_own = is_of(counted.as_ref(), context);
        if let Some(counted) = counted {
            self.kept.insert(number, counted);
        }
        (self.bytes, is_own)
    }

    /// A message that waited is received; returns whether it was one to oneself.
    pub(super) fn take(&mut self, number: u64, context: &Context) -> bool {
        is_of(self.kept.remove(&number).as_ref(), context)
    }
}

/// Whether a message counts as held by `context`.
fn is_of(counted: Option<&Counted>, context: &Context) -> bool {
    let is_own = |counted: &Counted| context.allowance().is_some_and(|own| counted.is_of(own));
    counted.is_some_and(is_own)
}

/// Delivers an event of `own`; the log tells of an answer that finds no room, too.
///
/// # Errors
/// Those of [`Context::deliver`].
#[inline]
pub(super) fn deliver(to: &Arc<Context>, event: Event, own: &Context) -> Result<(), Code> {
    let is_answer = matches!(event, Event::Reply { .. });
    to.deliver(event).map_err(|refused| {
        if is_answer && refused == Refused::Full {
            to.warn_of_refusal("an answer", own.id());
        }
        Code::from(refused)
    })
}

/// Limits the warnings of [`refuse_for`].
static HELD: Seldom = Seldom::new();

/// `own` may have no more wait in the mailboxes of others: the log says so, now and then.
#[cold]
pub(super) fn refuse_for(own: &Context) -> Code {
    if HELD.is_due() {
        log::warn!(
            "{}: what it sends was refused (209): what others have not received of it yet holds as \
             much as its memory limit allows (option memory of context.create)",
            own.label()
        );
    }
    Code::MAILBOX_FULL
}

/// Delivers what counts against the allowance of its sender, `own`, as long as it waits.
///
/// # Errors
/// Those of [`Context::deliver`]; [`Code::MAILBOX_FULL`] too if the sender may hold no more. An
/// asker whose answer does not fit is told.
pub(super) fn deliver_counted(
    to: &Arc<Context>,
    allowance: &Arc<Allowance>,
    event: Event,
    own: &Context,
) -> Result<(), Code> {
    let (event, is_refused) = match event {
        Event::Message { from, session, value } => {
            let value = value.count(allowance).map_err(|_| refuse_for(own))?;
            (Event::Message { from, session, value }, false)
        }
        Event::Reply { session, result: Ok(value) } => {
            let result = value.count(allowance).map_err(|_| refuse_for(own).into());
            let is_refused = result.is_err();
            (Event::Reply { session, result }, is_refused)
        }
        event => (event, false),
    };
    deliver(to, event, own)?;
    if is_refused { Err(Code::MAILBOX_FULL) } else { Ok(()) }
}
