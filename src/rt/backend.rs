//! Sends each call to the system, or to the simulation that is on.
//!
//! Which of the two it is does not change while the process runs: one branch that is always
//! predicted, or, for what is created once, the kind of the value.

use std::future::Future;
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::path::Path;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use crate::os::{self, Address, epoll, runtime, socket};
use crate::sim::{self, is_on};

/// Whether the outside is simulated.
#[inline]
pub fn is_simulated() -> bool {
    is_on()
}

/// Nanoseconds of the monotonic clock since the first call.
#[inline]
pub fn now() -> u64 {
    if is_on() { sim::now() } else { os::clock::now() }
}

/// Time since 1970-01-01 00:00 UTC, as far as the system knows it; 0 for one before that.
pub fn wall_clock() -> Duration {
    if is_on() { sim::wall_clock() } else { os::clock::wall_clock() }
}

/// Numbers that differ from call to call and from process to process, for seeding; nothing if the
/// system has none.
pub fn random_words() -> Option<[u64; 4]> {
    if is_on() { Some(sim::random_words()) } else { os::chance::random_words() }
}

/// A number of 64 bits that follows from these two, and that nobody outside of this process can
/// guess, however many others he knows.
pub fn secret(which: (u64, u64)) -> u64 {
    if is_on() { sim::secret(which) } else { os::chance::secret(which) }
}

/// In a simulation: which of `count` contexts that could run does so next, and for how long it is
/// held up instead, if it is. `count` is at least 1.
pub fn choose(count: usize) -> (usize, Option<Duration>) {
    let (index, frozen) = sim::choose(count);
    (index, frozen.map(Duration::from_nanos))
}

/// In a simulation: removes the file of a unix socket; false if there is none of that name.
pub fn remove_socket_file(path: &Path) -> bool {
    is_on() && sim::remove_file(path)
}

/// Runs a future to its end on this thread, driving the reactor while it waits.
pub fn block_on<F: Future>(future: F) -> F::Output {
    if is_on() { sim::block_on(future) } else { runtime::block_on(future) }
}

/// Starts a background task.
pub fn spawn(future: impl Future<Output = ()> + Send + 'static) {
    if is_on() { sim::spawn(future) } else { runtime::spawn(future) }
}

/// Resolves `host` off the calling thread, if it is still wanted when it is its turn.
///
/// # Errors
/// Whatever the system's resolver reports; an empty answer is an error too.
pub async fn resolve(
    host: String,
    port: u16,
    is_wanted: impl Fn() -> bool + Send + 'static,
) -> io::Result<Vec<SocketAddr>> {
    match is_on() {
        true => sim::resolve(&host, port).await,
        false => os::resolve::resolve(host, port, is_wanted).await,
    }
}

/// Waits for `duration`.
pub async fn sleep(duration: Duration) {
    if is_on() { sim::sleep(duration).await } else { os::clock::sleep(duration).await }
}

/// Takes what has happened to sockets, without waiting, and wakes who waits for it; true if there
/// was anything.
pub fn poll_sockets() -> bool {
    if is_on() { sim::poll() } else { epoll::poll_sockets() }
}

/// Waits until something has happened to any socket that [`poll_sockets`] finds, or the time is
/// over; true if it has. For a thread that is no worker, and no part of a simulation.
pub fn wait_for_sockets(time: Duration) -> bool {
    epoll::wait_for_sockets(time)
}

/// In a simulation whose turns are cut: after how many instructions the turn, or slice, that begins
/// is cut, if it is.
pub fn cut_after() -> Option<i32> {
    sim::cut_after()
}

/// Has the reactor wake `waker` once anything happens to any socket, which [`poll_sockets`] then
/// finds. Ready, and nothing is watched, if something may have happened already.
pub fn watch_sockets(waker: &Waker) -> Poll<()> {
    // A simulation wakes whom a socket concerns by itself.
    if is_on() { Poll::Pending } else { epoll::watch_sockets(waker) }
}

/// Waits for `duration`, then takes what has happened to sockets. For a thread that is no worker,
/// when no worker runs any more.
pub fn drive(duration: Duration) {
    if is_on() { sim::drive(duration) } else { epoll::drive(duration) }
}

/// Methods that whichever socket it is has.
macro_rules! delegate {
    ($type:ident: $kind:ident $($(#[$doc:meta])*
        fn $name:ident(&self $(, $given:ident: $of:ty)*) $(-> $result:ty)?;)*) => {
        impl $type {
            $($(#[$doc])* #[inline] pub fn $name(&self $(, $given: $of)*) $(-> $result)? {
                match &self.0 {
                    $kind::System(socket) => socket.$name($($given),*),
                    $kind::Simulated(socket) => {
                        $crate::hint::rare();
                        socket.$name($($given),*)
                    }
                }
            })*
        }
    };
}
pub(super) use delegate;

/// One deadline at a time, on the reactor.
#[derive(Debug)]
pub struct Timer(Clock);

#[derive(Debug)]
enum Clock {
    System(os::clock::Timer),
    Simulated(sim::Timer),
}

impl Timer {
    /// A timer that never fires.
    pub fn new() -> Timer {
        Timer(match is_on() {
            true => Clock::Simulated(sim::Timer::new()),
            false => Clock::System(os::clock::Timer::new()),
        })
    }

    /// Fires at `deadline` (nanoseconds, see [`now`]) instead of whatever was set.
    pub fn set(&mut self, deadline: u64) {
        match &mut self.0 {
            Clock::System(timer) => timer.set(deadline),
            Clock::Simulated(timer) => timer.set(deadline),
        }
    }

    /// Ready once the deadline has passed; otherwise wakes `cx` when it has.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match &mut self.0 {
            Clock::System(timer) => timer.poll(cx),
            Clock::Simulated(timer) => timer.poll(cx),
        }
    }
}

impl Default for Timer {
    fn default() -> Timer {
        Timer::new()
    }
}

/// Bytes per read, and reads, of input that is thrown away at once.
const DISCARD_BYTES: usize = 16 * 1024;
const DISCARD_READS: usize = 64;

/// A connected, or connecting, stream socket.
#[derive(Debug)]
pub struct Stream(Connected);

#[derive(Debug)]
enum Connected {
    System(socket::Stream),
    Simulated(sim::Stream),
}

impl Stream {
    /// Starts to connect. The connection stands once [`Stream::poll_write_ready`] is ready and
    /// [`Stream::take_error`] reports none.
    ///
    /// # Errors
    /// Those of `socket(2)` and `connect(2)`.
    pub fn connect(address: &Address) -> io::Result<Stream> {
        Ok(Stream(match is_on() {
            true => Connected::Simulated(sim::Stream::connect(address)?),
            false => Connected::System(socket::Stream::connect(address)?),
        }))
    }

    /// Switches Nagle's algorithm off or on; nothing for unix sockets.
    pub fn set_nodelay(&self, on: bool) {
        if let Connected::System(socket) = &self.0 {
            socket.set_nodelay(on);
        }
    }

    /// Throws away input that has come, 1 MiB at most; true if there was some.
    pub fn discard(&self) -> bool {
        let mut space = [MaybeUninit::uninit(); DISCARD_BYTES];
        let mut reads = 0;
        while reads < DISCARD_READS && matches!(self.read(&mut space), Ok(1..)) {
            reads += 1;
        }
        reads > 0
    }

    /// Has the system ask a silent peer whether it is there; in a simulation nothing gets lost.
    pub fn set_keepalive(&self, keepalive: Option<os::Keepalive>) {
        if let Connected::System(socket) = &self.0 {
            socket.set_keepalive(keepalive);
        }
    }
}

delegate! { Stream: Connected
    /// Ready when a read may succeed; otherwise wakes `cx` once it may.
    fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<()>;

    /// Ready when a write may succeed; otherwise wakes `cx` once it may.
    fn poll_write_ready(&self, cx: &mut Context<'_>) -> Poll<()>;

    /// Ready once the peer has gone, or closed its side, whatever is left to read; otherwise wakes
    /// `cx` then.
    fn poll_end(&self, cx: &mut Context<'_>) -> Poll<()>;

    /// Wakes nobody for [`Stream::poll_end`] any more.
    fn forget_end(&self);

    /// Clears the readiness that [`Stream::poll_read_ready`] has reported. Call before the read, so
    /// that what arrives later wakes again.
    fn clear_read_ready(&self);

    /// One `recv(2)`; returns how many bytes came, 0 at the end of the stream.
    ///
    /// # Errors
    /// `WouldBlock` when nothing is there; otherwise the socket's error.
    fn read(&self, space: &mut [MaybeUninit<u8>]) -> io::Result<usize>;

    /// One `sendmsg(2)`; returns how many bytes the system has taken.
    ///
    /// # Errors
    /// `WouldBlock` when the socket's buffer is full; otherwise the socket's error.
    fn write(&self, pieces: &[IoSlice<'_>]) -> io::Result<usize>;

    /// The pending error of the socket, cleared.
    ///
    /// # Errors
    /// That of `getsockopt(2)`.
    fn take_error(&self) -> io::Result<Option<io::Error>>;

    /// Ends our direction; the peer sees the end of the stream once it has read everything.
    fn end_output(&self);

    /// Bytes that a TCP peer's system has not taken yet, and still may.
    fn undelivered(&self) -> usize;

    /// Has the peer find a TCP connection reset once it is closed.
    fn reset(&self);

    /// Ends both directions; the peer and our own reads see the end of the stream.
    fn shutdown(&self);

    /// Our address, if it is an IP one.
    fn local_address(&self) -> Option<SocketAddr>;

    /// The peer's address, if it is an IP one.
    fn peer_address(&self) -> Option<SocketAddr>;
}

/// A listening stream socket.
#[derive(Debug)]
pub struct Listener(Listening);

#[derive(Debug)]
enum Listening {
    System(socket::Listener),
    Simulated(sim::Listener),
}

impl Listener {
    /// Binds and listens on an IP address, with SO_REUSEADDR, and SO_REUSEPORT if asked.
    ///
    /// # Errors
    /// Those of `socket(2)`, `bind(2)` and `listen(2)`.
    pub fn bind(address: SocketAddr, backlog: i32, reuse_port: bool) -> io::Result<Listener> {
        Ok(Listener(match is_on() {
            true => {
                let bound = sim::Listener::bind(address, backlog, reuse_port)?;
                Listening::Simulated(bound)
            }
            false => Listening::System(socket::Listener::bind(address, backlog, reuse_port)?),
        }))
    }

    /// Binds and listens on a unix socket. A socket file of this user's that nobody listens on is
    /// replaced; anything else at the path, a link to such a file too, makes it `AddrInUse`.
    ///
    /// # Errors
    /// Those of `socket(2)`, `bind(2)` and `listen(2)`.
    pub fn bind_unix(path: &Path, backlog: i32) -> io::Result<Listener> {
        Ok(Listener(match is_on() {
            true => Listening::Simulated(sim::Listener::bind_unix(path, backlog)?),
            false => Listening::System(socket::Listener::bind_unix(path, backlog)?),
        }))
    }

    /// One `accept4(2)`.
    ///
    /// # Errors
    /// `WouldBlock` when none is waiting; otherwise as reported.
    pub fn accept(&self) -> io::Result<Stream> {
        Ok(Stream(match &self.0 {
            Listening::System(listener) => Connected::System(listener.accept()?),
            Listening::Simulated(listener) => Connected::Simulated(listener.accept()?),
        }))
    }
}

delegate! { Listener: Listening
    /// Ready when a connection may be waiting; otherwise wakes `cx` once one may.
    fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<()>;

    /// Connections that wait to be accepted, and how many may; nothing for unix sockets.
    fn backlog(&self) -> Option<(usize, usize)>;

    /// The address listened on, if it is an IP one.
    fn local_address(&self) -> Option<SocketAddr>;
}
