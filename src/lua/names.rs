//! Names, topics, and the list of all contexts.

use std::ffi::c_int;
use std::sync::Arc;

use super::message::take_value;
use super::unread::refuse_for;
use crate::error::Code;
use crate::lua::host;
use crate::message::{Event, Id, Published};
use crate::sched::Refused;
use crate::sched::names::Names;
use crate::sched::topics::{Malformed, Topics, check};
use crate::vm::stack::{Nil, Results, Stack, function};

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
fn register(lua: Stack<'_>) -> Result<bool, Code> {
    let (name, is_shared) = (lua.text(1).unwrap_or_default(), lua.boolean(2));
    let account = lua.account();
    host::with(|host| {
        let names = host.context.scheduler().names();
        let result = names.register(&host.context, name, is_shared);
        host.charge_resources(account);
        result.map(|()| true)
    })
}

/// native.unregister_name(name): whether this context answered under it.
fn unregister(lua: Stack<'_>) -> bool {
    let name = lua.text(1).unwrap_or_default();
    host::with(|host| {
        let had = host.context.scheduler().names().unregister(host.context.id(), name);
        if had {
            host.untie(Names::cost(name));
        }
        had
    })
}

/// native.find_name(name): the handle of who answers under it, or of whoever does elsewhere; or
/// nothing.
fn find(lua: Stack<'_>) -> Option<Id> {
    let name = lua.text(1).unwrap_or_default();
    host::with(|host| {
        let here = host.context.scheduler().names().find(name);
        here.or_else(|| host.cluster()?.find(name, false).ok())
    })
}

/// native.find_watched(name): the handle of what ends when nobody answers under it any more: in a
/// cluster that of all who do, anywhere; or `false, code[, text]`.
fn find_watched(lua: Stack<'_>) -> Result<Id, Code> {
    let name = lua.text(1).unwrap_or_default();
    host::with(|host| match host.cluster() {
        None => host.context.scheduler().names().find(name).ok_or(Code::NO_CONTEXT),
        Some(cluster) => {
            let found = cluster.find(name, true);
            found.map_err(|failure| host.peers.explain(failure))
        }
    })
}

/// native.node(): what this process is called in its cluster; or nothing.
fn node(_: Stack<'_>) -> Option<String> {
    host::with(|host| host.context.scheduler().cluster().map(|it| it.node().to_owned()))
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

/// Nil, and what is expected in the place of what is no topic.
type NoTopic = (Nil, &'static str);

/// The topic at index 1.
///
/// # Errors
/// It is none: `nil`, and what is expected.
fn check_topic<'a>(lua: Stack<'a>, with_wildcards: bool) -> Result<&'a [u8], NoTopic> {
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
    Err((Nil, why))
}

/// native.subscribe(topic): the number of the subscription; or `false, code`; or `nil, expected`.
fn subscribe(lua: Stack<'_>) -> Result<Result<u64, Code>, NoTopic> {
    let topic = check_topic(lua, true)?;
    let account = lua.account();
    Ok(host::with(|host| {
        let result = host.context.scheduler().topics().subscribe(&host.context, topic);
        host.charge_resources(account);
        result
    }))
}

/// native.unsubscribe(topic).
fn unsubscribe(lua: Stack<'_>) {
    let topic = lua.text(1).unwrap_or_default();
    host::with(|host| {
        if host.context.scheduler().topics().unsubscribe(host.context.id(), topic) {
            host.untie(Topics::cost(topic));
        }
    });
}

/// Who got it, who had no room, and why no other process gets it.
type Heard = Result<(u32, u32, Option<u16>), Code>;

/// native.publish(topic, value): how many subscriptions of this process got it, how many had no
/// room, and the code if no other process gets it; or `false, code[, text]`; or `nil, expected` for
/// what is no topic, or `nil, message, true` for what cannot travel.
fn publish(lua: Stack<'_>) -> Result<Heard, c_int> {
    let topic = check_topic(lua, false).map_err(|none| none.give(lua))?;
    let value =
        take_value(lua, 2, ("publish", 2), None).map_err(|results| results + true.give(lua))?;
    Ok(host::with(|host| {
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
        Ok((delivered, refused, away.map(|code| code.0)))
    }))
}

/// native.topic(): that of the publication which was delivered last.
fn topic(lua: Stack<'_>) -> Option<c_int> {
    host::with(|host| host.peers.published.take()).map(|published| (&published.topic[..]).give(lua))
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
