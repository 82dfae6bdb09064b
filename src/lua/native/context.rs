//! Creating, asking and ending contexts.

use std::cell::RefCell;
use std::ffi::{OsStr, c_int};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use mlua::ffi::{self, lua_CFunction, lua_State};

use super::confine::Deny;
use super::{key, number, push_failure, push_text, text};
use crate::context::{Context, End, Limits, Refused, Scheduler};
use crate::error::Code;
use crate::lua::behavior::{Paths, Program, Script, Source};
use crate::lua::convert::{self, to_value};
use crate::lua::{BufferValues, host};
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
    (c"reply", reply),
    (c"watch", watch),
    (c"unreceive", unreceive),
    (c"received", received),
    (c"strerror", strerror),
];

thread_local! {
    /// Working memory for values on their way out; not the host's, which must not be borrowed while
    /// the VM is looked at.
    static VALUES: RefCell<convert::Scratch> = RefCell::new(convert::Scratch::default());
}

/// Takes a value out of the VM; pushes `nil, message` if it cannot travel.
unsafe fn take_value(raw: *mut lua_State, index: c_int) -> Result<Value, c_int> {
    // SAFETY: the callers are called by the VM, which leaves 20 slots free.
    let result =
        VALUES.with_borrow_mut(|scratch| unsafe { to_value::<BufferValues>(raw, index, scratch) });
    result.map_err(|error| {
        // SAFETY: as above.
        unsafe {
            ffi::lua_pushnil(raw);
            push_text(raw, error.to_string().as_bytes());
        }
        2
    })
}

fn find(number: f64) -> Option<Arc<Context>> {
    let id = Id::from_number(number)?;
    host::with(|host| host.peer(id))
}

unsafe fn push_id(raw: *mut lua_State, id: Option<Id>) -> c_int {
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

/// native.parent(): the creator's handle, or nothing.
unsafe extern "C-unwind" fn parent(raw: *mut lua_State) -> c_int {
    let id = host::with(|host| host.context.parent());
    // SAFETY: called by the VM.
    unsafe { push_id(raw, id) }
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
    name: Option<String>,
    deny: Deny,
}

impl Options {
    /// From the table at `index`, whose fields the Lua side has checked, if there is one.
    ///
    /// # Safety
    /// Called by the VM.
    unsafe fn new(raw: *mut lua_State, index: c_int, limits: Limits) -> Options {
        let mut options = Options { limits, name: None, deny: Deny::default() };
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
        options.limits.memory = field(c"memory").map_or(limits.memory, |bytes| bytes as usize);
        if let Some(seconds) = field(c"turn_limit") {
            options.limits.turn = Duration::try_from_secs_f64(seconds).ok();
        }
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

/// native.create(file, path, cpath, options or nil, ...): the handle; `nil, message` for an argument that cannot
/// travel.
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
            match take_value(raw, index) {
                Ok(value) => arguments.push(value),
                Err(results) => return results,
            }
        }
        let source = Source::File(file);
        let created = host::with(|host| {
            let deny = host.deny.and(options.deny);
            let script = Script { source, arguments, paths, command_line: None, deny };
            let program = Program::new(&host.settings, script);
            let parent = Some(host.context.id());
            host.context.scheduler().spawn(parent, options.limits, program)
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

/// native.destroy(handle, reason or nil).
unsafe extern "C-unwind" fn destroy(raw: *mut lua_State) -> c_int {
    // SAFETY: called by the VM.
    let (handle, reason) = unsafe { (number(raw, 1), text(raw, 2)) };
    let reason = reason.map(|reason| String::from_utf8_lossy(reason).into_owned());
    if let Some(context) = find(handle) {
        if host::with(|host| host.context.id() == context.id()) {
            host::with(|host| host.is_ending = true);
        } else {
            context.destroy(End::Destroyed(reason));
        }
    }
    0
}

/// native.destroy_self(): the context ends after this turn's dispatch.
unsafe extern "C-unwind" fn destroy_self(_raw: *mut lua_State) -> c_int {
    host::with(|host| host.is_ending = true);
    0
}

/// native.send(handle, session, value): a query if the session is not 0. Returns true; or `false,
/// code`; or `nil, message` for what cannot travel.
unsafe extern "C-unwind" fn send(raw: *mut lua_State) -> c_int {
    // SAFETY: called by the VM.
    unsafe {
        let value = match take_value(raw, 3) {
            Ok(value) => value,
            Err(results) => return results,
        };
        let session = key(raw, 2);
        let Some(to) = find(number(raw, 1)) else {
            return push_failure(raw, Code::NO_CONTEXT);
        };
        let from = host::with(|host| {
            if session != 0 {
                host.context.asked();
            }
            host.context.id()
        });
        match to.deliver(Event::Message { from, session, value }) {
            Ok(()) => {
                ffi::lua_pushboolean(raw, 1);
                1
            }
            Err(refused) => push_failure(raw, refused.into()),
        }
    }
}

/// native.reply(handle, session, value): as `send`.
unsafe extern "C-unwind" fn reply(raw: *mut lua_State) -> c_int {
    // SAFETY: called by the VM.
    unsafe {
        let session = key(raw, 2);
        let to = find(number(raw, 1));
        let answer = |result| {
            let to = to.as_ref().ok_or(Refused::Closed)?;
            to.deliver(Event::Reply { session, result })
        };
        match take_value(raw, 3) {
            Ok(value) => match answer(Ok(value)) {
                Ok(()) => {
                    ffi::lua_pushboolean(raw, 1);
                    1
                }
                Err(refused) => push_failure(raw, refused.into()),
            },
            Err(results) => {
                // The asker may be gone, or flooded with answers: this one raises all the same.
                let _ = answer(Err(Code::VALUE_TYPE));
                results
            }
        }
    }
}

/// native.watch(handle): whether it lives; if so, its end will be told.
unsafe extern "C-unwind" fn watch(raw: *mut lua_State) -> c_int {
    // SAFETY: called by the VM.
    let context = find(unsafe { number(raw, 1) });
    let me = host::with(|host| host.context.id());
    let lives = context.is_some_and(|context| context.watch(me));
    // SAFETY: as above.
    unsafe { ffi::lua_pushboolean(raw, c_int::from(lives)) };
    1
}

/// native.unreceive(): the message just delivered waits again.
unsafe extern "C-unwind" fn unreceive(_raw: *mut lua_State) -> c_int {
    host::with(|host| host.context.unreceive());
    0
}

/// native.received(): a message that waited is received.
unsafe extern "C-unwind" fn received(_raw: *mut lua_State) -> c_int {
    host::with(|host| host.context.received());
    0
}

/// native.strerror(code): the text.
unsafe extern "C-unwind" fn strerror(raw: *mut lua_State) -> c_int {
    // SAFETY: called by the VM. `as` saturates, and no code is that large.
    let code = Code(unsafe { number(raw, 1) } as u16);
    // SAFETY: as above.
    unsafe { push_text(raw, code.text().as_bytes()) };
    1
}
