//! Creating and ending contexts.

use std::ffi::{OsStr, c_int};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use mlua::ffi::{self, lua_CFunction, lua_State};

use super::confine::Deny;
use super::events::push_ending;
use super::log::bounded;
use super::message::take_value;
use super::program::{LuaProgram, Paths, Script, Source};
use crate::error::Code;
use crate::lua::host;
use crate::message::{Id, Value};
use crate::sched::{Context, End, Limits, Scheduler};
use crate::vm::convert;
use crate::vm::stack::{number, push_text, text};

pub(super) const FUNCTIONS: super::native::Functions = &[
    (c"self", own as lua_CFunction),
    (c"parent", parent),
    (c"set_name", set_name),
    (c"get_name", get_name),
    (c"ncpu", ncpu),
    (c"thread", thread),
    (c"create", create),
    (c"destroy", destroy),
    (c"destroy_self", destroy_self),
    (c"watch", watch),
    (c"strerror", strerror),
];

fn find(number: f64) -> Option<Arc<Context>> {
    let id = Id::from_number(number)?;
    host::with(|host| host.peer(id).0.cloned())
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
            let program = LuaProgram::new(&host.settings, script);
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
