//! Userdata, made without the VM's help.
//!
//! A buffer for each frame is most of what a busy script makes. The VM's own functions take some
//! 150 instructions for one: checks of arguments that are known, and a list of all userdata that
//! the collector searches for finalisers in every cycle. Buffers need none, so [`Maker`] puts them
//! where other objects are, in memory of [`State::new`](super::state::State::new)'s allocator.

use std::ffi::{c_int, c_void};
use std::ptr::NonNull;

use mlua::ffi::{self, lua_State};

use super::layout::{self, KIND_USERDATA, Table, Thread, USERDATA, Userdata, WHITES};
use super::memory::heap::{self, content_of};
use super::state::{self, Account};
use crate::buf::{FRAME_INLINE_MAX, NlBuffer};

/// Bytes of a userdata before its content.
const HEAD_BYTES: usize = size_of::<Userdata>();

/// Lets the collector work, if it is time. To be called now and then where a [`Maker`] is used.
/// Runs finalisers, hence script code.
///
/// # Safety
/// `raw` must be a live state made by `State::new`, on the thread that runs it, in a C function
/// with a stack slot free. May raise for want of memory.
#[inline]
pub unsafe fn collect(raw: *mut lua_State) {
    // SAFETY: the caller's contract, and `layout::is_known`.
    unsafe {
        let global = layout::global(raw);
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
        // SAFETY: the contract of `new`, and `layout::is_known`: this is what the VM does itself.
        unsafe {
            let global = (*self.thread).global;
            userdata.write(Userdata {
                next: (*global).root,
                marked: (*global).white & WHITES,
                kind: KIND_USERDATA,
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
            Some((layout::reference(USERDATA, userdata.as_ptr().cast()), &mut *content))
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
const _: () = assert!(align_of::<NlBuffer>() <= 8);
