//! Signals, the end of the process, and lines from standard input.

use std::ffi::c_int;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use mlua::ffi;

use crate::lua::host;
use crate::message::Event;
use crate::os::{self, Signal};
use crate::vm::stack::{Stack, function};

pub(super) const FUNCTIONS: super::native::Functions = &[
    (c"hear", function(hear)),
    (c"exit", function(exit)),
    (c"is_terminal", function(is_terminal)),
    (c"read_line", function(read_line)),
    (c"take_line", function(take_line)),
    (c"set_statement", function(set_statement)),
    (c"is_broken", function(is_broken)),
];

/// native.hear(name, wants): whether this signal is to be told to the script. True; or `nil,
/// message`.
fn hear(lua: Stack<'_>) -> c_int {
    let (name, wants) = (lua.text(1).unwrap_or_default(), lua.boolean(2));
    let signal = Signal::ALL.into_iter().find(|signal| signal.name().as_bytes() == name);
    let result = match signal {
        Some(signal) => host::with(|host| {
            let waker = wants.then(|| host.signal_waker());
            let (context, process) = (&host.context, &host.settings.process);
            process.listen(context.scheduler(), context.id(), signal, waker)
        }),
        None => Err(io::ErrorKind::InvalidInput.into()),
    };
    match result {
        Ok(()) => {
            lua.push_boolean(true);
            1
        }
        Err(error) => {
            lua.push_nil();
            lua.push_text(error.to_string().as_bytes());
            2
        }
    }
}

/// native.exit(status or nil): ends all contexts, this one after the turn's dispatch. True.
fn exit(lua: Stack<'_>) -> c_int {
    let status = {
        let is_given = lua.kind(1) == ffi::LUA_TNUMBER;
        is_given.then(|| lua.number(1) as u8)
    };
    host::with(|host| {
        host.turn.is_ending = true;
        // What was written to sockets of others leaves before their owners end.
        host.flush_shared();
        let status = status.unwrap_or_else(|| host.settings.status());
        let settings = Arc::clone(&host.settings);
        settings.process.end(host.context.scheduler(), Some(status));
    });
    lua.push_boolean(true);
    1
}

/// native.is_terminal(): whether standard input is one.
fn is_terminal(lua: Stack<'_>) -> c_int {
    let is = std::io::IsTerminal::is_terminal(&io::stdin());
    lua.push_boolean(is);
    1
}

/// The line that was read last; nothing at the end.
static LINE: Mutex<Option<Vec<u8>>> = Mutex::new(None);

/// native.read_line(token): reads a line from standard input, on a thread of its own, and then
/// completes the operation: [`take_line`] has the line.
fn read_line(lua: Stack<'_>) -> c_int {
    let token = lua.key(1);
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

/// native.set_statement(runs): a statement of the root that calls this begins, or ends; whether it
/// was to be broken off, and has not noticed.
fn set_statement(lua: Stack<'_>) -> c_int {
    let runs = lua.boolean(1);
    lua.account().cut.set_statement(if runs { lua.raw() } else { std::ptr::null_mut() });
    lua.push_boolean(crate::sched::set_statement(runs));
    1
}

/// native.is_broken(): whether the statement is to be broken off.
fn is_broken(lua: Stack<'_>) -> c_int {
    lua.push_boolean(crate::sched::is_statement_broken());
    1
}

/// native.take_line(): the line, or nothing at the end of standard input.
fn take_line(lua: Stack<'_>) -> c_int {
    let line = LINE.lock().unwrap_or_else(PoisonError::into_inner).take();
    let Some(line) = line else { return 0 };
    lua.push_text(&line);
    1
}
