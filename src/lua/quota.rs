//! How many of a context's uncaught errors are logged, how much of what a confined script logs, and
//! how many names are looked up. What a confined context creates shares with it what it has.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Weak};

use crate::logging::Throttle;
use crate::sched::Context;
use crate::sync::lock;

/// Errors of one context in 10 s, and bytes of them.
const ERRORS_MAX: u32 = 100;
const ERROR_BYTES_MAX: usize = 1 << 20;

/// The same for entries of a confined script.
const LINES_MAX: u32 = 10_000;
pub(super) const LINE_BYTES_MAX: usize = 4 << 20;

/// Names that may be looked up at a time: by one context, and in all.
pub(super) const LOOKUPS_MAX: usize = 256;
pub(super) const ALL_LOOKUPS_MAX: usize = 4096;

/// Those under way.
static LOOKUPS: AtomicUsize = AtomicUsize::new(0);

/// Made when something is counted, or shared: most contexts never fail.
#[derive(Debug, Default)]
pub struct Quota(Option<Arc<Shared>>);

/// What is left of one context, and of all that share with it.
#[derive(Debug)]
struct Shared {
    /// The first of them, which the log names when something is left out.
    owner: Weak<Context>,
    errors: Mutex<Throttle>,
    lines: Mutex<Throttle>,
    lookups: AtomicUsize,
}

/// A name that is looked up. It counts until this is dropped: the system goes on with it, and takes
/// a thread and a socket for it, whatever has become of the context that has asked.
pub(super) struct Lookup(Arc<Shared>);

impl Drop for Lookup {
    fn drop(&mut self) {
        // Relaxed: counts, nothing else.
        self.0.lookups.fetch_sub(1, Ordering::Relaxed);
        LOOKUPS.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Shared {
    fn admits(&self, throttle: &Mutex<Throttle>, bytes: usize, context: &Arc<Context>) -> bool {
        let owner = self.owner.upgrade();
        let label = owner.as_ref().unwrap_or(context).label();
        lock(throttle).admits(bytes, &label)
    }
}

impl Quota {
    fn shared(&mut self, context: &Arc<Context>) -> &Arc<Shared> {
        self.0.get_or_insert_with(|| {
            Arc::new(Shared {
                owner: Arc::downgrade(context),
                errors: Mutex::new(Throttle::new("errors", ERRORS_MAX, ERROR_BYTES_MAX)),
                lines: Mutex::new(Throttle::new("entries", LINES_MAX, LINE_BYTES_MAX)),
                lookups: AtomicUsize::new(0),
            })
        })
    }

    /// For what a confined context creates: one that counts together with its own.
    pub(super) fn share(&mut self, context: &Arc<Context>) -> Quota {
        Quota(Some(Arc::clone(self.shared(context))))
    }

    /// Counts one more name that is looked up; nothing if there are too many.
    pub(super) fn begin_lookup(&mut self, context: &Arc<Context>) -> Option<Lookup> {
        let shared = self.shared(context);
        let take = |count: &AtomicUsize, max| {
            let more = |count: usize| (count < max).then(|| count + 1);
            // Relaxed: counts, nothing else.
            count.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok()
        };
        if !take(&shared.lookups, LOOKUPS_MAX) {
            return None;
        }
        if !take(&LOOKUPS, ALL_LOOKUPS_MAX) {
            shared.lookups.fetch_sub(1, Ordering::Relaxed);
            return None;
        }
        Some(Lookup(Arc::clone(shared)))
    }

    /// Whether an error of this many bytes is logged; it is counted otherwise.
    pub(super) fn admits_error(&mut self, bytes: usize, context: &Arc<Context>) -> bool {
        let shared = self.shared(context);
        shared.admits(&shared.errors, bytes, context)
    }

    /// Whether the end of a context is logged: of one's own always.
    pub(super) fn admits_end(&self, bytes: usize, context: &Arc<Context>) -> bool {
        let is_own = |shared: &Shared| std::ptr::eq(shared.owner.as_ptr(), Arc::as_ptr(context));
        match &self.0 {
            Some(shared) if !is_own(shared) => shared.admits(&shared.errors, bytes, context),
            _ => true,
        }
    }

    /// The same for an entry of a confined script.
    pub(super) fn admits_line(&mut self, bytes: usize, context: &Arc<Context>) -> bool {
        let shared = self.shared(context);
        shared.admits(&shared.lines, bytes, context)
    }
}
