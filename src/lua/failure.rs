//! Errors that nobody has caught.

use std::ffi::c_int;

use mlua::ffi::{self, lua_CFunction, lua_State};

use super::log::{bounded, report};
use crate::lua::host;
use crate::vm::stack::{number, push_text, text};
use crate::vm::traceback;

pub(super) const FUNCTIONS: super::native::Functions = &[
    (c"note_failure", note_failure as lua_CFunction),
    (c"take_trace", take_trace),
    (c"report", report_failure),
];

/// native.note_failure(message[, level]): what `xpcall` calls for errors that nobody else catches.
/// Keeps the traceback, from a level on, which is not there any more when the error is reported;
/// returns the message.
unsafe extern "C-unwind" fn note_failure(raw: *mut lua_State) -> c_int {
    let mut trace = Vec::new();
    // SAFETY: called by the VM with what was raised; level 1 is where, if `xpcall` has called this.
    unsafe {
        let level = if ffi::lua_gettop(raw) > 1 { number(raw, 2) as c_int } else { 1 };
        ffi::lua_settop(raw, 1);
        traceback::traceback(raw, raw, level, &mut trace);
    }
    host::with(|host| host.trace = Some(trace));
    1
}

/// native.take_trace(): the traceback that was kept, or nothing.
unsafe extern "C-unwind" fn take_trace(raw: *mut lua_State) -> c_int {
    let mut trace = None;
    host::with(|host| trace = host.trace.take());
    let Some(trace) = trace else { return 0 };
    // SAFETY: called by the VM.
    unsafe { push_text(raw, &trace) };
    1
}

/// native.report(text, is_main, is_told): an uncaught error; logs it, unless the script has been
/// told.
unsafe extern "C-unwind" fn report_failure(raw: *mut lua_State) -> c_int {
    // SAFETY: called by the VM; the text is copied before the stack changes.
    let (text, is_main, is_told) = unsafe {
        let text = text(raw, 1).unwrap_or_default();
        (text, ffi::lua_toboolean(raw, 2) != 0, ffi::lua_toboolean(raw, 3) != 0)
    };
    host::with(|host| {
        if !is_told {
            report(host, text);
        }
        if is_main {
            host.main_failed = true;
            // At once: `context.exit` may end the process before this context has ended.
            if host.context.parent().is_none() {
                host.settings.fail();
            }
            host.failure = Some(bounded(text, host.context.limits().memory));
        }
    });
    0
}
