//! Signals that a process reacts to.

use std::io;
use std::sync::atomic::{AtomicU8, Ordering};

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
        // SAFETY: no requirements.
        unsafe { libc::signal(signal.number(), libc::SIG_DFL) };
    }
}

/// Whether this signal is ignored.
pub fn is_ignored(signal: libc::c_int) -> bool {
    // SAFETY: all zero is a valid sigaction; a place for the result.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        libc::sigaction(signal, std::ptr::null(), &raw mut action) == 0
            && action.sa_sigaction == libc::SIG_IGN
    }
}

/// Ends the process as this signal does that nobody cares for.
pub fn die_of(signal: libc::c_int) {
    // SAFETY: a handler that is always there, and a signal to oneself.
    unsafe {
        libc::signal(signal, libc::SIG_DFL);
        libc::raise(signal);
    }
}
