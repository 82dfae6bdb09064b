//! Creating and ending contexts.

use std::ffi::{OsString, c_int};
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use mlua::ffi;

use super::confine::Deny;
use super::message::take_value;
use super::program::{LuaProgram, Paths, Script, Source};
use super::quota::Quota;
use crate::error::Code;
use crate::logging::bounded;
use crate::lua::host;
use crate::message::{Ending, Held, Id, Value};
use crate::sched::{Context, End, Limits, Scheduler};
use crate::vm::convert;
use crate::vm::stack::{Nil, Results, Stack, function, singles};

pub(super) const FUNCTIONS: super::native::Functions = &[
    (c"self", function(own)),
    (c"parent", function(parent)),
    (c"set_name", function(set_name)),
    (c"get_name", function(get_name)),
    (c"ncpu", function(ncpu)),
    (c"thread", function(thread)),
    (c"create", function(create)),
    (c"destroy", function(destroy)),
    (c"destroy_self", function(destroy_self)),
    (c"watch", function(watch)),
    (c"strerror", function(strerror)),
];

fn find(number: f64) -> Option<Arc<Context>> {
    let id = Id::from_number(number)?;
    host::with(|host| host.peers.find(id, &host.context).cloned())
}

singles! {
    Id: |lua, id| lua.push_number(id.to_number());
}

/// native.self(): the handle.
fn own(_: Stack<'_>) -> Id {
    host::with(|host| host.context.id())
}

/// context.parent(): the creator's handle, or nil.
fn parent(_: Stack<'_>) -> [Option<Id>; 1] {
    [host::with(|host| host.context.parent())]
}

/// native.set_name(name).
fn set_name(lua: Stack<'_>) {
    let name = String::from_utf8_lossy(lua.text(1).unwrap_or_default());
    host::with(|host| host.context.set_name(&name));
}

/// native.get_name(handle): the name of a context, or nothing.
fn get_name(lua: Stack<'_>) -> Option<Arc<str>> {
    find(lua.number(1))?.name()
}

/// native.ncpu(): how many workers run contexts.
fn ncpu(_: Stack<'_>) -> usize {
    host::with(|host| host.context.scheduler().workers())
}

/// native.thread(): the index of the worker that runs this turn.
fn thread(_: Stack<'_>) -> usize {
    Scheduler::current_worker().unwrap_or(0)
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
    fn new(lua: Stack<'_>, index: c_int, limits: Limits) -> Options {
        let mut options = Options { limits, worker: None, name: None, deny: Deny::default() };
        if lua.kind(index) != ffi::LUA_TTABLE {
            return options;
        }
        let field = |name: &std::ffi::CStr| {
            lua.field(index, name);
            let is_number = lua.kind(-1) == ffi::LUA_TNUMBER;
            let value = is_number.then(|| lua.number(-1));
            lua.set_top(-2);
            value
        };
        // `as` saturates.
        options.limits.mailbox = field(c"mailbox").map_or(limits.mailbox, |count| count as usize);
        options.limits.queries = field(c"queries").map_or(limits.queries, |count| count as usize);
        let memory = field(c"memory").map_or(limits.memory, |bytes| bytes as usize);
        options.limits.set_memory(memory);
        if let Some(seconds) = field(c"turn_limit") {
            options.limits.turn = Duration::try_from_secs_f64(seconds).ok();
        }
        options.worker = field(c"worker").map(|index| index as usize);
        options.deny = Deny::new(field(c"deny").unwrap_or_default() as u8);
        lua.field(index, c"name");
        options.name = lua.text(-1).map(|name| String::from_utf8_lossy(name).into_owned());
        lua.set_top(-2);
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

/// About what a context takes that has not started, beside its paths and arguments.
const CHILD_BYTES: usize = 2048;

/// Why none is created if that is more than its creator may hold.
const NO_ROOM: &str = "no memory for its arguments: what those that were created and have not \
    started take, and what this context has sent and written and what waits, is limited by its \
    option memory";

/// What a new context is given: texts and arguments, and what counts them until it starts, if its
/// creator has a memory limit.
struct Given {
    texts: [Vec<u8>; 3],
    arguments: Vec<Value>,
    held: Option<Held>,
}

impl Given {
    /// Copies it from the stack. Each part counts before the next is copied.
    ///
    /// # Errors
    /// Pushes `nil, message`, and returns how many these are.
    fn take(lua: Stack<'_>) -> Result<Given, c_int> {
        let mut held = host::with(|host| host.context.allowance().map(|all| all.empty()));
        let mut bytes = CHILD_BYTES;
        let mut count = |more: usize| {
            let Some(held) = &mut held else { return Ok(()) };
            bytes = bytes.saturating_add(more);
            if held.try_set(bytes) { Ok(()) } else { Err((Nil, NO_ROOM).give(lua)) }
        };
        let texts = [1, 2, 3].map(|index| lua.text(index).unwrap_or_default());
        count(texts.iter().map(|text| text.len()).sum())?;
        let mut arguments = Vec::new();
        for index in 5..=lua.top() {
            let value = take_value(lua, index, ("create", index - 3), None)?.uncounted();
            count(value.held_bytes().saturating_add(size_of::<Value>()))?;
            arguments.push(value);
        }
        Ok(Given { texts: texts.map(<[u8]>::to_vec), arguments, held })
    }
}

/// native.create(file, path, cpath, options or nil, ...): the handle; `nil, message` for an
/// argument that cannot travel.
fn create(lua: Stack<'_>) -> Result<Result<Id, (Nil, String)>, c_int> {
    let options = Options::new(lua, 4, host::with(|host| host.settings.limits));
    if !lua.has_room(convert::STACK_SLOTS) {
        return Ok(Err((Nil, "too many arguments".to_owned())));
    }
    let Given { texts: [file, path, cpath], arguments, held } = Given::take(lua)?;
    let (file, paths) = (PathBuf::from(OsString::from_vec(file)), Some(Paths { path, cpath }));
    let created = host::with(|host| {
        let source = Source::File(file, host.folder.clone());
        let deny = host.deny.and(options.deny);
        // A confined context does not get round its limits by way of its children.
        let limits = match host.deny.is_any() {
            true => within(options.limits, *host.context.limits()),
            false => options.limits,
        };
        let is_secret = host.deny.withholds(Deny::IO);
        let quota = match host.deny.is_any() {
            true => host.quota.share(&host.context),
            false => Quota::default(),
        };
        let command_line = None;
        let script =
            Script { source, arguments, paths, command_line, deny, held, is_secret, quota };
        let program = LuaProgram::new(&host.settings, script);
        let parent = Some(host.context.id());
        let (worker, name) = (options.worker, options.name.as_deref());
        host.context.scheduler().spawn_on(worker, name, parent, limits, program)
    });
    let created = created.map(|context| context.id());
    Ok(created.ok_or_else(|| (Nil, format!("no more than {} contexts", Id::INDEX_MAX))))
}

/// The reason of an end, which its monitors are told.
fn reason(lua: Stack<'_>, index: c_int) -> Option<Vec<u8>> {
    let limit = host::with(|host| host.context.limits().memory);
    lua.text(index).map(|text| bounded(text, limit))
}

/// native.destroy(handle, reason or nil): whether that is the context itself.
fn destroy(lua: Stack<'_>) -> Option<bool> {
    let (handle, reason) = (lua.number(1), reason(lua, 2));
    let context = find(handle)?;
    if host::with(|host| host.context.id() == context.id()) {
        host::with(|host| host.end(reason));
        return Some(true);
    }
    // The end of its owner closes a socket: what was written to it before leaves first.
    host::with(host::Host::flush_shared);
    context.destroy(End::Destroyed(reason));
    None
}

/// native.destroy_self(reason or nil): the context ends after this turn's dispatch.
fn destroy_self(lua: Stack<'_>) {
    let reason = reason(lua, 1);
    host::with(|host| host.end(reason));
}

/// native.watch(handle): whether it lives; if so, its end will be told. If not, and it is not long
/// ago, the reason and the text of its end.
fn watch(lua: Stack<'_>) -> (bool, Option<Arc<Ending>>) {
    let number = lua.number(1);
    let me = host::with(|host| host.context.id());
    let far = Id::from_number(number).filter(|id| id.is_far());
    let lives = match far {
        Some(far) => host::with(|host| {
            host.context.note_ties();
            host.context.scheduler().cluster().is_some_and(|cluster| cluster.watch(far, me))
        }),
        None => find(number).is_some_and(|context| context.watch(me)),
    };
    let id = Id::from_number(number).filter(|_| !lives);
    (lives, host::with(|host| host.context.scheduler().endings().get(id?)))
}

/// native.strerror(code): the text.
fn strerror(lua: Stack<'_>) -> &'static str {
    let number = lua.number(1);
    // `as` saturates: what is no code becomes one that nothing has.
    let code = Code(if number >= 0.0 && number.fract() == 0.0 { number as u16 } else { u16::MAX });
    code.text()
}
