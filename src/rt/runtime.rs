//! Clock, timers, name look-ups, tasks, random numbers. Does not know sockets.

use std::future::Future;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{LazyLock, OnceLock};
use std::task::{Context, Poll};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Allocations of at least this size get pages of their own, which are new each time.
const MAPPED_BYTES: libc::c_int = 4 << 20;

/// Free memory that each of the allocator's arenas keeps for later: giving pages back and getting
/// new ones costs more than what is read into them.
const KEPT_BYTES: libc::c_int = 16 << 20;

/// The instant that deadlines count from.
fn epoch() -> Instant {
    static EPOCH: OnceLock<Instant> = OnceLock::new();
    *EPOCH.get_or_init(Instant::now)
}

/// Nanoseconds of the monotonic clock since the first call.
pub(super) fn now() -> u64 {
    epoch().elapsed().as_nanos() as u64
}

/// Time since 1970, as far as the system knows it.
pub(super) fn wall_clock() -> Duration {
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
pub(super) fn random_words() -> Option<[u64; 4]> {
    let mut words = [0u64; 4];
    let length = size_of_val(&words);
    // SAFETY: room for that many bytes; any content is a valid number.
    let count = unsafe { libc::getrandom(words.as_mut_ptr().cast(), length, 0) };
    (count == length as isize).then_some(words)
}

/// A keyed hash: SipHash, with a key of this process from the system.
pub(super) fn secret(which: (u64, u64)) -> u64 {
    static KEY: LazyLock<RandomState> = LazyLock::new(RandomState::new);
    KEY.hash_one(which)
}

/// Prepares the runtime. Call once, first thing in `main`, before any thread exists.
///
/// async-std starts one executor thread per core on first use. Contexts do not run on it (it only
/// flushes closed sockets and watches signals), so one thread is enough.
pub fn init() {
    epoch();
    // SAFETY: sets figures, before any other thread allocates. Where they are not known, nothing
    // changes.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, MAPPED_BYTES);
        libc::mallopt(libc::M_TRIM_THRESHOLD, KEPT_BYTES);
    }
    if std::env::var_os("ASYNC_STD_THREAD_COUNT").is_none() {
        // SAFETY: the caller promises that no other thread runs yet.
        unsafe { std::env::set_var("ASYNC_STD_THREAD_COUNT", "1") };
    }
}

/// Runs a future to its end on this thread, driving the reactor while it waits.
pub(super) fn block_on<F: Future>(future: F) -> F::Output {
    // What async-std's own `block_on` does beneath an executor for tasks of this thread.
    async_io::block_on(future)
}

/// Starts a background task.
pub(super) fn spawn(future: impl Future<Output = ()> + Send + 'static) {
    drop(async_std::task::spawn(future));
}

/// Resolves `host` off the calling thread.
///
/// # Errors
/// Whatever the system's resolver reports; an empty answer is an error too.
pub(super) async fn resolve(host: String, port: u16) -> io::Result<Vec<SocketAddr>> {
    use async_std::net::ToSocketAddrs;
    let addresses: Vec<SocketAddr> = (host.as_str(), port).to_socket_addrs().await?.collect();
    if addresses.is_empty() {
        return Err(io::Error::new(io::ErrorKind::NotFound, "no address for the name"));
    }
    Ok(addresses)
}

/// The next SIGINT or SIGTERM.
///
/// # Errors
/// If the handlers cannot be installed.
pub fn termination_signals() -> io::Result<impl Future<Output = ()>> {
    use async_signal::{Signal, Signals};
    use futures::StreamExt;
    let mut signals = Signals::new([Signal::Int, Signal::Term])?;
    Ok(async move {
        signals.next().await;
    })
}

/// One deadline at a time, on the reactor.
#[derive(Debug)]
pub(super) struct Timer(async_io::Timer);

impl Timer {
    /// A timer that never fires.
    pub(super) fn new() -> Timer {
        Timer(async_io::Timer::never())
    }

    /// Fires at `deadline` (nanoseconds, see [`now`]) instead of whatever was set.
    pub(super) fn set(&mut self, deadline: u64) {
        self.0.set_at(epoch() + Duration::from_nanos(deadline));
    }

    /// Ready once the deadline has passed; otherwise wakes `cx` when it has.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        Pin::new(&mut self.0).poll(cx).map(|_| ())
    }
}

impl Default for Timer {
    fn default() -> Timer {
        Timer::new()
    }
}

/// Waits for `duration`.
pub(super) async fn sleep(duration: Duration) {
    async_io::Timer::after(duration).await;
}
