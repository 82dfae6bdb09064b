//! Stream sockets: read, written and accepted from without waiting, and polled for readiness.
//!
//! What each function does, its units and errors: [`rt::Stream`](crate::rt::Stream) and
//! [`rt::Listener`](crate::rt::Listener), which call it.

use std::ffi::c_int;
use std::fs::File;
use std::io::{self, IoSlice};
use std::mem::{MaybeUninit, offset_of};
use std::net::{Shutdown, SocketAddr};
use std::ops::Deref;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::task::{Context, Poll};
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::{self, RecvFlags, SendAncillaryBuffer, SendFlags, SocketFlags};

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

/// A connected, or connecting, stream socket.
#[derive(Debug)]
pub(crate) struct Stream(Watched);

impl Deref for Stream {
    type Target = Watched;

    #[inline]
    fn deref(&self) -> &Watched {
        &self.0
    }
}

impl Stream {
    pub(crate) fn connect(address: &SockAddr) -> io::Result<Stream> {
        failpoint::check_socket()?;
        let socket = Socket::new(address.domain(), Type::STREAM.nonblocking(), None)?;
        match socket.connect(address) {
            Ok(()) => {}
            Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => {}
            Err(error) => return Err(error),
        }
        Ok(Stream(Watched::new(socket)?))
    }

    pub(crate) fn read(&self, space: &mut [MaybeUninit<u8>]) -> io::Result<usize> {
        failpoint::check_socket()?;
        loop {
            match net::recv(self.socket(), &mut *space, RecvFlags::empty()) {
                Ok(((read, _), _)) => return Ok(read.len()),
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    pub(crate) fn write(&self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        failpoint::check_socket()?;
        loop {
            let result = match pieces {
                [piece] => net::send(self.socket(), piece, SendFlags::NOSIGNAL),
                _ => {
                    let nothing = &mut SendAncillaryBuffer::default();
                    net::sendmsg(self.socket(), pieces, nothing, SendFlags::NOSIGNAL)
                }
            };
            match result {
                Ok(count) => return Ok(count),
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    pub(crate) fn take_error(&self) -> io::Result<Option<io::Error>> {
        self.socket().take_error()
    }

    pub(crate) fn set_nodelay(&self, on: bool) {
        // Unix sockets have no such option, and for TCP it is a hint: failure changes no result.
        let _ = self.socket().set_tcp_nodelay(on);
    }

    pub(crate) fn set_keepalive(&self, keepalive: Option<Keepalive>) {
        let Some(keepalive) = keepalive else {
            let _ = self.socket().set_keepalive(false);
            return;
        };
        let mut options = TcpKeepalive::new().with_time(keepalive.idle);
        if let Some(interval) = keepalive.interval {
            options = options.with_interval(interval);
        }
        if let Some(count) = keepalive.count {
            options = options.with_retries(count);
        }
        // A connection that is gone already needs none.
        let _ = self.socket().set_tcp_keepalive(&options);
    }

    pub(crate) fn end_output(&self) {
        // A connection that is gone already needs no end.
        let _ = self.socket().shutdown(Shutdown::Write);
    }

    pub(crate) fn undelivered(&self) -> usize {
        let socket = self.socket().as_raw_fd();
        let mut unsent: c_int = 0;
        // SAFETY: the descriptor is open, and the request writes one integer.
        let status = unsafe { libc::ioctl(socket, libc::TIOCOUTQ, &raw mut unsent) };
        if status != 0 || unsent == 0 || self.is_over() { 0 } else { unsent as usize }
    }

    pub(crate) fn reset(&self) {
        // A connection that is gone already needs no reset.
        let _ = self.socket().set_linger(Some(Duration::ZERO));
    }

    /// True if both directions of a TCP connection are over, as after a reset.
    fn is_over(&self) -> bool {
        const TCP_CLOSE: u8 = 7;
        // The state is the first byte.
        tcp_info(self.socket()).is_none_or(|info| info[0].to_ne_bytes()[0] == TCP_CLOSE)
    }

    pub(crate) fn shutdown(&self) {
        // A connection that is gone already is what is wanted.
        let _ = self.socket().shutdown(Shutdown::Both);
    }

    pub(crate) fn local_address(&self) -> Option<SocketAddr> {
        self.socket().local_addr().ok()?.as_socket()
    }

    pub(crate) fn peer_address(&self) -> Option<SocketAddr> {
        self.socket().peer_addr().ok()?.as_socket()
    }
}

/// A listening stream socket.
#[derive(Debug)]
pub(crate) struct Listener(Watched);

impl Listener {
    pub(crate) fn bind(
        address: SocketAddr,
        backlog: i32,
        reuse_port: bool,
    ) -> io::Result<Listener> {
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

    pub(crate) fn bind_unix(path: &Path, backlog: i32) -> io::Result<Listener> {
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

    pub(crate) fn poll_read_ready(&self, cx: &Context<'_>) -> Poll<()> {
        self.0.poll_read_ready(cx)
    }

    pub(crate) fn accept(&self) -> io::Result<Stream> {
        failpoint::check_socket()?;
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = net::accept_with(self.0.socket(), flags)?;
        Ok(Stream(Watched::new(socket.into())?))
    }

    pub(crate) fn backlog(&self) -> Option<(usize, usize)> {
        let info = tcp_info(self.0.socket())?;
        Some((info[WAITING_WORD] as usize, info[LIMIT_WORD] as usize))
    }

    pub(crate) fn local_address(&self) -> Option<SocketAddr> {
        self.0.socket().local_addr().ok()?.as_socket()
    }
}

/// Words of `tcp_info` up to those that are looked at.
const INFO_WORDS: usize = LIMIT_WORD + 1;
/// Of a listener: connections that wait to be accepted, and how many may.
const WAITING_WORD: usize = offset_of!(libc::tcp_info, tcpi_unacked) / 4;
const LIMIT_WORD: usize = offset_of!(libc::tcp_info, tcpi_sacked) / 4;

/// What the system tells of a TCP socket, as in `tcp_info`; nothing for others.
fn tcp_info(socket: &Socket) -> Option<[u32; INFO_WORDS]> {
    option(socket, libc::IPPROTO_TCP, libc::TCP_INFO)
}

/// What the system tells of a socket under this number, in words: zero where it says nothing.
pub(super) fn option<const N: usize>(
    socket: &Socket,
    level: c_int,
    name: c_int,
) -> Option<[u32; N]> {
    let mut found = [0; N];
    let mut length = size_of_val(&found) as libc::socklen_t;
    let (fd, place) = (socket.as_raw_fd(), found.as_mut_ptr().cast());
    // SAFETY: the descriptor is open, and no more than `length` bytes are written.
    let status = unsafe { libc::getsockopt(fd, level, name, place, &raw mut length) };
    (status == 0).then_some(found)
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
