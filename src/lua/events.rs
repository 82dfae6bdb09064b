//! The events of a turn, as the dispatcher takes them.

use std::ffi::{OsStr, c_int};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;

use super::frames::push_ready;
use super::notice::{Completion, Notice};
use crate::error::Code;
use crate::hint::{rare, rarely};
use crate::lua::BufferValues;
use crate::lua::host::{self, Host};
use crate::message::{Ending, Event, Value};
use crate::os::stdio::fork;
use crate::rt;
use crate::vm::convert::{Refused, push_value};
use crate::vm::coroutine::refuse_wait;
use crate::vm::stack::{Results, Single, Stack, Whole, function};

pub(super) const FUNCTIONS: super::native::Functions = &[
    (c"next_event", function(next_event)),
    (c"next_message", function(next_message)),
    (c"has_older", function(has_older)),
    (c"is_ending", function(is_ending)),
    (c"remove_socket_file", function(remove_socket_file)),
];

/// Kinds of events. The Lua side gives the numbers the same names: `tests/tidy/` compares.
const MESSAGE: f64 = 1.0;
const REPLY: f64 = 2.0;
const TIMERS: f64 = 3.0;
const READY: f64 = 4.0;
const COMPLETE: f64 = 6.0;
const ENDED: f64 = 7.0;
const PUBLICATION: f64 = 8.0;
#[cfg(feature = "http")]
const REQUEST: f64 = 9.0;
const GONE: f64 = 16.0;
const COLLECT: f64 = 17.0;
const SIGNAL: f64 = 12.0;

enum Next {
    None,
    /// A socket, by its key, and how many frames the script waits for.
    Ready(u64, usize),
    /// A request.
    #[cfg(feature = "http")]
    Request(super::http::NewRequest),
    Notice(Notice),
    Timers,
    Event(Event),
}

/// What comes next, and the sign of its kind.
fn next() -> (Next, f64) {
    host::with(|host| {
        if fork::is_child() {
            // What has come is for the process that this one was forked off.
            host.turn.is_ending = true;
            return (Next::None, 1.0);
        }
        host.sockets.flush_answers(&host.context, &mut host.turn.notices);
        let next = take_next(host);
        (next, if host.has_more() { 1.0 } else { -1.0 })
    })
}

#[inline(always)]
fn take_next(host: &mut Host) -> Next {
    loop {
        if rarely(!host.turn.charge(1) || host.turn.is_ending) {
            return Next::None;
        }
        if let Some(notice) = host.turn.notices.pop() {
            return Next::Notice(notice);
        }
        // Before the mailbox, so that no flood of messages holds timers up. What ends a wait is put
        // off by the dispatcher until it has seen what came before.
        if host.turn.timers.has_due() {
            return Next::Timers;
        }
        #[cfg(feature = "http")]
        if host.sockets.http.is_some()
            && let Some(taken) = host.next_request()
        {
            return Next::Request(taken);
        }
        match host.next_event() {
            #[cfg(feature = "http")]
            None if host.drive_http() => {}
            None => return Next::None,
            Some(Event::Ready { source }) => {
                if let Some((key, awaited)) = host.on_ready(source) {
                    return Next::Ready(key, awaited);
                }
            }
            Some(Event::Resolved { token, result }) => {
                rare();
                host.sockets.on_resolved(token, result, &host.context, &mut host.turn.notices);
            }
            Some(Event::Reply { session, result }) => {
                // Otherwise nobody waits for it any more, or nobody ever did.
                if let Some(token) = host.peers.sessions.close(session) {
                    return Next::Event(Event::Reply { session: token, result });
                }
            }
            Some(event) => {
                match &event {
                    Event::Message { value, .. } => {
                        host.peers.received.unread.note(value);
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

/// native.next_event(stock): kind and up to three values; nothing at the end of the turn's events.
/// The kind is negative if no other event follows in this turn, to spare a call. Frames beyond the
/// first are in the table `stock`: see [`push_ready`].
fn next_event(lua: Stack<'_>) -> c_int {
    loop {
        let (next, sign) = next();
        let Next::Ready(key, awaited) = next else { return push_next(lua, sign, next) };
        if let Some(results) = push_ready(lua, sign * READY, key, awaited) {
            return results;
        }
    }
}

fn push_next(lua: Stack<'_>, sign: f64, next: Next) -> c_int {
    match next {
        Next::None | Next::Ready(..) => 0,
        #[cfg(feature = "http")]
        Next::Request(taken) => {
            push_pair(lua, sign * REQUEST, Whole(taken.number));
            lua.push_whole(taken.server);
            let Some(lines) = taken.slot.plain_head() else { return 3 };
            lua.push_text(lines.path());
            4
        }
        Next::Timers => {
            lua.push_number(sign * TIMERS);
            1
        }
        Next::Notice(Notice::Gone(key)) => push_pair(lua, sign * GONE, Whole(key)),
        Next::Notice(Notice::Collect) => {
            rare();
            push_pair(lua, sign * COLLECT, 0.0)
        }
        Next::Notice(Notice::Complete(token, result)) => push_complete(lua, sign, token, result),
        Next::Notice(Notice::Signal(signal)) => {
            rare();
            lua.push_number(sign * SIGNAL);
            lua.push_text(signal.name().as_bytes());
            2
        }
        Next::Event(event) => push_event(lua, sign, event),
    }
}

/// native.next_message(root, resume, handle): sender, session and value of the next event, if that
/// is a message, and from this context (0 for any). Otherwise nothing: the event is still there;
/// and if a wait does not get up to its root, nil and what [`may_wait`] returns.
fn next_message(lua: Stack<'_>) -> c_int {
    let wanted = {
        if let Some(results) = refuse_wait(lua) {
            return results;
        }
        lua.number(3)
    };
    let found =
        host::with(|host| host.turn.next_message(wanted, &mut host.peers.received, &host.context));
    let Some((from, session, value)) = found else { return 0 };
    lua.push_number(from.to_number());
    push_session(lua, session);
    push_received(lua, &value);
    3
}

/// Pushes the session of a query, or what a message has in its place.
fn push_session(lua: Stack<'_>, session: u64) {
    match session {
        0 => lua.push_number(-1.0),
        _ => lua.push_whole(session),
    }
}

#[inline]
fn push_pair(lua: Stack<'_>, kind: f64, value: impl Single) -> c_int {
    lua.push_number(kind);
    value.push_one(lua);
    2
}

#[inline]
fn push_event(lua: Stack<'_>, sign: f64, event: Event) -> c_int {
    match event {
        Event::Message { from, session, value } => {
            push_pair(lua, sign * MESSAGE, from);
            push_session(lua, session);
            push_received(lua, &value);
            4
        }
        Event::Publication { subscription, published } => {
            push_pair(lua, sign * PUBLICATION, Whole(subscription));
            push_received(lua, &published.value);
            lua.push_number(published.from.to_number());
            host::with(|host| host.peers.published = Some(published));
            4
        }
        Event::Reply { session, result } => {
            push_pair(lua, sign * REPLY, Whole(session));
            lua.push_boolean(result.is_ok());
            match result {
                Ok(value) => push_received(lua, &value),
                Err(failure) => {
                    rare();
                    lua.push_number(f64::from(failure.code.0));
                    host::with(|host| host.peers.explanation = failure.text);
                }
            }
            4
        }
        Event::Ended { id, ending } => {
            push_pair(lua, sign * ENDED, id);
            2 + ending.give(lua)
        }
        Event::Complete { token, result } => {
            push_complete(lua, sign, token, result.map(|()| Completion::Done))
        }
        // Handled in `next`.
        Event::Ready { .. } | Event::Resolved { .. } => 0,
    }
}

/// The reason of an end, and its text or nil.
impl Results for Arc<Ending> {
    fn give(self, lua: Stack<'_>) -> c_int {
        [Some(self.reason.as_bytes()), self.detail.as_deref()].give(lua)
    }
}

/// Pushes a value that another context made.
#[inline(always)]
fn push_received(lua: Stack<'_>, value: &Value) {
    if let Err(error) = push_value::<BufferValues>(lua, value) {
        report_loss(error);
        lua.push_nil();
    }
}

/// Only a stack that cannot grow gets here: what was sent is well-formed.
#[cold]
fn report_loss(error: Refused) {
    let text = format!("a message arrived as nil: {error}");
    host::with(|host| {
        if host.quota.admits_error(text.len(), &host.context) {
            log::error!("{}: {text}", host.context.label());
        }
    });
}

fn push_complete(lua: Stack<'_>, sign: f64, token: u64, result: Result<Completion, Code>) -> c_int {
    push_pair(lua, sign * COMPLETE, Whole(token));
    lua.push_boolean(result.is_ok());
    match result {
        Err(code) => lua.push_number(f64::from(code.0)),
        Ok(Completion::Done) => lua.push_number(0.0),
        Ok(Completion::Connected(key)) => lua.push_whole(key),
        Ok(Completion::Addresses(addresses)) => {
            lua.push_table(addresses.len(), 0);
            for (address, index) in addresses.iter().zip(1..) {
                lua.push_text(address.ip().to_string().as_bytes());
                lua.set_entry(-2, index);
            }
        }
    }
    4
}

/// native.has_older(): whether events wait that came before this turn.
fn has_older(_: Stack<'_>) -> bool {
    host::with(|host| host.turn.has_older())
}

/// native.is_ending(): whether the context has destroyed itself.
fn is_ending(_: Stack<'_>) -> bool {
    host::with(|host| host.turn.is_ending)
}

/// native.remove_socket_file(path): whether there was one, of a simulated socket.
fn remove_socket_file(lua: Stack<'_>) -> bool {
    let path = lua.text(1).unwrap_or_default();
    rt::remove_socket_file(Path::new(OsStr::from_bytes(path)))
}
