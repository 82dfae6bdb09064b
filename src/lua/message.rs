//! Sending, asking and answering.

use std::cell::RefCell;
use std::ffi::c_int;
use std::fmt::Display;

use mlua::ffi::{self, lua_CFunction, lua_State};

use super::context::push_id;
use super::events::refuse_wait;
use super::native::push_failure;
use crate::error::Code;
use crate::failpoint;
use crate::logging::Seldom;
use crate::lua::{BufferValues, host};
use crate::message::encode::TABLE_BYTES_MAX;
use crate::message::{Event, Id, TooLarge, Value};
use crate::vm::blame::{self, Wrong};
use crate::vm::convert::{self, to_large_value, to_small_value};
use crate::vm::stack::{key, number, push_text, text};

pub(super) const FUNCTIONS: super::native::Functions = &[
    (c"send", send as lua_CFunction),
    (c"query", query),
    (c"forget", forget),
    (c"recount", recount),
    (c"reply", reply),
    (c"refuse", refuse),
    (c"unreceive", unreceive),
    (c"received", received),
];

/// What is said besides of a value that does not.
const TRAVELS: &str =
    "nil, booleans, numbers, strings, buffers, tables, int64_t and uint64_t travel";

thread_local! {
    /// Working memory for values on their way out; not the host's, which must not be borrowed while
    /// the VM is looked at.
    static VALUES: RefCell<convert::Scratch> = RefCell::new(convert::Scratch::default());
}

/// Takes a value out of the VM; pushes `nil, message` if it cannot travel, which names the function
/// that the script has called, and which argument the value is.
#[inline]
pub(super) unsafe fn take_value(
    raw: *mut lua_State,
    index: c_int,
    what: (&str, c_int),
) -> Result<Value, c_int> {
    // SAFETY: the callers are called by the VM; the value is of this type.
    unsafe {
        if failpoint::fails(failpoint::Point::Encode) {
            return refuse_value(raw, index, what, &TooLarge { max: 0 });
        }
        let kind = ffi::lua_type(raw, index);
        match to_small_value(raw, index, kind) {
            Some(value) => Ok(value),
            None => take_large_value(raw, index, kind, what),
        }
    }
}

unsafe fn take_large_value(
    raw: *mut lua_State,
    index: c_int,
    kind: c_int,
    what: (&str, c_int),
) -> Result<Value, c_int> {
    let room = host::with(|host| host.room());
    // SAFETY: as below; of a string the length is read, and nothing else.
    if kind == ffi::LUA_TSTRING && unsafe { ffi::lua_objlen(raw, index) } > room {
        return Ok(Value::TooMuch);
    }
    let result = VALUES.with(|values| match values.try_borrow_mut() {
        // SAFETY: the callers are called by the VM, which leaves 20 slots free.
        Ok(mut scratch) => unsafe {
            scratch.set_max(room);
            to_large_value::<BufferValues>(raw, index, kind, &mut scratch)
        },
        // A finaliser that ran while a value was looked at sends one itself.
        Err(_) => {
            let mut scratch = convert::Scratch::default();
            scratch.set_max(room);
            // SAFETY: as above.
            unsafe { to_large_value::<BufferValues>(raw, index, kind, &mut scratch) }
        }
    });
    if let Err(convert::Unsupported::TooLarge(_)) = &result
        && room < TABLE_BYTES_MAX
    {
        return Ok(Value::TooMuch);
    }
    // SAFETY: as above.
    result.or_else(|error| unsafe { refuse_value(raw, index, what, &error) })
}

/// Pushes `nil` and that the value cannot travel.
///
/// # Safety
/// Called by a function that the VM calls.
#[cold]
unsafe fn refuse_value(
    raw: *mut lua_State,
    index: c_int,
    (function, position): (&str, c_int),
    why: &dyn Display,
) -> Result<Value, c_int> {
    // SAFETY: the caller's contract.
    unsafe {
        let given = blame::describe(raw, index);
        ffi::lua_pushnil(raw);
        let text =
            format!("bad argument #{position} to '{function}' ({why}; {TRAVELS}, got {given})");
        push_text(raw, text.as_bytes());
    }
    Err(2)
}

/// Delivers to a context by its handle.
#[inline]
fn deliver(number: f64, event: impl FnOnce(Id) -> Event) -> Result<(), Code> {
    let to = Id::from_number(number).ok_or(Code::NO_CONTEXT)?;
    host::with(|host| {
        let event = event(host.context.id());
        host.deliver(to, event)
    })
}

/// Raises the message on top of the stack, as what is wrong with an argument.
unsafe fn raise_top(raw: *mut lua_State) -> c_int {
    // SAFETY: the callers have slots free; the copy of the text is dropped by the unwinder.
    unsafe {
        let text = String::from_utf8_lossy(text(raw, -1).unwrap_or_default()).into_owned();
        blame::raise(raw, &text)
    }
}

/// The name at `index`: a text that does not read as a number.
#[inline]
unsafe fn name<'a>(raw: *mut lua_State, index: c_int) -> Option<&'a [u8]> {
    // SAFETY: the callers are called by the VM; the text stays on the stack.
    unsafe {
        let is_text =
            ffi::lua_type(raw, index) == ffi::LUA_TSTRING && ffi::lua_isnumber(raw, index) == 0;
        if is_text { text(raw, index) } else { None }
    }
}

/// The handle in the first argument: a number, or a text that reads as one. Raises otherwise.
#[inline]
unsafe fn check_handle(raw: *mut lua_State, function: &str) -> f64 {
    // SAFETY: called by the VM's callees; nothing is owned where this raises.
    unsafe {
        if ffi::lua_isnumber(raw, 1) == 0 {
            let wrong = Wrong::Argument(1);
            blame::bad(raw, wrong, function, "context handle", Some(1));
        }
        number(raw, 1)
    }
}

/// Pushes how a delivery went.
pub(super) unsafe fn push_result(raw: *mut lua_State, result: Result<(), Code>) -> c_int {
    // SAFETY: the callers have two slots free.
    unsafe {
        match result {
            Ok(()) => {
                ffi::lua_pushboolean(raw, 1);
                1
            }
            Err(code) => push_failure(raw, code),
        }
    }
}

/// context.send(handle or name, value).
unsafe extern "C-unwind" fn send(raw: *mut lua_State) -> c_int {
    // SAFETY: called by the VM; nothing is owned where this raises.
    unsafe {
        if ffi::lua_gettop(raw) != 2 {
            return blame::raise(raw, "bad arguments to 'send' (a handle and one value expected)");
        }
        let handle = if ffi::lua_type(raw, 1) == ffi::LUA_TNUMBER {
            number(raw, 1)
        } else {
            // Where there are no names at all, it is a mistake.
            let are_used = |_: &_| host::with(|host| host.context.scheduler().names().are_used());
            if let Some(name) = name(raw, 1).filter(are_used) {
                let Ok(value) = take_value(raw, 2, ("send", 2)) else { return raise_top(raw) };
                let sent = host::with(|host| {
                    let from = host.context.id();
                    let event = |value| Event::Message { from, session: 0, value };
                    host.deliver_named(name, value, event).map(drop)
                });
                return push_result(raw, sent);
            }
            check_handle(raw, "send")
        };
        let Ok(value) = take_value(raw, 2, ("send", 2)) else { return raise_top(raw) };
        let result = deliver(handle, |from| Event::Message { from, session: 0, value });
        push_result(raw, result)
    }
}

/// The log has a word on queries that were refused.
static QUERIES_REFUSED: Seldom = Seldom::new();

/// native.query(root, resume, handle or name, token, value). Returns true, session, and the handle
/// if a name was given; or `false, code`; or `nil, message` for what cannot travel. With a root it
/// first looks whether that may wait (native.may_wait); `nil, why` if not. Without, both are nil.
unsafe extern "C-unwind" fn query(raw: *mut lua_State) -> c_int {
    // SAFETY: called by the VM with these arguments.
    unsafe {
        if ffi::lua_type(raw, 2) != ffi::LUA_TNIL
            && let Some(results) = refuse_wait(raw)
        {
            return results;
        }
        let value = match take_value(raw, 5, ("query", 2)) {
            Ok(value) => value,
            Err(results) => return results,
        };
        let (name, token) = (name(raw, 3), key(raw, 4));
        let to = if name.is_none() { Id::from_number(number(raw, 3)) } else { None };
        let asked = host::with(|host| {
            if !host.context.asked() {
                if QUERIES_REFUSED.is_due() {
                    log::warn!(
                        "{}: too many of its queries wait for an answer (213): {} at most (option \
                         queries of context.create); queries without a timeout wait for ever",
                        host.context.label(),
                        host.context.limits().queries
                    );
                }
                return Err(Code::QUERIES_FULL);
            }
            let from = host.context.id();
            let session = host.sessions.open(from, token);
            let event = |value| Event::Message { from, session, value };
            let sent = match (name, to) {
                (Some(name), _) => host.deliver_named(name, value, event).map(Some),
                (None, Some(to)) => host.deliver(to, event(value)).map(|()| None),
                (None, None) => Err(Code::NO_CONTEXT),
            };
            if sent.is_err() {
                host.sessions.close(session);
            }
            sent.map(|to| (session, to))
        });
        match asked {
            Ok((session, to)) => {
                ffi::lua_pushboolean(raw, 1);
                ffi::lua_pushnumber(raw, session as f64);
                2 + push_id(raw, to)
            }
            Err(code) => push_failure(raw, code),
        }
    }
}

/// native.forget(token): nobody waits for an answer to this query any more.
unsafe extern "C-unwind" fn forget(raw: *mut lua_State) -> c_int {
    // SAFETY: called by the VM.
    let token = unsafe { key(raw, 1) };
    host::with(|host| host.sessions.forget(host.context.id(), token));
    0
}

/// native.recount(queries): so many wait for an answer; whether one more may.
unsafe extern "C-unwind" fn recount(raw: *mut lua_State) -> c_int {
    // SAFETY: called by the VM. `as` saturates.
    let queries = unsafe { number(raw, 1) } as usize;
    let has_room = host::with(|host| {
        host.context.set_unanswered(queries);
        queries < host.context.limits().queries
    });
    // SAFETY: as above.
    unsafe { ffi::lua_pushboolean(raw, c_int::from(has_room)) };
    1
}

/// context.reply(handle, session, value). What cannot travel raises, and is told to the asker.
unsafe extern "C-unwind" fn reply(raw: *mut lua_State) -> c_int {
    // SAFETY: called by the VM; nothing is owned where this raises.
    unsafe {
        if ffi::lua_gettop(raw) != 3 {
            let text = "bad arguments to 'reply' (a handle, a session and one value expected)";
            return blame::raise(raw, text);
        }
        let handle = check_handle(raw, "reply");
        if ffi::lua_type(raw, 2) != ffi::LUA_TNUMBER {
            let wrong = Wrong::Argument(2);
            return blame::bad(raw, wrong, "reply", "session", Some(2));
        }
        let session = key(raw, 2);
        match take_value(raw, 3, ("reply", 3)) {
            Ok(value) => {
                let result = deliver(handle, |_| Event::Reply { session, result: Ok(value) });
                push_result(raw, result)
            }
            Err(_) => {
                let failure = Err(Code::VALUE_TYPE);
                // An asker that is gone needs no answer.
                let _ = deliver(handle, |_| Event::Reply { session, result: failure });
                raise_top(raw)
            }
        }
    }
}

/// native.refuse(handle, session): whoever has asked gets no reply.
unsafe extern "C-unwind" fn refuse(raw: *mut lua_State) -> c_int {
    // SAFETY: called by the VM, with what came with a message.
    let (handle, session) = unsafe { (number(raw, 1), key(raw, 2)) };
    // An asker that is gone needs none.
    let _ = deliver(handle, |_| Event::Reply { session, result: Err(Code::NO_REPLY) });
    0
}

/// native.unreceive(number): the message just delivered waits again, under this number. Returns how
/// many bytes it holds.
unsafe extern "C-unwind" fn unreceive(raw: *mut lua_State) -> c_int {
    // SAFETY: called by the VM.
    let number = unsafe { key(raw, 1) };
    let bytes = host::with(|host| host.keep(number));
    // SAFETY: as above.
    unsafe { ffi::lua_pushnumber(raw, bytes as f64) };
    1
}

/// native.received(number, bytes): a message that waited so is received.
unsafe extern "C-unwind" fn received(raw: *mut lua_State) -> c_int {
    // SAFETY: called by the VM, with what `unreceive` took and returned.
    let (number, bytes) = unsafe { (key(raw, 1), key(raw, 2)) };
    host::with(|host| host.receive_kept(number, bytes as usize));
    0
}
