//! `jit.profile` where many states run on many threads.
//!
//! LuaJIT's profiler is made for a process of one: its signal comes to any thread, and changes the
//! state that is profiled while another thread runs it, or after it is gone. Its data is static:
//! two states that use it at a time write to each other's memory. So the functions of `jit.profile`
//! are ours. One state is profiled at a time; another one that asks is told. Our handler has
//! LuaJIT's called only on the thread that runs this very state: samples of other contexts are
//! nobody's. The timer is ours as well, see build.rs, so that it never runs without our handler.
//!
//! The text of `dumpstack` has the frames that scripts see, and none of the library's.
//!
//! An error in the callback of the profiler ends the process of LuaJIT; here, its context.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicPtr, AtomicUsize, Ordering};
use std::sync::{Once, OnceLock};

use mlua::ffi::{self, lua_State};

use super::frames::is_hidden;
use super::hook;
use super::stack::{Stack, function};
use super::stock::{BUILT_IN, Kind, frame, has_no_name, has_room};
use crate::os::signal;

type Callback = unsafe extern "C-unwind" fn(*mut c_void, *mut lua_State, c_int, c_int);

unsafe extern "C-unwind" {
    fn luaJIT_profile_start(
        raw: *mut lua_State,
        mode: *const c_char,
        callback: Callback,
        data: *mut c_void,
    );
    fn luaJIT_profile_stop(raw: *mut lua_State);
}

/// The state that uses LuaJIT's profiler …
static OWNER: AtomicPtr<lua_State> = AtomicPtr::new(std::ptr::null_mut());
/// … and the same while samples of it are taken.
static SAMPLED: AtomicPtr<lua_State> = AtomicPtr::new(std::ptr::null_mut());
/// Its callback has failed: the context ends.
static HAS_FAILED: AtomicBool = AtomicBool::new(false);
/// LuaJIT's handler.
static TAKE_SAMPLE: AtomicUsize = AtomicUsize::new(0);
/// Microseconds between signals; 0 for none.
static INTERVAL_MICROS: AtomicI64 = AtomicI64::new(0);

/// What is kept in the registry at this name: the coroutine that the callback runs in.
const CALLBACK: &CStr = c"node-lua profiler";

/// Puts the module where `require` finds LuaJIT's, in a fresh state. May raise.
pub(crate) fn install(lua: Stack<'_>) {
    lua.field(ffi::LUA_REGISTRYINDEX, c"_PRELOAD");
    lua.push_function(function(open));
    lua.set_field(-2, c"jit.profile");
    lua.pop();
}

/// The loader of `jit.profile`.
fn open(lua: Stack<'_>) -> c_int {
    let functions: [(&CStr, ffi::lua_CFunction); 3] =
        [(c"start", start), (c"stop", function(stop)), (c"dumpstack", function(dumpstack))];
    lua.push_table(0, 3);
    for (name, function) in functions {
        lua.push_function(function);
        lua.set_field(-2, name);
    }
    1
}

/// Makes the state that runs the owner; raises if it cannot be.
unsafe fn claim(raw: *mut lua_State) {
    let (nobody, me) = (std::ptr::null_mut(), hook::running());
    let found = OWNER.compare_exchange(nobody, me, Ordering::AcqRel, Ordering::Acquire);
    if found.is_err_and(|owner| owner != me) {
        let text = c"the profiler is in use by another context: one at a time can be profiled";
        // SAFETY: a live state, in a function that it has called.
        unsafe { ffi::luaL_error(raw, text.as_ptr()) };
    }
}

fn release() {
    OWNER.store(std::ptr::null_mut(), Ordering::Release);
}

/// profile.start([mode,] callback)
unsafe extern "C-unwind" fn start(raw: *mut lua_State) -> c_int {
    // SAFETY: called by the VM. What may raise does so before this is the owner, or leaves it the
    // owner with no sample taken, until it is closed.
    unsafe {
        let mode = match ffi::lua_type(raw, 1) {
            ffi::LUA_TNIL | ffi::LUA_TNONE => c"".as_ptr(),
            _ => ffi::luaL_checklstring(raw, 1, std::ptr::null_mut()),
        };
        ffi::luaL_checktype(raw, 2, ffi::LUA_TFUNCTION);
        let callback = ffi::lua_newthread(raw);
        ffi::lua_pushvalue(raw, 2);
        ffi::lua_xmove(raw, callback, 1);
        claim(raw);
        end_sampling();
        ffi::lua_setfield(raw, ffi::LUA_REGISTRYINDEX, CALLBACK.as_ptr());
        HAS_FAILED.store(false, Ordering::Relaxed);
        static HANDLER: Once = Once::new();
        // LuaJIT puts back what there was when it stops: that is to be ours.
        HANDLER.call_once(|| {
            set_handler();
        });
        luaJIT_profile_start(raw, mode, sample, callback.cast());
        TAKE_SAMPLE.store(set_handler(), Ordering::Relaxed);
        SAMPLED.store(hook::running(), Ordering::Release);
        set_timer(INTERVAL_MICROS.load(Ordering::Relaxed));
    }
    0
}

fn stop(lua: Stack<'_>) {
    if OWNER.load(Ordering::Acquire) == hook::running() {
        // SAFETY: the owner runs.
        unsafe { end(lua.raw()) };
        lua.push_nil();
        lua.set_field(ffi::LUA_REGISTRYINDEX, CALLBACK);
    }
}

/// profile.dumpstack([thread,] format, depth)
fn dumpstack(lua: Stack<'_>) -> c_int {
    let (of, first) = lua.thread(1).map_or((lua, 1), |of| (of, 2));
    let format = lua.check_text(first);
    let depth = lua.check_integer(first + 1).clamp(c_int::MIN.into(), c_int::MAX.into());
    let mut text = Vec::new();
    if has_room(lua, of) {
        dump(of, format, depth as c_int, &mut text);
    }
    lua.push_text(&text);
    1
}

/// Appends the frames that scripts see, each as LuaJIT's profiler writes it in this format; from
/// the outermost one on if the depth is below 0.
fn dump(of: Stack<'_>, format: &[u8], depth: c_int, text: &mut Vec<u8>) {
    let levels_max = depth.unsigned_abs() as usize;
    let all = (0..).take_while(|&level| frame(of, level).is_some());
    let mut levels: Vec<c_int> =
        all.filter(|&level| !is_hidden(of, level)).take(levels_max).collect();
    if depth < 0 {
        levels.reverse();
    }
    let (mut is_path_whole, mut end) = (false, None);
    for level in levels {
        for &letter in format {
            match letter {
                b'p' => is_path_whole = true,
                b'Z' => end = Some(text.len()),
                b'f' | b'F' | b'l' => say_frame(of, level, letter, is_path_whole, text),
                _ => text.push(letter),
            }
        }
    }
    // The last separator is left out.
    text.truncate(end.unwrap_or(text.len()));
}

/// Appends what a letter of the format says of a frame.
fn say_frame(of: Stack<'_>, level: c_int, letter: u8, is_path_whole: bool, text: &mut Vec<u8>) {
    let Some(kind) = frame(of, level) else { return };
    let Some(found) = of.frame(level, c"Snlf") else { return };
    let (object, code, number) = (of.address(-1), of.c_function(-1), of.function_number(-1));
    of.pop();
    let is_script = kind == Kind::Script;
    let whole = found.source();
    let source = match whole {
        [b'=' | b'@', name @ ..] if is_path_whole => name,
        [b'=' | b'@', name @ ..] => {
            name.rsplit(|byte| b"/\\".contains(byte)).next().unwrap_or(name)
        }
        _ => b"[string]",
    };
    let mut say = |pieces: &[&[u8]]| text.extend(pieces.iter().copied().flatten());
    // LuaJIT has some functions in bytecode.
    let is_built_in = is_script && found.first_line() < 0;
    if letter != b'l' && !found.name().is_empty() && !has_no_name(of, level) {
        if letter == b'F' && is_script && !is_built_in {
            say(&[source, b":"]);
        }
        say(&[found.name()]);
    } else if is_built_in {
        say(&[b"[builtin:", whole, b"]"]);
    } else if is_script {
        let line = if letter == b'l' { found.line() } else { -1 };
        let line = if line >= 0 { line } else { found.first_line() };
        say(&[source, format!(":{line}").as_bytes()]);
    } else if kind == Kind::C && number >= BUILT_IN && frame(of, level + 1).is_some() {
        say(&[format!("[builtin#{number}]").as_bytes()]);
    } else {
        let code = code.filter(|_| kind == Kind::C);
        let address = code.map_or(object as usize, |code| code as usize);
        say(&[format!("@{address:#x}").as_bytes()]);
    }
}

/// Called by the VM, between two instructions, with hooks switched off: what LuaJIT does there,
/// but for an error.
unsafe extern "C-unwind" fn sample(
    callback: *mut c_void,
    raw: *mut lua_State,
    samples: c_int,
    vm_state: c_int,
) {
    let callback = callback.cast::<lua_State>();
    // SAFETY: a coroutine that the registry holds, with the function at its bottom; `raw` is the
    // coroutine that runs.
    unsafe {
        let (hook, count) = (ffi::lua_gethook(raw), ffi::lua_gethookcount(raw));
        if ffi::lua_gettop(callback) > 1 {
            // It is being called.
            return;
        }
        ffi::lua_pushvalue(callback, 1);
        ffi::lua_pushthread(raw);
        ffi::lua_xmove(raw, callback, 1);
        ffi::lua_pushinteger(callback, samples as ffi::lua_Integer);
        ffi::lua_pushlstring(callback, [vm_state as u8].as_ptr().cast(), 1);
        if ffi::lua_pcall(callback, 3, 0, 0) != ffi::LUA_OK {
            fail(Stack::new(callback));
            ffi::lua_settop(callback, 1);
        }
        // Ends what the compiler records. What the mask was is known to LuaJIT, which sets it anew.
        hook::undisturbed(|| {
            ffi::lua_sethook(raw, hook, ffi::LUA_MASKCOUNT, count);
        });
    }
}

/// Who is told of what a callback has raised.
static ON_FAILURE: OnceLock<fn(Vec<u8>)> = OnceLock::new();

/// Has `tell` called with the error of a callback, on the thread and within the turn in which it
/// was raised: the context is to end.
pub(crate) fn on_failure(tell: fn(Vec<u8>)) {
    let _ = ON_FAILURE.set(tell);
}

/// Tells what the callback has raised, which is on top.
fn fail(callback: Stack<'_>) {
    let text = callback.text(-1).unwrap_or(b"an error that is no text");
    let text = [b"in the callback of jit.profile: ", text].concat();
    HAS_FAILED.store(true, Ordering::Relaxed);
    if let Some(tell) = ON_FAILURE.get() {
        tell(text);
    }
}

/// Makes ours the handler; returns which there was.
fn set_handler() -> usize {
    signal::handle(libc::SIGPROF, on_signal)
}

extern "C" fn on_signal(signal: c_int) {
    let raw = hook::running();
    if raw.is_null() || raw != SAMPLED.load(Ordering::Acquire) {
        return;
    }
    if HAS_FAILED.load(Ordering::Relaxed) {
        hook::arm_from_outside();
        return;
    }
    let take_sample = TAKE_SAMPLE.load(Ordering::Relaxed);
    if take_sample != 0 {
        // SAFETY: LuaJIT's handler, of this type, on the thread that runs the state.
        hook::undisturbed(|| unsafe {
            std::mem::transmute::<usize, extern "C" fn(c_int)>(take_sample)(signal);
        });
    }
}

fn set_timer(micros: i64) {
    let every = libc::timeval { tv_sec: micros / 1_000_000, tv_usec: micros % 1_000_000 };
    let timer = libc::itimerval { it_interval: every, it_value: every };
    // SAFETY: a filled structure; by its number, as the function is taken, see build.rs.
    unsafe {
        let none = std::ptr::null_mut::<libc::itimerval>();
        libc::syscall(libc::SYS_setitimer, libc::ITIMER_PROF, &raw const timer, none);
    }
}

/// From here on no signal touches the state.
fn end_sampling() {
    if !SAMPLED.swap(std::ptr::null_mut(), Ordering::AcqRel).is_null() {
        set_timer(0);
    }
}

/// Stops the profiler of its owner.
unsafe fn end(raw: *mut lua_State) {
    end_sampling();
    // SAFETY: the owner is alive, and this thread runs it.
    unsafe { luaJIT_profile_stop(raw) };
    release();
}

/// Stops the profiler if this state uses it: it is about to be closed.
///
/// # Safety
/// `raw` must be alive, and used by this thread.
pub(crate) unsafe fn forget(raw: *mut lua_State) {
    if OWNER.load(Ordering::Acquire) == raw {
        // SAFETY: this thread has the state, which is about to be closed.
        unsafe { end(raw) };
    }
}

/// What LuaJIT's profiler calls instead of `setitimer`, see build.rs.
///
/// # Safety
/// `timer` must point to what that takes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn __wrap_setitimer(
    _which: c_int,
    timer: *const libc::itimerval,
    _before: *mut libc::itimerval,
) -> c_int {
    // SAFETY: LuaJIT passes a timer of its own.
    let every = unsafe { (*timer).it_interval };
    INTERVAL_MICROS.store(every.tv_sec * 1_000_000 + every.tv_usec, Ordering::Relaxed);
    0
}
