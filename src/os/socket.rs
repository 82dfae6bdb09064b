//! Stream sockets: read, written and accepted from without waiting, and polled for readiness.

use std::ffi::c_int;
use std::fs::File;
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::task::{Context, Poll};

use rustix::io::Errno;
use rustix::net::{self, RecvFlags, SendAncillaryBuffer, SendFlags, SocketFlags};
use std::time::Duration;

use socket2::{Domain, SockAddr, Socket, TcpKeepalive, Type};

use super::epoll::Watched;
use crate::failpoint;

/// How often the lock of a folder is tried, and the pause before the next time.
const LOCK_TRIES: u32 = 200;
const LOCK_PAUSE: Duration = Duration::from_micros(250);

/// A socket address of any family.
pub use socket2::SockAddr as Address;

/// When the system asks a silent peer whether it is there.
#[derive(Clone, Copy, Debug)]
pub struct Keepalive {
    /// After so long without a sign of it; the system takes whole seconds.
    pub idle: Duration,
    /// Then again every so often, likewise; `None` for the system's choice.
    pub interval: Option<Duration>,
    /// Questions without an answer after which the connection has failed.
    pub count: Option<u32>,
}

/// Bytes per read, and reads, of input that is thrown away at once.
const DISCARD_BYTES: usize = 16 * 1024;
const DISCARD_READS: usize = 64;

/// A connected, or connecting, stream socket.
#[derive(Debug)]
pub struct Stream(Watched);

impl Stream {
    /// Starts to connect. The connection stands once [`Stream::poll_write_ready`] is ready and
    /// [`Stream::take_error`] reports none.
    ///
    /// # Errors
    /// Those of `socket(2)` and `connect(2)`.
    pub fn connect(address: &SockAddr) -> io::Result<Stream> {
        failpoint::check_socket()?;
        let socket = Socket::new(address.domain(), Type::STREAM.nonblocking(), None)?;
        match socket.connect(address) {
            Ok(()) => {}
            Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => {}
            Err(error) => return Err(error),
        }
        Ok(Stream(Watched::new(socket)?))
    }

    /// Ready when a read may succeed; otherwise wakes `cx` once it may.
    #[inline]
    pub fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.0.poll_read_ready(cx)
    }

    /// Ready when a write may succeed; otherwise wakes `cx` once it may.
    pub fn poll_write_ready(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.0.poll_write_ready(cx)
    }

    /// Ready once the peer has gone, or closed its side, whatever is left to read; otherwise wakes
    /// `cx` then.
    pub fn poll_end(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.0.poll_end(cx)
    }

    /// Wakes nobody for [`Stream::poll_end`] any more.
    pub fn forget_end(&self) {
        self.0.forget_end();
    }

    /// Clears the readiness that [`Stream::poll_read_ready`] has reported. Call before the read, so
    /// that what arrives later wakes again.
    #[inline]
    pub fn clear_read_ready(&self) {
        self.0.clear_read_ready();
    }

    /// One `recv(2)`; returns how many bytes came, 0 at the end of the stream.
    ///
    /// # Errors
    /// `WouldBlock` when nothing is there; otherwise the socket's error.
    pub fn read(&self, space: &mut [MaybeUninit<u8>]) -> io::Result<usize> {
        failpoint::check_socket()?;
        loop {
            match net::recv(self.0.socket(), &mut *space, RecvFlags::empty()) {
                Ok(((read, _), _)) => return Ok(read.len()),
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// One `sendmsg(2)`; returns how many bytes the system has taken.
    ///
    /// # Errors
    /// `WouldBlock` when the socket's buffer is full; otherwise the socket's error.
    pub fn write(&self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        failpoint::check_socket()?;
        loop {
            let result = match pieces {
                [piece] => net::send(self.0.socket(), piece, SendFlags::NOSIGNAL),
                _ => {
                    let nothing = &mut SendAncillaryBuffer::default();
                    net::sendmsg(self.0.socket(), pieces, nothing, SendFlags::NOSIGNAL)
                }
            };
            match result {
                Ok(count) => return Ok(count),
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// The pending error of the socket, cleared.
    ///
    /// # Errors
    /// That of `getsockopt(2)`.
    pub fn take_error(&self) -> io::Result<Option<io::Error>> {
        self.0.socket().take_error()
    }

    /// Switches Nagle's algorithm off or on; nothing for unix sockets.
    pub fn set_nodelay(&self, on: bool) {
        // Unix sockets have no such option, and for TCP it is a hint: failure changes no result.
        let _ = self.0.socket().set_tcp_nodelay(on);
    }

    /// Has the system ask a silent peer whether it is there, or not.
    pub fn set_keepalive(&self, keepalive: Option<Keepalive>) {
        let socket = self.0.socket();
        if let Some(keepalive) = keepalive {
            let mut options = TcpKeepalive::new().with_time(keepalive.idle);
            if let Some(interval) = keepalive.interval {
                options = options.with_interval(interval);
            }
            if let Some(count) = keepalive.count {
                options = options.with_retries(count);
            }
            // A connection that is gone already needs none.
            let _ = socket.set_tcp_keepalive(&options);
        } else {
            let _ = socket.set_keepalive(false);
        }
    }

    /// Ends our direction; the peer sees the end of the stream once it has read everything.
    pub fn end_output(&self) {
        // A connection that is gone already needs no end.
        let _ = self.0.socket().shutdown(std::net::Shutdown::Write);
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

    /// Bytes that a TCP peer's system has not taken yet, and still may.
    pub fn undelivered(&self) -> usize {
        let socket = self.0.socket().as_raw_fd();
        let mut unsent: c_int = 0;
        // SAFETY: the descriptor is open, and the request writes one integer.
        let status = unsafe { libc::ioctl(socket, libc::TIOCOUTQ, &raw mut unsent) };
        if status != 0 || unsent == 0 || self.is_over() { 0 } else { unsent as usize }
    }

    /// Has the peer find a TCP connection reset once it is closed.
    pub fn reset(&self) {
        // A connection that is gone already needs no reset.
        let _ = self.0.socket().set_linger(Some(std::time::Duration::ZERO));
    }

    /// True if both directions of a TCP connection are over, as after a reset.
    fn is_over(&self) -> bool {
        const TCP_CLOSE: u8 = 7;
        tcp_info(self.0.socket()).is_none_or(|info| info.tcpi_state == TCP_CLOSE)
    }

    /// Ends both directions; the peer and our own reads see the end of the stream.
    pub fn shutdown(&self) {
        // A connection that is gone already is what is wanted.
        let _ = self.0.socket().shutdown(std::net::Shutdown::Both);
    }

    /// Our address, if it is an IP one.
    pub fn local_address(&self) -> Option<SocketAddr> {
        self.0.socket().local_addr().ok()?.as_socket()
    }

    /// The peer's address, if it is an IP one.
    pub fn peer_address(&self) -> Option<SocketAddr> {
        self.0.socket().peer_addr().ok()?.as_socket()
    }
}

/// A listening stream socket.
#[derive(Debug)]
pub struct Listener(Watched);

impl Listener {
    /// Binds and listens on an IP address, with SO_REUSEADDR, and SO_REUSEPORT if asked.
    ///
    /// # Errors
    /// Those of `socket(2)`, `bind(2)` and `listen(2)`.
    pub fn bind(address: SocketAddr, backlog: i32, reuse_port: bool) -> io::Result<Listener> {
        failpoint::check_socket()?;
        let socket = Socket::new(Domain::for_address(address), Type::STREAM.nonblocking(), None)?;
        socket.set_reuse_address(true)?;
        if reuse_port {
            socket.set_reuse_port(true)?;
        }
        socket.bind(&address.into())?;
        socket.listen(backlog)?;
        Ok(Listener(Watched::new(socket)?))
    }

    /// Binds and listens on a unix socket. A socket file of this user's that nobody listens on is
    /// replaced; anything else at the path, a link to such a file too, makes it `AddrInUse`.
    ///
    /// # Errors
    /// Those of `socket(2)`, `bind(2)` and `listen(2)`.
    pub fn bind_unix(path: &Path, backlog: i32) -> io::Result<Listener> {
        failpoint::check_socket()?;
        let address = SockAddr::unix(path)?;
        let socket = Socket::new(Domain::UNIX, Type::STREAM.nonblocking(), None)?;
        if let Err(error) = socket.bind(&address) {
            if error.kind() != io::ErrorKind::AddrInUse {
                return Err(error);
            }
            // What one has found stale another may have replaced by then.
            let _turn = lock_folder(path);
            if !is_stale_socket(path, &address) {
                return Err(error);
            }
            std::fs::remove_file(path)?;
            socket.bind(&address)?;
        }
        socket.listen(backlog)?;
        Ok(Listener(Watched::new(socket)?))
    }

    /// Ready when a connection may be waiting; otherwise wakes `cx` once one may.
    pub fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.0.poll_read_ready(cx)
    }

    /// One `accept4(2)`.
    ///
    /// # Errors
    /// `WouldBlock` when none is waiting; otherwise as reported.
    pub fn accept(&self) -> io::Result<Stream> {
        failpoint::check_socket()?;
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = net::accept_with(self.0.socket(), flags)?;
        Ok(Stream(Watched::new(socket.into())?))
    }

    /// Connections that wait to be accepted, and how many may; nothing for unix sockets.
    pub fn backlog(&self) -> Option<(usize, usize)> {
        let info = tcp_info(self.0.socket())?;
        Some((info.tcpi_unacked as usize, info.tcpi_sacked as usize))
    }

    /// The address listened on, if it is an IP one.
    pub fn local_address(&self) -> Option<SocketAddr> {
        self.0.socket().local_addr().ok()?.as_socket()
    }
}

/// What the system tells of a TCP socket; zero in fields that it does not know.
fn tcp_info(socket: &Socket) -> Option<libc::tcp_info> {
    // SAFETY: integers, any of which may be zero.
    unsafe { option(socket, libc::IPPROTO_TCP, libc::TCP_INFO) }
}

/// What the system tells of a socket under this number: zero where it says nothing.
///
/// # Safety
/// What is asked for must be valid whatever bytes are in it.
pub(super) unsafe fn option<T>(socket: &Socket, level: c_int, name: c_int) -> Option<T> {
    let mut found = MaybeUninit::<T>::zeroed();
    let mut length = size_of::<T>() as libc::socklen_t;
    let (fd, place) = (socket.as_raw_fd(), found.as_mut_ptr().cast());
    // SAFETY: the descriptor is open, no more than `length` bytes are written, and whatever they
    // are is valid.
    unsafe {
        let status = libc::getsockopt(fd, level, name, place, &raw mut length);
        (status == 0).then(|| found.assume_init())
    }
}

/// Locks the folder of a path, which takes a moment where others do so for what is done here.
/// Nothing where that cannot be had: somebody may hold it for something else.
fn lock_folder(path: &Path) -> Option<File> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let folder = File::open(folder.unwrap_or(Path::new("."))).ok()?;
    for _ in 0..LOCK_TRIES {
        if folder.try_lock().is_ok() {
            return Some(folder);
        }
        std::thread::sleep(LOCK_PAUSE);
    }
    None
}

/// True if `path` is a socket file of this user's that nobody is bound to any more. One of another
/// user's is none of our business, even where the folder (or being root) would let us replace it.
///
/// `symlink_metadata` does not follow links: a link at the path is never taken for a socket. The
/// probe is a datagram socket, which a stream listener refuses as of the wrong type: a stream
/// would be a connection that the listener accepts.
fn is_stale_socket(path: &Path, address: &SockAddr) -> bool {
    use std::os::unix::fs::{FileTypeExt, MetadataExt};
    let user = rustix::process::geteuid().as_raw();
    let is_ours = std::fs::symlink_metadata(path)
        .is_ok_and(|metadata| metadata.file_type().is_socket() && metadata.uid() == user);
    is_ours
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
