//! What a state holds outside of its VM: what it is charged, and how that makes the collector work.

use std::ffi::c_int;
use std::sync::atomic::Ordering;

use mlua::ffi::{self, lua_State};

use super::layout::{self, Global};
use super::stack::Stack;
use super::state::STATES;
use crate::os::stdio::FILE_BYTES;

/// External bytes that may be charged before the collector is made to take a step.
const COLLECT_EVERY_BYTES: usize = 64 * 1024;

/// Least number of external bytes that a state may be charged during one cycle of the collector.
const CYCLE_BYTES_MIN: usize = 4 << 20;

/// The most that it may be charged. Fewer cycles are cheaper: marking what lives costs the same
/// however much is freed. Only few states with large frames should use all of it.
const CYCLE_BYTES_MAX: usize = 16 << 20;

/// The total that all states share, between these two bounds.
const CYCLE_TOTAL_BYTES: usize = 64 << 20;

/// Bytes of the VM's heap that one step of the collector deals with, marking and sweeping.
const STEP_BYTES: usize = 1024;

/// More than any state holds: the collector does nothing until there is as much.
const NEVER: usize = usize::MAX >> 1;

/// For each byte that is read, of what it makes at most: an empty table takes 64.
const REST_FACTOR: usize = 64;

unsafe extern "C-unwind" {
    /// LuaJIT's: one step of the collector, for a KiB of what it owes. May run finalisers.
    fn lj_gc_step(raw: *mut lua_State) -> c_int;
}

/// The collector does nothing by itself while this lives, but for what a memory limit has it do:
/// for who makes much of which nothing is garbage. What is made counts as ever, and the collector
/// works for it afterwards.
pub(crate) struct Rest<'a> {
    lua: Stack<'a>,
    threshold: usize,
}

impl<'a> Rest<'a> {
    #[inline]
    pub(crate) fn new(lua: Stack<'a>) -> Rest<'a> {
        let global = global(lua);
        Rest { lua, threshold: std::mem::replace(&mut global.threshold, NEVER) }
    }

    /// The collector does what it owes, as far as the bytes that were read are the reason:
    /// finalisers may run.
    #[inline]
    pub(crate) fn end(self, bytes: usize) {
        let lua = self.lua;
        drop(self);
        work(lua, 1 + bytes / (STEP_BYTES / REST_FACTOR));
    }
}

impl Drop for Rest<'_> {
    #[inline]
    fn drop(&mut self) {
        let global = global(self.lua);
        // Unless a collection has set another meanwhile.
        if global.threshold == NEVER {
            global.threshold = self.threshold;
        }
    }
}

/// Whether it is time for the collector to work.
#[inline]
pub fn is_due(lua: Stack<'_>) -> bool {
    let global = global(lua);
    global.total >= global.threshold
}

/// Has the collector work as long as it is time, for this many steps at most. Runs finalisers,
/// hence script code. May raise if memory runs out.
pub(super) fn work(lua: Stack<'_>, most: usize) {
    for _ in 0..most {
        // SAFETY: a running state, whose collector may run between two calls.
        if !is_due(lua) || unsafe { lj_gc_step(lua.raw()) } > 0 {
            break;
        }
    }
}

/// What the coroutines of the state share, while nothing is called.
#[inline]
pub(super) fn global<'a>(lua: Stack<'a>) -> &'a mut Global {
    // SAFETY: a running state, which nobody else uses.
    unsafe { &mut *layout::global(lua.raw()) }
}

impl Stack<'_> {
    /// Reports `bytes` newly held outside the VM on behalf of the state. Returns false, and counts
    /// nothing, if that would exceed the state's limit even after a full collection.
    ///
    /// May run the collector, and with it finalisers: call it before taking pointers into Lua
    /// values.
    pub fn charge(self, bytes: usize) -> bool {
        self.charge_for(bytes, bytes)
    }

    /// The same, where `bytes` are those of a block of which only `moved` are new to the state:
    /// these make the collector work.
    pub fn charge_for(self, bytes: usize, moved: usize) -> bool {
        let account = self.account();
        let may_not = || account.would_exceed(bytes) || !account.may_grow(bytes);
        if may_not() {
            self.control_collector(ffi::LUA_GCCOLLECT);
            if may_not() {
                account.exceed(account.held().saturating_add(bytes));
                return false;
            }
        }
        account.recharge(0, bytes);
        self.pace(moved);
        true
    }

    /// Has the collector work as for `bytes` newly held outside the VM, which are not counted: for
    /// objects that hold something scarcer than memory.
    ///
    /// May run finalisers: see [`Stack::charge`].
    pub fn pace(self, bytes: usize) {
        let account = self.account();
        let uncollected = account.uncollected_bytes.get() + bytes;
        if uncollected < COLLECT_EVERY_BYTES {
            account.uncollected_bytes.set(uncollected);
            return;
        }
        // As large a part of a cycle as this is of what may be charged during one, at least a step.
        let held = account.lua_bytes.get();
        // Relaxed: a figure that nothing depends on but speed.
        let share = CYCLE_TOTAL_BYTES / STATES.load(Ordering::Relaxed).max(1);
        let per_cycle = share.clamp(CYCLE_BYTES_MIN, CYCLE_BYTES_MAX);
        let per_cycle = per_cycle.max(held + account.external_bytes.get() / 2);
        let per_step = (per_cycle / (held / STEP_BYTES).max(16)).clamp(1, COLLECT_EVERY_BYTES);
        let steps = uncollected / per_step;
        account.uncollected_bytes.set(uncollected % per_step);
        for _ in 0..steps {
            // It returns 1 at the end of a cycle.
            if self.control_collector(ffi::LUA_GCSTEP) != 0 {
                break;
            }
        }
    }

    /// Takes back what [`Stack::charge`] counted. Never runs the collector: safe in finalisers.
    pub fn discharge(self, bytes: usize) {
        self.account().recharge(bytes, 0);
    }

    /// Charges one open file more, if there is a limit, or one less; false if that is too much.
    pub(crate) fn count_file(self, is_more: bool) -> bool {
        let account = self.account();
        match (is_more, account.files.get()) {
            (true, files) => {
                let has_limit = account.limit().is_some();
                if has_limit && !self.charge(FILE_BYTES) {
                    return false;
                }
                account.files.set(files + u32::from(has_limit));
            }
            (false, 0) => {}
            (false, files) => {
                account.files.set(files - 1);
                self.discharge(FILE_BYTES);
            }
        }
        true
    }
}
