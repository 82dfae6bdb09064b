//! Userdata, made without the VM's help.
//!
//! A buffer for each frame is most of what a busy script makes. The VM's own functions take some
//! 150 instructions for one: checks of arguments that are known, and a list of all userdata that
//! the collector searches for finalisers in every cycle. Buffers need none, so [`Maker`] puts them
//! where other objects are, in memory of [`State::new`](super::state::State::new)'s allocator.
//!
//! It knows how LuaJIT lays objects out on 64-bit machines; [`is_known`] compares that with objects
//! that the VM has made, once per process, and without its consent no state is created.

use std::ffi::{c_int, c_void};
use std::ptr::NonNull;
use std::sync::OnceLock;

use mlua::ffi::{self, lua_State};

use super::memory::heap;
use super::memory::userdata::{HEAD_BYTES, content_of};
use super::state::{self, Account};
use crate::buf::{FRAME_INLINE_MAX, NlBuffer};

/// The upper 17 bits of a slot that refers to a userdata.
const TAG: u64 = !12;
const TAG_SHIFT: u32 = 47;
/// The type of a userdata in its header.
const KIND: u8 = 12;
/// The two colours of what was not yet seen by the collector.
const WHITES: u8 = 3;

/// The start of a coroutine's, or state's, object.
#[repr(C)]
struct Thread {
    header: [u64; 2],
    global: *mut Global,
    collector_list: u64,
    base: *mut u64,
    top: *mut u64,
}

/// The start of what the coroutines of a state share.
#[repr(C)]
struct Global {
    allocate: *const c_void,
    user: *const c_void,
    /// Bytes allocated, and from how many on the collector works.
    total: usize,
    threshold: usize,
    white: u8,
    phase: u8,
    unused: [u8; 2],
    strings_swept: u32,
    /// The object made last; each refers to the one before.
    root: u64,
}

/// The start of a userdata; its content follows.
#[repr(C)]
struct Userdata {
    next: u64,
    marked: u8,
    kind: u8,
    subkind: u8,
    unused: u8,
    environment: u64,
    length: u32,
    metatable: u64,
    padding: u64,
}

/// The start of a table.
#[repr(C)]
#[derive(Debug)]
pub struct Table {
    header: [u8; 16],
    array: *mut u64,
    collector_list: u64,
    metatable: u64,
    nodes: u64,
    array_len: u32,
    nodes_mask: u32,
}

/// Whether objects look as this file thinks; looks at some at the first call. `allocate` and
/// `account` are what the state was made with.
///
/// # Safety
/// `raw` must be a new state on its own thread, with three stack slots free. May unwind.
pub(crate) unsafe fn is_known(
    raw: *mut lua_State,
    allocate: *const c_void,
    account: &Account,
) -> bool {
    static IS_KNOWN: OnceLock<bool> = OnceLock::new();
    // SAFETY: the caller's contract.
    *IS_KNOWN.get_or_init(|| unsafe { looks_known(raw, allocate, account) })
}

/// Compares, and follows a pointer only once it is known to be one.
unsafe fn looks_known(raw: *mut lua_State, allocate: *const c_void, account: &Account) -> bool {
    if !cfg!(target_pointer_width = "64") {
        return false;
    }
    // SAFETY: the caller's contract; whatever a state begins with is longer than `Thread`, and what
    // the third word points to is compared with what begins the shared part before more is read.
    unsafe {
        let thread = raw.cast::<Thread>();
        let global = (*thread).global;
        if (*global).allocate != allocate || (*global).user != (&raw const *account).cast() {
            return false;
        }
        ffi::lua_gc(raw, ffi::LUA_GCSTOP, 0);
        let stopped = (*global).threshold;
        ffi::lua_gc(raw, ffi::LUA_GCRESTART, 0);
        let mut is_known = (*global).total == account.lua_bytes()
            && stopped > 1 << 40
            && (*global).threshold <= (*global).total;
        let before = ((*thread).base, (*thread).top);
        is_known &= before.1.offset_from(before.0) == ffi::lua_gettop(raw) as isize;
        ffi::lua_createtable(raw, 2, 0);
        let table = ffi::lua_topointer(raw, -1) as u64;
        is_known &= (*global).root == table;
        ffi::lua_pushnumber(raw, 2.5);
        ffi::lua_rawseti(raw, -2, 1);
        let parts = table as *const Table;
        is_known &= (*parts).array_len == 3
            && (*parts).nodes_mask == 0
            && (*parts).array.add(1).read() == 2.5f64.to_bits();
        let content = ffi::lua_newuserdata(raw, 20).cast::<u8>();
        let userdata = content.sub(HEAD_BYTES).cast::<Userdata>();
        is_known &= before.1.add(1) < (*thread).top
            && before.1.add(1).read() == userdata as u64 | TAG << TAG_SHIFT
            && (*userdata).kind == KIND
            && (*userdata).marked == (*global).white & WHITES
            && (*userdata).length == 20
            && (*userdata).metatable == 0;
        ffi::lua_pushvalue(raw, -2);
        ffi::lua_setmetatable(raw, -2);
        is_known &= (*userdata).metatable == table;
        ffi::lua_getfenv(raw, -1);
        is_known &= (*userdata).environment == ffi::lua_topointer(raw, -1) as u64;
        ffi::lua_settop(raw, -4);
        is_known && (*thread).top == before.1
    }
}

/// Lets the collector work, if it is time. To be called now and then where a [`Maker`] is used.
/// Runs finalisers, hence script code.
///
/// # Safety
/// `raw` must be a live state made by `State::new`, on the thread that runs it, in a C function
/// with a stack slot free. May raise for want of memory.
#[inline]
pub unsafe fn collect(raw: *mut lua_State) {
    // SAFETY: the caller's contract, and `is_known`.
    unsafe {
        let global = (*raw.cast::<Thread>()).global;
        if (*global).total >= (*global).threshold {
            // What it is called for is the look at the collector that comes first.
            ffi::lua_pushlstring_(raw, c"".as_ptr(), 0);
            ffi::lua_settop(raw, -2);
        }
    }
}

/// What makes userdata with buffers in one state, for as long as a C function runs.
#[derive(Clone, Copy)]
pub struct Maker<'a> {
    thread: *mut Thread,
    account: &'a Account,
    metatable: NonNull<c_void>,
    /// Any table: the collector marks it, and `debug.getfenv` shows it.
    environment: u64,
}

impl std::fmt::Debug for Maker<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Maker").finish_non_exhaustive()
    }
}

impl<'a> Maker<'a> {
    /// `None` while there is no metatable of buffers ([`Account::set_buffer_metatable`]).
    ///
    /// # Safety
    /// As for [`collect`]; the maker is used on the same coroutine, while its C function runs.
    #[inline]
    pub unsafe fn new(raw: *mut lua_State) -> Option<Maker<'a>> {
        // SAFETY: the caller's contract.
        let account = unsafe { state::account(raw) };
        let metatable = account.buffer_metatable()?;
        let environment = account.buffer_environment();
        Some(Maker { thread: raw.cast(), account, metatable, environment })
    }

    /// Pushes a userdata with an empty buffer in it that has `room` bytes in place. `None`, and
    /// nothing is pushed, if memory is refused: then the context is going to end. Never runs the
    /// collector.
    ///
    /// # Safety
    /// A stack slot must be free.
    #[inline]
    pub unsafe fn push(self, room: usize) -> Option<&'a mut NlBuffer> {
        // SAFETY: the caller's contract, and that of `new`.
        unsafe {
            let (slot, buffer) = self.make(room)?;
            let top = (*self.thread).top;
            top.write(slot);
            (*self.thread).top = top.add(1);
            Some(buffer)
        }
    }

    /// As [`Maker::push`], into a place of the array part of a table instead. `None`, and nothing
    /// is made, if there is no such place.
    ///
    /// # Safety
    /// `table` must be a table object, one that the collector has not seen in its present cycle, or
    /// is going to look at again: so one that was just created, or just stored into.
    #[inline]
    pub unsafe fn store(
        self,
        room: usize,
        table: NonNull<Table>,
        index: usize,
    ) -> Option<&'a mut NlBuffer> {
        // SAFETY: the caller's contract, and that of `new`.
        unsafe {
            let table = table.as_ptr();
            if index >= (*table).array_len as usize {
                return None;
            }
            let (slot, buffer) = self.make(room)?;
            (*table).array.add(index).write(slot);
            Some(buffer)
        }
    }

    /// The table at `index` of the stack, for [`Maker::store`].
    ///
    /// # Safety
    /// There must be a table.
    #[inline]
    pub unsafe fn table(self, index: c_int) -> Option<NonNull<Table>> {
        // SAFETY: the caller's contract.
        NonNull::new(unsafe { ffi::lua_topointer(self.thread.cast(), index) }.cast_mut().cast())
    }

    /// # Safety
    /// The slot must be stored where the collector finds it before it runs.
    #[inline]
    unsafe fn make(self, room: usize) -> Option<(u64, &'a mut NlBuffer)> {
        let length = NlBuffer::size_with(room);
        let size = HEAD_BYTES + length;
        let userdata = self.account.allocate_buffer(size)?.cast::<Userdata>();
        let metatable = self.metatable.as_ptr() as u64;
        // SAFETY: the contract of `new`, and `is_known`: this is what the VM does itself.
        unsafe {
            let global = (*self.thread).global;
            userdata.write(Userdata {
                next: (*global).root,
                marked: (*global).white & WHITES,
                kind: KIND,
                subkind: 0,
                unused: 0,
                environment: self.environment,
                length: length as u32,
                metatable,
                padding: 0,
            });
            (*global).root = userdata.as_ptr() as u64;
            (*global).total += size;
            let content = content_of(userdata.as_ptr().cast());
            NlBuffer::init(content, room);
            Some((userdata.as_ptr() as u64 | TAG << TAG_SHIFT, &mut *content))
        }
    }
}

/// The content of the userdata at `index`, if there is one and that is its metatable.
///
/// # Safety
/// As for [`collect`].
#[inline]
pub unsafe fn with_metatable(
    raw: *mut lua_State,
    index: c_int,
    metatable: NonNull<c_void>,
) -> Option<NonNull<c_void>> {
    // SAFETY: the caller's contract; what lua_touserdata returns for a full userdata follows its
    // head.
    unsafe {
        if ffi::lua_type(raw, index) != ffi::LUA_TUSERDATA {
            return None;
        }
        let content = NonNull::new(ffi::lua_touserdata(raw, index))?;
        let userdata = content.as_ptr().byte_sub(HEAD_BYTES).cast::<Userdata>();
        ((*userdata).metatable == metatable.as_ptr() as u64).then_some(content)
    }
}

const _: () = assert!(HEAD_BYTES + NlBuffer::size_with(FRAME_INLINE_MAX) <= heap::BUFFER_SIZE_MAX);
const _: () = assert!(HEAD_BYTES == size_of::<Userdata>() && align_of::<NlBuffer>() <= 8);
const _: () = assert!(size_of::<c_int>() == 4);
