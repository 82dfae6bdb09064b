//! Handlers of signals that C modules install, as lua-posix does.
//!
//! Such a module remembers the coroutine that has called it, and its handler sets a hook there:
//! right on the thread that runs the state, while the state is alive. So it is called there alone:
//! a signal that another thread gets is sent on to that one, or waits for the state's next turn,
//! which it brings about. When the state ends, the signal does what it did before.
//!
//! What such a module remembers it keeps in variables, of which all states share one set: so its
//! handlers serve one state at a time, and the hook is for that one, whoever has asked since.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::ffi::{c_int, c_void};
use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicPtr, AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock};
use std::task::Waker;
use std::time::Duration;

use libc::{sigaction as Action, siginfo_t as Info};
use mlua::ffi::{self, lua_State};

use super::hook;
use super::state::State;
use crate::failpoint;
use crate::os::errno::set_errno;
use crate::os::{signal, thread};
use crate::rt;
use crate::sync::lock;

/// Signals have numbers below this.
const SIGNALS: usize = 65;

/// What tells a thread of its own faults, and cannot wait.
const FAULTS: [c_int; 7] = [
    libc::SIGSEGV,
    libc::SIGBUS,
    libc::SIGFPE,
    libc::SIGILL,
    libc::SIGTRAP,
    libc::SIGSYS,
    libc::SIGABRT,
];

unsafe extern "C" {
    fn __sigaction(signal: c_int, new: *const Action, old: *mut Action) -> c_int;
}

type Handler = unsafe extern "C" fn(c_int, *mut Info, *mut c_void);

/// What a signal is to do.
struct Entry {
    /// The module's function; 0 for none.
    handler: AtomicUsize,
    /// The flags that it was installed with.
    flags: AtomicI32,
    /// The state that the module was called by.
    state: AtomicPtr<lua_State>,
    /// The thread that runs the state; 0 for none.
    thread: AtomicI32,
    is_pending: AtomicBool,
    /// Threads that are in [`on_signal`] for it.
    under_way: AtomicUsize,
}

static ENTRIES: [Entry; SIGNALS] = [const {
    Entry {
        handler: AtomicUsize::new(0),
        flags: AtomicI32::new(0),
        state: AtomicPtr::new(std::ptr::null_mut()),
        thread: AtomicI32::new(0),
        is_pending: AtomicBool::new(false),
        under_way: AtomicUsize::new(0),
    }
}; SIGNALS];

/// Of each signal with an entry: what it did before, and what brings about a turn of the context.
static KEPT: Mutex<BTreeMap<usize, (Action, Option<Waker>)>> = Mutex::new(BTreeMap::new());

thread_local! {
    /// This thread is in a module's handler.
    static IS_HANDLING: Cell<bool> = const { Cell::new(false) };
}

/// That a handler was refused is told once: a script could fill the log with it.
static IS_REFUSAL_TOLD: AtomicBool = AtomicBool::new(false);

/// Between two looks at threads that are in [`on_signal`].
const PAUSE: Duration = Duration::from_micros(20);

/// What is rung for [`wake_all`] to be called.
static BELL: OnceLock<BorrowedFd<'static>> = OnceLock::new();

/// Makes what brings about a turn of the context that runs.
static MAKE_WAKER: OnceLock<fn() -> Waker> = OnceLock::new();

/// Sets what makes wakers for the context that runs.
pub(crate) fn on_install(make: fn() -> Waker) {
    MAKE_WAKER.get_or_init(|| make);
}

fn entry_of(number: c_int) -> Option<&'static Entry> {
    usize::try_from(number).ok().and_then(|index| ENTRIES.get(index))
}

/// The system's `sigaction`, for whoever calls the function of that name in this process.
///
/// # Safety
/// As for `sigaction`; on a thread that runs a state the caller is a C function which that has
/// called.
pub unsafe fn set(number: c_int, new: *const Action, old: *mut Action) -> c_int {
    let raw = hook::running();
    let entry = entry_of(number);
    // SAFETY: null, or a valid action.
    let wanted = unsafe { new.as_ref() };
    let (Some(entry), Some(wanted)) = (entry, wanted.filter(|_| !raw.is_null())) else {
        // SAFETY: the caller's arguments.
        return unsafe { query(number, entry, new, old) };
    };
    let handler = wanted.sa_sigaction;
    let is_function = handler != libc::SIG_DFL && handler != libc::SIG_IGN;
    let is_theirs = is_function && !FAULTS.contains(&number) && !is_ours(handler);
    if !is_theirs {
        settle(entry, number);
        // SAFETY: the caller's arguments.
        let result = unsafe { query(number, Some(entry), new, old) };
        if result == 0 {
            clear(entry);
            lock(&KEPT).remove(&(number as usize));
        }
        return result;
    }
    keep_coroutine(handler);
    hang_bell();
    let waker = MAKE_WAKER.get().map(|make| make());
    let mut kept = lock(&KEPT);
    if is_used_beside(raw, handler) {
        if !IS_REFUSAL_TOLD.swap(true, Ordering::Relaxed) {
            log::warn!(
                "signal {number}: no handler (EBUSY): those of this C module serve another \
                 context, and one at a time (told once)"
            );
        }
        set_errno(libc::EBUSY);
        return -1;
    }
    let mut action = *wanted;
    action.sa_sigaction = on_signal as *const () as usize;
    action.sa_flags |= libc::SA_SIGINFO;
    // SAFETY: all zero is an action; those given are valid; the handler finds its entry, or none;
    // `old` is null, or a place for an action.
    let before = unsafe {
        let mut before: Action = std::mem::zeroed();
        if query(number, Some(entry), &raw const action, &raw mut before) != 0 {
            return -1;
        }
        if let Some(old) = old.as_mut() {
            *old = before;
        }
        before
    };
    entry.flags.store(wanted.sa_flags, Ordering::Relaxed);
    entry.is_pending.store(false, Ordering::Relaxed);
    entry.thread.store(thread::id(), Ordering::Relaxed);
    entry.handler.store(handler, Ordering::Relaxed);
    // Release: who finds the state finds the rest.
    entry.state.store(raw, Ordering::Release);
    hook::with_account(|account| account.has_handlers.set(true));
    kept.entry(number as usize).or_insert((before, None)).1 = waker;
    0
}

/// Whether handlers of a function's module serve another state.
fn is_used_beside(raw: *mut lua_State, function: usize) -> bool {
    let module = module_of(function);
    ENTRIES.iter().any(|entry| {
        let state = entry.state.load(Ordering::Relaxed);
        let is_other = !state.is_null() && state != raw;
        is_other && module_of(entry.handler.load(Ordering::Relaxed)) == module
    })
}

/// `sigaction`, which tells of the module's handler where ours is.
///
/// # Safety
/// As for `sigaction`.
unsafe fn query(
    number: c_int,
    entry: Option<&Entry>,
    new: *const Action,
    old: *mut Action,
) -> c_int {
    // SAFETY: the caller's arguments, and a place for a result that is given.
    unsafe {
        let result = __sigaction(number, new, old);
        if let (0, Some(entry), Some(old)) = (result, entry, old.as_mut())
            && old.sa_sigaction == on_signal as *const () as usize
        {
            old.sa_sigaction = entry.handler.load(Ordering::Relaxed);
            old.sa_flags = entry.flags.load(Ordering::Relaxed);
        }
        result
    }
}

/// Whether a function is one of this program's.
fn is_ours(function: usize) -> bool {
    module_of(function) == module_of(on_signal as *const () as usize)
}

/// Where the library, or the program, that a function is part of begins.
fn module_of(function: usize) -> Option<*mut c_void> {
    // SAFETY: all zero is a record; the address is looked up, whatever it is.
    unsafe {
        let mut found: libc::Dl_info = std::mem::zeroed();
        let address = std::ptr::with_exposed_provenance(function);
        (libc::dladdr(address, &raw mut found) != 0).then_some(found.dli_fbase)
    }
}

/// Keeps the coroutine that has called a module's function, which the module may use as long as its
/// handler is installed. May raise.
fn keep_coroutine(handler: usize) {
    hook::with_current(|lua| {
        lua.push_address(std::ptr::with_exposed_provenance_mut(handler));
        lua.push_thread();
        lua.raw_set(ffi::LUA_REGISTRYINDEX);
    });
}

/// Has [`wake_all`] called when a handler rings.
fn hang_bell() {
    // One at a time.
    let _kept = lock(&KEPT);
    if BELL.get().is_none()
        && !rt::is_simulated()
        && let Ok(bell) = signal::bell(wake_all)
    {
        BELL.get_or_init(|| bell);
    }
}

/// Brings about turns of those whose signals wait for one.
fn wake_all() {
    let is_waiting = |index: &usize| ENTRIES[*index].is_pending.load(Ordering::Acquire);
    let kept = lock(&KEPT);
    let wakers = kept.iter().filter(|(index, _)| is_waiting(index));
    let wakers: Vec<Waker> = wakers.filter_map(|(_, (_, waker))| waker.clone()).collect();
    drop(kept);
    wakers.into_iter().for_each(Waker::wake);
}

/// What the system calls for all of these signals.
unsafe extern "C" fn on_signal(number: c_int, info: *mut Info, context: *mut c_void) {
    let entry = &ENTRIES[number as usize];
    // Either `settle` waits for this, or this finds no state.
    entry.under_way.fetch_add(1, Ordering::SeqCst);
    let state = entry.state.load(Ordering::SeqCst);
    if !state.is_null() && hook::running() == state && hook::may_set(state) {
        entry.under_way.fetch_sub(1, Ordering::Release);
        // SAFETY: the arguments of a handler, on the thread that runs the module's state.
        return signal::keeping_errno(|| unsafe { call(entry, number, info, context) });
    }
    if !state.is_null() {
        pass_on(entry, number);
    }
    entry.under_way.fetch_sub(1, Ordering::Release);
}

/// The signal has come to a thread that does not run the state, or not where it may be told.
fn pass_on(entry: &Entry, number: c_int) {
    signal::keeping_errno(|| {
        entry.is_pending.store(true, Ordering::Release);
        let thread = entry.thread.load(Ordering::Relaxed);
        failpoint::delay_signal();
        if (thread == 0 || thread == thread::id() || !thread::send_to(thread, number))
            // A load: it was hung before the handler was installed.
            && let Some(bell) = BELL.get()
        {
            signal::ring(*bell);
        }
    });
}

/// Calls a module's handler.
///
/// # Safety
/// As for the handler; this thread must run the entry's state.
unsafe fn call(entry: &Entry, number: c_int, info: *mut Info, context: *mut c_void) {
    entry.is_pending.store(false, Ordering::Relaxed);
    let handler = entry.handler.load(Ordering::Relaxed);
    if handler != 0 {
        let before = IS_HANDLING.replace(true);
        // SAFETY: what was given as handler; one that takes the number alone ignores the rest.
        unsafe { std::mem::transmute::<usize, Handler>(handler)(number, info, context) };
        IS_HANDLING.set(before);
    }
}

#[cfg(renames)]
unsafe extern "C" {
    /// LuaJIT's `lua_sethook`: see .cargo/config.toml.
    fn node_lua_vm_sethook(
        raw: *mut lua_State,
        hook: Option<ffi::lua_Hook>,
        mask: c_int,
        count: c_int,
    ) -> c_int;
}

/// What C modules call to set a hook. In a handler that is for the state that runs: the coroutine
/// that the module remembers may be another state's since, or gone.
///
/// # Safety
/// As for LuaJIT's function of this name.
#[cfg(renames)]
#[unsafe(no_mangle)]
unsafe extern "C" fn lua_sethook(
    raw: *mut lua_State,
    hook: Option<ffi::lua_Hook>,
    mask: c_int,
    count: c_int,
) -> c_int {
    let raw = if IS_HANDLING.get() { hook::running() } else { raw };
    // SAFETY: a live state, which this thread runs.
    unsafe { node_lua_vm_sethook(raw, hook, mask, count) }
}

/// This thread is about to run a state with handlers: those are called whose signals have come.
#[cold]
pub(super) fn begin(raw: *mut lua_State) {
    for (number, entry) in ENTRIES.iter().enumerate() {
        if entry.state.load(Ordering::Acquire) != raw {
            continue;
        }
        entry.thread.store(thread::id(), Ordering::Relaxed);
        if entry.is_pending.load(Ordering::Acquire) {
            // SAFETY: all zero is a record; this thread runs the state.
            unsafe {
                let mut info: Info = std::mem::zeroed();
                info.si_signo = number as c_int;
                call(entry, number as c_int, &raw mut info, std::ptr::null_mut());
            }
        }
    }
}

/// This thread runs the state no longer.
#[cold]
pub(super) fn finish(raw: *mut lua_State) {
    let of_state = |entry: &&Entry| entry.state.load(Ordering::Relaxed) == raw;
    for entry in ENTRIES.iter().filter(of_state) {
        entry.thread.store(0, Ordering::Relaxed);
    }
}

/// The system's `kill`. What a module sends to its own state comes before the call returns, as it
/// does in a process of one thread.
///
/// # Safety
/// As for `kill`.
pub unsafe fn send(process: libc::pid_t, number: c_int) -> c_int {
    let raw = hook::running();
    let is_own = |entry: &Entry| entry.state.load(Ordering::Relaxed) == raw;
    let is_to_itself = !raw.is_null() && process.cast_unsigned() == std::process::id();
    if is_to_itself && entry_of(number).is_some_and(is_own) {
        return if thread::send_to(thread::id(), number) { 0 } else { -1 };
    }
    // SAFETY: numbers.
    unsafe { libc::syscall(libc::SYS_kill, process, number) as c_int }
}

fn clear(entry: &Entry) {
    entry.state.store(std::ptr::null_mut(), Ordering::Release);
    entry.handler.store(0, Ordering::Relaxed);
}

/// The signal is about to do something else: what has come before is told, or dropped. Otherwise a
/// thread that is in the handler would send it on to the module's thread later, where it might end
/// the process.
fn settle(entry: &Entry, number: c_int) {
    if entry.state.load(Ordering::Relaxed).is_null() {
        return;
    }
    signal::let_pass(number);
    entry.state.store(std::ptr::null_mut(), Ordering::SeqCst);
    while entry.under_way.load(Ordering::SeqCst) > 0 {
        std::thread::sleep(PAUSE);
    }
    // What those have sent on.
    signal::let_pass(number);
}

/// The state ends: its signals do what they did before, those excepted that are on their way.
pub(super) fn forget(state: &State) {
    let raw = state.as_ptr();
    if !state.account().has_handlers.get() {
        return;
    }
    for (number, entry) in ENTRIES.iter().enumerate() {
        if entry.state.load(Ordering::Relaxed) != raw {
            continue;
        }
        settle(entry, number as c_int);
        let before = lock(&KEPT).remove(&number);
        if let Some((before, _)) = before {
            // SAFETY: an action that the system has given.
            unsafe { __sigaction(number as c_int, &raw const before, std::ptr::null_mut()) };
        }
        clear(entry);
    }
}
