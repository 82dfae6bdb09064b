//! A LuaJIT state with its memory accounted: creation, the allocator, and memory held outside the
//! collector.
//!
//! Every context owns one [`State`]. All of its memory, JIT traces' IR and `ffi.new` included, goes
//! through [`allocate`], which counts it and enforces the limit. Blocks that Lua objects merely
//! refer to (buffers) are reported with [`charge`] and [`discharge`], so that the collector works
//! in proportion to what a script really holds.

use std::cell::{Cell, RefCell, UnsafeCell};
use std::ffi::c_void;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicUsize, Ordering};

use mlua::ffi::{self, lua_State};

use super::memory::heap::{Heap, content_of};
use super::stack::Stack;
use super::{cut, hook, known, layout, line_hook, profiler, standard, stdio};
use crate::hint::rarely;
use crate::message::Held;
use crate::os::memory;
use crate::{failpoint, rt};

/// The collector is paced in one of this many turns, and where the VM holds less than before.
const TURNS_PER_PACE: u32 = 16;

/// The collector's pause that LuaJIT starts with, in percent.
const PAUSE_MIN: i32 = 200;

/// The most bytes by which a small heap may grow before it is collected.
const SLACK_BYTES: usize = 512 * 1024;

/// The total slack that all states share: garbage beyond the size of the caches costs more than
/// collecting it.
const SLACK_TOTAL_BYTES: usize = 8 << 20;

/// Number of states in the process.
pub(super) static STATES: AtomicUsize = AtomicUsize::new(0);

/// What a state may use beyond its limit once that is exceeded: to say so, and to end.
const END_BYTES: usize = 1 << 20;

/// Less room than this is not worth a collection before it is used up.
const COLLECT_ROOM_MIN: usize = 32 << 10;

/// Blocks as large as a state itself are larger than this.
const STATE_BYTES_MIN: usize = 2048;

/// Memory figures of one state. Touched only by the thread that runs the state.
#[derive(Debug, Default)]
pub struct Account {
    pub(super) lua_bytes: Cell<usize>,
    /// Bytes outside of it that its objects hold: those of buffers, for the most part.
    pub(super) external_bytes: Cell<usize>,
    /// Of these, those that have come since the collector was last told.
    pub(super) uncollected_bytes: Cell<usize>,
    /// `usize::MAX` for no limit.
    limit_bytes: Cell<usize>,
    /// Beyond this many bytes of both kinds something has to be done: the limit, or what makes a
    /// collection worth while before that.
    threshold_bytes: Cell<usize>,
    exceeded: Cell<bool>,
    /// Bytes held, and wanted, when the limit was first exceeded.
    wanted_bytes: Cell<usize>,
    /// About how many bytes the VM holds after a collection.
    low_bytes: Cell<usize>,
    /// Turns until the collector is paced again.
    turns: Cell<u32>,
    pause: Cell<i32>,
    /// Used by [`allocate`] and [`Account::allocate_buffer`] alone, which call nothing that comes
    /// back to them.
    heap: UnsafeCell<Heap>,
    /// How many open files were charged.
    pub(super) files: Cell<u32>,
    /// The metatable of buffers, once there is one.
    buffer_metatable: Cell<Option<NonNull<c_void>>>,
    buffer_environment: Cell<u64>,
    /// Sets where modules are found, once `package` is open.
    pub(super) paths: RefCell<Option<standard::SetPaths>>,
    /// What the script has chosen for standard output.
    pub(crate) output: stdio::Choice,
    /// What its turns are cut with.
    pub(crate) cut: cut::Cut,
    /// C modules have installed handlers of signals.
    pub(super) has_handlers: Cell<bool>,
    /// The script's hook, and what it was told: see [`line_hook`](super::line_hook).
    pub(super) line_hook: Cell<Option<line_hook::Set>>,
    pub(super) told: RefCell<line_hook::Told>,
}

impl Account {
    /// Bytes allocated by the VM itself.
    pub fn lua_bytes(&self) -> usize {
        self.lua_bytes.get()
    }

    /// About what the VM holds after a collection.
    pub(super) fn low_bytes(&self) -> usize {
        self.low_bytes.get().min(self.lua_bytes.get())
    }

    /// Bytes held through buffers, outside the VM's heap.
    pub fn external_bytes(&self) -> usize {
        self.external_bytes.get()
    }

    /// True once an allocation was refused, because of the limit or because memory ran out.
    pub fn exceeded(&self) -> bool {
        self.exceeded.get()
    }

    /// The memory itself, for as long as one of the functions of this file runs.
    #[inline]
    #[allow(clippy::mut_from_ref, reason = "see the reason below")]
    fn heap(&self) -> &mut Heap {
        // SAFETY: only functions of this file use it, on the thread that runs the state; each has
        // done with it before it calls another, and nothing that the heap does comes back here.
        unsafe { &mut *self.heap.get() }
    }

    /// The limit was exceeded: whatever the script does about it, it ends.
    #[cold]
    pub(super) fn exceed(&self, wanted: usize) {
        if !self.exceeded.replace(true) {
            self.wanted_bytes.set(wanted);
            self.limit_bytes.set(self.limit_bytes.get().saturating_add(END_BYTES));
        }
        let is_armed = hook::arm_from_outside();
        if !is_armed {
            crate::sched::interrupt_soon();
        }
        // The next allocation tries again if this one could not.
        self.threshold_bytes.set(if is_armed { self.limit_bytes.get() } else { 0 });
    }

    /// The threshold was passed by an allocation in the VM: false if there is no room for it.
    #[cold]
    fn make_room(&self, total: usize) -> bool {
        let is_admitted = total <= self.limit_bytes.get();
        if !is_admitted || self.exceeded.get() {
            self.exceed(total);
        } else if cut::arm_collection() {
            // Collecting now is not possible, but soon.
            self.threshold_bytes.set(self.limit_bytes.get());
        }
        is_admitted
    }

    /// Whether an allocation in the VM may go on, after which `total` bytes are held.
    #[inline]
    fn admits(&self, total: usize) -> bool {
        let is_enough = total <= self.threshold_bytes.get() || self.make_room(total);
        is_enough && !self.fails(total)
    }

    #[inline]
    fn fails(&self, total: usize) -> bool {
        failpoint::fails(failpoint::Point::Allocation) && {
            self.exceed(total);
            true
        }
    }

    /// Memory for an object of the VM, which is asked for none at times; null if it is refused:
    /// then the context is going to end.
    #[inline(never)]
    pub(super) fn allocate(&self, size: usize) -> *mut u8 {
        match size {
            0 => std::ptr::null_mut(),
            _ => self.take(size, |heap| heap.take(size)),
        }
    }

    /// Memory for a userdata with a buffer, of at most `BUFFER_SIZE_MAX` bytes; when the VM frees
    /// it, what the buffer holds is let go. `None` if it is refused: then the context is going to
    /// end.
    #[inline]
    pub(crate) fn allocate_buffer(&self, size: usize) -> Option<NonNull<u8>> {
        NonNull::new(self.take(size, |heap| heap.take_buffer(size)))
    }

    /// A block of this size by `take`, counted; null if it is refused.
    #[inline(always)]
    fn take(&self, size: usize, take: impl Fn(&mut Heap) -> *mut u8) -> *mut u8 {
        let held = self.lua_bytes.get();
        let total = held + size + self.external_bytes.get();
        if !self.admits(total) {
            return std::ptr::null_mut();
        }
        let heap = self.heap();
        let mut block = take(heap);
        if block.is_null() && self.lend(heap, total) {
            block = take(heap);
            heap.spare(0);
        }
        match block.is_null() {
            true => self.exceed(total),
            false => self.lua_bytes.set(held + size),
        }
        block
    }

    /// A buffer that was charged `before` bytes holds `now` bytes instead. Beyond the limit that
    /// shows with the next allocation.
    #[inline]
    pub fn recharge(&self, before: usize, now: usize) {
        let held = self.external_bytes.get();
        self.external_bytes.set(held.saturating_sub(before) + now);
        memory::changed(before, now);
        if self.limit().is_some() {
            self.heap().note_block(before, now);
        }
    }

    /// What was needed to start is there: see [`Arena`](super::memory::arena::Arena::settle).
    pub(crate) fn settle(&self) {
        self.heap().settle();
    }

    /// The metatable of buffers as [`Maker`](super::userdata::Maker) takes it, once there is one.
    pub fn buffer_metatable(&self) -> Option<NonNull<c_void>> {
        self.buffer_metatable.get()
    }

    /// Sets the metatable of buffers, and the table that is their environment. Both must live as
    /// long as the state.
    pub fn set_buffer_metatable(&self, table: *const c_void, environment: *const c_void) {
        self.buffer_environment.set(environment as u64);
        self.buffer_metatable.set(NonNull::new(table.cast_mut()));
    }

    /// The address of the table that is the environment of buffers.
    pub(crate) fn buffer_environment(&self) -> u64 {
        self.buffer_environment.get()
    }

    /// Bytes held, and wanted, when an allocation was first refused because of the limit.
    pub fn wanted_bytes(&self) -> usize {
        self.wanted_bytes.get()
    }

    /// Sets what makes the next collection worth while, after one that left what there is.
    pub(crate) fn on_collected(&self) {
        let (limit, held) = (self.limit_bytes.get(), self.held());
        let room = limit.saturating_sub(held) / 2;
        if !self.exceeded.get() && limit != usize::MAX && room >= COLLECT_ROOM_MIN {
            self.threshold_bytes.set(held + room);
        }
    }

    /// Sets the limit for VM memory and buffers together, in bytes; 0 means none.
    pub fn set_limit(&self, bytes: usize) {
        self.limit_bytes.set(if bytes == 0 { usize::MAX } else { bytes });
        self.threshold_bytes.set(self.limit_bytes.get());
        self.on_collected();
    }

    /// What the VM's memory takes beside what is in use counts with what the context holds
    /// elsewhere, of which `limit` bytes are allowed in all.
    pub(crate) fn count_waste(&self, held: Held, limit: usize) {
        self.heap().count_waste(held, limit);
    }

    /// Bytes that nothing uses between those that are, as they were last counted.
    pub(crate) fn wasted_bytes(&self) -> usize {
        self.heap().wasted()
    }

    /// What is left of the limit, if so much is held, may be wasted in the VM's memory.
    #[cold]
    fn lend(&self, heap: &mut Heap, held: usize) -> bool {
        heap.spare(self.limit_bytes.get().saturating_sub(held))
    }

    /// Whether this many bytes may be held outside of the VM beside what its memory wastes.
    pub(super) fn may_grow(&self, bytes: usize) -> bool {
        let heap = self.heap();
        heap.may_grow(bytes) || {
            let total = self.held().saturating_add(bytes);
            let may = self.lend(heap, total) && heap.may_grow(bytes);
            heap.spare(0);
            may
        }
    }

    pub(crate) fn limit(&self) -> Option<usize> {
        Some(self.limit_bytes.get()).filter(|&bytes| bytes != usize::MAX)
    }

    /// Bytes that may be held in addition.
    pub(crate) fn room(&self) -> usize {
        self.limit_bytes.get().saturating_sub(self.held())
    }

    /// Bytes of both kinds.
    pub(super) fn held(&self) -> usize {
        self.lua_bytes.get().saturating_add(self.external_bytes.get())
    }

    /// Whether `more` bytes would be beyond the limit.
    pub(super) fn would_exceed(&self, more: usize) -> bool {
        self.held().saturating_add(more) > self.limit_bytes.get()
    }
}

/// An owned LuaJIT state with all standard libraries open.
#[derive(Debug)]
pub struct State {
    raw: NonNull<lua_State>,
    /// Owned; the allocator holds a pointer to it until the state is closed.
    account: NonNull<Account>,
}

// SAFETY: a state and everything reachable from it is owned by this value alone, and `&mut`/owned
// access moves between threads only as a whole: the scheduler runs a context on one thread at a
// time, with a mutex hand-over in between.
unsafe impl Send for State {}

impl State {
    /// Creates a state and opens the standard libraries; `None` if memory does not suffice, or if
    /// this LuaJIT is not known ([`known`]).
    pub fn new() -> Option<State> {
        State::is_known()?.then(State::unknown)?
    }

    /// The same with those libraries alone that [`standard::withhold`] expects.
    pub(crate) fn new_small() -> Option<State> {
        State::is_known()?.then(|| State::open(standard::open_early))?
    }

    fn is_known() -> Option<bool> {
        known::is_known(allocate as *const c_void)
    }

    /// Creates one with all libraries, without a look at what it consists of.
    pub(super) fn unknown() -> Option<State> {
        State::open(|lua| {
            standard::open_stock(lua);
            stdio::install(lua);
        })
    }

    fn open(open_libraries: fn(Stack<'_>)) -> Option<State> {
        let account = Box::new(Account {
            limit_bytes: Cell::new(usize::MAX),
            threshold_bytes: Cell::new(usize::MAX),
            low_bytes: Cell::new(usize::MAX),
            pause: Cell::new(PAUSE_MIN),
            ..Account::default()
        });
        let account = NonNull::from(Box::leak(account));
        // SAFETY: `allocate` matches lua_Alloc, and `account` outlives the state (see `drop`).
        let raw = unsafe { ffi::lua_newstate(allocate, account.as_ptr().cast()) };
        let Some(raw) = NonNull::new(raw) else {
            // SAFETY: nobody else has the pointer: lua_newstate failed and kept nothing.
            drop(unsafe { Box::from_raw(account.as_ptr()) });
            return None;
        };
        STATES.fetch_add(1, Ordering::Relaxed);
        let state = State { raw, account };
        // Nothing of what is made is garbage.
        let opened = state.protect(|lua| {
            lua.control_collector(ffi::LUA_GCSTOP);
            open_libraries(lua);
            lua.control_collector(ffi::LUA_GCRESTART);
        });
        opened.is_ok().then_some(state)
    }

    /// The raw state, for calls into the VM.
    pub fn as_ptr(&self) -> *mut lua_State {
        self.raw.as_ptr()
    }

    /// Lets a small heap grow by [`SLACK_BYTES`] before the next collection, where the VM's own
    /// rule (twice the size) has it mark the library's objects for every few messages. Called once
    /// a turn. A script that sets the pause itself has the last word.
    pub fn pace_collector(&self) {
        let account = self.account();
        let held = account.lua_bytes.get();
        let turns = account.turns.get();
        if turns > 0 && held >= account.low_bytes.get() {
            return account.turns.set(turns - 1);
        }
        account.turns.set(TURNS_PER_PACE - 1);
        let low = account.low_bytes.get().min(held);
        account.low_bytes.set(low + (held - low) / 4);
        let limit = account.limit_bytes.get();
        // Relaxed: a figure that nothing depends on but speed.
        let share = SLACK_TOTAL_BYTES / STATES.load(Ordering::Relaxed).max(1);
        let slack = SLACK_BYTES.min(share).min(limit / 8);
        let pause = (100 + (slack * 100 / low.max(1)).min(900) as i32).max(PAUSE_MIN);
        let old = account.pause.get();
        if old != 0 && rarely(pause.abs_diff(old) > 20) {
            let set_pause = |pause| {
                // SAFETY: a live state of ours; sets a figure, and returns the one before.
                unsafe { ffi::lua_gc(self.as_ptr(), ffi::LUA_GCSETPAUSE, pause) }
            };
            let before = set_pause(pause);
            account.pause.set(pause);
            if before != old {
                set_pause(before);
                account.pause.set(0);
            }
        }
    }

    /// Its stack, while it is not running. What raises there ends the process: see
    /// [`State::protect`].
    pub fn stack(&self) -> Stack<'_> {
        // SAFETY: whoever has the state may use it, on this thread.
        unsafe { Stack::new(self.as_ptr()) }
    }

    /// The memory figures.
    pub fn account(&self) -> &Account {
        // SAFETY: allocated in `new` and freed only in `drop`.
        unsafe { self.account.as_ref() }
    }
}

impl Drop for State {
    fn drop(&mut self) {
        STATES.fetch_sub(1, Ordering::Relaxed);
        let account = self.account();
        account.exceeded.set(false);
        // Finalisers get some more, which is no way to more than the context may have.
        if let Some(limit) = account.limit() {
            account.set_limit(limit.max(account.held()).saturating_add(END_BYTES));
        }
        super::foreign_signals::forget(self);
        hook::disarm(self.stack());
        // SAFETY: the state is owned and not running: whoever runs it borrows `self`. With it goes
        // the allocator, the only other user of the account.
        unsafe {
            profiler::forget(self.raw.as_ptr());
            ffi::lua_close(self.raw.as_ptr());
            drop(Box::from_raw(self.account.as_ptr()));
        }
    }
}

/// The account of the state that `L` belongs to.
///
/// # Safety
/// `L` must be a live state (or coroutine of one) created by [`State::new`], used by the thread
/// that runs it.
pub unsafe fn account<'a>(state: *mut lua_State) -> &'a Account {
    // SAFETY: per the contract the allocator's user value is the `Account` given in `State::new`,
    // which lives as long as its state.
    unsafe {
        debug_assert!(is_ours(state), "a state of a module's has no account");
        &*(*layout::global(state)).user.cast::<Account>()
    }
}

/// Whether a state is one of ours, and not one that a module in C has made (`luaL_newstate`), which
/// calls what takes the place of LuaJIT's functions, too.
///
/// # Safety
/// `state` must be a live state, or a coroutine of one.
#[inline]
pub(super) unsafe fn is_ours(state: *mut lua_State) -> bool {
    // SAFETY: all states have what coroutines share.
    unsafe { (*layout::global(state)).allocate == allocate as *const c_void }
}

/// lua_Alloc: counts, refuses what exceeds the limit, and otherwise uses the state's heap.
unsafe extern "C" fn allocate(
    user: *mut c_void,
    block: *mut c_void,
    old_size: usize,
    new_size: usize,
) -> *mut c_void {
    // SAFETY: `user` is the `Account` passed to lua_newstate.
    let account = unsafe { &*user.cast::<Account>() };
    if block.is_null() {
        return account.allocate(new_size).cast();
    }
    // SAFETY: the VM passes a block from here with the size it has.
    unsafe {
        match new_size {
            0 => free(account, block.cast(), old_size),
            _ => resize(account, block.cast(), old_size, new_size),
        }
    }
    .cast()
}

/// Makes a block one of another size.
///
/// # Safety
/// `block` must be one that [`allocate`] returned, of `old_size` bytes; the result replaces it.
#[cold]
unsafe fn resize(account: &Account, block: *mut u8, old_size: usize, new_size: usize) -> *mut u8 {
    let held = account.lua_bytes.get();
    let total = held.wrapping_sub(old_size).wrapping_add(new_size) + account.external_bytes.get();
    // What gets smaller may need another block, too, for which there is no memory.
    let is_admitted =
        if new_size > old_size { account.admits(total) } else { !account.fails(total) };
    if !is_admitted {
        return std::ptr::null_mut();
    }
    let heap = account.heap();
    // SAFETY: the heap has given the block with that size.
    let mut moved = unsafe { heap.resize(block, old_size, new_size) };
    if moved.is_null() && account.lend(heap, total) {
        // SAFETY: what fails leaves the block as it was.
        moved = unsafe { heap.resize(block, old_size, new_size) };
        heap.spare(0);
    }
    if moved.is_null() {
        // What the library was about to do may be half done: the context ends.
        account.exceed(total);
    } else {
        account.lua_bytes.set(held - old_size + new_size);
    }
    moved
}

/// Frees a block of the VM, and what a buffer in it holds; returns null.
///
/// # Safety
/// `block` must be one that [`allocate`] or [`Account::allocate_buffer`] returned, of `size` bytes,
/// and is not used any more.
#[inline(never)]
unsafe fn free(account: &Account, block: *mut u8, size: usize) -> *mut u8 {
    if size > STATE_BYTES_MIN {
        hook::forget(block.cast());
    }
    account.lua_bytes.set(account.lua_bytes.get() - size);
    let heap = account.heap();
    let release_buffer = || {
        // SAFETY: called for a userdata with a buffer.
        let buffer = unsafe { &mut *content_of(block) };
        if buffer.charged > 0 || !buffer.is_inline() {
            account.recharge(buffer.charged as usize, 0);
            buffer.release();
        }
    };
    // SAFETY: a block of this heap with its size, which nobody uses any more.
    unsafe { heap.give(block, size, release_buffer) };
    std::ptr::null_mut()
}

/// What the VM calls instead of its own `lj_gc_freeall`, see build.rs, once all finalisers have
/// run: that frees each object of a state that ends. Its memory goes as a whole soon.
#[unsafe(no_mangle)]
pub extern "C" fn __wrap_lj_gc_freeall(_global: *mut c_void) {}

/// What the VM calls instead of its own `lj_vm_cpuid`, see build.rs: the registers that `cpuid`
/// leaves for this function, remembered.
///
/// # Safety
/// `registers` must have room for four numbers.
#[cfg(target_arch = "x86_64")]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn __wrap_lj_vm_cpuid(function: u32, registers: *mut u32) -> i32 {
    use std::arch::x86_64::__cpuid_count;
    use std::sync::OnceLock;
    static KNOWN: [OnceLock<[u32; 4]>; 8] = [const { OnceLock::new() }; 8];
    let ask = || {
        let found = __cpuid_count(function, 0);
        [found.eax, found.ebx, found.ecx, found.edx]
    };
    let found = match KNOWN.get(function as usize) {
        Some(known) => *known.get_or_init(ask),
        None => ask(),
    };
    // SAFETY: there is room for four numbers.
    unsafe { registers.cast::<[u32; 4]>().write_unaligned(found) };
    found[0] as i32
}

/// What the VM calls instead of its own `lj_prng_seed_secure`, see build.rs: the seed of a state's
/// random numbers, from which its string hashes follow. 0 if there is none.
///
/// # Safety
/// `words` must have room for four numbers.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn __wrap_lj_prng_seed_secure(words: *mut u64) -> i32 {
    /// The generator of the VM needs a bit above this in each of its words.
    const LOW_BITS: [u32; 4] = [1, 6, 9, 17];
    let Some(mut seed) = rt::random_words() else { return 0 };
    for (word, bit) in seed.iter_mut().zip(LOW_BITS) {
        if *word < 1 << bit {
            *word += 1 << bit;
        }
    }
    // SAFETY: there is room for four words.
    unsafe { words.cast::<[u64; 4]>().write_unaligned(seed) };
    1
}
