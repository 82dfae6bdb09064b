//! The only door to the outside: clock, timers, sockets, name look-ups, tasks, random numbers.
//!
//! Everything async-std or its reactor (async-io) provides is named here and nowhere else, so that
//! replacing the runtime, or simulating it, edits one file. Sockets are polled for readiness
//! directly and read or written without waiting; nothing in this module blocks but [`block_on`].

use std::future::Future;
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::pin::Pin;
use std::sync::OnceLock;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use async_io::Async;
use socket2::{Domain, SockAddr, Socket, Type};

/// A socket address of any family.
pub use socket2::SockAddr as Address;

/// Bytes per read, and reads, of input that is thrown away at once.
const DISCARD_BYTES: usize = 16 * 1024;
const DISCARD_READS: usize = 64;

/// The instant that deadlines count from.
fn epoch() -> Instant {
    static EPOCH: OnceLock<Instant> = OnceLock::new();
    *EPOCH.get_or_init(Instant::now)
}

/// Nanoseconds of the monotonic clock since the first call.
pub fn now() -> u64 {
    epoch().elapsed().as_nanos() as u64
}

/// A number that differs from process to process, for seeding.
pub fn random_seed() -> u64 {
    use std::hash::{BuildHasher, Hasher, RandomState};
    RandomState::new().build_hasher().finish()
}

/// Prepares the runtime. Call once, first thing in `main`, before any thread exists.
///
/// async-std starts one executor thread per core on first use. Contexts do not run on it (it only
/// flushes closed sockets and watches signals), so one thread is enough.
///
/// Standard output is written line by line, also into a pipe, so that the log of a server can be
/// followed.
pub fn init() {
    unsafe extern "C" {
        static stdout: *mut libc::FILE;
    }
    epoch();
    // SAFETY: the C library's own stream, before anything is written to it; a null buffer makes the
    // library allocate one.
    unsafe { libc::setvbuf(stdout, std::ptr::null_mut(), libc::_IOLBF, 0) };
    if std::env::var_os("ASYNC_STD_THREAD_COUNT").is_none() {
        // SAFETY: the caller promises that no other thread runs yet.
        unsafe { std::env::set_var("ASYNC_STD_THREAD_COUNT", "1") };
    }
}

/// Runs a future to its end on this thread, driving the reactor while it waits.
pub fn block_on<F: Future>(future: F) -> F::Output {
    async_std::task::block_on(future)
}

/// Starts a background task.
pub fn spawn(future: impl Future<Output = ()> + Send + 'static) {
    drop(async_std::task::spawn(future));
}

/// Resolves `host` off the calling thread.
///
/// # Errors
/// Whatever the system's resolver reports; an empty answer is an error too.
pub async fn resolve(host: String, port: u16) -> io::Result<Vec<SocketAddr>> {
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
pub struct Timer(async_io::Timer);

impl Timer {
    /// A timer that never fires.
    pub fn new() -> Timer {
        Timer(async_io::Timer::never())
    }

    /// Fires at `deadline` (nanoseconds, see [`now`]) instead of whatever was set.
    pub fn set(&mut self, deadline: u64) {
        self.0.set_at(epoch() + Duration::from_nanos(deadline));
    }

    /// Ready once the deadline has passed; otherwise wakes `cx` when it has.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        Pin::new(&mut self.0).poll(cx).map(|_| ())
    }
}

impl Default for Timer {
    fn default() -> Timer {
        Timer::new()
    }
}

/// Waits for `duration`.
pub async fn sleep(duration: Duration) {
    async_io::Timer::after(duration).await;
}

/// A connected, or connecting, stream socket.
#[derive(Debug)]
pub struct Stream(Async<Socket>);

impl Stream {
    /// Starts to connect. The connection stands once [`Stream::poll_writable`] is ready and
    /// [`Stream::take_error`] reports none.
    ///
    /// # Errors
    /// Those of `socket(2)` and `connect(2)`.
    pub fn connect(address: &SockAddr) -> io::Result<Stream> {
        let socket = Socket::new(address.domain(), Type::STREAM.nonblocking(), None)?;
        match socket.connect(address) {
            Ok(()) => {}
            Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => {}
            Err(error) => return Err(error),
        }
        Ok(Stream(Async::new_nonblocking(socket)?))
    }

    /// Ready when a read may succeed; otherwise wakes `cx` once it may.
    pub fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.poll_readable(cx)
    }

    /// Ready when a write may succeed; otherwise wakes `cx` once it may.
    pub fn poll_writable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.poll_writable(cx)
    }

    /// One `recv(2)`.
    ///
    /// # Errors
    /// `WouldBlock` when nothing is there; otherwise the socket's error.
    pub fn read(&self, space: &mut [MaybeUninit<u8>]) -> io::Result<usize> {
        loop {
            match self.0.get_ref().recv(space) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => return result,
            }
        }
    }

    /// One `sendmsg(2)`.
    ///
    /// # Errors
    /// `WouldBlock` when the socket's buffer is full; otherwise the socket's error.
    pub fn write(&self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        loop {
            let result = match pieces {
                [piece] => self.0.get_ref().send_with_flags(piece, libc::MSG_NOSIGNAL),
                _ => self.0.get_ref().send_vectored_with_flags(pieces, libc::MSG_NOSIGNAL),
            };
            match result {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => return result,
            }
        }
    }

    /// The pending error of the socket, cleared.
    ///
    /// # Errors
    /// That of `getsockopt(2)`.
    pub fn take_error(&self) -> io::Result<Option<io::Error>> {
        self.0.get_ref().take_error()
    }

    /// Switches Nagle's algorithm off or on; nothing for unix sockets.
    pub fn set_nodelay(&self, on: bool) {
        // Unix sockets have no such option, and for TCP it is a hint: failure changes no result.
        let _ = self.0.get_ref().set_tcp_nodelay(on);
    }

    /// Ends our direction; the peer sees the end of the stream once it has read everything.
    pub fn end_output(&self) {
        // A connection that is gone already needs no end.
        let _ = self.0.get_ref().shutdown(std::net::Shutdown::Write);
    }

    /// Throws away input that has come, up to a bound; true if there was some.
    pub fn discard(&self) -> bool {
        let mut space = [MaybeUninit::uninit(); DISCARD_BYTES];
        let mut reads = 0;
        while reads < DISCARD_READS && matches!(self.read(&mut space), Ok(1..)) {
            reads += 1;
        }
        reads > 0
    }

    /// True if a TCP peer's system has taken all that was written, or never will.
    pub fn is_delivered(&self) -> bool {
        let socket = self.0.get_ref().as_raw_fd();
        let mut unsent: libc::c_int = 0;
        // SAFETY: the descriptor is open, and the request writes one integer.
        let status = unsafe { libc::ioctl(socket, libc::TIOCOUTQ, &raw mut unsent) };
        status != 0 || unsent == 0 || self.is_over()
    }

    /// True if both directions of a TCP connection are over, as after a reset.
    fn is_over(&self) -> bool {
        const TCP_CLOSE: u8 = 7;
        let mut info = MaybeUninit::<libc::tcp_info>::zeroed();
        let mut length = size_of::<libc::tcp_info>() as libc::socklen_t;
        // SAFETY: the descriptor is open, and no more than `length` bytes are written.
        let status = unsafe {
            libc::getsockopt(
                self.0.get_ref().as_raw_fd(),
                libc::IPPROTO_TCP,
                libc::TCP_INFO,
                info.as_mut_ptr().cast(),
                &raw mut length,
            )
        };
        // SAFETY: integers, zero where the system has written nothing.
        status != 0 || unsafe { info.assume_init() }.tcpi_state == TCP_CLOSE
    }

    /// Ends both directions; the peer and our own reads see the end of the stream.
    pub fn shutdown(&self) {
        // A connection that is gone already is what is wanted.
        let _ = self.0.get_ref().shutdown(std::net::Shutdown::Both);
    }

    /// Our address, if it is an IP one.
    pub fn local_address(&self) -> Option<SocketAddr> {
        self.0.get_ref().local_addr().ok()?.as_socket()
    }

    /// The peer's address, if it is an IP one.
    pub fn peer_address(&self) -> Option<SocketAddr> {
        self.0.get_ref().peer_addr().ok()?.as_socket()
    }
}

/// A listening stream socket.
#[derive(Debug)]
pub struct Listener(Async<Socket>);

impl Listener {
    /// Binds and listens on an IP address, with SO_REUSEADDR, and SO_REUSEPORT if asked.
    ///
    /// # Errors
    /// Those of `socket(2)`, `bind(2)` and `listen(2)`.
    pub fn bind(address: SocketAddr, backlog: i32, reuse_port: bool) -> io::Result<Listener> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM.nonblocking(), None)?;
        socket.set_reuse_address(true)?;
        if reuse_port {
            socket.set_reuse_port(true)?;
        }
        socket.bind(&address.into())?;
        socket.listen(backlog)?;
        Ok(Listener(Async::new_nonblocking(socket)?))
    }

    /// Binds and listens on a unix socket. A socket file nobody listens on is replaced; anything
    /// else at the path makes it `AddrInUse`.
    ///
    /// # Errors
    /// Those of `socket(2)`, `bind(2)` and `listen(2)`.
    pub fn bind_unix(path: &Path, backlog: i32) -> io::Result<Listener> {
        let address = SockAddr::unix(path)?;
        let socket = Socket::new(Domain::UNIX, Type::STREAM.nonblocking(), None)?;
        if let Err(error) = socket.bind(&address) {
            if error.kind() != io::ErrorKind::AddrInUse || !is_stale_socket(path, &address) {
                return Err(error);
            }
            std::fs::remove_file(path)?;
            socket.bind(&address)?;
        }
        socket.listen(backlog)?;
        Ok(Listener(Async::new_nonblocking(socket)?))
    }

    /// Ready when a connection may be waiting; otherwise wakes `cx` once one may.
    pub fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.poll_readable(cx)
    }

    /// One `accept4(2)`.
    ///
    /// # Errors
    /// `WouldBlock` when none is waiting; otherwise as reported.
    pub fn accept(&self) -> io::Result<Stream> {
        let (socket, _) = self.0.get_ref().accept_raw()?;
        socket.set_nonblocking(true)?;
        Ok(Stream(Async::new_nonblocking(socket)?))
    }

    /// The address listened on, if it is an IP one.
    pub fn local_address(&self) -> Option<SocketAddr> {
        self.0.get_ref().local_addr().ok()?.as_socket()
    }
}

/// True if `path` is a socket file that nobody is bound to any more.
///
/// `symlink_metadata` does not follow links: a link at the path is never taken for a socket. The
/// probe is a datagram socket, which a stream listener refuses as of the wrong type: a stream
/// would be a connection that the listener accepts.
fn is_stale_socket(path: &Path, address: &SockAddr) -> bool {
    use std::os::unix::fs::FileTypeExt;
    let is_socket =
        std::fs::symlink_metadata(path).is_ok_and(|metadata| metadata.file_type().is_socket());
    is_socket
        && Socket::new(Domain::UNIX, Type::DGRAM.nonblocking(), None)
            .and_then(|probe| probe.connect(address))
            .is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
}

/// The socket address of a unix path.
///
/// # Errors
/// If the path is too long for the system.
pub fn unix_address(path: &Path) -> io::Result<Address> {
    SockAddr::unix(path)
}
