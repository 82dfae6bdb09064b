//! What a state holds outside of its VM: what it is charged, and how that makes the collector work.

use std::sync::atomic::Ordering;

use mlua::ffi;

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
        account.uncollected_bytes.set(0);
        // As large a part of a cycle as this is of what may be charged during one.
        let held = account.lua_bytes.get();
        // Relaxed: a figure that nothing depends on but speed.
        let share = CYCLE_TOTAL_BYTES / STATES.load(Ordering::Relaxed).max(1);
        let per_cycle = share.clamp(CYCLE_BYTES_MIN, CYCLE_BYTES_MAX);
        let per_cycle = per_cycle.max(held + account.external_bytes.get() / 2);
        let steps = (held / STEP_BYTES).max(16) as u64 * uncollected as u64 / per_cycle as u64 + 1;
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
