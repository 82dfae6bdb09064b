//! The few system calls that `std` does not offer: epoll, socket options, CPU clocks, limits.
//!
//! The only module of this crate with unsafe code. It holds no policy: each function is one call
//! with its error turned into `io::Error`.

use std::io;
use std::mem;
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;
use std::sync::atomic::AtomicU32;
use std::time::Duration;

/// Edge-triggered interest in reading and writing.
pub const EDGE_IN_OUT: u32 = (libc::EPOLLIN | libc::EPOLLOUT | libc::EPOLLET) as u32;

/// An epoll instance.
#[derive(Debug)]
pub struct Epoll {
    fd: OwnedFd,
}

/// The list that [`Epoll::wait`] fills.
pub type Events = Vec<libc::epoll_event>;

/// A list for up to `n` events.
pub fn events(n: usize) -> Events {
    vec![libc::epoll_event { events: 0, u64: 0 }; n]
}

impl Epoll {
    /// A new instance.
    ///
    /// # Errors
    ///
    /// When the process is out of descriptors.
    pub fn new() -> io::Result<Epoll> {
        // SAFETY: epoll_create1 takes no pointer.
        let fd = check(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) })?;
        // SAFETY: the kernel just returned this descriptor and nobody else owns it.
        Ok(Epoll { fd: unsafe { OwnedFd::from_raw_fd(fd) } })
    }

    /// Watches `fd`; its events carry `token`.
    ///
    /// # Errors
    ///
    /// As `epoll_ctl(2)`.
    pub fn add(&self, fd: RawFd, interest: u32, token: u64) -> io::Result<()> {
        let mut event = libc::epoll_event { events: interest, u64: token };
        // SAFETY: `event` outlives the call, which only reads it.
        check(unsafe {
            libc::epoll_ctl(self.fd.as_raw_fd(), libc::EPOLL_CTL_ADD, fd, &mut event)
        })?;
        Ok(())
    }

    /// Waits up to `timeout_ms` (-1: for ever) and returns how many events were stored.
    ///
    /// # Errors
    ///
    /// As `epoll_wait(2)`; an interrupted wait counts as no events.
    pub fn wait(&self, list: &mut Events, timeout_ms: i32) -> io::Result<usize> {
        let room = i32::try_from(list.len()).unwrap_or(i32::MAX);
        // SAFETY: `list` has room for `room` initialised events for the length of the call.
        let n = check(unsafe {
            libc::epoll_wait(self.fd.as_raw_fd(), list.as_mut_ptr(), room, timeout_ms)
        });
        match n {
            Ok(n) => Ok(n as usize),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => Ok(0),
            Err(e) => Err(e),
        }
    }
}

/// A listener on 127.0.0.1 with a backlog for thousands of clients at once.
///
/// # Errors
///
/// When the port is taken.
pub fn listen(port: u16) -> io::Result<TcpListener> {
    let listener = TcpListener::bind(SocketAddrV4::new(Ipv4Addr::LOCALHOST, port))?;
    // SAFETY: listen takes no pointer; a second call only changes the backlog.
    check(unsafe { libc::listen(listener.as_raw_fd(), 16384) })?;
    Ok(listener)
}

/// Wakes readers of this socket only when `bytes` are there (or it ended).
///
/// # Errors
///
/// As `setsockopt(2)`.
pub fn set_receive_low_water(stream: &TcpStream, bytes: usize) -> io::Result<()> {
    let value = i32::try_from(bytes).unwrap_or(i32::MAX);
    // SAFETY: the pointer and the length describe `value`, which outlives the call.
    check(unsafe {
        libc::setsockopt(
            stream.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_RCVLOWAT,
            (&raw const value).cast(),
            mem::size_of::<i32>() as libc::socklen_t,
        )
    })?;
    Ok(())
}

/// Raises the limit of open descriptors to the most the process may have and returns it.
///
/// # Errors
///
/// As `getrlimit(2)`.
pub fn raise_descriptor_limit() -> io::Result<u64> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is a valid rlimit for the call to fill.
    check(unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) })?;
    limit.rlim_cur = limit.rlim_max;
    // SAFETY: `limit` is initialised and only read.
    check(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &limit) })?;
    Ok(limit.rlim_cur)
}

/// CPU time of the calling thread.
pub fn thread_cpu() -> Duration {
    clock(libc::CLOCK_THREAD_CPUTIME_ID).unwrap_or_default()
}

/// The part of the calling thread's CPU time spent outside the kernel.
pub fn thread_user() -> Duration {
    // SAFETY: an rusage of zeros is valid.
    let mut usage: libc::rusage = unsafe { mem::zeroed() };
    // SAFETY: `usage` is valid for the call to fill.
    if check(unsafe { libc::getrusage(libc::RUSAGE_THREAD, &mut usage) }).is_err() {
        return Duration::ZERO;
    }
    Duration::new(usage.ru_utime.tv_sec as u64, usage.ru_utime.tv_usec as u32 * 1000)
}

/// CPU time of a whole process, threads that ended included, to the nanosecond.
///
/// # Errors
///
/// When the process is gone.
pub fn process_cpu(pid: u32) -> io::Result<Duration> {
    let mut id: libc::clockid_t = 0;
    // SAFETY: `id` is valid for the call to fill.
    let code = unsafe { libc::clock_getcpuclockid(pid as libc::pid_t, &mut id) };
    if code != 0 {
        return Err(io::Error::from_raw_os_error(code));
    }
    clock(id)
}

/// Monotonic time in nanoseconds.
#[inline]
pub fn now_ns() -> u64 {
    let t = clock(libc::CLOCK_MONOTONIC).unwrap_or_default();
    t.as_secs() * 1_000_000_000 + u64::from(t.subsec_nanos())
}

/// Asks the kernel to kill this process's child when its parent dies. For `pre_exec`.
///
/// # Errors
///
/// As `prctl(2)`.
pub fn die_with_parent() -> io::Result<()> {
    // SAFETY: PR_SET_PDEATHSIG takes a signal number, no pointer.
    check(unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) })?;
    Ok(())
}

/// Sends SIGKILL to every process of the group that `leader` leads.
pub fn kill_group(leader: u32) {
    // SAFETY: kill takes no pointer; the group is one that we started and have not reaped yet.
    unsafe { libc::kill(-(leader as libc::pid_t), libc::SIGKILL) };
}

/// Makes `command` lead a process group of its own and die with the runner.
pub fn isolate(command: &mut std::process::Command) {
    use std::os::unix::process::CommandExt;
    command.process_group(0);
    // SAFETY: the closure runs between fork and exec and makes one async-signal-safe call.
    unsafe { command.pre_exec(die_with_parent) };
}

fn clock(id: libc::clockid_t) -> io::Result<Duration> {
    let mut t = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `t` is valid for the call to fill.
    check(unsafe { libc::clock_gettime(id, &mut t) })?;
    Ok(Duration::new(t.tv_sec as u64, t.tv_nsec as u32))
}

fn check(code: i32) -> io::Result<i32> {
    if code < 0 { Err(io::Error::last_os_error()) } else { Ok(code) }
}

/// Sleeps while `word` is `value`, or not at all if it is another; may wake without cause.
pub fn futex_wait(word: &AtomicU32, value: u32) {
    futex(word, libc::FUTEX_WAIT, value);
}

/// Wakes one thread that sleeps at `word`.
pub fn futex_wake(word: &AtomicU32) {
    futex(word, libc::FUTEX_WAKE, 1);
}

fn futex(word: &AtomicU32, operation: i32, value: u32) {
    let operation = operation | libc::FUTEX_PRIVATE_FLAG;
    let forever = ptr::null::<libc::timespec>();
    // SAFETY: the word lives during the call, and nothing else is read. Why a wait has ended is not
    // for this function to tell.
    unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), operation, value, forever) };
}

/// Has this thread run on one core only, if there is such a core.
pub fn run_on(core: usize) {
    // SAFETY: a set of cores is plain bits.
    let mut set: libc::cpu_set_t = unsafe { mem::zeroed() };
    // SAFETY: the core is below the size of the set, by the callers.
    unsafe { libc::CPU_SET(core, &mut set) };
    // SAFETY: the set lives during the call, with its own size.
    unsafe { libc::sched_setaffinity(0, size_of_val(&set), &raw const set) };
}
