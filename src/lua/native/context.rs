//! Creating, asking and ending contexts.

use std::cell::RefCell;
use std::ffi::{OsStr, c_int};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use mlua::ffi::{self, lua_CFunction, lua_State};

use super::confine::Deny;
use super::event::push_ending;
use super::{bounded, key, number, push_failure, push_text, text};
use crate::abi::blame::{self, Wrong};
use crate::context::{Context, End, Limits, Scheduler};
use crate::error::Code;
use crate::logging::Seldom;
use crate::lua::behavior::{Paths, Program, Script, Source};
use crate::lua::convert::{self, to_value};
use crate::lua::{BufferValues, host};
use crate::message::encode::TABLE_BYTES_MAX;
use crate::message::{Event, Id, Value};

pub(super) const FUNCTIONS: super::Functions = &[
    (c"self", own as lua_CFunction),
    (c"parent", parent),
    (c"set_name", set_name),
    (c"get_name", get_name),
    (c"ncpu", ncpu),
    (c"thread", thread),
    (c"create", create),
    (c"destroy", destroy),
    (c"destroy_self", destroy_self),
    (c"send", send),
    (c"query", query),
    (c"forget", forget),
    (c"recount", recount),
    (c"reply", reply),
    (c"refuse", refuse),
    (c"watch", watch),
    (c"unreceive", unreceive),
    (c"received", received),
    (c"strerror", strerror),
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
pub(super) unsafe fn take_value(
    raw: *mut lua_State,
    index: c_int,
    (function, position): (&str, c_int),
) -> Result<Value, c_int> {
    let room = host::with(|host| host.room());
    // SAFETY: as below; of a string the length is read, and nothing else.
    unsafe {
        if ffi::lua_type(raw, index) == ffi::LUA_TSTRING && ffi::lua_objlen(raw, index) > room {
            return Ok(Value::TooMuch);
        }
    }
    let result = VALUES.with(|values| match values.try_borrow_mut() {
        // SAFETY: the callers are called by the VM, which leaves 20 slots free.
        Ok(mut scratch) => unsafe {
            scratch.set_max(room);
            to_value::<BufferValues>(raw, index, &mut scratch)
        },
        // A finaliser that ran while a value was looked at sends one itself.
        Err(_) => {
            let mut scratch = convert::Scratch::default();
            scratch.set_max(room);
            // SAFETY: as above.
            unsafe { to_value::<BufferValues>(raw, index, &mut scratch) }
        }
    });
    if let Err(convert::Unsupported::TooLarge(_)) = &result
        && room < TABLE_BYTES_MAX
    {
        return Ok(Value::TooMuch);
    }
    result.map_err(|error| {
        // SAFETY: as above.
        unsafe {
            let given = blame::describe(raw, index);
            ffi::lua_pushnil(raw);
            let text = format!(
                "bad argument #{position} to '{function}' ({error}; {TRAVELS}, got {given})"
            );
            push_text(raw, text.as_bytes());
        }
        2
    })
}

fn find(number: f64) -> Option<Arc<Context>> {
    let id = Id::from_number(number)?;
    host::with(|host| host.peer(id).cloned())
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

pub(super) unsafe fn push_id(raw: *mut lua_State, id: Option<Id>) -> c_int {
    let Some(id) = id else { return 0 };
    // SAFETY: the callers have a slot free.
    unsafe { ffi::lua_pushnumber(raw, id.to_number()) };
    1
}

/// native.self(): the handle.
unsafe extern "C-unwind" fn own(raw: *mut lua_State) -> c_int {
    let id = host::with(|host| host.context.id());
    // SAFETY: called by the VM.
    unsafe { push_id(raw, Some(id)) }
}

/// context.parent(): the creator's handle, or nil.
unsafe extern "C-unwind" fn parent(raw: *mut lua_State) -> c_int {
    let id = host::with(|host| host.context.parent());
    // SAFETY: called by the VM.
    unsafe {
        if push_id(raw, id) == 0 {
            ffi::lua_pushnil(raw);
        }
    }
    1
}

/// native.set_name(name).
unsafe extern "C-unwind" fn set_name(raw: *mut lua_State) -> c_int {
    // SAFETY: called by the VM.
    let name = String::from_utf8_lossy(unsafe { text(raw, 1) }.unwrap_or_default());
    host::with(|host| host.context.set_name(&name));
    0
}

/// native.get_name(handle): the name of a context, or nothing.
unsafe extern "C-unwind" fn get_name(raw: *mut lua_State) -> c_int {
    // SAFETY: called by the VM.
    let context = find(unsafe { number(raw, 1) });
    let Some(name) = context.and_then(|context| context.name()) else { return 0 };
    // SAFETY: as above.
    unsafe { push_text(raw, name.as_bytes()) };
    1
}

/// native.ncpu(): how many workers run contexts.
unsafe extern "C-unwind" fn ncpu(raw: *mut lua_State) -> c_int {
    let workers = host::with(|host| host.context.scheduler().workers());
    // SAFETY: called by the VM.
    unsafe { ffi::lua_pushnumber(raw, workers as f64) };
    1
}

/// native.thread(): the index of the worker that runs this turn.
unsafe extern "C-unwind" fn thread(raw: *mut lua_State) -> c_int {
    let worker = Scheduler::current_worker().unwrap_or(0);
    // SAFETY: called by the VM.
    unsafe { ffi::lua_pushnumber(raw, worker as f64) };
    1
}

/// What a context is created with, beside its script.
struct Options {
    limits: Limits,
    worker: Option<usize>,
    name: Option<String>,
    deny: Deny,
}

impl Options {
    /// From the table at `index`, whose fields the Lua side has checked, if there is one.
    ///
    /// # Safety
    /// Called by the VM.
    unsafe fn new(raw: *mut lua_State, index: c_int, limits: Limits) -> Options {
        let mut options = Options { limits, worker: None, name: None, deny: Deny::default() };
        // SAFETY: the caller's contract.
        if unsafe { ffi::lua_type(raw, index) } != ffi::LUA_TTABLE {
            return options;
        }
        let field = |name: &std::ffi::CStr| {
            // SAFETY: the caller's contract; the table is made by the library, without metatable.
            unsafe {
                ffi::lua_getfield(raw, index, name.as_ptr());
                let is_number = ffi::lua_type(raw, -1) == ffi::LUA_TNUMBER;
                let value = is_number.then(|| number(raw, -1));
                ffi::lua_settop(raw, -2);
                value
            }
        };
        // `as` saturates.
        options.limits.mailbox = field(c"mailbox").map_or(limits.mailbox, |count| count as usize);
        options.limits.queries = field(c"queries").map_or(limits.queries, |count| count as usize);
        options.limits.memory = field(c"memory").map_or(limits.memory, |bytes| bytes as usize);
        if options.limits.memory > 0 {
            // What waits is the context's, though not in its VM yet.
            let bytes = &mut options.limits.mailbox_bytes;
            *bytes = (options.limits.memory / 2).min(*bytes);
        }
        if let Some(seconds) = field(c"turn_limit") {
            options.limits.turn = Duration::try_from_secs_f64(seconds).ok();
        }
        options.worker = field(c"worker").map(|index| index as usize);
        options.deny = Deny::new(field(c"deny").unwrap_or_default() as u8);
        // SAFETY: as above; the text is copied.
        unsafe {
            ffi::lua_getfield(raw, index, c"name".as_ptr());
            options.name = text(raw, -1).map(|name| String::from_utf8_lossy(name).into_owned());
            ffi::lua_settop(raw, -2);
        }
        options
    }
}

/// The limits wanted, but none above one's own.
fn within(wanted: Limits, own: Limits) -> Limits {
    let memory = match (wanted.memory, own.memory) {
        (0, limit) | (limit, 0) => limit,
        (wanted, own) => wanted.min(own),
    };
    let turn = match (wanted.turn, own.turn) {
        (Some(wanted), Some(own)) => Some(wanted.min(own)),
        (wanted, own) => wanted.or(own),
    };
    Limits {
        mailbox: wanted.mailbox.min(own.mailbox),
        mailbox_bytes: wanted.mailbox_bytes.min(own.mailbox_bytes),
        queries: wanted.queries.min(own.queries),
        turn,
        memory,
    }
}

/// About what a context takes that has not started, beside its arguments.
const CHILD_BYTES: usize = 2048;

/// Why none is created if that is more than its creator may hold.
const NO_ROOM: &[u8] = b"no memory for its arguments: what those that were created and have not \
    started take, and what this context has sent and written and what waits, is limited by its \
    option memory";

/// native.create(file, path, cpath, options or nil, ...): the handle; `nil, message` for an
/// argument that cannot travel.
unsafe extern "C-unwind" fn create(raw: *mut lua_State) -> c_int {
    // SAFETY: called by the VM; what is borrowed is copied before the stack changes.
    unsafe {
        let bytes = |index| text(raw, index).unwrap_or_default().to_vec();
        let file = PathBuf::from(OsStr::from_bytes(&bytes(1)));
        let paths = Paths::Exactly(bytes(2), bytes(3));
        let top = ffi::lua_gettop(raw);
        let mut arguments = Vec::new();
        let options = Options::new(raw, 4, host::with(|host| host.settings.limits));
        if ffi::lua_checkstack(raw, convert::STACK_SLOTS) == 0 {
            ffi::lua_pushnil(raw);
            push_text(raw, b"too many arguments");
            return 2;
        }
        for index in 5..=top {
            match take_value(raw, index, ("create", index - 3)) {
                Ok(value) => arguments.push(value),
                Err(results) => return results,
            }
        }
        let bytes: usize = arguments.iter().map(Value::held_bytes).fold(0, usize::saturating_add);
        let bytes = bytes.saturating_add(CHILD_BYTES + arguments.len() * size_of::<Value>());
        let held = match host::with(|host| host.context.allowance().map(|all| all.hold(bytes))) {
            None => None,
            Some(Some(held)) => Some(held),
            Some(None) => {
                drop((arguments, paths, file));
                ffi::lua_pushnil(raw);
                push_text(raw, NO_ROOM);
                return 2;
            }
        };
        let created = host::with(|host| {
            let source = Source::File(file, host.folder.clone());
            let deny = host.deny.and(options.deny);
            // A confined context does not get round its limits by way of its children.
            let limits = match host.deny.is_any() {
                true => within(options.limits, *host.context.limits()),
                false => options.limits,
            };
            let is_secret = host.deny.withholds_files();
            let command_line = None;
            let script = Script { source, arguments, paths, command_line, deny, held, is_secret };
            let program = Program::new(&host.settings, script);
            let parent = Some(host.context.id());
            host.context.scheduler().spawn_on(options.worker, parent, limits, program)
        });
        if let (Some(context), Some(name)) = (&created, options.name) {
            context.set_name(&name);
        }
        match created {
            Some(context) => push_id(raw, Some(context.id())),
            None => {
                ffi::lua_pushnil(raw);
                push_text(raw, format!("no more than {} contexts", Id::INDEX_MAX).as_bytes());
                2
            }
        }
    }
}

/// The reason of an end, which its monitors are told.
///
/// # Safety
/// `raw` must be the state that runs.
unsafe fn reason(raw: *mut lua_State, index: c_int) -> Option<Vec<u8>> {
    let limit = host::with(|host| host.context.limits().memory);
    // SAFETY: the caller's; the text is copied.
    unsafe { text(raw, index) }.map(|text| bounded(text, limit))
}

/// native.destroy(handle, reason or nil): whether that is the context itself.
unsafe extern "C-unwind" fn destroy(raw: *mut lua_State) -> c_int {
    // SAFETY: called by the VM; the text is copied.
    let (handle, reason) = unsafe { (number(raw, 1), reason(raw, 2)) };
    if let Some(context) = find(handle) {
        if host::with(|host| host.context.id() == context.id()) {
            host::with(|host| host.end(reason));
            // SAFETY: as above, with 20 slots free.
            unsafe { ffi::lua_pushboolean(raw, 1) };
            return 1;
        } else {
            // The end of its owner closes a socket: what was written to it before leaves first.
            host::with(host::Host::flush_remotes);
            context.destroy(End::Destroyed(reason));
        }
    }
    0
}

/// native.destroy_self(reason or nil): the context ends after this turn's dispatch.
unsafe extern "C-unwind" fn destroy_self(raw: *mut lua_State) -> c_int {
    // SAFETY: called by the VM; the text is copied.
    let reason = unsafe { reason(raw, 1) };
    host::with(|host| host.end(reason));
    0
}

/// Raises the message on top of the stack, as what is wrong with an argument.
unsafe fn raise_top(raw: *mut lua_State) -> c_int {
    // SAFETY: the callers have slots free; the copy of the text is dropped by the unwinder.
    unsafe {
        let text = String::from_utf8_lossy(text(raw, -1).unwrap_or_default()).into_owned();
        blame::raise(raw, &text)
    }
}

/// The name in the first argument: a text that does not read as a number.
unsafe fn name<'a>(raw: *mut lua_State) -> Option<&'a [u8]> {
    // SAFETY: the callers are called by the VM; the text stays on the stack.
    unsafe {
        let is_text = ffi::lua_type(raw, 1) == ffi::LUA_TSTRING && ffi::lua_isnumber(raw, 1) == 0;
        if is_text { text(raw, 1) } else { None }
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
        // Where there are no names at all, it is a mistake.
        let name =
            name(raw).filter(|_| host::with(|host| host.context.scheduler().names().are_used()));
        if let Some(name) = name {
            let Ok(value) = take_value(raw, 2, ("send", 2)) else { return raise_top(raw) };
            let sent = host::with(|host| {
                let from = host.context.id();
                let event = |value| Event::Message { from, session: 0, value };
                host.deliver_named(name, value, event).map(drop)
            });
            return push_result(raw, sent);
        }
        let handle = check_handle(raw, "send");
        let Ok(value) = take_value(raw, 2, ("send", 2)) else { return raise_top(raw) };
        let result = deliver(handle, |from| Event::Message { from, session: 0, value });
        push_result(raw, result)
    }
}

/// The log has a word on queries that were refused.
static QUERIES_REFUSED: Seldom = Seldom::new();

/// native.query(handle or name, token, value). Returns true, session, and the handle if a name was
/// given; or `false, code`; or `nil, message` for what cannot travel.
unsafe extern "C-unwind" fn query(raw: *mut lua_State) -> c_int {
    // SAFETY: called by the VM.
    unsafe {
        let value = match take_value(raw, 3, ("query", 2)) {
            Ok(value) => value,
            Err(results) => return results,
        };
        let (name, token) = (name(raw), key(raw, 2));
        let to = if name.is_none() { Id::from_number(number(raw, 1)) } else { None };
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

/// native.watch(handle): whether it lives; if so, its end will be told. If not, and it is not long
/// ago, the reason and the text of its end.
unsafe extern "C-unwind" fn watch(raw: *mut lua_State) -> c_int {
    // SAFETY: called by the VM.
    let number = unsafe { number(raw, 1) };
    let me = host::with(|host| host.context.id());
    let lives = find(number).is_some_and(|context| context.watch(me));
    // SAFETY: as above, with 20 slots free.
    unsafe { ffi::lua_pushboolean(raw, c_int::from(lives)) };
    if lives {
        return 1;
    }
    let id = Id::from_number(number);
    let ending = host::with(|host| host.context.scheduler().endings().get(id?));
    let Some(ending) = ending else { return 1 };
    // SAFETY: as above.
    unsafe { push_ending(raw, &ending) };
    3
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

/// native.strerror(code): the text.
unsafe extern "C-unwind" fn strerror(raw: *mut lua_State) -> c_int {
    // SAFETY: called by the VM.
    let number = unsafe { number(raw, 1) };
    // `as` saturates: what is no code becomes one that nothing has.
    let code = Code(if number >= 0.0 { number as u16 } else { u16::MAX });
    // SAFETY: as above.
    unsafe { push_text(raw, code.text().as_bytes()) };
    1
}
