//! Where what is written goes: bytes that count with the context's memory, and have a bound.

use std::cell::RefCell;
use std::io;

use crate::vm::stack::Stack;

/// Bytes that a thread keeps from one call to the next.
const KEPT: usize = 64 * 1024;

thread_local! {
    static SCRATCH: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Bytes that are being written.
#[derive(Debug)]
pub(crate) struct Output {
    bytes: Vec<u8>,
    max: usize,
    /// Bytes that may be held without a look at the bound and at the memory.
    end: usize,
    /// What the state may hold in addition, now.
    room: usize,
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
pub(super) struct Charged<'a>(Stack<'a>, usize);

impl<'a> Charged<'a> {
    pub(super) fn new(lua: Stack<'a>) -> Charged<'a> {
        Charged(lua, 0)
    }

    pub(super) fn set(&mut self, bytes: usize) {
        self.0.account().recharge(self.1, bytes);
        self.1 = bytes;
    }
}

impl Drop for Charged<'_> {
    fn drop(&mut self) {
        self.set(0);
    }
}

impl Output {
    /// Room for more, if there may be.
    #[cold]
    fn grow(&mut self, more: usize) -> bool {
        let needed = self.bytes.len().saturating_add(more);
        if needed > self.max {
            self.failure = Some(Failure::TooLarge);
            return false;
        }
        let capacity = needed.max(2 * self.bytes.capacity()).clamp(256, self.max.max(256));
        let fits = capacity <= self.room.max(KEPT)
            && self.bytes.try_reserve_exact(capacity - self.bytes.len()).is_ok();
        match fits {
            true => self.end = self.bytes.capacity().min(self.max),
            false => self.failure = Some(Failure::Memory(capacity)),
        }
        fits
    }
}

impl io::Write for Output {
    #[inline]
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write_all(bytes).map(|()| bytes.len())
    }

    #[inline]
    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.bytes.len() + bytes.len() > self.end && !self.grow(bytes.len()) {
            return Err(io::ErrorKind::OutOfMemory.into());
        }
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Has `body` write at most `max` bytes, and pushes them as a string. If memory does not suffice
/// all garbage is collected, and it begins again, once.
///
/// # Errors
/// What `body` returns, and why writing failed.
pub(crate) fn write<E>(
    lua: Stack<'_>,
    max: usize,
    mut body: impl FnMut(&mut Output) -> Result<(), E>,
) -> Result<(), (E, Option<Failure>)> {
    let mut is_last = false;
    loop {
        let bytes = SCRATCH.take();
        let room = lua.account().room();
        let end = bytes.capacity().min(max);
        let mut output = Output { bytes, max, end, room, failure: None };
        output.bytes.clear();
        let result = body(&mut output);
        let mut charged = Charged::new(lua);
        match (result, output.failure) {
            (Ok(()), _) => {
                if output.bytes.capacity() > KEPT {
                    charged.set(output.bytes.capacity());
                }
                lua.push_text(&output.bytes);
                if output.bytes.capacity() <= KEPT {
                    SCRATCH.set(output.bytes);
                }
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
