//! What the compiler cannot know.

/// Says that the branch which calls it is rarely taken. Its code is laid apart from what runs each
/// time, so that more of that fits the processor's cache for instructions: a message runs through
/// nearly as much as that holds. No code is made of the call itself.
#[cold]
pub(crate) const fn rare() {}

/// The condition itself, which is rarely true: see [`rare`].
#[inline(always)]
pub(crate) const fn rarely(condition: bool) -> bool {
    if condition {
        rare();
        true
    } else {
        false
    }
}
