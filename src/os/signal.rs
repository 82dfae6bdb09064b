//! Signals that a process reacts to.

use std::ffi::c_int;
use std::io;
use std::os::fd::IntoRawFd;
use std::sync::atomic::{AtomicU8, Ordering};

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

/// Has those signals do what they do by themselves again: the handlers of a process that was forked
/// off would tell the one that it was forked from. Async-signal-safe.
pub(super) fn leave_to_system() {
    let handled = HANDLED.load(Ordering::Relaxed);
    for signal in Signal::ALL.into_iter().filter(|&signal| handled >> signal as u8 & 1 != 0) {
        set(signal.number(), Some(libc::SIG_DFL));
    }
}

// SAFETY: as the system has it.
unsafe extern "C" {
    safe fn raise(signal: c_int) -> c_int;
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
    // SAFETY: all zero is a set, which gets one signal; the mask is this thread's own.
    unsafe {
        let mut kept: libc::sigset_t = std::mem::zeroed();
        libc::sigaddset(&raw mut kept, libc::SIGPIPE);
        libc::pthread_sigmask(libc::SIG_BLOCK, &raw const kept, std::ptr::null_mut());
    }
}

/// Ends the process as this signal does that nobody cares for.
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

/// What [`ring`] takes to have `react` called soon, on a thread of the runtime: a descriptor, which
/// stays open.
///
/// # Errors
/// If there is no descriptor left.
pub(crate) fn bell(react: impl Fn() + Send + 'static) -> io::Result<libc::c_int> {
    use async_std::io::ReadExt;
    let (mut reader, writer) = async_std::os::unix::net::UnixStream::pair()?;
    let bell = writer.into_raw_fd();
    spawn(async move {
        let mut rings = [0; 64];
        while reader.read(&mut rings).await.is_ok_and(|count| count > 0) {
            react();
        }
    });
    Ok(bell)
}

/// Rings. Async-signal-safe.
pub(crate) fn ring(bell: libc::c_int) {
    if bell > 0 {
        // SAFETY: one byte. If there is no room for it, enough have rung.
        unsafe { libc::write(bell, [0u8].as_ptr().cast(), 1) };
    }
}

/// Looks at a signal that is on its way to another thread.
const LOOKS: u32 = 100;

/// Waits until this signal, if it has come for the process, has been taken by one of its threads;
/// not for long, as all may have it blocked.
pub(crate) fn let_pass(signal: libc::c_int) {
    // SAFETY: all zero is a set; places for sets, and numbers.
    unsafe {
        let mut wanted: libc::sigset_t = std::mem::zeroed();
        let (mut before, mut pending) = (wanted, wanted);
        libc::sigaddset(&raw mut wanted, signal);
        // What is pending shows while this thread does not want it.
        libc::pthread_sigmask(libc::SIG_BLOCK, &raw const wanted, &raw mut before);
        for _ in 0..LOOKS {
            libc::sigpending(&raw mut pending);
            if libc::sigismember(&raw const pending, signal) == 0 {
                break;
            }
            libc::usleep(20);
        }
        libc::pthread_sigmask(libc::SIG_SETMASK, &raw const before, std::ptr::null_mut());
    }
}
