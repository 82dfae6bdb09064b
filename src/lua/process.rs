//! Signals, the end of the process, and lines from standard input.

use std::ffi::c_int;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use mlua::ffi::{self, lua_CFunction, lua_State};

use crate::lua::host;
use crate::message::Event;
use crate::os::{self, Signal};
use crate::vm::stack::{key, number, push_text, text};

pub(super) const FUNCTIONS: super::native::Functions = &[
    (c"hear", hear as lua_CFunction),
    (c"exit", exit),
    (c"is_terminal", is_terminal),
    (c"read_line", read_line),
    (c"take_line", take_line),
];

/// native.hear(name, wants): whether this signal is to be told to the script. True; or `nil,
/// message`.
unsafe extern "C-unwind" fn hear(raw: *mut lua_State) -> c_int {
    // SAFETY: called by the VM; the name is not used after the stack changes.
    let (name, wants) =
        unsafe { (text(raw, 1).unwrap_or_default(), ffi::lua_toboolean(raw, 2) != 0) };
    let signal = Signal::ALL.into_iter().find(|signal| signal.name().as_bytes() == name);
    let result = match signal {
        Some(signal) => host::with(|host| {
            let waker = wants.then(|| host.signal_waker());
            let (context, process) = (&host.context, &host.settings.process);
            process.listen(context.scheduler(), context.id(), signal, waker)
        }),
        None => Err(io::ErrorKind::InvalidInput.into()),
    };
    // SAFETY: as above, with 20 slots free.
    unsafe {
        match result {
            Ok(()) => {
                ffi::lua_pushboolean(raw, 1);
                1
            }
            Err(error) => {
                ffi::lua_pushnil(raw);
                push_text(raw, error.to_string().as_bytes());
                2
            }
        }
    }
}

/// native.exit(status or nil): ends all contexts, this one after the turn's dispatch. True.
unsafe extern "C-unwind" fn exit(raw: *mut lua_State) -> c_int {
    // SAFETY: called by the VM. `as` saturates.
    let status = unsafe {
        let is_given = ffi::lua_type(raw, 1) == ffi::LUA_TNUMBER;
        is_given.then(|| number(raw, 1) as u8)
    };
    host::with(|host| {
        host.is_ending = true;
        // What was written to sockets of others leaves before their owners end.
        host.flush_remotes();
        let status = status.unwrap_or_else(|| host.settings.status());
        let settings = Arc::clone(&host.settings);
        settings.process.end(host.context.scheduler(), Some(status));
    });
    // SAFETY: as above.
    unsafe { ffi::lua_pushboolean(raw, 1) };
    1
}

/// native.is_terminal(): whether standard input is one.
unsafe extern "C-unwind" fn is_terminal(raw: *mut lua_State) -> c_int {
    let is = std::io::IsTerminal::is_terminal(&io::stdin());
    // SAFETY: called by the VM.
    unsafe { ffi::lua_pushboolean(raw, c_int::from(is)) };
    1
}

/// The line that was read last; nothing at the end.
static LINE: Mutex<Option<Vec<u8>>> = Mutex::new(None);

/// native.read_line(token): reads a line from standard input, on a thread of its own, and then
/// completes the operation: [`take_line`] has the line.
unsafe extern "C-unwind" fn read_line(raw: *mut lua_State) -> c_int {
    // SAFETY: called by the VM.
    let token = unsafe { key(raw, 1) };
    let context = host::with(|host| Arc::clone(&host.context));
    let done = Arc::clone(&context);
    let read = move || {
        let line = os::stdio::read_line();
        *LINE.lock().unwrap_or_else(PoisonError::into_inner) = line;
        // A context that has ended reads no further.
        let _ = context.deliver(Event::Complete { token, result: Ok(()) });
    };
    if std::thread::Builder::new().name("stdin".to_owned()).spawn(read).is_err() {
        // As if standard input had ended: there is nobody to read it.
        let _ = done.deliver(Event::Complete { token, result: Ok(()) });
    }
    0
}

/// native.take_line(): the line, or nothing at the end of standard input.
unsafe extern "C-unwind" fn take_line(raw: *mut lua_State) -> c_int {
    let line = LINE.lock().unwrap_or_else(PoisonError::into_inner).take();
    let Some(line) = line else { return 0 };
    // SAFETY: called by the VM. What this raises is the lack of memory, and the line is lost with
    // the context.
    unsafe { push_text(raw, &line) };
    1
}
