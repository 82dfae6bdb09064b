//! Where what is written goes: bytes that count with the context's memory, and have a bound.

use std::cell::{Cell, RefCell};

use crate::vm::stack::Stack;

/// Bytes that a thread keeps from one call to the next, always and for a while: new memory costs as
/// much as writing it.
const KEPT: usize = 64 * 1024;
const KEPT_MAX: usize = 2 << 20;

/// Calls that need no more than [`KEPT`] until a thread keeps no more.
const PATIENCE: u32 = 64;

thread_local! {
    static SCRATCH: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
    static PATIENCE_LEFT: Cell<u32> = const { Cell::new(0) };
}

/// Keeps memory for the next call, unless it has turned out to be too much.
fn keep(bytes: Vec<u8>) {
    let left = if bytes.len() > KEPT { PATIENCE } else { PATIENCE_LEFT.get().saturating_sub(1) };
    PATIENCE_LEFT.set(left);
    if bytes.capacity() <= if left > 0 { KEPT_MAX } else { KEPT } {
        SCRATCH.set(bytes);
    }
}

/// Bytes that are being written.
pub(crate) struct Output<'a> {
    bytes: Vec<u8>,
    max: usize,
    /// Bytes that may be held without a look at the bound and at the memory.
    end: usize,
    charged: Charged<'a>,
    /// Why the last write failed.
    pub(crate) failure: Option<Failure>,
}

/// Why nothing more was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// More than the bound.
    TooLarge,
    /// So much memory would be needed.
    Memory(usize),
}

/// Bytes charged to a state for as long as this lives.
pub(crate) struct Charged<'a>(Stack<'a>, usize);

impl<'a> Charged<'a> {
    pub(crate) fn new(lua: Stack<'a>) -> Charged<'a> {
        Charged(lua, 0)
    }

    /// Charges this many bytes instead of what was charged before.
    pub(crate) fn set(&mut self, bytes: usize) {
        self.0.account().recharge(self.1, bytes);
        self.1 = bytes;
    }

    /// The same if there is room for them; false, and nothing changes, if not. Runs nothing.
    pub(crate) fn may_set(&mut self, bytes: usize) -> bool {
        let may = bytes.saturating_sub(self.1) <= self.0.account().room();
        if may {
            self.set(bytes);
        }
        may
    }

    /// The same, after all garbage is collected if need be: finalisers may run. If that is not
    /// enough the context is going to end.
    pub(crate) fn collect_and_set(&mut self, bytes: usize) -> bool {
        if !self.may_set(bytes) {
            let more = bytes - self.1;
            if !self.0.charge(more) {
                return false;
            }
            self.1 = bytes;
        }
        true
    }
}

impl Drop for Charged<'_> {
    fn drop(&mut self) {
        self.set(0);
    }
}

impl Output<'_> {
    /// The bytes, with room for this many more, if there may be.
    #[inline]
    pub(crate) fn room(&mut self, more: usize) -> Option<&mut Vec<u8>> {
        let fits = self.bytes.len() + more <= self.end || self.grow(more);
        fits.then_some(&mut self.bytes)
    }

    #[cold]
    fn grow(&mut self, more: usize) -> bool {
        let needed = self.bytes.len().saturating_add(more);
        if needed > self.max {
            self.failure = Some(Failure::TooLarge);
            return false;
        }
        // What the thread has kept is no less paid for.
        let capacity = needed.max(2 * self.end).clamp(256, self.max.max(256));
        let fits = (capacity <= KEPT || self.charged.may_set(capacity))
            && self.bytes.try_reserve_exact(capacity - self.bytes.len()).is_ok();
        match fits {
            true => self.end = capacity.min(self.max),
            false => self.failure = Some(Failure::Memory(capacity)),
        }
        fits
    }
}

/// Has `body` write at most `max` bytes, and pushes them as a string. If memory does not suffice
/// all garbage is collected, and it begins again, once.
///
/// # Errors
/// What `body` returns, and why writing failed.
pub(crate) fn write<'a, E>(
    lua: Stack<'a>,
    max: usize,
    mut body: impl FnMut(&mut Output<'a>) -> Result<(), E>,
) -> Result<(), (E, Option<Failure>)> {
    let mut is_last = false;
    loop {
        let bytes = SCRATCH.take();
        let end = bytes.capacity().min(max).min(KEPT);
        let mut output = Output { bytes, max, end, charged: Charged::new(lua), failure: None };
        output.bytes.clear();
        match (body(&mut output), output.failure) {
            (Ok(()), _) => {
                lua.push_text(&output.bytes);
                keep(output.bytes);
                return Ok(());
            }
            (Err(error), failure @ Some(Failure::Memory(bytes))) if !is_last => {
                drop(output);
                if lua.charge(bytes) {
                    lua.account().recharge(bytes, 0);
                    is_last = true;
                } else {
                    return Err((error, failure));
                }
            }
            (Err(error), failure) => return Err((error, failure)),
        }
    }
}
