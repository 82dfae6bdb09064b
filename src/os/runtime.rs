//! Clock, timers, name look-ups, tasks, random numbers. Does not know sockets.

use std::future::Future;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{LazyLock, OnceLock};
use std::task::{Context, Poll};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// The instant that deadlines count from.
fn epoch() -> Instant {
    static EPOCH: OnceLock<Instant> = OnceLock::new();
    *EPOCH.get_or_init(Instant::now)
}

/// Nanoseconds of the monotonic clock since the first call.
pub(crate) fn now() -> u64 {
    epoch().elapsed().as_nanos() as u64
}

/// Time since 1970, as far as the system knows it.
pub(crate) fn wall_clock() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// Has the programs that this process executes find their code, stacks and heaps at the same
/// addresses each time. False if that is so already, or cannot be had.
pub fn fix_addresses() -> bool {
    const NO_CHANGE: libc::c_ulong = 0xffff_ffff;
    // SAFETY: asks, and sets, a flag of the process.
    unsafe {
        let now = libc::personality(NO_CHANGE);
        let fixed = now | libc::ADDR_NO_RANDOMIZE;
        now >= 0 && now != fixed && libc::personality(fixed as libc::c_ulong) >= 0
    }
}

/// Numbers from the system, for seeding.
pub(crate) fn random_words() -> Option<[u64; 4]> {
    let mut words = [0u64; 4];
    let length = size_of_val(&words);
    // SAFETY: room for that many bytes; any content is a valid number.
    let count = unsafe { libc::getrandom(words.as_mut_ptr().cast(), length, 0) };
    (count == length as isize).then_some(words)
}

/// A keyed hash: SipHash, with a key of this process from the system.
pub(crate) fn secret(which: (u64, u64)) -> u64 {
    static KEY: LazyLock<RandomState> = LazyLock::new(RandomState::new);
    // All bytes at once: it is faster than one number after the other.
    let mut hasher = KEY.build_hasher();
    hasher.write(&((u128::from(which.0) << 64) | u128::from(which.1)).to_ne_bytes());
    hasher.finish()
}

/// What limited descriptors before that was raised.
static DESCRIPTORS: OnceLock<libc::rlimit> = OnceLock::new();

/// Allows as many open descriptors as the system lets the process have. A server is not meant to
/// end at 1,024 connections; the soft limit is that low for programs that use `select`.
fn raise_descriptor_limit() {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: a place for the result.
    if unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) } != 0 {
        return;
    }
    let raised = libc::rlimit { rlim_cur: limit.rlim_max, ..limit };
    if limit.rlim_cur >= limit.rlim_max {
        return;
    }
    // SAFETY: a filled structure. Where it is refused everything stays as it was.
    if unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const raised) } == 0 {
        let _ = DESCRIPTORS.set(limit);
    }
}

/// How many descriptors the process could have open when it was started, if that has been raised:
/// its children are to find the same.
pub fn usual_descriptor_limit() -> Option<u64> {
    DESCRIPTORS.get().map(|limit| limit.rlim_cur)
}

/// Gives the calling process that limit: a child, once C code has divided this one.
/// Async-signal-safe.
pub fn restore_descriptor_limit() {
    if let Some(limit) = DESCRIPTORS.get() {
        // SAFETY: a filled structure.
        unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, limit) };
    }
}

/// Prepares the runtime. Call once, first thing in `main`, before any thread exists.
///
/// async-std starts one executor thread per core on first use. Contexts do not run on it (it only
/// flushes closed sockets and watches signals), so one thread is enough.
pub fn init() {
    epoch();
    raise_descriptor_limit();
    if std::env::var_os("ASYNC_STD_THREAD_COUNT").is_none() {
        // SAFETY: the caller promises that no other thread runs yet.
        unsafe { std::env::set_var("ASYNC_STD_THREAD_COUNT", "1") };
    }
}

unsafe extern "C" {
    static stdin: *mut libc::FILE;
}

/// Has the C library read standard input byte by byte: for [`read_line`], before anything is read.
pub fn unbuffer_input() {
    // SAFETY: the C library's own stream, of which nothing has been read.
    unsafe { libc::setvbuf(stdin, std::ptr::null_mut(), libc::_IONBF, 0) };
}

/// Waits for a line from standard input; without its end, and nothing at the end of the input.
///
/// It is read with the C library's own stream, so that scripts that read it too find what follows;
/// and that stream is locked only once something is there, so that the process can end while this
/// waits.
pub fn read_line() -> Option<Vec<u8>> {
    let mut poll = libc::pollfd { fd: 0, events: libc::POLLIN, revents: 0 };
    let mut line = Vec::new();
    // SAFETY: one entry for `poll`; the C library's own stream, which locks itself.
    unsafe {
        loop {
            libc::poll(&raw mut poll, 1, -1);
            match libc::fgetc(stdin) {
                libc::EOF if line.is_empty() => return None,
                libc::EOF => return Some(line),
                10 => return Some(line),
                byte => line.push(byte as u8),
            }
        }
    }
}

/// Runs a future to its end on this thread, driving the reactor while it waits.
pub(crate) fn block_on<F: Future>(future: F) -> F::Output {
    // What async-std's own `block_on` does beneath an executor for tasks of this thread.
    async_io::block_on(future)
}

/// Starts a background task.
pub(crate) fn spawn(future: impl Future<Output = ()> + Send + 'static) {
    drop(async_std::task::spawn(future));
}

/// Resolves `host` off the calling thread.
///
/// # Errors
/// Whatever the system's resolver reports; an empty answer is an error too.
pub(crate) async fn resolve(host: String, port: u16) -> io::Result<Vec<SocketAddr>> {
    use async_std::net::ToSocketAddrs;
    let addresses: Vec<SocketAddr> = (host.as_str(), port).to_socket_addrs().await?.collect();
    if addresses.is_empty() {
        return Err(io::Error::new(io::ErrorKind::NotFound, "no address for the name"));
    }
    Ok(addresses)
}

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
    spawn(async move {
        while signals.next().await.is_some() {
            react();
        }
    });
    Ok(())
}

/// One deadline at a time, on the reactor.
#[derive(Debug)]
pub(crate) struct Timer(async_io::Timer);

impl Timer {
    /// A timer that never fires.
    pub(crate) fn new() -> Timer {
        Timer(async_io::Timer::never())
    }

    /// Fires at `deadline` (nanoseconds, see [`now`]) instead of whatever was set.
    pub(crate) fn set(&mut self, deadline: u64) {
        self.0.set_at(epoch() + Duration::from_nanos(deadline));
    }

    /// Ready once the deadline has passed; otherwise wakes `cx` when it has.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        Pin::new(&mut self.0).poll(cx).map(|_| ())
    }
}

impl Default for Timer {
    fn default() -> Timer {
        Timer::new()
    }
}

/// Waits for `duration`.
pub(crate) async fn sleep(duration: Duration) {
    async_io::Timer::after(duration).await;
}
