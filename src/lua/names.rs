//! Names, topics, and the list of all contexts.

use std::ffi::c_int;
use std::sync::Arc;

use super::message::take_value;
use super::native::push_failure;
use super::unread::refuse_for;
use crate::error::Code;
use crate::lua::host;
use crate::message::{Event, Published};
use crate::sched::Refused;
use crate::sched::names::Names;
use crate::sched::topics::{Malformed, Topics, check};
use crate::vm::stack::{Stack, function};

pub(super) const FUNCTIONS: super::native::Functions = &[
    (c"register_name", function(register)),
    (c"unregister_name", function(unregister)),
    (c"find_name", function(find)),
    (c"find_watched", function(find_watched)),
    (c"node", function(node)),
    (c"nodes", function(nodes)),
    (c"subscribe", function(subscribe)),
    (c"unsubscribe", function(unsubscribe)),
    (c"publish", function(publish)),
    (c"topic", function(topic)),
    (c"contexts", function(list)),
];

/// native.register_name(name, is_shared): true; or `false, code`.
fn register(lua: Stack<'_>) -> c_int {
    let (name, is_shared) = (lua.text(1).unwrap_or_default(), lua.boolean(2));
    let account = lua.account();
    let result = host::with(|host| {
        let names = host.context.scheduler().names();
        let result = names.register(&host.context, name, is_shared);
        host.charge_resources(account);
        result
    });
    super::message::push_result(lua, result)
}

/// native.unregister_name(name): whether this context answered under it.
fn unregister(lua: Stack<'_>) -> c_int {
    let name = lua.text(1).unwrap_or_default();
    let had = host::with(|host| {
        let had = host.context.scheduler().names().unregister(host.context.id(), name);
        if had {
            host.untie(Names::cost(name));
        }
        had
    });
    lua.push_boolean(had);
    1
}

/// native.find_name(name): the handle of who answers under it, or of whoever does elsewhere; or
/// nothing.
fn find(lua: Stack<'_>) -> c_int {
    let name = lua.text(1).unwrap_or_default();
    let found = host::with(|host| {
        let here = host.context.scheduler().names().find(name);
        here.or_else(|| host.cluster()?.find(name, false).ok())
    });
    super::context::push_id(lua, found)
}

/// native.find_watched(name): the handle of what ends when nobody answers under it any more: in a
/// cluster that of all who do, anywhere; or `false, code[, text]`.
fn find_watched(lua: Stack<'_>) -> c_int {
    let name = lua.text(1).unwrap_or_default();
    let found = host::with(|host| match host.cluster() {
        None => host.context.scheduler().names().find(name).ok_or(Code::NO_CONTEXT),
        Some(cluster) => {
            let found = cluster.find(name, true);
            found.map_err(|failure| host.peers.explain(failure))
        }
    });
    match found {
        Ok(id) => super::context::push_id(lua, Some(id)),
        Err(code) => push_failure(lua, code),
    }
}

/// native.node(): what this process is called in its cluster; or nothing.
fn node(lua: Stack<'_>) -> c_int {
    host::with(|host| {
        let cluster = host.context.scheduler().cluster();
        cluster.map(|cluster| lua.push_text(cluster.node().as_bytes())).map_or(0, |()| 1)
    })
}

/// native.nodes(): what all processes of the cluster are called.
fn nodes(lua: Stack<'_>) -> c_int {
    let names = host::with(|host| host.context.scheduler().cluster().map(|it| it.nodes()));
    let names = names.unwrap_or_default();
    lua.push_table(names.len(), 0);
    for (name, index) in names.iter().zip(1..) {
        lua.push_text(name.as_bytes());
        lua.set_entry(-2, index);
    }
    1
}

/// The topic at index 1, if it is one; otherwise pushes `nil`, and why it is not.
fn check_topic<'a>(lua: Stack<'a>, with_wildcards: bool) -> Result<&'a [u8], c_int> {
    let topic = lua.text(1).unwrap_or_default();
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
    lua.push_nil();
    lua.push_text(why.as_bytes());
    Err(2)
}

/// native.subscribe(topic): the number of the subscription; or `false, code`; or `nil, expected`.
fn subscribe(lua: Stack<'_>) -> c_int {
    let topic = match check_topic(lua, true) {
        Ok(topic) => topic,
        Err(results) => return results,
    };
    let account = lua.account();
    let result = host::with(|host| {
        let result = host.context.scheduler().topics().subscribe(&host.context, topic);
        host.charge_resources(account);
        result
    });
    match result {
        Ok(number) => lua.push_number(number as f64),
        Err(code) => return push_failure(lua, code),
    }
    1
}

/// native.unsubscribe(topic).
fn unsubscribe(lua: Stack<'_>) -> c_int {
    let topic = lua.text(1).unwrap_or_default();
    host::with(|host| {
        if host.context.scheduler().topics().unsubscribe(host.context.id(), topic) {
            host.untie(Topics::cost(topic));
        }
    });
    0
}

/// native.publish(topic, value): how many subscriptions of this process got it, how many had no
/// room, and the code if no other process gets it; or `false, code[, text]`; or `nil, expected` for
/// what is no topic, or `nil, message, true` for what cannot travel.
fn publish(lua: Stack<'_>) -> c_int {
    let topic = match check_topic(lua, false) {
        Ok(topic) => topic,
        Err(results) => return results,
    };
    let value = match take_value(lua, 2, ("publish", 2)) {
        Ok(value) => value,
        Err(results) => {
            lua.push_boolean(true);
            return results + 1;
        }
    };
    let result = host::with(|host| {
        host.begin_delivery();
        let mut away = None;
        if let Some(cluster) = host.cluster() {
            let published = cluster.publish(&host.context, topic, &value);
            away = published.err().map(|failure| host.peers.explain(failure));
            if away.is_some_and(|code| code != Code::CLUSTER_AWAY) {
                return Err(away.unwrap_or(Code::VALUE_TYPE));
            }
            host.peers.explanation = None;
        }
        let all = host.context.scheduler().topics().matching(topic);
        // It counts once, against the publisher's limit, for as long as it waits anywhere.
        let value = match host.context.allowance() {
            Some(allowance) => {
                value.count_for(all.len(), allowance).map_err(|_| refuse_for(&host.context))?
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
        Ok((delivered, refused, away))
    });
    match result {
        Ok((delivered, refused, away)) => {
            lua.push_number(f64::from(delivered));
            lua.push_number(f64::from(refused));
            let Some(code) = away else { return 2 };
            lua.push_number(f64::from(code.0));
            3
        }
        Err(code) => push_failure(lua, code),
    }
}

/// native.topic(): that of the publication which was delivered last.
fn topic(lua: Stack<'_>) -> c_int {
    let Some(published) = host::with(|host| host.peers.published.take()) else { return 0 };
    lua.push_text(&published.topic);
    1
}

/// native.contexts(): of every context, in a list: handle, name, parent and state. A confined
/// context is told of itself and of those that it has created.
fn list(lua: Stack<'_>) -> c_int {
    let mut all = host::with(|host| {
        let me = host.context.id();
        let mut all = host.context.scheduler().registry().all();
        if host.deny.is_any() {
            all.retain(|context| context.id() == me || context.parent() == Some(me));
        }
        all
    });
    all.sort_unstable_by_key(|context| context.id());
    lua.push_table(all.len().min(1 << 24), 0);
    for (context, index) in all.iter().zip(1..) {
        lua.push_table(0, 4);
        lua.push_number(context.id().to_number());
        lua.set_field(-2, c"handle");
        if let Some(name) = context.name() {
            lua.push_text(name.as_bytes());
            lua.set_field(-2, c"name");
        }
        if let Some(parent) = context.parent() {
            lua.push_number(parent.to_number());
            lua.set_field(-2, c"parent");
        }
        lua.push_text(context.state().as_bytes());
        lua.set_field(-2, c"state");
        lua.set_entry(-2, index);
    }
    1
}
