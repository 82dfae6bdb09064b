//! What a context has used and holds, for people and for supervisors.

use std::ffi::{CStr, c_int};
use std::sync::atomic::Ordering;

use crate::logging;
use crate::lua::host;
use crate::message::Id;
use crate::sched::Context;
use crate::vm::stack::{Stack, function};

pub(super) const FUNCTIONS: super::native::Functions = &[(c"stat", function(stat))];

/// In builds with debug assertions, what fails as only a fault of the runtime could.
#[cfg(debug_assertions)]
pub(super) const FAULTS: super::native::Functions =
    &[(c"panic_for_tests", function(panic)), (c"panicking_pointer", function(panicking_pointer))];
#[cfg(not(debug_assertions))]
pub(super) const FAULTS: super::native::Functions = &[];

/// native.panic_for_tests(): panics while it borrows the host.
#[cfg(debug_assertions)]
fn panic(_: Stack<'_>) {
    host::with(|host| panic!("a test panics in context {}", host.context.id()))
}

/// native.panicking_pointer(): a function for the FFI that does the same, at 100,001 and above.
#[cfg(debug_assertions)]
fn panicking_pointer(lua: Stack<'_>) -> c_int {
    extern "C" fn panic(number: c_int) -> c_int {
        let check = || assert!(number <= 100_000, "a test panics in compiled code");
        c_int::from(super::fault::attempt(|_| check()).is_none())
    }
    lua.push_address(panic as extern "C" fn(c_int) -> c_int as *mut _);
    1
}

/// Fields, and what is in them.
type Fields = [(&'static CStr, Option<f64>); 23];

fn fields(context: &Context) -> Fields {
    let (limits, metrics) = (context.limits(), context.metrics());
    let limit = |value: usize| (value != 0).then_some(value as f64);
    let (log_bytes, log_dropped) = logging::stat();
    let metric =
        |value: &std::sync::atomic::AtomicUsize| Some(value.load(Ordering::Relaxed) as f64);
    [
        (c"mailbox", Some(context.waiting() as f64)),
        (c"mailbox_max", Some(limits.mailbox as f64)),
        (c"mailbox_peak", Some(metrics.mailbox_peak().max(context.waiting()) as f64)),
        (c"mailbox_bytes", Some(context.waiting_bytes() as f64)),
        (c"mailbox_bytes_max", Some(limits.mailbox_bytes as f64)),
        (c"missed", Some(metrics.missed() as f64)),
        (c"turns", Some(metrics.turns() as f64)),
        (c"slices", Some(metrics.slices() as f64)),
        (c"cpu", Some(metrics.cpu().as_secs_f64())),
        (c"lua_bytes", metric(&metrics.lua_bytes)),
        (c"buffer_bytes", metric(&metrics.buffer_bytes)),
        (c"memory_limit", limit(limits.memory)),
        (c"turn_limit", limits.turn.map(|limit| limit.as_secs_f64())),
        (c"queries", Some(context.unanswered() as f64)),
        (c"queries_max", Some(limits.queries as f64)),
        (c"queries_peak", Some(metrics.queries_peak() as f64)),
        (c"lookups", metric(&metrics.lookups)),
        (c"timers", metric(&metrics.timers)),
        (c"sockets", metric(&metrics.sockets)),
        (c"worker", context.worker().map(|index| index as f64)),
        (c"workers", Some(context.scheduler().running() as f64)),
        (c"log_bytes", Some(log_bytes as f64)),
        (c"log_dropped", Some(log_dropped as f64)),
    ]
}

/// native.stat(handle): a table, or nothing.
fn stat(lua: Stack<'_>) -> Option<c_int> {
    let id = Id::from_number(lua.number(1));
    let account = lua.account();
    let found = host::with(|host| {
        let context = host.context.scheduler().registry().get(id?)?;
        if context.id() == host.context.id() {
            host.update_metrics(account);
        }
        Some((fields(&context), context.state()))
    });
    let (fields, doing) = found?;
    lua.push_table(0, fields.len() + 1);
    lua.push_text(doing.as_bytes());
    lua.set_field(-2, c"state");
    for (name, value) in fields {
        if let Some(value) = value {
            lua.push_number(value);
            lua.set_field(-2, name);
        }
    }
    Some(1)
}
