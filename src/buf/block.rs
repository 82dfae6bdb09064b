//! The bytes of one script buffer: small ones in place, larger ones in a block that can be shared.
//!
//! [`NlBuffer`] is the payload of a buffer userdata and the mirror of `nl_buffer` in
//! `ffi/buffer.h`: compiled Lua code reads and moves `ptr`, `len` and `room` itself. It knows
//! nothing of the VM and of memory limits; `lua::buffer` reports what it allocates.
//!
//! ```text
//!   inline   ptr ──► bytes in `store` and behind it, as far as the userdata was made
//!   owned    ptr ──► block of a BytesMut in `store`    written in place
//!   shared   ptr ──► block of a Bytes in `store`       copied, or taken back, before a write
//! ```

#![allow(unsafe_code, reason = "bytes that are shared, and not filled yet")]

use std::marker::PhantomPinned;
use std::mem::{ManuallyDrop, MaybeUninit, offset_of};
use std::ops::Range;
use std::{io, ptr};

use bytes::{Buf, Bytes, BytesMut};

use super::piece::Piece;
use crate::failpoint;

/// The most bytes a buffer may hold: lengths are `int32_t`, which compiled code handles best.
pub const SIZE_MAX: usize = i32::MAX as usize;
/// Bytes of content that are stored in the userdata itself, without a block, at most.
pub const INLINE_MAX: usize = 896;
/// Received frames of up to this many bytes are stored there too: they are copied out of the block
/// that all sockets are read into, and rarely kept for long.
pub const FRAME_INLINE_MAX: usize = 4000;
/// Bytes of free room that a new buffer gets behind its content.
pub const ROOM_DEFAULT: usize = 32;
/// Bytes of the `store` field, the least an inline buffer can hold.
pub const STORE_BYTES: usize = size_of::<Store>();

/// Flag: not released.
pub const LIVE: u16 = 1;
/// Flag: the bytes may be written in place.
pub const UNIQUE: u16 = 2;
/// Flag: the bytes are in a `BytesMut`.
pub const OWNED: u16 = 4;
/// Flag: the bytes are in a `Bytes`.
pub const SHARED: u16 = 8;

/// Above this size the allocator is asked politely, so that a refusal is an error and no abort.
const FALLIBLE_BYTES: usize = 1 << 20;
const BLOCK_MIN: usize = 64;

/// A block is used again for a copy unless it is this many times as large.
const SHRINK_MIN: usize = 8;

/// A buffer would exceed [`SIZE_MAX`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooLarge;

/// What it takes to make room in a buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plan {
    /// There is room, and the content may be written.
    Ready,
    /// [`NlBuffer::grow_to`] must be called with this capacity.
    Grow(usize),
}

/// Where the bytes are kept; the flags say which field is live.
#[repr(C)]
union Store {
    inline: [MaybeUninit<u8>; 32],
    owned: ManuallyDrop<BytesMut>,
    shared: ManuallyDrop<Bytes>,
}

/// The payload of a buffer userdata, `nl_buffer` in C.
///
/// # Examples
/// ```
/// use std::mem::MaybeUninit;
///
/// use node_lua::buf::{NlBuffer, STORE_BYTES};
///
/// let mut memory = Box::new(MaybeUninit::<NlBuffer>::uninit());
/// // SAFETY: boxed, and room for a buffer with no more bytes in place than its own.
/// let buffer = unsafe {
///     NlBuffer::init(memory.as_mut_ptr(), STORE_BYTES);
///     memory.assume_init_mut()
/// };
/// assert_eq!(buffer.fill(b"hello"), 5);
/// assert_eq!(buffer.as_slice(), b"hello");
/// buffer.skip(1);
/// assert_eq!(&*buffer.share(), b"ello");
/// buffer.release();
/// assert!(!buffer.is_live());
/// ```
///
/// # Invariant
/// `ptr` is valid for `len` initialised bytes and, with [`UNIQUE`], for `room` more that may be
/// written. It may have moved forward within the block since the store was filled, and `len` may
/// have changed: the store's own figures are brought up to date by `take_owned` and `take_shared`.
/// An inline buffer never moves, since `ptr` points into it.
#[repr(C)]
pub struct NlBuffer {
    ptr: *mut u8,
    len: i32,
    room: i32,
    flags: u16,
    /// Bytes in place, for when nothing else is stored.
    place: u16,
    /// Bytes of the block that the buffer keeps in memory, as reported to the memory account of
    /// the state. Whoever changes what is stored reports the difference.
    pub charged: u32,
    store: Store,
    /// Bytes inside the value are also reached through `ptr`.
    _pinned: PhantomPinned,
}

impl std::fmt::Debug for NlBuffer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NlBuffer")
            .field("len", &self.len)
            .field("room", &self.room)
            .field("flags", &self.flags)
            .field("charged", &self.charged)
            .finish_non_exhaustive()
    }
}

impl NlBuffer {
    /// The fields, as `ffi/buffer.h` has them: name, and offset in bytes.
    pub const FIELDS: &[(&str, usize)] = &[
        ("ptr", offset_of!(NlBuffer, ptr)),
        ("len", offset_of!(NlBuffer, len)),
        ("room", offset_of!(NlBuffer, room)),
        ("flags", offset_of!(NlBuffer, flags)),
        ("place", offset_of!(NlBuffer, place)),
        ("charged", offset_of!(NlBuffer, charged)),
        ("store", offset_of!(NlBuffer, store)),
    ];

    /// Bytes of memory that a buffer with `room` bytes in place needs.
    pub const fn size_with(room: usize) -> usize {
        let room = if room < STORE_BYTES { STORE_BYTES } else { room };
        size_of::<NlBuffer>() - STORE_BYTES + room
    }

    /// Makes an empty inline buffer of the memory at `place`.
    ///
    /// # Safety
    /// `place` must be aligned to 8, valid for [`size_with`](Self::size_with)`(room)` bytes and
    /// stay where it is while the buffer is in use.
    #[inline]
    pub unsafe fn init(place: *mut NlBuffer, room: usize) {
        let room = room.max(STORE_BYTES);
        // SAFETY: in bounds of the caller's memory; no reference to it is made.
        let bytes = unsafe { &raw mut (*place).store }.cast::<u8>();
        // SAFETY: the same place, field by field: the store stays uninitialised. Inline room is at
        // most FRAME_INLINE_MAX, far from overflow.
        unsafe {
            (&raw mut (*place).ptr).write(bytes);
            (&raw mut (*place).len).write(0);
            (&raw mut (*place).room).write(room as i32);
            (&raw mut (*place).flags).write(LIVE | UNIQUE);
            (&raw mut (*place).place).write(room as u16);
            (&raw mut (*place).charged).write(0);
        }
    }

    /// The same with a copy of `bytes`, for which there is just the room.
    ///
    /// # Safety
    /// As for [`NlBuffer::init`]; of `bytes` there are at most [`FRAME_INLINE_MAX`].
    #[inline]
    pub unsafe fn init_filled(place: *mut NlBuffer, bytes: &[u8]) {
        let room = bytes.len().max(STORE_BYTES);
        debug_assert!(room <= FRAME_INLINE_MAX);
        // SAFETY: `place` is valid for `room` bytes in place, in which the content fits; nobody has
        // a reference to memory that is new.
        unsafe {
            NlBuffer::init(place, room);
            (&raw mut (*place).len).write(bytes.len() as i32);
            (&raw mut (*place).room).write((room - bytes.len()) as i32);
            let content = (&raw mut (*place).store).cast::<u8>();
            content.copy_from_nonoverlapping(bytes.as_ptr(), bytes.len());
        }
    }

    /// The content.
    #[inline]
    pub fn as_slice(&self) -> &[u8] {
        if self.ptr.is_null() {
            return &[];
        }
        // SAFETY: the invariant of `ptr` and `len`.
        unsafe { std::slice::from_raw_parts(self.ptr, self.len as usize) }
    }

    /// Bytes held.
    #[inline]
    pub fn len(&self) -> usize {
        self.len as usize
    }

    /// True without content.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Bytes of free room behind the content.
    pub fn room(&self) -> usize {
        self.room as usize
    }

    /// False once released.
    pub fn is_live(&self) -> bool {
        self.flags & LIVE != 0
    }

    /// True if the bytes are in the userdata itself.
    pub fn is_inline(&self) -> bool {
        self.flags & (OWNED | SHARED) == 0
    }

    /// True if the content may be written in place.
    pub fn is_unique(&self) -> bool {
        self.flags & UNIQUE != 0
    }

    /// What is needed before `extra` bytes can be written behind the content, or with `extra` 0,
    /// before the content can be changed. Takes back shared bytes that nobody else holds any more,
    /// and moves content to the front of its block, where that suffices.
    ///
    /// # Errors
    /// The content would be longer than [`SIZE_MAX`].
    pub fn prepare(&mut self, extra: usize) -> Result<Plan, TooLarge> {
        if self.is_unique() && self.room() >= extra {
            return Ok(Plan::Ready);
        }
        let needed = self.len().checked_add(extra).filter(|&n| n <= SIZE_MAX).ok_or(TooLarge)?;
        match self.flags & (OWNED | SHARED) {
            SHARED => match self.take_shared().try_into_mut() {
                Ok(owned) => self.put_owned(owned),
                Err(shared) => self.put_shared(shared),
            },
            OWNED => {
                let mut owned = self.take_owned();
                // The outcome shows in the room, which is looked at below.
                let _ = owned.try_reclaim(extra);
                self.put_owned(owned);
            }
            _ => self.shift(),
        }
        if self.is_unique() && self.room() >= extra {
            return Ok(Plan::Ready);
        }
        let doubled = if extra == 0 { 0 } else { 2 * self.len() };
        Ok(Plan::Grow(needed.max(doubled).clamp(BLOCK_MIN, SIZE_MAX)))
    }

    /// Moves the content into a block of its own of `capacity` bytes; false, and nothing changed,
    /// if there is no memory for it.
    pub fn grow_to(&mut self, capacity: usize) -> bool {
        debug_assert!(capacity >= self.len());
        let Some(mut owned) = allocate(capacity) else { return false };
        owned.extend_from_slice(self.as_slice());
        self.drop_store();
        self.put_owned(owned);
        true
    }

    /// Copies as much of `bytes` behind the content as there is room for, and returns how much.
    pub fn fill(&mut self, bytes: &[u8]) -> usize {
        let count = bytes.len().min(self.room());
        // SAFETY: `room` bytes behind the content are writable, and `bytes` is borrowed while
        // `self` is borrowed mutably, so that they do not overlap.
        unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), self.end(), count) };
        self.commit(count);
        count
    }

    /// Appends the content to itself, if there is room.
    pub fn fill_self(&mut self) -> bool {
        let len = self.len();
        if self.room() < len {
            return false;
        }
        // SAFETY: `len` bytes of content, and at least as many writable ones behind them.
        unsafe { ptr::copy_nonoverlapping(self.ptr, self.end(), len) };
        self.commit(len);
        true
    }

    /// The first free byte; `room` bytes may be written from there.
    pub fn end(&self) -> *mut u8 {
        self.ptr.wrapping_add(self.len())
    }

    /// Offers at most this many bytes of room. What there is beyond is found when more is asked
    /// for.
    pub fn limit_room(&mut self, room: usize) {
        self.room = self.room.min(room.min(SIZE_MAX) as i32);
    }

    /// Adds the first `count` bytes of the room, which were written, to the content.
    pub fn commit(&mut self, count: usize) {
        let count = count.min(self.room()) as i32;
        self.len += count;
        self.room -= count;
    }

    /// Drops `count` bytes from the front, or all.
    pub fn skip(&mut self, count: usize) {
        let count = count.min(self.len());
        self.ptr = self.ptr.wrapping_add(count);
        self.len -= count as i32;
    }

    /// Forgets the content. A shared block is let go, a block of this buffer's own is kept.
    pub fn clear(&mut self) {
        if self.flags & SHARED != 0 {
            drop(self.take_shared());
            self.put_inline();
            return;
        }
        self.room += self.len;
        self.len = 0;
    }

    /// Lets go of the bytes for good.
    pub fn release(&mut self) {
        self.drop_store();
        self.flags = 0;
        self.ptr = ptr::null_mut();
        self.len = 0;
        self.room = 0;
    }

    /// Bytes of memory that its block takes, with all that others hold of it.
    pub fn block_bytes(&self) -> usize {
        (self.charged as usize).max(self.len())
    }

    /// Whether a view of `count` bytes refers to the block; otherwise it is a copy.
    pub fn is_viewed(&self, count: usize) -> bool {
        !self.is_inline() && Piece::is_shared(count, self.block_bytes())
    }

    /// Bytes of memory that a view of `count` bytes keeps.
    pub fn view_bytes(&self, count: usize) -> usize {
        if self.is_viewed(count) { self.block_bytes() } else { count }
    }

    /// The content for another holder: by reference, unless it is stored in the userdata, or small
    /// for the block that it would keep.
    pub fn share(&mut self) -> Piece {
        if !self.is_viewed(self.len()) {
            return Piece::copy(self.as_slice());
        }
        let block_bytes = self.block_bytes();
        Piece::new(self.share_all(), block_bytes)
    }

    /// The content by reference, unless it is stored in the userdata: for those who let it go soon.
    pub fn share_all(&mut self) -> Bytes {
        if self.is_inline() {
            return Bytes::copy_from_slice(self.as_slice());
        }
        let shared =
            if self.flags & OWNED != 0 { self.take_owned().freeze() } else { self.take_shared() };
        self.put_shared(shared.clone());
        shared
    }

    /// Makes the empty inline buffer `into` hold the first `count` bytes (at most all), and removes
    /// them here. Bytes in a block change hands without a copy.
    ///
    /// Returns false, with nothing done, if the bytes are inline and `into` has no room for them.
    pub fn split_into(&mut self, count: usize, into: &mut NlBuffer) -> bool {
        let count = count.min(self.len());
        if count <= into.room() {
            into.fill(&self.as_slice()[..count]);
            self.skip(count);
            return true;
        }
        match self.flags & (OWNED | SHARED) {
            OWNED if count == self.len() => {
                into.put_owned(self.take_owned());
                self.put_inline();
            }
            OWNED => {
                let mut owned = self.take_owned();
                into.put_owned(owned.split_to(count));
                self.put_owned(owned);
            }
            SHARED if count == self.len() => {
                into.put_shared(self.take_shared());
                self.put_inline();
            }
            SHARED => {
                let mut shared = self.take_shared();
                into.put_shared(shared.split_to(count));
                self.put_shared(shared);
            }
            _ => return false,
        }
        true
    }

    /// Replaces the content, of whatever kind, by a reference to `piece`.
    pub fn set_shared(&mut self, piece: Piece) {
        self.drop_store();
        self.charged = piece.block_bytes() as u32;
        self.put_shared(piece.into_bytes());
    }

    /// Replaces the content, of whatever kind, by a copy of `bytes` in a block of its own, or a
    /// larger one that it has; false, and nothing changed, if there is no memory for it.
    pub fn set_copy(&mut self, bytes: &[u8]) -> bool {
        let wanted = bytes.len()..=SHRINK_MIN * bytes.len();
        let mut owned = match self.flags & (OWNED | SHARED) {
            OWNED if wanted.contains(&(self.charged as usize)) => {
                let mut owned = self.take_owned();
                owned.clear();
                owned.reserve(bytes.len());
                owned
            }
            _ => {
                // Who has had a block before will need one again, of about this size.
                let is_used = self.flags & OWNED != 0;
                let capacity = if is_used { bytes.len().next_power_of_two() } else { bytes.len() };
                let Some(owned) = allocate(capacity.clamp(BLOCK_MIN, SIZE_MAX)) else {
                    return false;
                };
                self.drop_store();
                self.charged = owned.capacity() as u32;
                owned
            }
        };
        owned.extend_from_slice(bytes);
        self.put_owned(owned);
        true
    }

    /// Replaces the content, of whatever kind, by what is at `place` of `bytes`: in the userdata if
    /// it fits there, by reference to `piece`, which holds the same bytes, if it is a large part of
    /// that, else as a copy in a block. False, and nothing changed, if there is no memory for it.
    #[inline]
    pub fn assign(&mut self, bytes: &[u8], place: Range<usize>, piece: Option<&Piece>) -> bool {
        if place.len() <= usize::from(self.place) {
            self.drop_store();
            self.put_inline();
            self.charged = 0;
            self.fill(&bytes[place]);
            return true;
        }
        match piece {
            Some(piece) if Piece::is_shared(place.len(), piece.block_bytes()) => {
                self.set_shared(piece.slice(place));
                true
            }
            _ => self.set_copy(&bytes[place]),
        }
    }

    /// Moves inline content to the front of its place, and finds all the room that there is.
    fn shift(&mut self) {
        if !self.is_live() {
            return;
        }
        let base = (&raw mut self.store).cast::<u8>();
        if self.ptr != base {
            // SAFETY: the content lies within the same place, which starts at `base`.
            unsafe { ptr::copy(self.ptr, base, self.len()) };
            self.ptr = base;
        }
        self.room = i32::from(self.place) - self.len;
    }

    /// An empty inline buffer.
    fn put_inline(&mut self) {
        self.ptr = (&raw mut self.store).cast::<u8>();
        self.len = 0;
        self.room = i32::from(self.place);
        self.flags = LIVE | UNIQUE;
    }

    /// Fills the store, which must hold nothing to be dropped.
    fn put_owned(&mut self, mut owned: BytesMut) {
        self.ptr = owned.as_mut_ptr();
        // The store keeps its full capacity; what exceeds int32_t is not offered.
        self.len = owned.len() as i32;
        self.room = (owned.capacity().min(SIZE_MAX) - owned.len()) as i32;
        self.flags = LIVE | UNIQUE | OWNED;
        self.store.owned = ManuallyDrop::new(owned);
    }

    /// Fills the store, which must hold nothing to be dropped.
    fn put_shared(&mut self, shared: Bytes) {
        self.ptr = shared.as_ptr().cast_mut();
        self.len = shared.len() as i32;
        self.room = 0;
        self.flags = LIVE | SHARED;
        self.store.shared = ManuallyDrop::new(shared);
    }

    /// Empties the store of an owned buffer, with what `ptr` and `len` say applied.
    fn take_owned(&mut self) -> BytesMut {
        debug_assert!(self.flags & OWNED != 0);
        // SAFETY: the flags say which field is live, and every caller fills the store again.
        let mut owned = unsafe { ManuallyDrop::take(&mut self.store.owned) };
        let skipped = self.ptr.addr() - owned.as_ptr().addr();
        // SAFETY: the first `skipped + len` bytes of the block were written: content is.
        unsafe { owned.set_len(skipped + self.len()) };
        owned.advance(skipped);
        owned
    }

    /// Empties the store of a shared buffer, with what `ptr` and `len` say applied.
    fn take_shared(&mut self) -> Bytes {
        debug_assert!(self.flags & SHARED != 0);
        // SAFETY: the flags say which field is live, and every caller fills the store again.
        let mut shared = unsafe { ManuallyDrop::take(&mut self.store.shared) };
        shared.advance(self.ptr.addr() - shared.as_ptr().addr());
        shared.truncate(self.len());
        shared
    }

    /// Drops what is stored; the caller must fill the store or mark the buffer as released.
    fn drop_store(&mut self) {
        match self.flags & (OWNED | SHARED) {
            OWNED => drop(self.take_owned()),
            SHARED => drop(self.take_shared()),
            _ => {}
        }
    }
}

/// An empty block of exactly `capacity` bytes; `None` if a large one cannot be had.
pub(super) fn allocate(capacity: usize) -> Option<BytesMut> {
    if failpoint::fails(failpoint::Point::Allocation) {
        return None;
    }
    if capacity < FALLIBLE_BYTES {
        return Some(BytesMut::with_capacity(capacity));
    }
    let mut block = Vec::<u8>::new();
    block.try_reserve_exact(capacity).ok()?;
    Some(BytesMut::from(Bytes::from(block)))
}

#[cfg(test)]
#[path = "block_test.rs"]
mod tests;

/// Reads once into the free room of `block`, at most `room` bytes; returns how many came.
///
/// # Errors
/// Those of `read`.
pub fn fill_block(
    block: &mut BytesMut,
    room: usize,
    read: impl FnOnce(&mut [MaybeUninit<u8>]) -> io::Result<usize>,
) -> io::Result<usize> {
    block.reserve(room);
    let count = read(&mut block.spare_capacity_mut()[..room])?;
    debug_assert!(count <= room);
    let filled = block.len() + count.min(room);
    // SAFETY: `read` has initialised the first `count` bytes behind what there was, as its result
    // says (recv(2) in use; the callers pass nothing else).
    unsafe { block.set_len(filled) };
    Ok(count)
}
