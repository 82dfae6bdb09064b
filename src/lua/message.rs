//! Sending, asking and answering.

use std::cell::RefCell;
use std::ffi::c_int;
use std::fmt::Display;

use mlua::ffi;

use crate::error::Code;
use crate::failpoint;
use crate::hint::rarely;
use crate::logging::Seldom;
use crate::lua::{BufferValues, host};
use crate::message::encode::TABLE_BYTES_MAX;
use crate::message::{Allowance, Event, Id, TooLarge, Value};
use crate::vm::blame::Wrong;
use crate::vm::convert;
use crate::vm::convert::{to_large_value, to_small_value};
use crate::vm::coroutine::refuse_wait;
use crate::vm::stack::{Nil, Results, Stack, Whole, function};

pub(super) const FUNCTIONS: super::native::Functions = &[
    (c"send", function(send)),
    (c"query", function(query)),
    (c"forget", function(forget)),
    (c"recount", function(recount)),
    (c"explanation", function(explanation)),
    (c"reply", function(reply)),
    (c"refuse", function(refuse)),
    (c"unreceive", function(unreceive)),
    (c"received", function(received)),
];

/// What is said besides of a value that does not.
const TRAVELS: &str =
    "nil, booleans, numbers, strings, buffers, tables, int64_t and uint64_t travel";

thread_local! {
    /// Working memory for values on their way out; not the host's, which must not be borrowed while
    /// the VM is looked at.
    static VALUES: RefCell<convert::Scratch> = RefCell::new(convert::Scratch::default());
}

/// Takes a value out of the VM, for a context if it is known for which: no more than that has room
/// for is written.
///
/// # Errors
/// It cannot travel. `nil, message` are pushed then, which names the function that the script has
/// called, and which argument the value is.
#[inline]
pub(super) fn take_value(
    lua: Stack<'_>,
    index: c_int,
    what: (&str, c_int),
    to: Option<Id>,
) -> Result<Value, c_int> {
    if failpoint::fails(failpoint::Point::Encode) {
        return Err(refuse_value(lua, index, what, &TooLarge { max: 0 }));
    }
    let kind = lua.kind(index);
    match to_small_value(lua, index, kind) {
        Some(value) => Ok(value),
        None => take_large_value(lua, index, kind, what, to),
    }
}

fn take_large_value(
    lua: Stack<'_>,
    index: c_int,
    kind: c_int,
    what: (&str, c_int),
    to: Option<Id>,
) -> Result<Value, c_int> {
    // Texts count before they are copied, tables while they are written; buffers do already.
    let bytes = if kind == ffi::LUA_TSTRING { lua.length(index) } else { 0 };
    let (room, allowance, text) = host::with(|host| {
        let room = host.room().min(host.peers.room_of(to, &host.context));
        let allowance = host.context.allowance();
        let text = match bytes > room {
            true => None,
            false => Allowance::hold_of(allowance.filter(|_| bytes > 0), bytes),
        };
        (room, allowance.filter(|_| kind == ffi::LUA_TTABLE).cloned(), text)
    });
    let Some(text) = text else { return Ok(Value::TooMuch) };
    let take = |scratch: &mut convert::Scratch| {
        scratch.limit(room.min(TABLE_BYTES_MAX), allowance);
        to_large_value::<BufferValues>(lua, index, kind, scratch)
    };
    let result = VALUES.with(|values| match values.try_borrow_mut() {
        Ok(mut scratch) => take(&mut scratch),
        // A finaliser that ran while a value was looked at sends one itself.
        Err(_) => take(&mut convert::Scratch::default()),
    });
    if let Err(convert::Unsupported::TooLarge(error)) = &result
        && (room < TABLE_BYTES_MAX || error.max == 0)
    {
        return Ok(Value::TooMuch);
    }
    let counted = |value: Value| match text {
        Some(held) => value.counted(held),
        None => value,
    };
    result.map(counted).map_err(|error| refuse_value(lua, index, what, &error))
}

/// Pushes `nil` and that the value cannot travel.
#[cold]
fn refuse_value(
    lua: Stack<'_>,
    index: c_int,
    (function, position): (&str, c_int),
    why: &dyn Display,
) -> c_int {
    let given = lua.describe(index);
    let text = format!("bad argument #{position} to '{function}' ({why}; {TRAVELS}, got {given})");
    (Nil, text).give(lua)
}

/// The same; raises it, if there is a value that cannot.
fn take_or_raise(lua: Stack<'_>, index: c_int, function: &str, to: Option<Id>) -> Value {
    take_value(lua, index, (function, index), to).unwrap_or_else(|_| raise_top(lua))
}

/// Raises the message on top of the stack, as what is wrong with an argument.
fn raise_top(lua: Stack<'_>) -> ! {
    let text = String::from_utf8_lossy(lua.text(-1).unwrap_or_default()).into_owned();
    lua.raise(&text)
}

/// Delivers to a context by its handle, if it can be one.
#[inline]
fn deliver(to: Option<Id>, event: impl FnOnce(Id) -> Event) -> Result<(), Code> {
    let to = to.ok_or(Code::NO_CONTEXT)?;
    host::with(|host| {
        let event = event(host.context.id());
        host.deliver(to, event)
    })
}

/// The name at `index`: a text that does not read as a number.
#[inline]
fn name<'a>(lua: Stack<'a>, index: c_int) -> Option<&'a [u8]> {
    let is_text = lua.kind(index) == ffi::LUA_TSTRING && !lua.is_number(index);
    if is_text { lua.text(index) } else { None }
}

/// The handle in the first argument: a number, or a text that reads as one; none if no context can
/// have it. Raises otherwise.
#[inline]
fn check_handle(lua: Stack<'_>, function: &str) -> Option<Id> {
    let number = lua.number(1);
    let to = Id::from_number(number);
    if rarely(to.is_none()) && (number.fract() != 0.0 || number == 0.0 && !lua.is_number(1)) {
        let expected = if function == "send" { "context handle or name" } else { "context handle" };
        lua.bad(Wrong::Argument(1), function, expected, Some(1));
    }
    to
}

/// Raises unless there are this many arguments, of which the last is a value to be sent.
#[inline]
fn check_count(lua: Stack<'_>, function: &str, count: c_int) {
    let top = lua.top();
    if rarely(top != count) {
        let (position, expected) = if top < count { (count, "value") } else { (count + 1, "") };
        lua.bad(Wrong::Argument(position), function, expected, Some(position));
    }
}

/// context.send(handle or name, value).
fn send(lua: Stack<'_>) -> c_int {
    let to = if lua.kind(1) == ffi::LUA_TNUMBER {
        check_handle(lua, "send")
    } else {
        // Where there are no names at all, it is a mistake.
        let are_used = |_: &_| {
            host::with(|host| {
                let scheduler = host.context.scheduler();
                scheduler.names().are_used() || scheduler.cluster().is_some()
            })
        };
        if let Some(name) = name(lua, 1).filter(are_used) {
            check_count(lua, "send", 2);
            let value = take_or_raise(lua, 2, "send", None);
            let sent = host::with(|host| host.deliver_named(name, 0, value));
            return sent.map(|_| true).give(lua);
        }
        check_handle(lua, "send")
    };
    check_count(lua, "send", 2);
    let value = take_or_raise(lua, 2, "send", to);
    deliver(to, |from| Event::Message { from, session: 0, value }).map(|()| true).give(lua)
}

/// Limits the warnings about refused queries.
static QUERIES_REFUSED: Seldom = Seldom::new();

/// native.query(root, resume, handle or name, token, value). Returns true, session, and the handle
/// if a name was given that a context here answers under; or `false, code[, text]`; or
/// `nil, message` for what cannot travel. With a root it first looks whether that may wait
/// (native.may_wait); `nil, why` if not. Without, both are nil.
fn query(lua: Stack<'_>) -> c_int {
    if lua.kind(2) != ffi::LUA_TNIL
        && let Some(results) = refuse_wait(lua)
    {
        return results;
    }
    let (name, token) = (name(lua, 3), lua.key(4));
    let to = if name.is_none() { Id::from_number(lua.number(3)) } else { None };
    let value = match take_value(lua, 5, ("query", 2), to) {
        Ok(value) => value,
        Err(results) => return results,
    };
    let asked = host::with(|host| {
        if rarely(!host.context.asked()) {
            return Err(Code::QUERIES_FULL);
        }
        let from = host.context.id();
        let session = host.peers.sessions.open(from, token);
        let sent = match (name, to) {
            (Some(name), _) => host.deliver_named(name, session, value),
            (None, Some(to)) => {
                host.deliver(to, Event::Message { from, session, value }).map(|()| None)
            }
            (None, None) => Err(Code::NO_CONTEXT),
        };
        if rarely(sent.is_err()) {
            host.peers.sessions.close(session);
        }
        sent.map(|to| (true, Whole(session), to))
    });
    asked.give(lua)
}

/// native.forget(token): nobody waits for an answer to this query any more.
fn forget(lua: Stack<'_>) {
    let token = lua.key(1);
    host::with(|host| {
        let id = host.context.id();
        let session = host.peers.sessions.forget(id, token);
        if let Some(cluster) = host.cluster() {
            cluster.forget(id, session);
        }
    });
}

/// native.recount(queries): this many wait for an answer; whether one more may. What was refused
/// before may have counted queries that were over already.
fn recount(lua: Stack<'_>) -> bool {
    let queries = lua.number(1) as usize;
    host::with(|host| {
        host.context.set_unanswered(queries);
        let most = host.context.limits().queries;
        if queries >= most && QUERIES_REFUSED.is_due() {
            log::warn!(
                "{}: too many of its queries wait for an answer (213): {most} at most (option \
                 queries of context.create); queries without a timeout wait for ever",
                host.context.label(),
            );
        }
        queries < most
    })
}

/// native.explanation(): more of why a query has failed, right after it was told; or nothing.
fn explanation(_: Stack<'_>) -> Option<Box<str>> {
    host::with(|host| host.peers.explanation.take())
}

/// Whether a number has no fraction. Of most that is found without a call.
fn is_whole(number: f64) -> bool {
    number as i64 as f64 == number || number.fract() == 0.0
}

/// context.reply(handle, session, value). What cannot travel raises, and is told to the asker.
fn reply(lua: Stack<'_>) -> c_int {
    let to = check_handle(lua, "reply");
    if rarely(lua.kind(2) != ffi::LUA_TNUMBER || !is_whole(lua.number(2))) {
        lua.bad(Wrong::Argument(2), "reply", "session", Some(2));
    }
    check_count(lua, "reply", 3);
    let session = lua.key(2);
    let Ok(value) = take_value(lua, 3, ("reply", 3), to) else {
        refuse_with(to, session, Code::VALUE_TYPE);
        raise_top(lua)
    };
    deliver(to, |_| Event::Reply { session, result: Ok(value) }).map(|()| true).give(lua)
}

/// native.refuse(handle, session): whoever has asked gets no reply.
fn refuse(lua: Stack<'_>) {
    let (to, session) = (Id::from_number(lua.number(1)), lua.key(2));
    refuse_with(to, session, Code::NO_REPLY);
}

/// Tells an asker that there is no answer; who is gone needs none.
fn refuse_with(to: Option<Id>, session: u64, code: Code) {
    let _ = deliver(to, |_| Event::Reply { session, result: Err(code.into()) });
    host::with(|host| host.peers.explanation = None);
}

/// native.unreceive(number): the message just delivered waits again, under this number. Returns how
/// many bytes it holds.
fn unreceive(lua: Stack<'_>) -> usize {
    let number = lua.key(1);
    host::with(|host| host.peers.received.keep(number, &host.context))
}

/// native.received(number, bytes): a message that waited so is received.
fn received(lua: Stack<'_>) {
    let (number, bytes) = (lua.key(1), lua.key(2));
    host::with(|host| host.peers.received.receive_kept(number, bytes as usize, &host.context));
}
