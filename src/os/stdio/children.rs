//! Child processes: they have standard input, output and error of ours and nothing else, signals
//! are as at the start of any program, and what was printed before comes before what they print.
//!
//! The linker puts these functions in the place of those that LuaJIT's `io` and `os` call
//! (build.rs). Every descriptor of ours is closed when a program is executed (CLOEXEC), the files
//! of scripts included. Those that C modules open are theirs.

use std::ffi::{CStr, CString, c_char, c_int};
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::mpsc;

use rustix::io::Errno;
use rustix::process::{Pid, WaitOptions, getpriority_process, waitpid};

use super::FILE;
use super::shortage::{stream_with_room, with_room};
use crate::os::errno::{errno, set_errno};
use crate::os::{self, runtime};

/// A mode for `fopen` is read up to here.
const MODE_MAX: usize = 7;

/// Letters X at the end of its template that `mkstemp` replaces.
const TEMPLATE_LETTERS: usize = 6;

/// What a shell's exit status is if it cannot be started.
const NOT_STARTED: c_int = 127 << 8;

unsafe extern "C" {
    fn _IO_popen(command: *const c_char, mode: *const c_char) -> *mut FILE;
    static environ: *const *mut c_char;
}

/// The priority that the process was started with.
static USUAL_PRIORITY: AtomicI32 = AtomicI32::new(0);

pub(super) fn init() {
    USUAL_PRIORITY.store(priority(), Ordering::Relaxed);
}

/// The mode and, behind its first `keep` letters, an `e`: a descriptor that programs which are
/// executed do not get. A longer one is none that anybody writes, and an empty one is an error.
fn private(mode: &CStr, keep: usize) -> CString {
    let given = mode.to_bytes();
    if given.len() < keep.max(1) || given.len() >= MODE_MAX {
        return mode.to_owned();
    }
    CString::new([&given[..keep], b"e", &given[keep..]].concat()).expect("no zero is in it")
}

/// # Safety
/// As for `fopen`.
#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn __wrap_fopen64(path: *const c_char, mode: *const c_char) -> *mut FILE {
    // SAFETY: `fopen` takes terminated texts.
    unsafe {
        let mode = private(CStr::from_ptr(mode), 1);
        stream_with_room(|| libc::fopen(path, mode.as_ptr()))
    }
}

/// # Safety
/// As for `tmpfile`.
#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn __wrap_tmpfile64() -> *mut FILE {
    // SAFETY: a stream that was just opened, if it is one.
    unsafe {
        let stream = stream_with_room(|| libc::tmpfile());
        if !stream.is_null() {
            libc::fcntl(libc::fileno(stream), libc::F_SETFD, libc::FD_CLOEXEC);
        }
        stream
    }
}

/// # Safety
/// As for `mkstemp`.
#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn __wrap_mkstemp64(template: *mut c_char) -> c_int {
    // SAFETY: `mkstemp` takes a terminated template. What has failed because descriptors ran out
    // has changed the letters of the template: a second time they would not be the six that are to
    // be replaced.
    unsafe {
        let length = libc::strlen(template);
        let count = TEMPLATE_LETTERS.min(length);
        with_room(
            |&file| file < 0,
            || {
                template.add(length - count).write_bytes(b'X', count);
                libc::mkostemp(template, libc::O_CLOEXEC)
            },
        )
    }
}

/// Calls `start`, which makes a child, from a thread of usual priority: the child has that of the
/// thread, and a context that has run for long has been given a thread that lets others go first.
fn at_usual_priority<R: Send + 'static>(start: impl FnOnce() -> R + Send + 'static) -> Option<R> {
    if priority() <= USUAL_PRIORITY.load(Ordering::Relaxed) {
        return Some(start());
    }
    let (send, receive) = mpsc::sync_channel(1);
    runtime::spawn(async move {
        let _ = send.send(start());
    });
    receive.recv().ok()
}

/// The command with the limit of descriptors that this process was started with, which it has
/// raised for itself: programs that use `select` take harm from a high one. The shell sets it, as
/// nobody else can between the start of a child and its first instruction.
fn with_limit(command: &CStr) -> CString {
    let Some(limit) = os::descriptors::usual_descriptor_limit() else { return command.to_owned() };
    let limited = [format!("ulimit -S -n {limit}; ").as_bytes(), command.to_bytes()].concat();
    CString::new(limited).unwrap_or_else(|_| command.to_owned())
}

/// The calling thread's; less is more.
fn priority() -> i32 {
    getpriority_process(None).unwrap_or_default()
}

/// # Safety
/// As for `popen`.
#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn __wrap_popen(command: *const c_char, mode: *const c_char) -> *mut FILE {
    super::flush();
    // SAFETY: `popen` takes terminated texts.
    let (command, mode) = unsafe { (CStr::from_ptr(command), CStr::from_ptr(mode)) };
    stream_with_room(|| open_pipe(with_limit(command), mode.to_owned()))
}

fn open_pipe(command: CString, mode: CString) -> *mut FILE {
    let opened = at_usual_priority(move || {
        let mode = private(&mode, mode.count_bytes());
        // SAFETY: C strings.
        let stream = unsafe { _IO_popen(command.as_ptr(), mode.as_ptr()) };
        (stream.expose_provenance(), errno())
    });
    let (stream, error) = opened.unwrap_or((0, libc::EAGAIN));
    if stream == 0 {
        set_errno(error);
    }
    std::ptr::with_exposed_provenance_mut(stream)
}

/// Unlike the library's it does not ignore SIGINT and SIGQUIT meanwhile: other contexts go on, and
/// the process must be able to end.
///
/// # Safety
/// As for `system`.
#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn __wrap_system(command: *const c_char) -> c_int {
    super::flush();
    if command.is_null() {
        return 1;
    }
    // SAFETY: `system` has been given a command here, a terminated text.
    let command = with_limit(unsafe { CStr::from_ptr(command) });
    let Some(Some(child)) = at_usual_priority(move || start_shell(&command)) else {
        return NOT_STARTED;
    };
    loop {
        match waitpid(Some(child), WaitOptions::empty()) {
            Ok(ended) => return ended.map_or(-1, |(_, status)| status.as_raw()),
            Err(Errno::INTR) => {}
            Err(_) => return -1,
        }
    }
}

fn start_shell(command: &CStr) -> Option<Pid> {
    let words = [c"sh".as_ptr(), c"-c".as_ptr(), command.as_ptr(), std::ptr::null()];
    let mut child = 0;
    // SAFETY: the words are C strings, and end with a null pointer.
    let error = unsafe {
        libc::posix_spawn(
            &raw mut child,
            c"/bin/sh".as_ptr(),
            std::ptr::null(),
            std::ptr::null(),
            words.as_ptr().cast(),
            environ,
        )
    };
    Pid::from_raw(child).filter(|_| error == 0)
}
