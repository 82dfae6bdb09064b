//! The context that a worker runs next: its own thread's, unless that thread is stuck.
//!
//! Putting and taking are plain loads and stores, as they happen once per message. Others get at
//! what is in the slot of a stuck worker by poking its thread: the handler runs there, finds the
//! slot at rest, and moves what is in it to where everybody may take it.

#![allow(unsafe_code, reason = "not behind a safe face yet")]

use std::sync::Arc;
use std::sync::atomic::compiler_fence;

use super::context::Context;
use crate::sync::atomic::{AtomicBool, AtomicPtr, Ordering};

/// A place for one context.
#[derive(Debug, Default)]
pub(super) struct Slot {
    /// Written by the owning thread only, its kick handler included.
    next: AtomicPtr<Context>,
    /// True while `next` changes: the handler keeps off.
    is_changing: AtomicBool,
    rescued: AtomicPtr<Context>,
}

/// # Safety
/// The pointer must come from [`Arc::into_raw`], and nobody else may turn it back.
unsafe fn owned(pointer: *mut Context) -> Option<Arc<Context>> {
    // SAFETY: the pointer came from `Arc::into_raw`, and its count is taken over here alone.
    (!pointer.is_null()).then(|| unsafe { Arc::from_raw(pointer) })
}

impl Slot {
    /// Puts a context in, and takes the one before out. Only the owning thread.
    #[inline]
    pub(super) fn replace(&self, context: Option<Arc<Context>>) -> Option<Arc<Context>> {
        let new = context.map_or(std::ptr::null_mut(), |context| Arc::into_raw(context).cast_mut());
        // Relaxed everywhere, with fences for the compiler: the only other writer is a signal
        // handler on this very thread.
        self.is_changing.store(true, Ordering::Relaxed);
        compiler_fence(Ordering::SeqCst);
        let old = self.next.load(Ordering::Relaxed);
        self.next.store(new, Ordering::Relaxed);
        compiler_fence(Ordering::SeqCst);
        self.is_changing.store(false, Ordering::Relaxed);
        // SAFETY: `new` came from `into_raw`, as `old` did, which nobody else can have any more.
        unsafe { owned(old) }
    }

    /// True if a context is in the slot; a hint to other threads.
    #[inline]
    pub(super) fn is_full(&self) -> bool {
        !self.next.load(Ordering::Relaxed).is_null()
    }

    /// Gives what is in the slot up to [`Slot::collect`]. Only the owning thread's kick handler.
    pub(super) fn give_up(&self) {
        if self.is_changing.load(Ordering::Relaxed) {
            return;
        }
        let (none, context) = (std::ptr::null_mut(), self.next.load(Ordering::Relaxed));
        // Release: pairs with `collect`. Only if what was given up before has been collected.
        if self
            .rescued
            .compare_exchange(none, context, Ordering::Release, Ordering::Relaxed)
            .is_ok()
        {
            self.next.store(none, Ordering::Relaxed);
        }
    }

    /// Takes what was given up. Any thread.
    pub(super) fn collect(&self) -> Option<Arc<Context>> {
        // SAFETY: what is in `rescued` came from `into_raw`, and whoever swaps it out owns it.
        unsafe { owned(self.rescued.swap(std::ptr::null_mut(), Ordering::Acquire)) }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        drop(self.replace(None));
        drop(self.collect());
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::super::program::Nothing;
    use super::super::scheduler::Scheduler;
    use super::*;

    #[test]
    fn what_is_given_up_is_collected_once() {
        let scheduler = Scheduler::new(1);
        let one = scheduler.spawn(None, Default::default(), Box::new(Nothing)).unwrap();
        let two = scheduler.spawn(None, Default::default(), Box::new(Nothing)).unwrap();
        let slot = Slot::default();
        assert!(slot.replace(Some(Arc::clone(&one))).is_none());
        assert_eq!(slot.replace(Some(Arc::clone(&two))).unwrap().id(), one.id());
        assert!(slot.collect().is_none());
        slot.give_up();
        assert!(!slot.is_full());
        assert!(slot.replace(Some(Arc::clone(&one))).is_none());
        slot.give_up();
        assert!(slot.is_full(), "one at a time");
        assert_eq!(slot.collect().unwrap().id(), two.id());
        assert!(slot.collect().is_none());
        drop(slot);
        // The scheduler's queue and registry, `one` itself.
        assert_eq!(Arc::strong_count(&one), 3);
    }
}
