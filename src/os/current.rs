//! What a thread works on, for functions that cannot be handed it: those that C calls, and handlers
//! of signals.

use std::cell::Cell;
use std::ptr::null;
use std::thread::LocalKey;

/// A place of a thread for a value that is borrowed while some function runs.
///
/// # Invariant
/// The pointer is null, or that of a value which [`Current::enter`] has borrowed, until its body is
/// over.
#[derive(Debug)]
pub struct Current<T>(Cell<*const T>);

impl<T: 'static> Current<T> {
    /// Nothing.
    #[allow(clippy::new_without_default, reason = "for statics")]
    pub const fn new() -> Current<T> {
        Current(Cell::new(null()))
    }

    /// Has `value` there while `body` runs.
    #[inline]
    pub fn enter<R>(place: &'static LocalKey<Self>, value: &T, body: impl FnOnce() -> R) -> R {
        struct Restore<'a, T>(&'a Current<T>, *const T);
        impl<T> Drop for Restore<'_, T> {
            #[inline]
            fn drop(&mut self) {
                self.0.0.set(self.1);
            }
        }
        place.with(|place| {
            let _restore = Restore(place, place.0.replace(value));
            body()
        })
    }

    /// Whether there is something.
    #[inline]
    pub fn is_some(place: &'static LocalKey<Self>) -> bool {
        place.with(|place| !place.0.get().is_null())
    }

    /// Calls `body` with what is there. Async-signal-safe if `body` is.
    #[inline]
    pub fn with<R>(place: &'static LocalKey<Self>, body: impl FnOnce(Option<&T>) -> R) -> R {
        let value = place.with(|place| place.0.get());
        // SAFETY: `enter` has borrowed it, on this thread, and is over after `body` is.
        body(unsafe { value.as_ref() })
    }
}
