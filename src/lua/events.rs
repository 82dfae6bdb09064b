//! The events of a turn, as the dispatcher takes them.

use std::ffi::{OsStr, c_int};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use mlua::ffi::{self, lua_CFunction, lua_State};

use super::log::log;
use super::notice::{Completion, Notice};
use crate::error::Code;
use crate::lua::BufferValues;
use crate::lua::host::{self, Host};
use crate::message::{Ending, Event, Value};
use crate::os::thread;
use crate::rt;
use crate::vm::convert::{Refused, push_value};
use crate::vm::cut::may_leave;
use crate::vm::stack::{key, number, push_text, text};

pub(super) const FUNCTIONS: super::native::Functions = &[
    (c"next_event", next_event as lua_CFunction),
    (c"next_message", next_message),
    (c"has_older", has_older),
    (c"is_ending", is_ending),
    (c"remove_socket_file", remove_socket_file),
    (c"may_wait", may_wait),
    (c"has_stack", has_stack),
];

/// Kinds of events. The Lua side gives the numbers the same names: `tests/tidy/` compares.
const MESSAGE: f64 = 1.0;
const REPLY: f64 = 2.0;
const TIMERS: f64 = 3.0;
const READABLE: f64 = 4.0;
const ACCEPTABLE: f64 = 5.0;
const COMPLETE: f64 = 6.0;
const ENDED: f64 = 7.0;
const PUBLICATION: f64 = 8.0;
const GONE: f64 = 16.0;
const COLLECT: f64 = 17.0;
const SIGNAL: f64 = 12.0;

enum Next {
    None,
    Notice(Notice),
    Timers,
    Event(Event),
}

/// What comes next, and the sign of its kind.
fn next() -> (Next, f64) {
    host::with(|host| {
        host.flush_answers();
        let next = take_next(host);
        (next, if host.has_more() { 1.0 } else { -1.0 })
    })
}

#[inline(always)]
fn take_next(host: &mut Host) -> Next {
    loop {
        if !host.charge(1) || host.is_ending {
            return Next::None;
        }
        if let Some(notice) = host.notices.pop_front() {
            if let Notice::Readable(key) = notice {
                host.begin_answer(key);
            }
            return Next::Notice(notice);
        }
        // Before the mailbox, so that no flood of messages holds timers up. What ends a wait is put
        // off by the dispatcher until it has seen what came before.
        if host.timers.has_due() {
            return Next::Timers;
        }
        match host.next_event() {
            None => return Next::None,
            Some(Event::Ready { source }) => host.on_ready(source),
            Some(Event::Resolved { token, result }) => host.on_resolved(token, result),
            Some(Event::Reply { session, result }) => {
                // Otherwise nobody waits for it any more, or nobody ever did.
                if let Some(token) = host.sessions.close(session) {
                    return Next::Event(Event::Reply { session: token, result });
                }
            }
            Some(event) => {
                match &event {
                    Event::Message { value, .. } => {
                        host.unread.note(value);
                        host.receive();
                    }
                    Event::Publication { .. } => host.receive(),
                    _ => {}
                }
                return Next::Event(event);
            }
        }
    }
}

/// native.next_event(): kind and up to three values; nothing at the end of the turn's events. The
/// kind is negative if no other event follows in this turn, to spare a call.
unsafe extern "C-unwind" fn next_event(raw: *mut lua_State) -> c_int {
    // SAFETY: called by the VM, which leaves 20 slots free.
    unsafe {
        let (next, sign) = next();
        match next {
            Next::None => 0,
            Next::Timers => {
                ffi::lua_pushnumber(raw, sign * TIMERS);
                1
            }
            Next::Notice(Notice::Readable(key)) => push_pair(raw, sign * READABLE, key as f64),
            Next::Notice(Notice::Acceptable(key)) => push_pair(raw, sign * ACCEPTABLE, key as f64),
            Next::Notice(Notice::Gone(key)) => push_pair(raw, sign * GONE, key as f64),
            Next::Notice(Notice::Collect) => push_pair(raw, sign * COLLECT, 0.0),
            Next::Notice(Notice::Complete(token, result)) => {
                push_complete(raw, sign, token, result)
            }
            Next::Notice(Notice::Signal(signal)) => {
                ffi::lua_pushnumber(raw, sign * SIGNAL);
                push_text(raw, signal.name().as_bytes());
                2
            }
            Next::Event(event) => push_event(raw, sign, event),
        }
    }
}

/// native.next_message(root, resume, handle): sender, session and value of the next event, if that
/// is a message, and from this context (0 for any). Otherwise nothing: the event is still there;
/// and if a wait does not get up to its root, nil and what [`may_wait`] returns.
unsafe extern "C-unwind" fn next_message(raw: *mut lua_State) -> c_int {
    // SAFETY: called by the VM with these arguments.
    let wanted = unsafe {
        if let Some(results) = refuse_wait(raw) {
            return results;
        }
        number(raw, 3)
    };
    let found = host::with(|host| host.next_message(wanted));
    let Some((from, session, value)) = found else { return 0 };
    // SAFETY: called by the VM, with 20 slots free.
    unsafe {
        ffi::lua_pushnumber(raw, from.to_number());
        push_session(raw, session);
        push_received(raw, &value);
    }
    3
}

/// Pushes the session of a query, or what a message has in its place.
unsafe fn push_session(raw: *mut lua_State, session: u64) {
    // SAFETY: the callers have a slot free.
    unsafe { ffi::lua_pushnumber(raw, if session == 0 { -1.0 } else { session as f64 }) };
}

unsafe fn push_pair(raw: *mut lua_State, kind: f64, value: f64) -> c_int {
    // SAFETY: the callers have slots free.
    unsafe {
        ffi::lua_pushnumber(raw, kind);
        ffi::lua_pushnumber(raw, value);
    }
    2
}

#[inline]
unsafe fn push_event(raw: *mut lua_State, sign: f64, event: Event) -> c_int {
    // SAFETY: the caller has 20 slots free.
    unsafe {
        match event {
            Event::Message { from, session, value } => {
                push_pair(raw, sign * MESSAGE, from.to_number());
                push_session(raw, session);
                push_received(raw, &value);
                4
            }
            Event::Publication { subscription, published } => {
                push_pair(raw, sign * PUBLICATION, subscription as f64);
                push_received(raw, &published.value);
                ffi::lua_pushnumber(raw, published.from.to_number());
                host::with(|host| host.published = Some(published));
                4
            }
            Event::Reply { session, result } => {
                push_pair(raw, sign * REPLY, session as f64);
                ffi::lua_pushboolean(raw, c_int::from(result.is_ok()));
                match result {
                    Ok(value) => push_received(raw, &value),
                    Err(code) => ffi::lua_pushnumber(raw, f64::from(code.0)),
                }
                4
            }
            Event::Ended { id, ending } => {
                push_pair(raw, sign * ENDED, id.to_number());
                push_ending(raw, &ending);
                4
            }
            Event::Complete { token, result } => {
                push_complete(raw, sign, token, result.map(|()| Completion::Done))
            }
            // Handled in `next`.
            Event::Ready { .. } | Event::Resolved { .. } => 0,
        }
    }
}

/// Pushes the reason of an end, and its text or nil.
///
/// # Safety
/// `raw` must have two free stack slots.
pub(super) unsafe fn push_ending(raw: *mut lua_State, ending: &Ending) {
    // SAFETY: the caller's contract.
    unsafe {
        push_text(raw, ending.reason.as_bytes());
        match &ending.detail {
            Some(detail) => push_text(raw, detail),
            None => ffi::lua_pushnil(raw),
        }
    }
}

/// Pushes a value that another context made.
#[inline(always)]
unsafe fn push_received(raw: *mut lua_State, value: &Value) {
    // SAFETY: the callers have STACK_SLOTS free.
    if let Err(error) = unsafe { push_value::<BufferValues>(raw, value) } {
        report_loss(error);
        // SAFETY: nothing was pushed.
        unsafe { ffi::lua_pushnil(raw) };
    }
}

/// Only a stack that cannot grow gets here: what was sent is well-formed.
#[cold]
fn report_loss(error: Refused) {
    let label = host::with(|host| host.context.label());
    log::error!("{label}: a message arrived as nil: {error}");
}

unsafe fn push_complete(
    raw: *mut lua_State,
    sign: f64,
    token: u64,
    result: Result<Completion, Code>,
) -> c_int {
    // SAFETY: the caller has 20 slots free.
    unsafe {
        push_pair(raw, sign * COMPLETE, token as f64);
        ffi::lua_pushboolean(raw, c_int::from(result.is_ok()));
        match result {
            Err(code) => ffi::lua_pushnumber(raw, f64::from(code.0)),
            Ok(Completion::Done) => ffi::lua_pushnumber(raw, 0.0),
            Ok(Completion::Connected(key)) => ffi::lua_pushnumber(raw, key as f64),
            Ok(Completion::Addresses(addresses)) => {
                ffi::lua_createtable(raw, addresses.len() as c_int, 0);
                for (address, index) in addresses.iter().zip(1..) {
                    push_text(raw, address.ip().to_string().as_bytes());
                    ffi::lua_rawseti(raw, -2, index);
                }
            }
        }
    }
    4
}

/// native.has_older(): whether events wait that came before this turn.
unsafe extern "C-unwind" fn has_older(raw: *mut lua_State) -> c_int {
    let older = host::with(|host| host.has_older());
    // SAFETY: called by the VM.
    unsafe { ffi::lua_pushboolean(raw, c_int::from(older)) };
    1
}

/// native.is_ending(): whether the context has destroyed itself.
unsafe extern "C-unwind" fn is_ending(raw: *mut lua_State) -> c_int {
    let ending = host::with(|host| host.is_ending);
    // SAFETY: called by the VM.
    unsafe { ffi::lua_pushboolean(raw, c_int::from(ending)) };
    1
}

/// native.remove_socket_file(path): whether there was one, of a simulated socket.
unsafe extern "C-unwind" fn remove_socket_file(raw: *mut lua_State) -> c_int {
    // SAFETY: called by the VM; the path stays on the stack.
    let path = unsafe { text(raw, 1) }.unwrap_or_default();
    let removed = rt::remove_socket_file(Path::new(OsStr::from_bytes(path)));
    // SAFETY: as above.
    unsafe { ffi::lua_pushboolean(raw, c_int::from(removed)) };
    1
}

/// native.may_wait(root, resume): nothing if a wait gets from the coroutine that runs up to its
/// root. 1 if the C stack cannot be left, there or in between; 2 if C code has resumed one of those
/// coroutines; 3 if there is no root. `resume` is what the library resumes coroutines with.
unsafe extern "C-unwind" fn may_wait(raw: *mut lua_State) -> c_int {
    // SAFETY: called by the VM with these arguments.
    match unsafe { why_not_wait(raw) } {
        0 => 0,
        why => {
            // SAFETY: a free stack slot, as every function has.
            unsafe { ffi::lua_pushnumber(raw, f64::from(why)) };
            1
        }
    }
}

/// For functions with the arguments of [`may_wait`] before their own: if a wait does not get up to
/// the root, the number of results that they are to return.
///
/// # Safety
/// `raw` must be running, with these arguments and two free stack slots.
#[inline]
pub(super) unsafe fn refuse_wait(raw: *mut lua_State) -> Option<c_int> {
    // SAFETY: the caller's contract.
    match unsafe { why_not_wait(raw) } {
        0 => None,
        why => {
            // SAFETY: likewise.
            unsafe {
                ffi::lua_pushnil(raw);
                ffi::lua_pushnumber(raw, f64::from(why));
            }
            Some(2)
        }
    }
}

/// What [`may_wait`] returns, or 0.
///
/// # Safety
/// As for [`refuse_wait`].
#[inline]
unsafe fn why_not_wait(raw: *mut lua_State) -> u8 {
    // SAFETY: the caller's contract; a thread object is a live state.
    unsafe {
        let root = ffi::lua_tothread(raw, 1);
        match root.is_null() {
            true => 3,
            false => may_leave(raw, root, ffi::lua_topointer(raw, 2)),
        }
    }
}

/// native.has_stack(): whether another coroutine may run inside those that do.
unsafe extern "C-unwind" fn has_stack(raw: *mut lua_State) -> c_int {
    // SAFETY: called by the VM.
    unsafe { ffi::lua_pushboolean(raw, c_int::from(thread::has_stack())) };
    1
}
