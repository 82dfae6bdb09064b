//! What the standard library does not do with threads: interrupting one, its CPU time, whether it
//! waits, and how much of its stack is left.
//!
//! [`Handle::kick`] makes another thread run the process's kick handler in between two of its
//! instructions, by a signal. Handlers must be async-signal-safe: no locks, no allocation.

use std::cell::Cell;
use std::ffi::c_int;
use std::fs::File;
use std::io::{self, Read};
use std::mem::MaybeUninit;
use std::os::unix::fs::FileExt;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rustix::process::{Pid, getpid, setpriority_process};
use rustix::thread::gettid;

use super::descriptors::descriptors_max;
use super::signal;
use crate::hint::rarely;

// SAFETY: numbers, which the system checks, and a place for the result.
unsafe extern "C" {
    safe fn tgkill(process: c_int, thread: c_int, signal: c_int) -> c_int;
    safe fn clock_gettime(clock: c_int, time: &mut libc::timespec) -> c_int;
}

/// The signal: ignored by default, and used by others for the same purpose.
const SIGNAL: c_int = libc::SIGURG;

/// The priority of a thread that lets others go first: it gets a seventieth of what they get. None
/// at all (`SCHED_IDLE`) was no faster for the others, who may wait for a lock that it holds.
const NICE: c_int = 19;

static HANDLER: OnceLock<fn()> = OnceLock::new();

extern "C" fn on_signal(_signal: c_int) {
    // A load: the cell was filled before the signal was installed.
    if let Some(handler) = HANDLER.get() {
        signal::keeping_errno(handler);
    }
}

/// Sets what a kicked thread runs. Only the first call counts.
pub fn on_kick(handler: fn()) {
    if HANDLER.set(handler).is_ok() {
        signal::handle(SIGNAL, on_signal);
    }
}

/// Bytes of stack for a thread that runs scripts. One coroutine can use some 60 MiB of it, by
/// recursion through `string.gsub`; only what is used takes memory.
const STACK_BYTES: usize = 256 << 20;

/// The same where there is not enough address space for that.
const STACK_BYTES_LESS: usize = 96 << 20;

/// Bytes of stack that nested coroutines may use before one more raises.
const STACK_BYTES_NESTED: usize = 8 << 20;

/// Bytes of stack that any turn may use, and those kept free for whatever is called last.
const STACK_BYTES_FREE: usize = 256 << 10;
const STACK_BYTES_LEFT: usize = 32 << 20;

/// Bytes below those in use that are not given back: signal handlers may be using them.
const STACK_BYTES_NEAR: usize = 64 << 10;

/// The stack that threads of others usually have.
const STACK_BYTES_USUAL: usize = 2 << 20;

thread_local! {
    /// The stack, once it was asked for.
    static STACK: Cell<Option<Bounds>> = const { Cell::new(None) };
    /// Below this address [`may_nest`] is to be asked.
    static DEEP_FROM: Cell<usize> = const { Cell::new(usize::MAX) };
    /// Enough of the stack was used to be worth giving back.
    static WAS_DEEP: Cell<bool> = const { Cell::new(false) };
}

/// The addresses of a thread's stack, which grows downwards.
#[derive(Clone, Copy)]
struct Bounds {
    start: usize,
    end: usize,
}

impl Bounds {
    fn size(self) -> usize {
        self.end - self.start
    }
}

/// About where the stack stands.
#[inline(always)]
fn stack_pointer() -> usize {
    let here = 0u8;
    (&raw const here).addr()
}

/// This thread's stack.
fn bounds() -> Bounds {
    STACK.get().unwrap_or_else(find_bounds)
}

#[cold]
fn find_bounds() -> Bounds {
    let mut attributes = MaybeUninit::<libc::pthread_attr_t>::uninit();
    let (mut start, mut size) = (std::ptr::null_mut(), 0);
    // SAFETY: each call is given places to write to, and the attributes are read only once they
    // were written.
    unsafe {
        if libc::pthread_getattr_np(libc::pthread_self(), attributes.as_mut_ptr()) == 0 {
            libc::pthread_attr_getstack(attributes.as_ptr(), &raw mut start, &raw mut size);
            libc::pthread_attr_destroy(attributes.as_mut_ptr());
        }
    }
    let end = match start.addr() {
        // One that is not known is taken to be as small as they usually are.
        0 => stack_pointer(),
        start => start + size,
    };
    let start = if start.is_null() { end - STACK_BYTES_USUAL / 2 } else { start.addr() };
    let found = Bounds { start, end };
    STACK.set(Some(found));
    DEEP_FROM.set(end - STACK_BYTES_FREE.min(found.size() / 4));
    found
}

/// Whether there is stack for one more coroutine inside the others.
pub fn has_stack() -> bool {
    let stack = bounds();
    stack_pointer() > stack.end - STACK_BYTES_NESTED.min(stack.size() / 2)
}

/// Whether so much of the stack is in use that [`may_nest`] is to be asked.
#[inline]
pub fn is_deep() -> bool {
    stack_pointer() < DEEP_FROM.get()
}

/// Whether calls that may use this many bytes of the stack may nest one deeper. What any turn may
/// use is always allowed, and so much is always left that other code has enough.
pub fn may_nest(bytes: usize) -> bool {
    let stack = bounds();
    if !is_deep() {
        return true;
    }
    WAS_DEEP.set(true);
    let most = stack.size() - STACK_BYTES_LEFT.min(stack.size() / 4);
    stack.end - stack_pointer() <= bytes.max(STACK_BYTES_FREE).min(most)
}

/// Gives the stack that the turn has used back to the system, if it was a lot.
#[inline]
pub fn end_turn() {
    if rarely(WAS_DEEP.get()) {
        give_back();
    }
}

#[cold]
fn give_back() {
    WAS_DEEP.set(false);
    let stack = bounds();
    let end = (stack_pointer() - STACK_BYTES_NEAR) & !(STACK_BYTES_NEAR - 1);
    if end > stack.start {
        let start = std::ptr::with_exposed_provenance_mut(stack.start);
        // SAFETY: this thread's stack below what is in use, and what a signal may use just now.
        unsafe { libc::madvise(start, end - stack.start, libc::MADV_DONTNEED) };
    }
}

/// Starts a thread that runs scripts.
///
/// # Errors
/// If the system has no room for it.
pub fn spawn(name: &str, body: impl FnOnce() + Send + Clone + 'static) -> std::io::Result<()> {
    let start = |bytes| {
        let builder = std::thread::Builder::new().name(name.to_owned()).stack_size(bytes);
        builder.spawn(body.clone()).map(drop)
    };
    start(STACK_BYTES).or_else(|_| start(STACK_BYTES_LESS))
}

/// The system's number of the calling thread. Async-signal-safe.
pub(crate) fn id() -> c_int {
    gettid().as_raw_pid()
}

/// Sends a signal to the thread of this process with that number; false if there is none.
/// Async-signal-safe.
pub(crate) fn send_to(thread: c_int, signal: c_int) -> bool {
    tgkill(getpid().as_raw_pid(), thread, signal) == 0
}

/// The CPU time that the calling thread has used.
pub fn cpu_time() -> Duration {
    Handle::current().cpu_time().unwrap_or_default()
}

/// A thread that can be kicked; to be given up before the thread ends: another one gets its number.
#[derive(Clone, Copy, Debug)]
pub struct Handle(Pid);

impl Handle {
    /// The calling thread.
    pub fn current() -> Handle {
        Handle(gettid())
    }

    /// Makes the thread run the handler of [`on_kick`] soon.
    pub fn kick(self) {
        if HANDLER.get().is_some() {
            self.send(SIGNAL);
        }
    }

    /// Sends it a signal, which has a handler.
    pub(crate) fn send(self, signal: c_int) {
        send_to(self.0.as_raw_pid(), signal);
    }

    /// Lets all other threads go first, for good.
    pub fn yield_to_others(self) {
        let _ = setpriority_process(Some(self.0), NICE);
    }

    /// The CPU time that the thread has used.
    pub fn cpu_time(self) -> Option<Duration> {
        // How Linux numbers the clocks of threads: that of the time they were scheduled.
        let clock = (!self.0.as_raw_pid() << 3) | 6;
        let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        let status = clock_gettime(clock, &mut time);
        (status == 0).then(|| Duration::new(time.tv_sec as u64, time.tv_nsec as u32))
    }
}

/// One of this many descriptors may be held for states of threads.
const STATE_SHARE: u64 = 8;

/// How many are.
static STATES: AtomicU64 = AtomicU64::new(0);

/// What the system tells of a thread, whether or not the process has a descriptor left.
#[derive(Debug)]
pub struct State {
    thread: Handle,
    /// Those without are opened when they are looked at.
    file: Option<File>,
}

impl Drop for State {
    fn drop(&mut self) {
        STATES.fetch_sub(u64::from(self.file.is_some()), Ordering::Relaxed);
    }
}

impl State {
    /// That of a thread, to be given up before it ends.
    pub fn of(thread: Handle) -> State {
        let few = descriptors_max() / STATE_SHARE;
        let one_more = |states| (states < few).then_some(states + 1);
        let mut file = None;
        // Relaxed, here and above: a count, nothing else.
        if STATES.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more).is_ok() {
            file = open_state(thread).ok();
            STATES.fetch_sub(u64::from(file.is_none()), Ordering::Relaxed);
        }
        State { thread, file }
    }

    /// Whether the thread waits for something, in a system call that a signal would end; false
    /// where that cannot be told.
    pub fn is_asleep(&self) -> bool {
        let mut text = [0; STATE_SIZE];
        let length = match &self.file {
            Some(file) => file.read_at(&mut text, 0),
            None => open_state(self.thread).and_then(|mut file| file.read(&mut text)),
        };
        let text = &text[..length.unwrap_or(0)];
        // The name, in parentheses, may hold anything.
        let name = text.iter().rposition(|&byte| byte == b')');
        let state = name.and_then(|end| text.get(end + 2));
        state.is_some_and(|&state| state == b'S')
    }
}

/// Bytes of which the number, the name and the state of a thread take the first; what follows are
/// numbers.
const STATE_SIZE: usize = 128;

fn open_state(thread: Handle) -> io::Result<File> {
    File::open(format!("/proc/self/task/{}/stat", thread.0))
}
