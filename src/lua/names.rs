//! Names, topics, and the list of all contexts.

use std::ffi::c_int;
use std::sync::Arc;

use mlua::ffi::{self, lua_CFunction, lua_State};

use super::message::take_value;
use super::native::push_failure;
use crate::error::Code;
use crate::lua::host;
use crate::message::{Event, Published};
use crate::sched::Refused;
use crate::sched::names::Names;
use crate::sched::topics::{Malformed, Topics, check};
use crate::vm::stack::{push_text, text};
use crate::vm::state;

pub(super) const FUNCTIONS: super::native::Functions = &[
    (c"register_name", register as lua_CFunction),
    (c"unregister_name", unregister),
    (c"find_name", find),
    (c"subscribe", subscribe),
    (c"unsubscribe", unsubscribe),
    (c"publish", publish),
    (c"topic", topic),
    (c"contexts", list),
];

/// native.register_name(name, is_shared): true; or `false, code`.
unsafe extern "C-unwind" fn register(raw: *mut lua_State) -> c_int {
    // SAFETY: called by the VM; the name stays on the stack.
    let (name, is_shared) =
        unsafe { (text(raw, 1).unwrap_or_default(), ffi::lua_toboolean(raw, 2) != 0) };
    // SAFETY: as above.
    let account = unsafe { state::account(raw) };
    let result = host::with(|host| {
        let names = host.context.scheduler().names();
        let result = names.register(&host.context, name, is_shared);
        host.charge_resources(account);
        result
    });
    // SAFETY: as above, with 20 slots free.
    unsafe { super::message::push_result(raw, result) }
}

/// native.unregister_name(name): whether this context answered under it.
unsafe extern "C-unwind" fn unregister(raw: *mut lua_State) -> c_int {
    // SAFETY: called by the VM; the name stays on the stack.
    let name = unsafe { text(raw, 1) }.unwrap_or_default();
    let had = host::with(|host| {
        let had = host.context.scheduler().names().unregister(host.context.id(), name);
        if had {
            host.untie(Names::cost(name));
        }
        had
    });
    // SAFETY: as above.
    unsafe { ffi::lua_pushboolean(raw, c_int::from(had)) };
    1
}

/// native.find_name(name): the handle of who answers under it; or nothing.
unsafe extern "C-unwind" fn find(raw: *mut lua_State) -> c_int {
    // SAFETY: called by the VM; the name stays on the stack.
    let name = unsafe { text(raw, 1) }.unwrap_or_default();
    let found = host::with(|host| host.context.scheduler().names().find(name));
    // SAFETY: as above.
    unsafe { super::context::push_id(raw, found) }
}

/// The topic at index 1, if it is one; otherwise pushes `nil`, and why it is not.
unsafe fn check_topic<'a>(raw: *mut lua_State, with_wildcards: bool) -> Result<&'a [u8], c_int> {
    // SAFETY: the callers are called by the VM with a text, which stays on the stack.
    let topic = unsafe { text(raw, 1) }.unwrap_or_default();
    let why = match check(topic, with_wildcards) {
        Ok(()) => return Ok(topic),
        Err(Malformed::Length) => "topic of 1 to 253 bytes",
        Err(Malformed::EmptyWord) => "topic without an empty word between its dots",
        Err(Malformed::Character) => "topic without spaces and control characters",
        Err(Malformed::Wildcard) if with_wildcards => {
            "topic with '*' only as a whole word, '>' only as the last one"
        }
        Err(Malformed::Wildcard) => "topic without '*' and '>', which are for subscribe",
    };
    // SAFETY: as above, with 20 slots free.
    unsafe {
        ffi::lua_pushnil(raw);
        push_text(raw, why.as_bytes());
    }
    Err(2)
}

/// native.subscribe(topic): the number of the subscription; or `false, code`; or `nil, expected`.
unsafe extern "C-unwind" fn subscribe(raw: *mut lua_State) -> c_int {
    // SAFETY: called by the VM.
    let topic = match unsafe { check_topic(raw, true) } {
        Ok(topic) => topic,
        Err(results) => return results,
    };
    // SAFETY: as above.
    let account = unsafe { state::account(raw) };
    let result = host::with(|host| {
        let result = host.context.scheduler().topics().subscribe(&host.context, topic);
        host.charge_resources(account);
        result
    });
    // SAFETY: as above, with 20 slots free.
    unsafe {
        match result {
            Ok(number) => ffi::lua_pushnumber(raw, number as f64),
            Err(code) => return push_failure(raw, code),
        }
    }
    1
}

/// native.unsubscribe(topic).
unsafe extern "C-unwind" fn unsubscribe(raw: *mut lua_State) -> c_int {
    // SAFETY: called by the VM; the topic stays on the stack.
    let topic = unsafe { text(raw, 1) }.unwrap_or_default();
    host::with(|host| {
        if host.context.scheduler().topics().unsubscribe(host.context.id(), topic) {
            host.untie(Topics::cost(topic));
        }
    });
    0
}

/// native.publish(topic, value): how many subscriptions got it, and how many had no room; or
/// `false, code`; or `nil, expected` for what is no topic, or `nil, message, true` for what cannot
/// travel.
unsafe extern "C-unwind" fn publish(raw: *mut lua_State) -> c_int {
    // SAFETY: called by the VM.
    let topic = match unsafe { check_topic(raw, false) } {
        Ok(topic) => topic,
        Err(results) => return results,
    };
    // SAFETY: as above.
    let value = match unsafe { take_value(raw, 2, ("publish", 2)) } {
        Ok(value) => value,
        Err(results) => {
            // SAFETY: as above, with slots left.
            unsafe { ffi::lua_pushboolean(raw, 1) };
            return results + 1;
        }
    };
    let result = host::with(|host| {
        host.begin_delivery();
        let all = host.context.scheduler().topics().matching(topic);
        // It counts once, against the publisher's limit, for as long as it waits anywhere.
        let value = match host.context.allowance() {
            Some(allowance) => {
                value.count_for(all.len(), allowance).map_err(|_| Code::MAILBOX_FULL)?
            }
            None => value,
        };
        let published = Arc::new(Published { from: host.context.id(), topic: topic.into(), value });
        let (mut delivered, mut refused) = (0, 0);
        for (subscription, context) in all {
            let published = Arc::clone(&published);
            match context.deliver(Event::Publication { subscription, published }) {
                Ok(()) => delivered += 1,
                Err(Refused::Full) => refused += 1,
                // It has just ended.
                Err(Refused::Closed) => {}
            }
        }
        Ok((delivered, refused))
    });
    // SAFETY: as above.
    unsafe {
        match result {
            Ok((delivered, refused)) => {
                ffi::lua_pushnumber(raw, f64::from(delivered));
                ffi::lua_pushnumber(raw, f64::from(refused));
                2
            }
            Err(code) => push_failure(raw, code),
        }
    }
}

/// native.topic(): that of the publication which was delivered last.
unsafe extern "C-unwind" fn topic(raw: *mut lua_State) -> c_int {
    let Some(published) = host::with(|host| host.published.take()) else { return 0 };
    // SAFETY: called by the VM; if this raises, the unwinder drops what is counted.
    unsafe { push_text(raw, &published.topic) };
    1
}

/// native.contexts(): of every context, in a list: handle, name, parent and state. A confined
/// context is told of itself and of those that it has created.
unsafe extern "C-unwind" fn list(raw: *mut lua_State) -> c_int {
    let mut all = host::with(|host| {
        let me = host.context.id();
        let mut all = host.context.scheduler().registry().all();
        if host.deny.is_any() {
            all.retain(|context| context.id() == me || context.parent() == Some(me));
        }
        all
    });
    all.sort_unstable_by_key(|context| context.id());
    // SAFETY: called by the VM, with 20 slots free; if this raises, the unwinder drops the list.
    unsafe {
        ffi::lua_createtable(raw, all.len().min(1 << 24) as c_int, 0);
        for (context, index) in all.iter().zip(1..) {
            ffi::lua_createtable(raw, 0, 4);
            ffi::lua_pushnumber(raw, context.id().to_number());
            ffi::lua_setfield(raw, -2, c"handle".as_ptr());
            if let Some(name) = context.name() {
                push_text(raw, name.as_bytes());
                ffi::lua_setfield(raw, -2, c"name".as_ptr());
            }
            if let Some(parent) = context.parent() {
                ffi::lua_pushnumber(raw, parent.to_number());
                ffi::lua_setfield(raw, -2, c"parent".as_ptr());
            }
            push_text(raw, context.state().as_bytes());
            ffi::lua_setfield(raw, -2, c"state".as_ptr());
            ffi::lua_rawseti(raw, -2, index);
        }
    }
    1
}
