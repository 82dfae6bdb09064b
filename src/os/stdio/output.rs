//! What was printed and waits to be written, and the right to print.
//!
//! Usually it waits here, under a lock of ours, and goes to the system without the C library. Once
//! code in C may print too (a script looks up a function of C, or loads a module in C), and on a
//! terminal, it is handed on to the C library's stream after each call, under the stream's own
//! lock: so that what both print comes in the order in which they do.

use std::cell::{Cell, UnsafeCell};
use std::ffi::c_int;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::time::Duration;

use rustix::stdio::stdout;

use super::stream::{Locked, Stream};
use super::turnstile::Turnstile;
use super::waits;

/// Bytes that wait at most between calls: what a pipe takes as a whole (`PIPE_BUF`), so that other
/// writers come in between calls. Before a call that would exceed it, what is there is written.
const USUAL_BYTES: usize = 4096;

/// With room for a call that is longer.
const BYTES: usize = 8192;

/// What was printed.
struct Bytes(UnsafeCell<[u8; BYTES]>);

// SAFETY: used by who has the right to print, which is one thread at a time.
unsafe impl Sync for Bytes {}

static WAITING: Bytes = Bytes(UnsafeCell::new([0; BYTES]));
/// How many of them there are. Written by who has the right to print.
static LENGTH: AtomicUsize = AtomicUsize::new(0);

/// Calls `body` with what waits, and the room behind it. Only by who has the right to print, and
/// not within each other.
#[inline]
fn with_bytes<R>(body: impl FnOnce(&mut [u8; BYTES]) -> R) -> R {
    // SAFETY: who has the right to print is one thread, which is here once.
    body(unsafe { &mut *WAITING.0.get() })
}

/// Whose lock is the right to print: [`OURS`], or the stream's.
static MODE: AtomicU8 = AtomicU8::new(OWN);
const OWN: u8 = 0;
/// The stream's, from when somebody next prints.
const CHANGES: u8 = 1;
const STREAM: u8 = 2;

static OURS: Turnstile = Turnstile::new();

/// Has everything go through the C library's stream from now on.
pub fn use_stream() {
    let (order, new) = (Ordering::Relaxed, CHANGES);
    let is_new = MODE.compare_exchange(OWN, new, order, order).is_ok();
    if is_new && !OURS.is_mine() && OURS.try_take() {
        change();
        OURS.leave();
    }
}

/// Hands what waits on to the stream. Our lock is held.
#[cold]
fn change() {
    if MODE.load(Ordering::Relaxed) != STREAM
        && let Some(stream) = Stream::output().lock()
    {
        let length = LENGTH.swap(0, Ordering::Relaxed);
        with_bytes(|bytes| stream.write(&bytes[..length]));
        drop(stream);
        MODE.store(STREAM, Ordering::Release);
    }
}

/// Bytes that wait to be written. A hint while other threads print; what this thread has printed is
/// in it.
#[inline]
pub fn pending() -> usize {
    let waiting = LENGTH.load(Ordering::Relaxed);
    if MODE.load(Ordering::Relaxed) == OWN {
        return waiting;
    }
    waiting + Stream::output().pending()
}

/// Whether what waits is as little as a pipe takes at once when it takes anything.
pub(super) fn has_little() -> bool {
    pending() <= USUAL_BYTES
}

/// In a process that was forked off: whoever held our lock is not there.
pub(super) fn reset() {
    OURS.reset();
}

/// The right to print, of one thread at a time; it may be taken again while it is held. Between
/// taking it and [`Lock::end_call`] is one call, which is written as one piece where that can be.
#[derive(Debug)]
pub struct Lock {
    /// The stream, if its lock is held instead of ours.
    stream: Option<Locked>,
    /// Where what waits has begun to be that of this call.
    start: Cell<usize>,
    /// Why some of this call, or of what waited before, is lost, as in `errno`; 0 if nothing is.
    loss: Cell<c_int>,
}

impl Lock {
    #[inline]
    fn new(stream: Option<Locked>) -> Lock {
        let start = Cell::new(LENGTH.load(Ordering::Relaxed));
        Lock { stream, start, loss: Cell::new(0) }
    }

    /// Waits for it: another thread may have it for as long as nobody reads.
    ///
    /// # Errors
    /// As in `errno`: EINTR if what the thread runs is to end first, EAGAIN if too many wait.
    #[inline]
    pub fn take() -> Result<Lock, c_int> {
        super::HAS_WRITTEN.set(true);
        if MODE.load(Ordering::Relaxed) == OWN {
            OURS.take()?;
            if MODE.load(Ordering::Relaxed) == OWN {
                return Ok(Lock::new(None));
            }
            OURS.leave();
        }
        Lock::take_stream()
    }

    #[cold]
    fn take_stream() -> Result<Lock, c_int> {
        if OURS.is_mine() {
            // It goes on with what it has begun with.
            return OURS.take().map(|()| Lock::new(None));
        }
        if MODE.load(Ordering::Acquire) != STREAM {
            OURS.take()?;
            change();
            OURS.leave();
        }
        let stream = Stream::output().lock().ok_or(libc::EINTR)?;
        Ok(Lock::new(Some(stream)))
    }

    /// Takes it if no other thread has it.
    pub(super) fn try_take() -> Option<Lock> {
        let is_mine = OURS.is_mine();
        if (is_mine || MODE.load(Ordering::Relaxed) != STREAM) && OURS.try_take() {
            if MODE.load(Ordering::Relaxed) == OWN || is_mine {
                return Some(Lock::new(None));
            }
            change();
            OURS.leave();
        }
        let is_shared = MODE.load(Ordering::Acquire) == STREAM;
        let stream = is_shared.then(|| Stream::output().try_lock()).flatten();
        stream.map(|stream| Lock::new(Some(stream)))
    }

    /// The same, waiting so long at a time, until `patience` gives no more.
    pub(super) fn take_within(mut patience: impl FnMut() -> Option<Duration>) -> Option<Lock> {
        const STEP: Duration = Duration::from_millis(5);
        loop {
            if let Some(lock) = Lock::try_take() {
                return Some(lock);
            }
            let time = patience()?;
            if MODE.load(Ordering::Relaxed) == OWN {
                let mut left = Some(time);
                if OURS.take_within(|| left.take()) {
                    OURS.leave();
                }
            } else {
                std::thread::sleep(time.min(STEP));
            }
        }
    }

    /// Adds bytes that a call prints.
    #[inline]
    pub fn add(&self, bytes: &[u8]) {
        let length = LENGTH.load(Ordering::Relaxed);
        if bytes.len() > BYTES - length {
            return self.add_long(bytes);
        }
        with_bytes(|waiting| waiting[length..length + bytes.len()].copy_from_slice(bytes));
        LENGTH.store(length + bytes.len(), Ordering::Relaxed);
    }

    /// The same for one byte.
    #[inline]
    pub fn add_byte(&self, byte: u8) {
        let length = LENGTH.load(Ordering::Relaxed);
        if length >= BYTES {
            return self.add_long(&[byte]);
        }
        with_bytes(|waiting| waiting[length] = byte);
        LENGTH.store(length + 1, Ordering::Relaxed);
    }

    #[cold]
    fn add_long(&self, bytes: &[u8]) {
        self.write_out(self.start.get());
        if bytes.len() > BYTES - LENGTH.load(Ordering::Relaxed) {
            // It is written in pieces.
            self.write_out(BYTES);
        }
        if bytes.len() <= BYTES - LENGTH.load(Ordering::Relaxed) {
            self.add(bytes);
        } else {
            self.note(self.give(bytes).1);
        }
    }

    /// Hands bytes on; returns how many were taken, and if not all, why, as in `errno`.
    fn give(&self, bytes: &[u8]) -> (usize, Option<c_int>) {
        match &self.stream {
            None => waits::write(stdout(), bytes),
            Some(stream) => stream.write(bytes),
        }
    }

    fn note(&self, loss: Option<c_int>) {
        self.loss.set(loss.unwrap_or(self.loss.get()));
    }

    /// Ends a call, of which all is added; returns the `errno` that says why some of it, or of what
    /// was there before, is lost, if so.
    #[inline]
    pub fn end_call(&self) -> Option<c_int> {
        if LENGTH.load(Ordering::Relaxed) > USUAL_BYTES || self.stream.is_some() {
            self.end_long();
        }
        self.loss_so_far()
    }

    #[inline]
    fn loss_so_far(&self) -> Option<c_int> {
        Some(self.loss.take()).filter(|&loss| loss != 0)
    }

    #[cold]
    fn end_long(&self) {
        let Some(stream) = &self.stream else { return self.write_out(self.start.get()) };
        let length = LENGTH.load(Ordering::Relaxed);
        let before = Stream::output().pending();
        if before > 0 && before + length > USUAL_BYTES {
            self.note(flush_stream(stream));
        }
        self.write_out(length);
    }

    /// Writes the first `length` bytes that wait, or all if there are fewer.
    fn write_out(&self, length: usize) {
        let all = LENGTH.load(Ordering::Relaxed);
        let length = length.min(all);
        if length == 0 {
            return;
        }
        let gone = with_bytes(|bytes| {
            let waiting = &bytes[..length];
            let (gone, loss) = self.give(waiting);
            self.note(loss);
            // Who is to end leaves the rest to others. What has failed is gone.
            let gone = if loss == Some(libc::EINTR) { gone } else { length };
            bytes.copy_within(gone..all, 0);
            gone
        });
        LENGTH.store(all - gone, Ordering::Relaxed);
        self.start.set(self.start.get().saturating_sub(gone));
    }

    /// Writes all that waits; returns the `errno` that says why some is lost, if so. After EINTR,
    /// when the context is to end, the rest still waits.
    pub fn flush(&self) -> Option<c_int> {
        self.write_out(BYTES);
        if let Some(stream) = &self.stream {
            self.note(flush_stream(stream));
        }
        self.loss_so_far()
    }
}

fn flush_stream(stream: &Locked) -> Option<c_int> {
    if super::is_terminal() {
        return stream.flush();
    }
    // The C library gives up what a slow reader of a non-blocking descriptor does not take.
    let (rest, loss) = stream.take_waiting(|waiting| {
        let (gone, loss) = waits::write(stdout(), waiting);
        let is_kept = loss == Some(libc::EINTR);
        (if is_kept { waiting[gone..].to_vec() } else { Vec::new() }, loss)
    })?;
    stream.write(&rest);
    loss
}

impl Drop for Lock {
    #[inline]
    fn drop(&mut self) {
        if self.stream.is_none() {
            OURS.leave();
        }
    }
}

/// Waits for the right to print, as long as something is written now and then; `None` if nothing
/// was for so long.
pub(super) fn take_within(patience: Duration) -> Option<Lock> {
    let mut before = None;
    Lock::take_within(|| {
        let written = Some(waits::written());
        (before.replace(written) != Some(written)).then_some(patience)
    })
}

const _: () = assert!(USUAL_BYTES <= BYTES);
