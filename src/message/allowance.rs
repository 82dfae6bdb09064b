//! What a context with a memory limit may hold outside of its VM.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::os::memory;

/// What is kept free of a limit: one part of this many, and at most this many bytes.
const FREED_PART: usize = 8;
const FREED_BYTES: usize = 4 << 20;

/// Bytes that wait somewhere because one context has sent, written, or not yet read them: in the
/// mailboxes of others, in write queues, and as what connections have read ahead. Shared with
/// whoever holds some of them. What waits in its own mailbox is among them.
///
/// # Examples
/// ```
/// use node_lua::message::Allowance;
///
/// let allowance = Allowance::of_limit(800);
/// let held = allowance.hold(600).unwrap();
/// assert!(allowance.hold(200).is_none());
/// drop(held);
/// assert_eq!(allowance.room(), 700);
/// ```
#[derive(Debug)]
pub struct Allowance {
    /// All of them: one number, so that two threads that add to it do not both find the same room.
    held: AtomicUsize,
    /// Those in the context's mailbox. Changed by whoever has its lock, and by the context.
    incoming: AtomicUsize,
    max: usize,
    _limited: memory::Limited,
}

impl Allowance {
    /// For a context with a memory limit of this many bytes. A part of the limit is kept free: what
    /// was freed takes room until the allocator gives it back to the system.
    pub fn of_limit(limit: usize) -> Arc<Allowance> {
        Allowance::new(limit - (limit / FREED_PART).min(FREED_BYTES))
    }

    /// For at most `max` bytes.
    fn new(max: usize) -> Arc<Allowance> {
        let (held, incoming) = (AtomicUsize::new(0), AtomicUsize::new(0));
        Arc::new(Allowance { held, incoming, max, _limited: memory::Limited::new(max) })
    }

    /// Counts `bytes` for as long as the result lives; `None`, and nothing is counted, if that
    /// would be more than is allowed.
    pub fn hold(self: &Arc<Self>, bytes: usize) -> Option<Held> {
        self.admit(bytes, 0, true).then(|| Held { of: Arc::clone(self), bytes, is_new: true })
    }

    /// Counts `bytes` more if they may be held, with this much beyond what is usual; whether so. In
    /// one step: who looks first and counts later finds room that another thread takes meanwhile.
    fn admit(&self, bytes: usize, beyond: usize, is_new: bool) -> bool {
        let most = self.max.saturating_add(beyond);
        let more = |held: usize| held.checked_add(bytes).filter(|&all| all <= most);
        // Relaxed: a count that orders nothing.
        let is_admitted =
            self.held.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok();
        if is_admitted && is_new {
            memory::changed(0, bytes);
        }
        is_admitted
    }

    /// The same where there may be no limit: then nothing is counted, and nothing refused.
    pub fn hold_of(allowance: Option<&Arc<Self>>, bytes: usize) -> Option<Option<Held>> {
        allowance.map_or(Some(None), |allowance| allowance.hold(bytes).map(Some))
    }

    /// Nothing, to be changed by [`Held::set`].
    pub fn empty(self: &Arc<Self>) -> Held {
        Held { of: Arc::clone(self), bytes: 0, is_new: true }
    }

    /// The same, for what the process counts as memory in use already.
    pub fn empty_of_known(self: &Arc<Self>) -> Held {
        Held { of: Arc::clone(self), bytes: 0, is_new: false }
    }

    /// Bytes that are held.
    pub fn held(&self) -> usize {
        self.held.load(Ordering::Relaxed)
    }

    /// Bytes that may be held besides.
    pub fn room(&self) -> usize {
        self.max.saturating_sub(self.held())
    }

    /// This many bytes come to the mailbox, if they may; whether so. Half of what is allowed is not
    /// for it, so that whoever fills it does not keep its owner from writing; but what comes alone
    /// may be larger.
    pub fn come(&self, bytes: usize) -> bool {
        // Relaxed, here and below: as in `admit`.
        let waiting = self.incoming.load(Ordering::Relaxed);
        let is_alone = waiting == 0;
        let may = (is_alone || bytes <= (self.max / 2).saturating_sub(waiting))
            && self.admit(bytes, 0, true);
        if may {
            self.incoming.fetch_add(bytes, Ordering::Relaxed);
        }
        may
    }

    /// This many bytes, which have been there before, are in the mailbox again.
    pub fn come_back(&self, bytes: usize) {
        self.held.fetch_add(bytes, Ordering::Relaxed);
        self.incoming.fetch_add(bytes, Ordering::Relaxed);
        memory::changed(0, bytes);
    }

    /// This many of them have gone.
    pub fn gone(&self, bytes: usize) {
        self.held.fetch_sub(bytes, Ordering::Relaxed);
        self.incoming.fetch_sub(bytes, Ordering::Relaxed);
        memory::changed(bytes, 0);
    }
}

/// Some bytes of an [`Allowance`].
#[derive(Debug)]
pub struct Held {
    of: Arc<Allowance>,
    bytes: usize,
    /// Whether [`memory::changed`] is told.
    is_new: bool,
}

impl Held {
    /// Counts this many bytes from now on, allowed or not: those that are taken already, or of what
    /// was counted before it was taken.
    pub fn set(&mut self, bytes: usize) {
        if bytes != self.bytes {
            // Relaxed: as in `admit`.
            self.of.held.fetch_add(bytes, Ordering::Relaxed);
            self.of.held.fetch_sub(self.bytes, Ordering::Relaxed);
            if self.is_new {
                memory::changed(self.bytes, bytes);
            }
            self.bytes = bytes;
        }
    }

    /// The same if that is allowed; whether so.
    pub fn try_set(&mut self, bytes: usize) -> bool {
        self.try_set_beyond(bytes, 0)
    }

    /// The same if this much more than usual is allowed.
    pub fn try_set_beyond(&mut self, bytes: usize, beyond: usize) -> bool {
        match bytes.checked_sub(self.bytes) {
            None => self.set(bytes),
            Some(more) if self.of.admit(more, beyond, self.is_new) => self.bytes = bytes,
            Some(_) => return false,
        }
        true
    }

    /// Counts what another one counts, too, which must be of the same allowance.
    pub fn add(&mut self, mut other: Held) {
        debug_assert!(self.is_of(&other.of) && self.is_new == other.is_new);
        self.bytes += std::mem::take(&mut other.bytes);
    }

    /// Bytes that are counted.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether they are some of this allowance.
    pub(super) fn is_of(&self, allowance: &Arc<Allowance>) -> bool {
        Arc::ptr_eq(&self.of, allowance)
    }

    /// Nothing, of the same allowance.
    pub fn another(&self) -> Held {
        self.of.empty()
    }

    /// Bytes that may be counted instead, for now.
    pub fn most(&self) -> usize {
        self.of.room().saturating_add(self.bytes)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // Relaxed: as in `admit`.
        self.of.held.fetch_sub(self.bytes, Ordering::Relaxed);
        if self.is_new {
            memory::changed(self.bytes, 0);
        }
    }
}

/// Memory of what is being made, one after the other, and that nobody else counts yet.
#[derive(Debug, Default)]
pub struct Making {
    /// What it counts for, if there is a limit.
    allowance: Option<Arc<Allowance>>,
    /// What is counted, if there is a limit and anything is.
    held: Option<Held>,
    /// What the process was told if there is none.
    told: usize,
}

impl Making {
    /// What is made next counts for this allowance, if there is a limit.
    #[inline]
    pub fn set_allowance(&mut self, allowance: Option<Arc<Allowance>>) {
        self.allowance = allowance;
    }

    /// Counts this many bytes from now on, if they may be held; whether so.
    pub fn set(&mut self, bytes: usize) -> bool {
        let Some(allowance) = &self.allowance else {
            memory::changed(self.told, bytes);
            self.told = bytes;
            return true;
        };
        self.held.get_or_insert_with(|| allowance.empty()).try_set(bytes)
    }

    /// Whether there is a limit, or anything is counted: of what takes little memory nothing is.
    #[inline]
    pub fn is_in_use(&self) -> bool {
        self.allowance.is_some() || self.told > 0
    }

    /// It is made, or given up: what was counted, if there is a limit and anything was.
    pub fn finish(&mut self) -> Option<Held> {
        self.allowance = None;
        memory::changed(std::mem::take(&mut self.told), 0);
        self.held.take().filter(|held| held.bytes > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_let_go_can_be_held_again() {
        let allowance = Allowance::new(100);
        let first = allowance.hold(60);
        assert!(first.is_some() && allowance.hold(41).is_none());
        assert_eq!(allowance.held(), 60);
        let second = allowance.hold(40);
        assert!(second.is_some() && allowance.hold(1).is_none());
        drop(first);
        assert!(allowance.hold(60).is_some());
        assert_eq!(allowance.held(), 40);
        let mut ahead = allowance.empty();
        assert!(!ahead.try_set(61) && ahead.try_set(60) && ahead.most() == 60);
        ahead.set(70);
        assert_eq!(allowance.held(), 110);
        assert!(allowance.hold(1).is_none() && !ahead.try_set(71) && ahead.try_set(60));
        ahead.add(second.expect("it was held"));
        assert_eq!((ahead.bytes(), allowance.held()), (100, 100));
        drop(ahead);
        assert_eq!(allowance.held(), 0);
        assert!(allowance.hold(usize::MAX).is_none() && allowance.held() == 0);
    }

    #[test]
    fn mailbox_and_the_rest_share_what_is_allowed() {
        let allowance = Allowance::new(100);
        assert!(allowance.come(1) && !allowance.come(50) && allowance.come(49));
        assert_eq!(allowance.room(), 50);
        assert!(allowance.hold(51).is_none());
        let held = allowance.hold(50);
        assert!(held.is_some() && allowance.room() == 0 && !allowance.empty().try_set(1));
        allowance.gone(20);
        assert!(allowance.come(20) && !allowance.come(1));
        drop(held);
        assert_eq!(allowance.room(), 50);
    }

    #[test]
    fn what_comes_alone_may_be_as_much_as_is_left() {
        let allowance = Allowance::new(100);
        let held = allowance.hold(10);
        assert!(!allowance.come(91) && allowance.come(90) && !allowance.come(1));
        allowance.gone(90);
        drop(held);
        assert!(allowance.come(100) && !allowance.come(usize::MAX));
        assert_eq!(allowance.held(), 100);
    }
}
