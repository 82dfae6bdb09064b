//! Errors that nobody has caught.

use std::ffi::c_int;

use log::Level;

use super::log::report;
use crate::logging::bounded;
use crate::lua::host;
use crate::os::stdio::fork;
use crate::vm::stack::{Stack, function};

pub(super) const FUNCTIONS: super::native::Functions = &[
    (c"note_failure", function(note_failure)),
    (c"take_trace", function(take_trace)),
    (c"report", function(report_failure)),
];

/// native.note_failure(message[, level]): what `xpcall` calls for errors that nobody else catches.
/// Keeps the traceback, from a level on, which is not there any more when the error is reported;
/// returns the message.
fn note_failure(lua: Stack<'_>) -> c_int {
    let mut trace = Vec::new();
    let level = if lua.top() > 1 { lua.number(2) as c_int } else { 1 };
    lua.set_top(1);
    lua.traceback(level, &mut trace);
    host::with(|host| host.trace = Some(trace));
    1
}

/// native.take_trace(): the traceback that was kept, or nothing.
fn take_trace(_: Stack<'_>) -> Option<Vec<u8>> {
    host::with(|host| host.trace.take())
}

/// native.report(text, is_main, is_told, is_finaliser): an uncaught error; logs it, unless the
/// script has been told; as a warning if it is that of a finaliser.
fn report_failure(lua: Stack<'_>) {
    let text = lua.text(1).unwrap_or_default();
    let (is_main, is_told) = (lua.boolean(2), lua.boolean(3));
    let level = if lua.boolean(4) { Level::Warn } else { Level::Error };
    host::with(|host| {
        if !is_told {
            report(host, level, text);
        }
        // A process that was forked off ends with what runs in it.
        host.main_failed |= fork::is_child() && matches!(level, Level::Error);
        if is_main {
            host.main_failed = true;
            // At once: `context.exit` may end the process before this context has ended.
            if host.context.parent().is_none() {
                host.settings.fail();
            }
            host.failure = Some(bounded(text, host.context.limits().memory));
        }
    });
}
