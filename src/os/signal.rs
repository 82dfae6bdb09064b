//! Signals that a process reacts to.

use std::ffi::c_int;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use async_io::Async;

use crate::os::errno::{errno, set_errno};
use crate::os::runtime::spawn;

/// Signals that scripts may ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// SIGHUP.
    Hup,
    /// SIGUSR1.
    Usr1,
    /// SIGUSR2.
    Usr2,
    /// SIGINT.
    Int,
    /// SIGTERM.
    Term,
}

impl Signal {
    /// All of them, in their order.
    pub const ALL: [Signal; 5] =
        [Signal::Hup, Signal::Usr1, Signal::Usr2, Signal::Int, Signal::Term];

    /// The name without `SIG`.
    pub fn name(self) -> &'static str {
        match self {
            Signal::Hup => "HUP",
            Signal::Usr1 => "USR1",
            Signal::Usr2 => "USR2",
            Signal::Int => "INT",
            Signal::Term => "TERM",
        }
    }

    /// The system's number.
    pub fn number(self) -> i32 {
        match self {
            Signal::Hup => libc::SIGHUP,
            Signal::Usr1 => libc::SIGUSR1,
            Signal::Usr2 => libc::SIGUSR2,
            Signal::Int => libc::SIGINT,
            Signal::Term => libc::SIGTERM,
        }
    }

    /// The exit status that tells of it, for one that the process ends by in order.
    pub fn exit_status(self) -> Option<u8> {
        let number = u8::try_from(self.number()).unwrap_or_default();
        matches!(self, Signal::Int | Signal::Term).then_some(128 + number)
    }
}

/// Has `react` called whenever a signal comes, on a thread of the runtime, from now on for good.
///
/// # Errors
/// If the handler cannot be installed.
pub fn on_signal(signal: Signal, react: impl Fn() + Send + 'static) -> io::Result<()> {
    use async_signal::{Signal as System, Signals};
    use futures::StreamExt;
    let wanted = match signal {
        Signal::Hup => System::Hup,
        Signal::Usr1 => System::Usr1,
        Signal::Usr2 => System::Usr2,
        Signal::Int => System::Int,
        Signal::Term => System::Term,
    };
    let mut signals = Signals::new([wanted])?;
    HANDLED.fetch_or(1 << signal as u8, Ordering::Relaxed);
    spawn(async move {
        while signals.next().await.is_some() {
            react();
        }
    });
    Ok(())
}

/// The signals that have handlers of ours, a bit each.
static HANDLED: AtomicU8 = AtomicU8::new(0);

/// Gives those signals their default actions again: handlers in a forked process would tell its
/// parent. Async-signal-safe.
pub(super) fn leave_to_system() {
    let handled = HANDLED.load(Ordering::Relaxed);
    for signal in Signal::ALL.into_iter().filter(|&signal| handled >> signal as u8 & 1 != 0) {
        set(signal.number(), Some(libc::SIG_DFL));
    }
}

// SAFETY: numbers, which the system checks, and places for sets.
unsafe extern "C" {
    safe fn raise(signal: c_int) -> c_int;
    safe fn sigaddset(set: &mut libc::sigset_t, signal: c_int) -> c_int;
    safe fn sigfillset(set: &mut libc::sigset_t) -> c_int;
    safe fn sigismember(set: &libc::sigset_t, signal: c_int) -> c_int;
    safe fn sigpending(set: &mut libc::sigset_t) -> c_int;
    safe fn pthread_sigmask(how: c_int, set: &libc::sigset_t, before: &mut libc::sigset_t)
    -> c_int;
}

/// Signals, as a thread blocks them.
#[derive(Clone, Copy)]
pub(super) struct Mask(libc::sigset_t);

impl Mask {
    fn none() -> Mask {
        // SAFETY: all zero is the set of no signals.
        Mask(unsafe { std::mem::zeroed() })
    }

    fn only(signal: c_int) -> Mask {
        let mut mask = Mask::none();
        sigaddset(&mut mask.0, signal);
        mask
    }

    pub(super) fn all() -> Mask {
        let mut mask = Mask::none();
        sigfillset(&mut mask.0);
        mask
    }

    /// Has this thread block these signals too; returns those that it blocked before.
    /// Async-signal-safe, like what follows.
    pub(super) fn add(&self) -> Mask {
        self.apply(libc::SIG_BLOCK)
    }

    /// Has this thread block these signals alone.
    pub(super) fn set(&self) {
        self.apply(libc::SIG_SETMASK);
    }

    fn apply(&self, how: c_int) -> Mask {
        let mut before = Mask::none();
        pthread_sigmask(how, &self.0, &mut before.0);
        before
    }
}

/// Sets what a signal does, if something is given; returns what it did before.
fn set(signal: c_int, action: Option<libc::sighandler_t>) -> libc::sighandler_t {
    // SAFETY: all zero is a valid sigaction, of which one is filled, if it is used, and one is a
    // place for the result.
    unsafe {
        let [mut new, mut before]: [libc::sigaction; 2] = std::mem::zeroed();
        new.sa_sigaction = action.unwrap_or_default();
        // System calls go on where they can.
        new.sa_flags = libc::SA_RESTART;
        let new = if action.is_some() { &raw const new } else { std::ptr::null() };
        libc::sigaction(signal, new, &raw mut before);
        before.sa_sigaction
    }
}

/// Has a handler, which must be async-signal-safe, called for this signal, on whatever thread it
/// comes to; returns what the signal did before.
pub(crate) fn handle(signal: c_int, handler: extern "C" fn(c_int)) -> libc::sighandler_t {
    set(signal, Some(handler as *const () as libc::sighandler_t))
}

/// Whether this signal is ignored. Async-signal-safe, like what follows.
pub fn is_ignored(signal: c_int) -> bool {
    set(signal, None) == libc::SIG_IGN
}

/// Keeps SIGPIPE from this thread, and from those that it starts: who writes there is told of a
/// peer that is gone by the write, whatever the signal does to the process.
pub fn keep_out_broken_pipes() {
    Mask::only(libc::SIGPIPE).add();
}

/// Has this thread not block the signal.
pub(super) fn let_through(signal: c_int) {
    Mask::only(signal).apply(libc::SIG_UNBLOCK);
}

/// Ends the process as this signal does by default.
pub fn die_of(signal: c_int) {
    set(signal, Some(libc::SIG_DFL));
    raise(signal);
}

/// Calls `body`, which may set `errno`, in a signal handler: who was interrupted finds its own.
pub(crate) fn keeping_errno(body: impl FnOnce()) {
    let before = errno();
    body();
    set_errno(before);
}

/// A descriptor that stays open: [`ring`] with it has `react` called soon, on a thread of the
/// runtime.
///
/// # Errors
/// If there is no descriptor left.
pub(crate) fn bell(react: impl Fn() + Send + 'static) -> io::Result<BorrowedFd<'static>> {
    use std::io::Read;
    let (reader, writer) = Async::<UnixStream>::pair()?;
    spawn(async move {
        let mut rings = [0; 64];
        while reader.read_with(|mut reader| reader.read(&mut rings)).await.is_ok_and(|n| n > 0) {
            react();
        }
    });
    let bell: &'static Async<UnixStream> = Box::leak(Box::new(writer));
    Ok(bell.as_fd())
}

/// Rings. Async-signal-safe.
pub(crate) fn ring(bell: BorrowedFd<'_>) {
    // If there is no room for one byte more, enough have rung.
    let _ = rustix::io::write(bell, &[0]);
}

/// Looks at a signal that is on its way to another thread, and the time between two.
const LOOKS: u32 = 100;
const LOOK_PAUSE: Duration = Duration::from_micros(20);

/// Waits until this signal, if it is pending for the process, has been delivered to one of its
/// threads; 2 ms at most, since all of them may block it.
pub(crate) fn let_pass(signal: c_int) {
    // What is pending shows while this thread does not want it.
    let before = Mask::only(signal).add();
    for _ in 0..LOOKS {
        let mut pending = Mask::none();
        sigpending(&mut pending.0);
        if sigismember(&pending.0, signal) == 0 {
            break;
        }
        std::thread::sleep(LOOK_PAUSE);
    }
    before.set();
}
