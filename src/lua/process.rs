//! Signals, the end of the process, and lines from standard input.

use std::io;
use std::sync::{Arc, Mutex};

use mlua::ffi;

use crate::lua::host;
use crate::message::Event;
use crate::os::{self, Signal};
use crate::sync::lock;
use crate::vm::stack::{Nil, Stack, function};

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
fn hear(lua: Stack<'_>) -> Result<bool, (Nil, String)> {
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
    result.map(|()| true).map_err(|error| (Nil, error.to_string()))
}

/// native.exit(status or nil): ends all contexts, this one after the turn's dispatch. True.
fn exit(lua: Stack<'_>) -> bool {
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
    true
}

/// native.is_terminal(): whether standard input is one.
fn is_terminal(_: Stack<'_>) -> bool {
    std::io::IsTerminal::is_terminal(&io::stdin())
}

/// The line that was read last; nothing at the end.
static LINE: Mutex<Option<Vec<u8>>> = Mutex::new(None);

/// native.read_line(token): reads a line from standard input, on a thread of its own, and then
/// completes the operation: [`take_line`] has the line.
fn read_line(lua: Stack<'_>) {
    let token = lua.key(1);
    let context = host::with(|host| Arc::clone(&host.context));
    let done = Arc::clone(&context);
    let read = move || {
        let line = os::stdio::read_line();
        *lock(&LINE) = line;
        // A context that has ended reads no further.
        let _ = context.deliver(Event::Complete { token, result: Ok(()) });
    };
    if std::thread::Builder::new().name("stdin".to_owned()).spawn(read).is_err() {
        // As if standard input had ended: there is nobody to read it.
        let _ = done.deliver(Event::Complete { token, result: Ok(()) });
    }
}

/// native.set_statement(runs): a statement of the root that calls this begins, or ends; whether it
/// was to be broken off, and has not noticed.
fn set_statement(lua: Stack<'_>) -> bool {
    let runs = lua.boolean(1);
    lua.account().cut.set_statement(if runs { lua.raw() } else { std::ptr::null_mut() });
    crate::sched::set_statement(runs)
}

/// native.is_broken(): whether the statement is to be broken off.
fn is_broken(_: Stack<'_>) -> bool {
    crate::sched::is_statement_broken()
}

/// native.take_line(): the line, or nothing at the end of standard input.
fn take_line(_: Stack<'_>) -> Option<Vec<u8>> {
    lock(&LINE).take()
}
