//! What is done for want of descriptors: collecting what holds some and nobody refers to.

use std::ffi::c_int;
use std::sync::atomic::{AtomicU64, Ordering};

use mlua::ffi::{self, lua_CFunction, lua_State};

use crate::context::Context;
use crate::lua::{host, state};
use crate::rt;

pub(super) const FUNCTIONS: super::Functions =
    &[(c"collect", collect as lua_CFunction), (c"ask_others", ask_others)];

/// Contexts that are asked at a time, and how long before others are.
const ASKED_MAX: usize = 32;
const ASK_EVERY: u64 = 1_000_000_000;

/// When contexts were last asked; 0 for never.
static ASKED_AT: AtomicU64 = AtomicU64::new(0);

/// native.collect(): collects all garbage of this state; finalisers run meanwhile.
unsafe extern "C-unwind" fn collect(raw: *mut lua_State) -> c_int {
    // SAFETY: called by the VM, which may collect wherever a C function runs.
    unsafe {
        ffi::lua_gc(raw, ffi::LUA_GCCOLLECT, 0);
        state::account(raw).on_collected();
    }
    host::with(|host| {
        let gauges = host.context.gauges();
        gauges.collected_in.store(gauges.turns(), Ordering::Relaxed);
    });
    0
}

/// native.ask_others(): asks other contexts to do the same, those with the most sockets, once a
/// second at most; whether any was asked. Who has done nothing since is not asked again.
unsafe extern "C-unwind" fn ask_others(raw: *mut lua_State) -> c_int {
    let asked = host::with(|host| {
        let now = rt::now().max(1);
        // Relaxed, everywhere: nothing depends on these but how often contexts are asked.
        let is_due = |last: u64| (last == 0 || now >= last + ASK_EVERY).then_some(now);
        if ASKED_AT.fetch_update(Ordering::Relaxed, Ordering::Relaxed, is_due).is_err() {
            return false;
        }
        let sockets = |context: &Context| context.gauges().sockets.load(Ordering::Relaxed);
        let mut others = host.context.scheduler().registry().all();
        others.retain(|other| {
            let gauges = other.gauges();
            let is_idle = gauges.collected_in.load(Ordering::Relaxed) == gauges.turns();
            other.id() != host.context.id() && sockets(other) > 0 && !is_idle
        });
        others.sort_by_key(|other| std::cmp::Reverse(sockets(other)));
        others.truncate(ASKED_MAX);
        others.iter().for_each(host::ask_to_collect);
        !others.is_empty()
    });
    // SAFETY: called by the VM.
    unsafe { ffi::lua_pushboolean(raw, c_int::from(asked)) };
    1
}
