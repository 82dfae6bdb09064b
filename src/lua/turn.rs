//! A turn: the events of the mailbox, notices of sockets and signals, timers, and what it may cost.

use std::collections::VecDeque;

use super::notice::Notices;
use super::received::Received;
use super::timer::{TIMERS_MAX, Timers};
use crate::hint::rarely;
use crate::message::{Event, Id, Value};
use crate::sched::Context;

/// What one turn may cost, in messages, before other contexts run.
pub(super) const COST_PER_TURN: usize = 1024;

/// Events that a waiting context keeps room for.
const BATCH_KEPT: usize = 4096;

pub(super) struct Turn {
    batch: VecDeque<Event>,
    /// Whether anything in the batch holds bytes, and how many bytes the mailbox had received by
    /// then.
    batch_holds: bool,
    come_bytes: usize,
    pub(super) notices: Notices,
    pub(super) timers: Timers,
    /// The script has ended its context: nothing more is handed out.
    pub(super) is_ending: bool,
    /// What the turn has cost so far, in messages.
    cost: usize,
}

impl Turn {
    pub(super) fn new(timers: Timers) -> Turn {
        Turn {
            batch: VecDeque::new(),
            batch_holds: false,
            come_bytes: 0,
            notices: Notices::default(),
            timers,
            is_ending: false,
            cost: 0,
        }
    }

    /// Begins: takes what is in the mailbox, unless some of the last batch is left.
    pub(super) fn begin(&mut self, context: &Context) {
        if self.batch.is_empty() {
            self.take(context);
        }
        self.timers.look();
    }

    /// Takes what is in the mailbox, once the last batch is used up.
    #[inline]
    fn take(&mut self, context: &Context) {
        let come = context.take(&mut self.batch);
        self.batch_holds = come != self.come_bytes;
        self.come_bytes = come;
    }

    /// Takes the next event of the batch. Moved on its way, one costs as much as all else here.
    #[inline(always)]
    pub(super) fn next_event(
        &mut self,
        received: &mut Received,
        context: &Context,
    ) -> Option<Event> {
        let event = self.batch.pop_front()?;
        let holds = self.batch_holds;
        received.unread.bytes = if holds { received.note_bytes(&event, context) } else { 0 };
        Some(event)
    }

    /// Takes the next event if it is a message from `wanted` (0 for any), and nothing else is to be
    /// done before it.
    pub(super) fn next_message(
        &mut self,
        wanted: f64,
        received: &mut Received,
        context: &Context,
    ) -> Option<(Id, u64, Value)> {
        if !self.charge(1) || self.is_ending || !self.notices.is_empty() {
            return None;
        }
        if self.batch.is_empty() {
            if self.timers.has_due() {
                return None;
            }
            self.take(context);
        }
        match self.batch.front()? {
            Event::Message { from, .. } if wanted == 0.0 || from.to_number() == wanted => {}
            _ => return None,
        }
        match self.next_event(received, context)? {
            Event::Message { from, session, value } => {
                received.receive(context);
                Some((from, session, value))
            }
            _ => None,
        }
    }

    /// Adds to the cost of the turn; false once it has used up its share.
    #[inline]
    pub(super) fn charge(&mut self, cost: usize) -> bool {
        self.cost += cost;
        self.cost <= COST_PER_TURN
    }

    /// Has the turn end before anything else is done in it: what it has done took long.
    #[cfg(feature = "http")]
    pub(super) fn use_up(&mut self) {
        self.cost = self.cost.max(COST_PER_TURN);
    }

    /// The cost of the turn that ends.
    pub(super) fn take_cost(&mut self) -> usize {
        std::mem::take(&mut self.cost)
    }

    /// True if events wait that came before this turn.
    pub(super) fn has_older(&self) -> bool {
        !self.batch.is_empty()
    }

    /// True if the turn was cut short.
    pub(super) fn has_more(&self) -> bool {
        self.has_older() || !self.notices.is_empty() || self.timers.has_due()
    }

    /// The slots of timers that are due, each with whether it repeats; those taken before are over.
    pub(super) fn take_due(&mut self) -> impl Iterator<Item = (u32, bool)> {
        let may_run = self.charge(0) && !self.is_ending;
        let cost = &mut self.cost;
        self.timers.take_due(if may_run { TIMERS_MAX } else { 0 }).inspect(move |_| *cost += 1)
    }

    /// Gives back what a burst of messages has left, if nothing more comes.
    #[inline]
    pub(super) fn rest(&mut self, context: &Context) {
        if rarely(self.batch.capacity().max(self.notices.capacity()) > BATCH_KEPT) {
            self.trim(context);
        }
    }

    #[cold]
    fn trim(&mut self, context: &Context) {
        if self.batch.is_empty() && self.notices.is_empty() && context.trim() {
            self.batch = VecDeque::new();
            self.notices = Notices::default();
        }
    }
}
