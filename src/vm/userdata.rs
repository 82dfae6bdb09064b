//! Userdata, made without the VM's help.
//!
//! A buffer for each frame is most of what a busy script makes. The VM's own functions take some
//! 150 instructions for one: checks of arguments that are known, and a list of all userdata that
//! the collector searches for finalisers in every cycle. Buffers need none, so [`Maker`] puts them
//! where other objects are, in memory of [`State::new`](super::state::State::new)'s allocator.

use std::ffi::{c_int, c_void};
use std::ptr::NonNull;

use mlua::ffi;

use super::charge;
pub use super::charge::is_due;
use super::layout::{self, KIND_USERDATA, Slot, Table, USERDATA, Userdata, WHITES};
use super::memory::heap::{self, content_of};
use super::stack::{Stack, slots};
use super::state::Account;
use crate::buf::{FRAME_INLINE_MAX, NlBuffer};

/// Bytes of a userdata before its content.
const HEAD_BYTES: usize = size_of::<Userdata>();

/// What one step of the collector deals with, and what the VM has it take one for.
const STEP_WORK_BYTES: usize = 2048;
const STEP_BYTES: usize = 1024;

/// Frames that are made while the collector deals with all that lives: half as many bytes again,
/// between these bounds. If they are fewer, it marks the same again too often; if they are more,
/// their memory has left the caches before it is used again.
const CYCLE_BYTES_MIN: usize = 3 << 19;
const CYCLE_BYTES_MAX: usize = 4 << 20;

/// The most steps at once.
const STEPS_MAX: usize = 64;

/// As many bytes of frames as the collector may owe before it is asked how many steps these are.
const OWED_BYTES: usize = 4096;

/// Lets the collector work, if it is time, and in proportion to what was made since it last did: it
/// would fall behind where frames are made by the lot. To be called now and then where a [`Maker`]
/// is used. Runs finalisers, hence script code. May raise if memory runs out.
#[inline]
pub fn collect(lua: Stack<'_>) {
    let global = charge::global(lua);
    if global.total >= global.threshold.saturating_add(OWED_BYTES) {
        pay(lua);
    }
}

#[inline(never)]
fn pay(lua: Stack<'_>) {
    let global = charge::global(lua);
    let owed = global.total - global.threshold;
    let low = lua.account().low_bytes();
    let cycle = (low + low / 2).clamp(CYCLE_BYTES_MIN, CYCLE_BYTES_MAX);
    let steps = low / STEP_WORK_BYTES * owed / cycle;
    charge::work(lua, steps.min(owed / STEP_BYTES).min(STEPS_MAX));
}

/// What makes userdata with buffers in one state, for as long as a C function runs.
#[derive(Clone, Copy, Debug)]
pub struct Maker<'a> {
    lua: Stack<'a>,
    account: &'a Account,
    metatable: NonNull<c_void>,
    /// Any table: the collector marks it, and `debug.getfenv` shows it.
    environment: u64,
}

impl<'a> Maker<'a> {
    /// `None` while there is no metatable of buffers ([`Account::set_buffer_metatable`]).
    #[inline]
    pub fn new(lua: Stack<'a>) -> Option<Maker<'a>> {
        let account = lua.account();
        let metatable = account.buffer_metatable()?;
        let environment = account.buffer_environment();
        Some(Maker { lua, account, metatable, environment })
    }

    /// Pushes a userdata with an empty buffer in it that has `room` bytes in place. `None`, and
    /// nothing is pushed, if memory is refused: then the context is going to end. Never runs the
    /// collector; may raise if there is no memory for a larger stack.
    #[inline]
    pub fn push(self, room: usize) -> Option<&'a mut NlBuffer> {
        self.push_made(self.make_empty(room))
    }

    /// The same for a buffer with a copy of `bytes`, of which there are at most
    /// [`FRAME_INLINE_MAX`].
    #[inline]
    pub fn push_filled(self, bytes: &[u8]) -> Option<()> {
        self.push_made(self.make_filled(bytes))
    }

    #[inline]
    fn push_made<R>(self, made: Option<(Slot, R)>) -> Option<R> {
        let (slot, result) = made?;
        // The buffer stays where it is.
        slots::push(self.lua, slot);
        Some(result)
    }

    /// As [`Maker::push`], into a place of the array part of a table instead. `None`, and nothing
    /// is made, if there is no such place.
    ///
    /// # Safety
    /// It must be a table that the collector has not seen in its present cycle, or is going to look
    /// at again: so one that was just created, or just stored into.
    #[inline]
    pub unsafe fn store(
        self,
        table: Option<NonNull<Table>>,
        index: usize,
    ) -> Option<&'a mut NlBuffer> {
        // SAFETY: the collector is going to look at the table, and so finds the new userdata.
        unsafe { store_made(table, index, || self.make_empty(0)) }
    }

    /// As [`Maker::push_filled`], likewise.
    ///
    /// # Safety
    /// As for [`Maker::store`].
    #[inline]
    pub unsafe fn store_filled(
        self,
        bytes: &[u8],
        table: Option<NonNull<Table>>,
        index: usize,
    ) -> Option<()> {
        // SAFETY: the collector is going to look at the table, and so finds the new userdata.
        unsafe { store_made(table, index, || self.make_filled(bytes)) }
    }

    /// The table at `index` of the stack, for [`Maker::store`].
    #[inline]
    pub fn table(self, index: c_int) -> Option<NonNull<Table>> {
        NonNull::new(self.lua.address(index).cast_mut().cast())
    }

    /// What refers to a new userdata with an empty buffer, and that: see [`Maker::make`].
    #[inline(never)]
    fn make_empty(self, room: usize) -> Option<(Slot, &'a mut NlBuffer)> {
        // SAFETY: in the userdata there is room for a buffer with this many bytes in place.
        self.make(room, |place| unsafe { NlBuffer::init(place, room) })
    }

    /// The same with a copy of `bytes`.
    #[inline(never)]
    fn make_filled(self, bytes: &[u8]) -> Option<(Slot, ())> {
        // SAFETY: in the userdata there is room for a buffer with all of `bytes` in place.
        let made = self.make(bytes.len(), |place| unsafe { NlBuffer::init_filled(place, bytes) });
        made.map(|(slot, _)| (slot, ()))
    }

    /// What refers to a new userdata, whose buffer `init` makes, to be stored where the collector
    /// finds it before it runs.
    #[inline(always)]
    fn make(
        self,
        room: usize,
        init: impl FnOnce(*mut NlBuffer),
    ) -> Option<(Slot, &'a mut NlBuffer)> {
        let length = NlBuffer::size_with(room);
        let size = HEAD_BYTES + length;
        let userdata = self.account.allocate_buffer(size)?.cast::<Userdata>();
        let metatable = self.metatable.as_ptr() as u64;
        // SAFETY: this is what the VM does itself, in a new block of that size.
        unsafe {
            let global = layout::global(self.lua.raw());
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
            init(content);
            Some((layout::reference(USERDATA, userdata.as_ptr().cast()), &mut *content))
        }
    }
}

/// Stores what `make` makes: see [`Maker::store`].
///
/// # Safety
/// As there.
#[inline(always)]
unsafe fn store_made<R>(
    table: Option<NonNull<Table>>,
    index: usize,
    make: impl FnOnce() -> Option<(Slot, R)>,
) -> Option<R> {
    // SAFETY: a live table.
    let parts = unsafe { table?.as_ref() };
    if index >= parts.array_len as usize {
        return None;
    }
    let (slot, result) = make()?;
    // SAFETY: the array part has more slots than that, and nothing has moved it.
    unsafe { parts.array.add(index).write(slot) };
    Some(result)
}

/// The content of the userdata at `index`, if there is one and that is its metatable.
#[inline]
pub fn with_metatable(
    lua: Stack<'_>,
    index: c_int,
    metatable: NonNull<c_void>,
) -> Option<NonNull<c_void>> {
    if lua.kind(index) != ffi::LUA_TUSERDATA {
        return None;
    }
    let content = NonNull::new(lua.userdata(index))?;
    // SAFETY: what is there for a full userdata follows its head.
    let found = unsafe { content.byte_sub(HEAD_BYTES).cast::<Userdata>().as_ref() }.metatable;
    (found == metatable.as_ptr() as u64).then_some(content)
}

/// The buffer in the userdata that a slot refers to, if that is its metatable.
///
/// # Safety
/// A userdata of the state that this thread runs, alive for `'a`, which nobody else uses meanwhile.
#[cfg(any(feature = "json", feature = "msgpack"))]
pub(super) unsafe fn buffer_in<'a>(slot: Slot, metatable: NonNull<c_void>) -> Option<&'a NlBuffer> {
    let userdata = (slot & layout::POINTER) as *mut Userdata;
    // SAFETY: the slot refers to a userdata that is alive; only a `Maker` gives one that metatable.
    unsafe {
        let is_one = (*userdata).metatable == metatable.as_ptr() as u64;
        is_one.then(|| &*content_of(userdata.cast()))
    }
}

const _: () = assert!(HEAD_BYTES + NlBuffer::size_with(FRAME_INLINE_MAX) <= heap::BUFFER_SIZE_MAX);
const _: () = assert!(align_of::<NlBuffer>() <= 8);
