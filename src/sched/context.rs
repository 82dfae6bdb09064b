//! A context: its address, its bounded mailbox, and its place in the schedule.

use std::collections::VecDeque;
use std::sync::{Arc, LazyLock, PoisonError};

use super::exits::Watchers;
use super::label::Label;
use super::metrics::{Limits, Metrics};
use super::program::{End, Program};
use super::scheduler::Scheduler;
use crate::error::Code;
use crate::hint::rarely;
use crate::logging::{self, Throttle};
use crate::message::{Allowance, Ending, Event, Id, Ids, Value};
use crate::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use crate::sync::{Mutex, MutexGuard};

/// Answers that find room although no query waits for them.
const LATE_REPLIES_MAX: usize = 65_536;

/// Messages over the bound that find room, see [`Context::deliver`]: as many as there can be
/// contexts.
const REPORTS_MAX: usize = Id::INDEX_MAX;

/// Why an event was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// The context has ended.
    Closed,
    /// As many messages, or bytes, wait as the mailbox holds.
    Full,
}

impl From<Refused> for Code {
    fn from(refused: Refused) -> Code {
        match refused {
            Refused::Closed => Code::NO_CONTEXT,
            Refused::Full => Code::MAILBOX_FULL,
        }
    }
}

/// What others may touch, under one lock.
struct Inbox {
    events: VecDeque<Event>,
    /// Messages among `events`: what the bound counts; and the bytes that have ever come with
    /// messages and answers, modulo the largest number.
    messages: usize,
    bytes: usize,
    /// Answers among `events`.
    replies: usize,
    /// True while the context is queued or running: whoever sets it enqueues the context.
    scheduled: bool,
    /// Nothing is accepted any more.
    closed: bool,
    end: Option<End>,
    watchers: Watchers,
    /// All that it held is let go, and its watchers are told.
    is_over: bool,
}

/// A context as the rest of the process sees it.
pub struct Context {
    id: Id,
    parent: Option<Id>,
    /// How many contexts had been created before.
    birth: u64,
    scheduler: Arc<Scheduler>,
    /// The index of the only worker that may run it.
    worker: Option<usize>,
    limits: Limits,
    metrics: Metrics,
    inbox: Mutex<Inbox>,
    /// Whether the inbox holds a request to end: looked at before each turn, without the lock.
    is_ending: AtomicBool,
    /// It is queued in [`Late`](super::late::Late): whoever clears this runs it next.
    is_suspended: AtomicBool,
    /// Messages handed to the program that the script has not received yet. Written by the thread
    /// that runs the context, read by senders for the bounds.
    unreceived: AtomicUsize,
    /// Of the bytes that have come, those that the script has received. Written and read likewise.
    gone_bytes: AtomicUsize,
    /// Queries of this context that wait for an answer. Written and read likewise.
    unanswered: AtomicUsize,
    /// Whether the creator's mailbox has taken a message of this context over its bound.
    has_reported: AtomicBool,
    /// Whether it has ever had a name that it answers under, or a subscription.
    has_ties: AtomicBool,
    /// The log has a word on refused messages.
    refusals: logging::Seldom,
    pub(super) program: Mutex<Option<Box<dyn Program>>>,
    name: Mutex<Option<Arc<str>>>,
    /// What it may hold in mailboxes and write queues, if it has a memory limit.
    allowance: Option<Arc<Allowance>>,
}

impl std::fmt::Debug for Context {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Context").field("id", &self.id).finish_non_exhaustive()
    }
}

impl Context {
    pub(super) fn new(
        id: Id,
        parent: Option<Id>,
        birth: u64,
        scheduler: Arc<Scheduler>,
        worker: Option<usize>,
        limits: Limits,
        program: Box<dyn Program>,
    ) -> Arc<Context> {
        Arc::new(Context {
            id,
            parent,
            birth,
            scheduler,
            worker,
            limits,
            metrics: Metrics::default(),
            inbox: Mutex::new(Inbox {
                events: VecDeque::new(),
                messages: 0,
                bytes: 0,
                replies: 0,
                scheduled: true,
                closed: false,
                is_over: false,
                end: None,
                watchers: Watchers::default(),
            }),
            is_ending: AtomicBool::new(false),
            is_suspended: AtomicBool::new(false),
            unreceived: AtomicUsize::new(0),
            gone_bytes: AtomicUsize::new(0),
            unanswered: AtomicUsize::new(0),
            has_reported: AtomicBool::new(false),
            has_ties: AtomicBool::new(false),
            refusals: logging::Seldom::new(),
            program: Mutex::new(Some(program)),
            name: Mutex::new(None),
            allowance: (limits.memory > 0).then(|| Allowance::of_limit(limits.memory)),
        })
    }

    /// The address.
    pub fn id(&self) -> Id {
        self.id
    }

    /// The context that created it.
    pub fn parent(&self) -> Option<Id> {
        self.parent
    }

    /// Whether it is the main script's, which nobody has created.
    pub(super) fn is_root(&self) -> bool {
        self.parent.is_none()
    }

    /// How many contexts had been created before: creators have less than what they create.
    pub(super) fn birth(&self) -> u64 {
        self.birth
    }

    /// The scheduler it runs on.
    pub fn scheduler(&self) -> &Arc<Scheduler> {
        &self.scheduler
    }

    /// The index of the only worker that may run it; none if any may.
    #[inline]
    pub fn worker(&self) -> Option<usize> {
        self.worker
    }

    /// The name for people, if one was given.
    pub fn name(&self) -> Option<Arc<str>> {
        self.name.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What the log calls it.
    pub fn label(&self) -> Label {
        Label::new(self.id, self.name())
    }

    /// Names the context for people.
    pub fn set_name(&self, name: &str) {
        *self.name.lock().unwrap_or_else(PoisonError::into_inner) = Some(name.into());
    }

    fn inbox(&self) -> MutexGuard<'_, Inbox> {
        self.inbox.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts an event into the mailbox and makes the context run.
    ///
    /// Messages count against the mailbox's bound; over it, one finds room from each context that
    /// this one has created: whoever creates more of them than the mailbox holds, and has each
    /// report once, hears of all. Answers are bounded by the number of queries that have none yet,
    /// so that whoever answers what was never asked cannot fill the memory; there is room for some
    /// more, which come too late. Notices are bounded by what the context
    /// has asked for.
    ///
    /// # Errors
    /// [`Refused`]; the event is dropped, and nothing has changed, but that an asker is told of an
    /// answer that holds too many bytes.
    pub fn deliver(self: &Arc<Self>, mut event: Event) -> Result<(), Refused> {
        let mut inbox = self.inbox();
        if rarely(inbox.closed) {
            return Err(Refused::Closed);
        }
        // Relaxed, in both: approximate counts are enough for bounds; they pair with nothing.
        match &mut event {
            Event::Message { from, session, value } => {
                let waiting = inbox.messages + self.unreceived.load(Ordering::Relaxed);
                if rarely(waiting >= self.limits.mailbox) && !self.takes_report(*from, waiting) {
                    drop(inbox);
                    self.warn_of_refusal("a message", *from);
                    return Err(Refused::Full);
                }
                if rarely(!self.admit(&mut inbox, value.held_bytes(), self.is_own(value))) {
                    drop(inbox);
                    self.warn_of_refusal("a message", *from);
                    return Err(Refused::Full);
                }
                inbox.messages += 1;
                if *session != 0 {
                    inbox.watchers.insert(*from, self.scheduler.registry());
                }
            }
            Event::Publication { published, .. } => {
                let waiting = inbox.messages + self.unreceived.load(Ordering::Relaxed);
                let (bytes, is_own) = (published.held_bytes(), self.is_own(&published.value));
                if waiting >= self.limits.mailbox || !self.admit(&mut inbox, bytes, is_own) {
                    self.metrics.count_missed();
                    drop(inbox);
                    self.warn_of_refusal("a publication", published.from);
                    return Err(Refused::Full);
                }
                inbox.messages += 1;
            }
            Event::Reply { session, result } => {
                let asked = self.unanswered.load(Ordering::Relaxed);
                if rarely(asked == 0) {
                    // Nobody waits for it: whatever it is, it is over.
                    return Ok(());
                }
                if rarely(inbox.replies >= asked + LATE_REPLIES_MAX) {
                    return Err(Refused::Full);
                }
                inbox.replies += 1;
                if let Ok(value) = result
                    && rarely(!self.admit(&mut inbox, value.held_bytes(), self.is_own(value)))
                {
                    let (session, result) = (*session, Err(Code::MAILBOX_FULL.into()));
                    inbox.events.push_back(Event::Reply { session, result });
                    self.schedule(inbox);
                    return Err(Refused::Full);
                }
            }
            Event::Ended { ending, .. } => self.admit_ending(&mut inbox, ending),
            _ => {}
        }
        inbox.events.push_back(event);
        self.schedule(inbox);
        Ok(())
    }

    /// What `from` has sent found no room: the log says so, now and then.
    #[cold]
    pub(crate) fn warn_of_refusal(&self, what: &str, from: Id) {
        /// Of all contexts: any number of them can be made, each with a mailbox that fills.
        static WARNINGS: LazyLock<std::sync::Mutex<Throttle>> =
            LazyLock::new(|| Throttle::new("warnings", 100, usize::MAX).into());
        if !self.refusals.is_due() {
            return;
        }
        let waiting = self.waiting_bytes();
        let room = self.allowance.as_ref().map_or(usize::MAX, |all| all.room());
        let sender = self.scheduler.registry().get(from);
        let sender = sender.map_or_else(|| format!("context {from}"), |it| it.label().to_string());
        let text = format!(
            "{}: its mailbox is full, {what} of {sender} was refused (209): {} messages wait, \
             {} at most, and {} bytes, {} at most (--mailbox, or options mailbox and memory of \
             context.create)",
            self.label(),
            self.waiting(),
            self.limits.mailbox,
            waiting,
            self.limits.mailbox_bytes.min(waiting.saturating_add(room)),
        );
        let warnings = WARNINGS.lock();
        if warnings.unwrap_or_else(PoisonError::into_inner).admits(text.len(), &"full mailboxes") {
            log::warn!("{text}");
        }
    }

    /// Whether the context has sent a value to itself, which counts there.
    fn is_own(&self, value: &Value) -> bool {
        self.allowance.as_ref().is_some_and(|allowance| value.is_held_by(allowance))
    }

    /// Counts bytes that come, if what waits may hold as many more; whether so. If nothing waits,
    /// more may come at once. What a context sends to itself counts where it counts what it sends.
    fn admit(&self, inbox: &mut Inbox, bytes: usize, is_own: bool) -> bool {
        if bytes == 0 {
            return true;
        }
        let held = self.held_bytes(inbox);
        let is_full = held > 0 && held.saturating_add(bytes) > self.limits.mailbox_bytes;
        let may_come = |allowance: &Arc<Allowance>| is_own || allowance.come(bytes);
        if rarely(is_full) || !self.allowance.as_ref().is_none_or(may_come) {
            return false;
        }
        inbox.bytes = inbox.bytes.wrapping_add(bytes);
        true
    }

    /// Counts the text of an end, or has a few words in its place, which always find room.
    fn admit_ending(&self, inbox: &mut Inbox, ending: &mut Arc<Ending>) {
        if !self.admit(inbox, ending.held_bytes(), false) {
            *ending = Arc::new(ending.without_text());
            self.come_back(inbox, ending.held_bytes(), 0);
        }
    }

    /// Bytes that messages and answers hold which the script has not received yet.
    fn held_bytes(&self, inbox: &Inbox) -> usize {
        // Relaxed: as in `deliver`.
        inbox.bytes.wrapping_sub(self.gone_bytes.load(Ordering::Relaxed))
    }

    /// Whether a message from `from` is taken although the mailbox is full.
    #[cold]
    fn takes_report(&self, from: Id, waiting: usize) -> bool {
        let sender = self.scheduler.registry().get(from);
        // Relaxed: a flag that orders nothing.
        waiting < self.limits.mailbox.saturating_add(REPORTS_MAX)
            && sender.is_some_and(|sender| {
                sender.parent == Some(self.id) && !sender.has_reported.swap(true, Ordering::Relaxed)
            })
    }

    /// Notes that there is something to forget at its end.
    pub(crate) fn note_ties(&self) {
        // Relaxed, here and below: written before it is closed, read after that, both under the
        // locks of what is to be forgotten or of the inbox.
        self.has_ties.store(true, Ordering::Relaxed);
    }

    /// Whether there is.
    pub(super) fn has_ties(&self) -> bool {
        self.has_ties.load(Ordering::Relaxed)
    }

    /// What it does, in a word: `"running"` if it is in a turn, `"suspended"` if its turn was cut,
    /// `"ready"` if it waits for a turn.
    pub fn state(&self) -> &'static str {
        let inbox = self.inbox();
        match () {
            () if inbox.closed || inbox.end.is_some() => "ending",
            () if !inbox.scheduled => "waiting",
            () if self.program.try_lock().is_err() => "running",
            () if self.metrics.is_cut() => "suspended",
            () => "ready",
        }
    }

    /// Asks the context to end before anything else it has to do. No effect if it has ended.
    pub fn destroy(self: &Arc<Self>, reason: End) {
        let mut inbox = self.inbox();
        if !inbox.closed && inbox.end.is_none() {
            inbox.end = Some(reason);
            // SeqCst: pairs with `suspend`. Whoever runs the context next, or runs it now and rests
            // afterwards, takes the lock too.
            self.is_ending.store(true, Ordering::SeqCst);
            self.schedule(inbox);
            if self.claim() {
                // Not when its slice comes: now, like one that has little to do.
                self.metrics.prove(true);
                self.scheduler.enqueue(Arc::clone(self));
            }
        }
    }

    /// Whether it is queued with those whose turns are short: its last one was, or it is to end. If
    /// not it is noted as queued with the others.
    pub(super) fn is_prompt(&self) -> bool {
        self.metrics.is_proven() || !self.suspend()
    }

    /// Notes that it is queued with those that take long, before it is; false if it is to end.
    pub(super) fn suspend(&self) -> bool {
        self.is_suspended.store(true, Ordering::SeqCst);
        // Either we see the request to end, or `destroy` sees that it is suspended.
        !(self.is_ending.load(Ordering::SeqCst) && self.claim())
    }

    /// Notes the same though it may be to end: it has to wait for that.
    pub(super) fn suspend_anyway(&self) {
        self.is_suspended.store(true, Ordering::SeqCst);
    }

    /// Takes what was queued there; false if somebody else has.
    pub(super) fn claim(&self) -> bool {
        self.is_suspended.load(Ordering::SeqCst) && self.is_suspended.swap(false, Ordering::SeqCst)
    }

    /// Asks it to end if its turn has used up the CPU time that it may use.
    pub(super) fn check_turn_limit(self: &Arc<Self>) {
        if self.limits.turn.is_some_and(|limit| self.metrics.turn_cpu() >= limit) {
            self.destroy(End::Time(None));
        }
    }

    /// Whether it refuses everything, and is about to be gone.
    pub fn is_closed(&self) -> bool {
        self.inbox().closed
    }

    /// Says more of an end that has been requested already.
    pub fn explain_end(&self, reason: End) {
        self.inbox().end = Some(reason);
    }

    /// Tells `watcher` with [`Event::Ended`] once this context has ended and let go of all that it
    /// held. False if that is so already.
    pub fn watch(&self, watcher: Id) -> bool {
        let mut inbox = self.inbox();
        if !inbox.is_over {
            inbox.watchers.insert(watcher, self.scheduler.registry());
        }
        !inbox.is_over
    }

    fn schedule(self: &Arc<Self>, mut inbox: MutexGuard<'_, Inbox>) {
        if !inbox.scheduled {
            inbox.scheduled = true;
            drop(inbox);
            self.scheduler.enqueue(Arc::clone(self));
        }
    }

    /// Moves all events into `batch`, which must be empty; their messages count as unreceived.
    /// Returns the bytes that have ever come: as many as the last time if these events hold none.
    pub fn take(&self, batch: &mut VecDeque<Event>) -> usize {
        debug_assert!(batch.is_empty());
        let mut inbox = self.inbox();
        std::mem::swap(&mut inbox.events, batch);
        inbox.replies = 0;
        let messages = std::mem::take(&mut inbox.messages);
        if messages > 0 {
            // Relaxed: only this thread writes it; the inbox's lock orders it for senders.
            let before = self.unreceived.load(Ordering::Relaxed);
            self.unreceived.store(before + messages, Ordering::Relaxed);
            self.metrics.on_waiting(before + messages);
        }
        inbox.bytes
    }

    /// Counts one query as asked: its answer finds room in the mailbox. False, and nothing is
    /// counted, if as many wait for an answer as may.
    pub fn asked(&self) -> bool {
        // Relaxed: only the thread that runs the context writes it.
        let before = self.unanswered.load(Ordering::Relaxed);
        if rarely(before >= self.limits.queries) {
            return false;
        }
        self.unanswered.store(before + 1, Ordering::Relaxed);
        self.metrics.on_asked(before + 1);
        true
    }

    /// Sets how many queries wait for an answer, at the end of a turn: [`Context::asked`] counts
    /// those too that were answered, or not delivered, in the same turn.
    pub fn set_unanswered(&self, queries: usize) {
        // Relaxed: as in `asked`.
        self.unanswered.store(queries, Ordering::Relaxed);
    }

    /// Counts messages as received: they make room in the mailbox.
    pub fn received(&self, count: usize) {
        // Relaxed: only the thread that runs the context writes it.
        let before = self.unreceived.load(Ordering::Relaxed);
        self.unreceived.store(before.saturating_sub(count), Ordering::Relaxed);
    }

    /// Counts one message, which holds this many bytes, as waiting again: it was taken, but nobody
    /// receives it yet. Of these bytes `own` are those of a message from the context itself.
    pub fn unreceive(&self, bytes: usize, own: usize) {
        // Relaxed: as in `received`.
        self.unreceived.store(self.unreceived.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
        if bytes > 0 {
            self.come_back(&mut self.inbox(), bytes, own);
        }
    }

    /// Counts bytes that are there, whether there is room for them or not.
    fn come_back(&self, inbox: &mut Inbox, bytes: usize, own: usize) {
        inbox.bytes = inbox.bytes.wrapping_add(bytes);
        if let Some(allowance) = &self.allowance {
            allowance.come_back(bytes - own);
        }
    }

    /// Makes room for this many bytes that messages held; of `own` of them the messages came from
    /// the context itself.
    pub fn received_bytes(&self, bytes: usize, own: usize) {
        // Relaxed: as in `received`.
        let before = self.gone_bytes.load(Ordering::Relaxed);
        self.gone_bytes.store(before.wrapping_add(bytes), Ordering::Relaxed);
        if let Some(allowance) = &self.allowance {
            allowance.gone(bytes - own);
        }
    }

    /// Gives back what the inbox keeps for the next burst, if nothing is in it: returns whether so.
    pub fn trim(&self) -> bool {
        let mut inbox = self.inbox();
        let is_empty = inbox.events.is_empty();
        if is_empty {
            inbox.events = VecDeque::new();
        }
        is_empty
    }

    /// Messages that wait in the mailbox.
    pub fn waiting(&self) -> usize {
        self.inbox().messages + self.unreceived.load(Ordering::Relaxed)
    }

    /// Bytes held by the messages in the mailbox.
    pub fn waiting_bytes(&self) -> usize {
        self.held_bytes(&self.inbox())
    }

    /// Its queries that wait for an answer.
    pub fn unanswered(&self) -> usize {
        self.unanswered.load(Ordering::Relaxed)
    }

    /// What it may use.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// What it may hold in mailboxes and write queues; none if it has no memory limit.
    #[inline]
    pub fn allowance(&self) -> Option<&Arc<Allowance>> {
        self.allowance.as_ref()
    }

    /// What it has used.
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// The request to end, if there is one.
    pub fn end_requested(&self) -> Option<End> {
        if !self.is_ending.load(Ordering::Acquire) {
            return None;
        }
        self.inbox().end.clone()
    }

    /// Ends a turn: true if nothing has arrived meanwhile, and the context rests.
    pub(super) fn rest(&self) -> bool {
        let mut inbox = self.inbox();
        let idle = inbox.events.is_empty() && inbox.end.is_none();
        if idle {
            inbox.scheduled = false;
        }
        idle
    }

    /// Refuses everything from now on; returns what was never taken.
    pub(super) fn close(&self) -> VecDeque<Event> {
        let mut inbox = self.inbox();
        inbox.closed = true;
        inbox.messages = 0;
        std::mem::take(&mut inbox.events)
    }

    /// It holds nothing any more; returns whom to tell.
    pub(super) fn end_watch(&self) -> Ids {
        let mut inbox = self.inbox();
        inbox.is_over = true;
        inbox.watchers.take()
    }
}
