//! The memory of one state: small objects in its slots, the rest from the C allocator.

use std::ptr;

use super::arena::Arena;
use super::deterministic_heap;
use super::pages::{BUFFER_MAX, Kind, Pages, SMALL_MAX, class_of};
use super::waste::Waste;
use crate::buf::NlBuffer;
use crate::message::Held;
use crate::os::memory;
use crate::rt;
use crate::vm::layout::Userdata;

/// The blocks of one state. Not for threads, as the state is not.
#[derive(Debug)]
pub(crate) struct Heap {
    arena: Arena,
    /// Most contexts never need them.
    pages: Option<Box<Pages>>,
    /// The list of large blocks.
    large: *mut Large,
}

/// What is before a block of more than `SMALL_MAX` bytes: its neighbours in the list of all of
/// them, which go with the state. Before those that are in pages there is a mark alone: before
/// userdata with buffers [`BUFFER_MARK`], before others, of states whose waste counts,
/// [`PLAIN_MARK`].
#[repr(C)]
struct Large {
    next: *mut Large,
    previous: *mut Large,
    /// Of all of it.
    bytes: usize,
}

/// What large blocks in pages have in the place of [`Large::bytes`].
const BUFFER_MARK: usize = 0;
const PLAIN_MARK: usize = 1;
const MARK_BYTES: usize = size_of::<usize>();

/// Bytes of the largest userdata with a buffer, and of the largest block in pages.
pub(crate) const BUFFER_SIZE_MAX: usize = BUFFER_MAX - MARK_BYTES;

const HEAD_BYTES: usize = size_of::<Large>();

/// What the system has memory in, or a part of it.
const SYSTEM_PAGE: usize = 4096;

/// The buffer in a userdata that is made of this block.
#[inline]
pub(crate) fn content_of(block: *mut u8) -> *mut NlBuffer {
    block.wrapping_add(size_of::<Userdata>()).cast()
}

impl Default for Heap {
    fn default() -> Heap {
        Heap { arena: Arena::new(), pages: None, large: ptr::null_mut() }
    }
}

impl Heap {
    /// See [`Arena::settle`].
    pub(crate) fn settle(&mut self) {
        self.arena.settle();
    }

    /// A block of at least `size` bytes, not 0; null if there is no memory.
    #[inline]
    pub(crate) fn take(&mut self, size: usize) -> *mut u8 {
        if size > SMALL_MAX {
            return self.take_large(size);
        }
        let block = self.arena.allocate(size);
        if block.is_null() { self.take_from_pages(Kind::Plain, size) } else { block }
    }

    /// See [`Pages::may_grow`].
    pub(crate) fn may_grow(&mut self, bytes: usize) -> bool {
        self.pages.as_mut().is_none_or(|pages| pages.may_grow(bytes))
    }

    /// See [`Waste::spare`]; false if nothing counts.
    pub(crate) fn spare(&mut self, bytes: usize) -> bool {
        self.waste().map(|waste| waste.spare(bytes)).is_some()
    }

    /// Wasted bytes, as the last look has found them.
    pub(crate) fn wasted(&mut self) -> usize {
        self.waste().map_or(0, |waste| waste.wasted())
    }

    #[inline]
    fn waste(&mut self) -> Option<&mut Waste> {
        self.pages.as_mut()?.waste()
    }

    /// See [`Pages::count_waste`].
    pub(crate) fn count_waste(&mut self, held: Held, limit: usize) {
        self.pages.get_or_insert_with(|| Box::new(Pages::new())).count_waste(held, limit);
    }

    #[inline(always)]
    fn take_from_pages(&mut self, kind: Kind, size: usize) -> *mut u8 {
        self.pages.get_or_insert_with(|| Box::new(Pages::new())).allocate(kind, size)
    }

    /// A block for a userdata with a buffer, of at most `BUFFER_SIZE_MAX` bytes; null if there is
    /// no memory.
    #[inline(always)]
    pub(crate) fn take_buffer(&mut self, size: usize) -> *mut u8 {
        debug_assert!(size <= BUFFER_SIZE_MAX);
        if size <= SMALL_MAX {
            return self.take_from_pages(Kind::Buffer, size);
        }
        self.take_marked(Kind::Buffer, BUFFER_MARK, size)
    }

    /// A block of at most `BUFFER_SIZE_MAX` bytes in pages.
    #[inline(never)]
    fn take_marked(&mut self, kind: Kind, mark: usize, size: usize) -> *mut u8 {
        let block = self.take_from_pages(kind, size + MARK_BYTES).cast::<usize>();
        if block.is_null() {
            return ptr::null_mut();
        }
        // SAFETY: a new block.
        unsafe { block.write(mark) };
        block.wrapping_add(1).cast()
    }

    /// Whether a block of more than `SMALL_MAX` bytes, and of `size`, is in pages.
    ///
    /// # Safety
    /// The block must be one of this heap, with this size.
    #[inline]
    unsafe fn is_marked(block: *mut u8, size: usize) -> bool {
        // SAFETY: before a block of that size there is a word: a mark, or `Large::bytes`.
        size <= BUFFER_SIZE_MAX && unsafe { block.cast::<usize>().sub(1).read() } <= PLAIN_MARK
    }

    /// Whether a block of `size` bytes is a userdata with a buffer.
    ///
    /// # Safety
    /// The block must be one of this heap, with this size.
    #[inline]
    pub(crate) unsafe fn is_buffer(&self, block: *mut u8, size: usize) -> bool {
        if size > SMALL_MAX {
            // SAFETY: before a block of that size there is a word: a mark, or `Large::bytes`.
            return size <= BUFFER_SIZE_MAX
                && unsafe { block.cast::<usize>().sub(1).read() } == BUFFER_MARK;
        }
        // SAFETY: what is small and not in the arena is in pages.
        !self.arena.owns(block) && unsafe { Pages::kind_of(block) } == Kind::Buffer
    }

    /// Takes a block back; has a userdata with a buffer let go of what that holds.
    ///
    /// # Safety
    /// The block must be one of this heap, with this size, and is not used any more but by
    /// `release_buffer`, which must not use the heap.
    #[inline(always)]
    pub(crate) unsafe fn give(&mut self, block: *mut u8, size: usize, release_buffer: impl Fn()) {
        if size > SMALL_MAX {
            // SAFETY: the block is of this heap, with this size, and not used again.
            return unsafe { self.give_more(block, size, release_buffer) };
        }
        if self.arena.owns(block) {
            // SAFETY: a block of the arena, with its size, which is not used again.
            return unsafe { self.arena.release(block, size) };
        }
        // SAFETY: a block of this heap; what is small and not in the arena is in pages.
        unsafe {
            if Pages::kind_of(block) == Kind::Buffer {
                release_buffer();
            }
            if let Some(pages) = &mut self.pages {
                pages.release(block);
            }
        }
    }

    /// The same for one of more than `SMALL_MAX` bytes.
    ///
    /// # Safety
    /// As for [`Heap::give`].
    #[inline(never)]
    unsafe fn give_more(&mut self, block: *mut u8, size: usize, release_buffer: impl Fn()) {
        // SAFETY: a block of this heap with its size.
        unsafe {
            if self.is_buffer(block, size) {
                release_buffer();
            }
            match &mut self.pages {
                Some(pages) if Heap::is_marked(block, size) => {
                    pages.release(block.sub(MARK_BYTES));
                }
                _ => self.give_large(block),
            }
        }
    }

    /// Makes a block of `old` bytes (null: 0) one of `new` bytes, not 0; null, and nothing changed,
    /// if there is no memory.
    ///
    /// # Safety
    /// `block` must be null or one of this heap with size `old`; it is replaced by the result.
    pub(crate) unsafe fn resize(&mut self, block: *mut u8, old: usize, new: usize) -> *mut u8 {
        if block.is_null() {
            return self.take(new);
        }
        // SAFETY: a block of this heap with its size.
        let is_marked = old > SMALL_MAX && unsafe { Heap::is_marked(block, old) };
        match (old <= SMALL_MAX, new <= SMALL_MAX) {
            (true, true) if class_of(old) == class_of(new) => return block,
            (false, false) if is_marked => {
                let class = |size| class_of(size + MARK_BYTES);
                if new <= BUFFER_SIZE_MAX && class(old) == class(new) {
                    return block;
                }
            }
            (false, false) if !rt::is_simulated() => {
                if new > old && !self.may_grow(new - old) {
                    return ptr::null_mut();
                }
                // SAFETY: a large block stays one.
                return unsafe { self.resize_large(block, new) };
            }
            _ => {}
        }
        let moved = self.take(new);
        if !moved.is_null() {
            // SAFETY: both are at least this long, and different blocks.
            unsafe { ptr::copy_nonoverlapping(block, moved, old.min(new)) };
            // SAFETY: the block has moved, and is not used again.
            unsafe { self.give(block, old, || ()) };
        }
        moved
    }

    /// A block of more than `SMALL_MAX` bytes.
    #[cold]
    fn take_large(&mut self, size: usize) -> *mut u8 {
        if size <= BUFFER_SIZE_MAX && self.waste().is_some() {
            return self.take_marked(Kind::Plain, PLAIN_MARK, size);
        }
        if !self.may_grow(size) {
            return ptr::null_mut();
        }
        let bytes = size + HEAD_BYTES;
        let head: *mut Large = system_take(bytes).cast();
        if head.is_null() {
            return ptr::null_mut();
        }
        // SAFETY: a new block, which begins with room for this.
        unsafe { head.write(Large { next: self.large, previous: ptr::null_mut(), bytes }) };
        self.relink(head);
        self.note_large(None, Some((head, bytes)));
        head.wrapping_add(1).cast()
    }

    /// The same for a block that a buffer holds, of which not more than the size is known: what it
    /// wastes on the average.
    pub(crate) fn note_block(&mut self, before: usize, now: usize) {
        let waste = |bytes| if bytes >= SYSTEM_PAGE { SYSTEM_PAGE } else { 0 };
        if let Some(counted) = self.waste() {
            counted.note_large(waste(before), waste(now), before.saturating_sub(now));
        }
    }

    /// Counts what a large block may waste instead of another: of the pages that it begins and ends
    /// in others have the rest, and may let go of it.
    fn note_large(&mut self, gone: Option<(*mut Large, usize)>, come: Option<(*mut Large, usize)>) {
        let waste = |(head, bytes): (*mut Large, usize)| {
            let (start, end) = (head.addr(), head.addr() + bytes);
            end.next_multiple_of(SYSTEM_PAGE) - (start & !(SYSTEM_PAGE - 1)) - bytes
        };
        // In a simulation nothing is to follow from addresses.
        if let Some(counted) = self.waste().filter(|_| !rt::is_simulated()) {
            let freed = match (gone, come) {
                (Some((old, bytes)), Some((new, _))) if old != new => bytes,
                (Some((_, bytes)), come) => bytes.saturating_sub(come.map_or(0, |(_, new)| new)),
                (None, _) => 0,
            };
            counted.note_large(gone.map_or(0, waste), come.map_or(0, waste), freed);
        }
    }

    /// Has the neighbours of a large block know where it is.
    fn relink(&mut self, head: *mut Large) {
        // SAFETY: the callers pass a block that is in use, and so are its neighbours.
        unsafe {
            match (*head).previous.as_mut() {
                Some(previous) => previous.next = head,
                None => self.large = head,
            }
            if let Some(next) = (*head).next.as_mut() {
                next.previous = head;
            }
        }
    }

    /// # Safety
    /// The block must be one that `take_large` returned, outside of simulations, and is replaced by
    /// the result unless that is null.
    unsafe fn resize_large(&mut self, block: *mut u8, size: usize) -> *mut u8 {
        let bytes = size + HEAD_BYTES;
        let head: *mut Large = block.cast::<Large>().wrapping_sub(1);
        // SAFETY: a head, with its block, from `malloc`.
        let moved: *mut Large = unsafe { libc::realloc(head.cast(), bytes) }.cast();
        // SAFETY: null if there is no memory, else what the head has become.
        let Some(moved) = (unsafe { moved.as_mut() }) else { return ptr::null_mut() };
        let before = std::mem::replace(&mut moved.bytes, bytes);
        memory::changed(before, bytes);
        self.relink(moved);
        self.note_large(Some((head, before)), Some((moved, bytes)));
        ptr::from_mut(moved).wrapping_add(1).cast()
    }

    /// # Safety
    /// The block must be one that `take_large` returned, and is not used any more.
    #[cold]
    unsafe fn give_large(&mut self, block: *mut u8) {
        let head: *mut Large = block.cast::<Large>().wrapping_sub(1);
        // SAFETY: a head in the list, whose neighbours are in use.
        unsafe {
            let Large { next, previous, bytes } = head.read();
            self.note_large(Some((head, bytes)), None);
            match previous.as_mut() {
                Some(previous) => previous.next = next,
                None => self.large = next,
            }
            if let Some(next) = next.as_mut() {
                next.previous = previous;
            }
            system_give(head.cast(), bytes);
        }
    }
}

impl Drop for Heap {
    fn drop(&mut self) {
        for (block, bytes) in self.pages.iter().flat_map(|pages| pages.buffers()) {
            let block = if bytes > SMALL_MAX { block.wrapping_add(MARK_BYTES) } else { block };
            // SAFETY: in use until now, and by nobody any more.
            let buffer = unsafe { &mut *content_of(block) };
            buffer.release();
            memory::changed(buffer.charged as usize, 0);
        }
        while !self.large.is_null() {
            let head = self.large;
            // SAFETY: a block in the list, which nobody uses any more.
            unsafe {
                self.large = (*head).next;
                system_give(head.cast(), (*head).bytes);
            }
        }
    }
}

/// A block from the C allocator, or from where a simulation has its memory.
fn system_take(bytes: usize) -> *mut u8 {
    if rt::is_simulated() {
        return deterministic_heap::allocate(bytes).cast();
    }
    memory::changed(0, bytes);
    // SAFETY: any size may be asked for.
    unsafe { libc::malloc(bytes) }.cast()
}

/// # Safety
/// `block` must come from [`system_take`] with this size, and is not used any more.
unsafe fn system_give(block: *mut u8, bytes: usize) {
    if rt::is_simulated() {
        return deterministic_heap::release(block.cast(), bytes);
    }
    // SAFETY: from `malloc`, and out of the list.
    unsafe { libc::free(block.cast()) };
    memory::changed(bytes, 0);
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::buf::Piece;
    use crate::message::Allowance;

    /// What tests do with blocks.
    impl Heap {
        fn give_plain(&mut self, block: *mut u8, size: usize) {
            // SAFETY: a test gives a block back once, with the size that it was taken with.
            unsafe { self.give(block, size, || ()) };
        }

        fn resize_taken(&mut self, block: *mut u8, old: usize, new: usize) -> *mut u8 {
            // SAFETY: a block that the test holds, with its size; or null, with the size 0.
            unsafe { self.resize(block, old, new) }
        }

        fn has_buffer(&self, block: *mut u8, size: usize) -> bool {
            // SAFETY: a block that the test holds, with its size.
            unsafe { self.is_buffer(block, size) }
        }
    }

    fn fill(block: *mut u8, size: usize, mark: u8) {
        // SAFETY: a block of a test, with this many bytes.
        unsafe { block.write_bytes(mark, size) };
    }

    fn has(block: *mut u8, size: usize, mark: u8) -> bool {
        // SAFETY: a block of a test, of which this many bytes were written.
        unsafe { std::slice::from_raw_parts(block, size) }.iter().all(|&byte| byte == mark)
    }

    #[test]
    fn what_is_resized_keeps_its_content() {
        let mut heap = Heap::default();
        let mut block = ptr::null_mut::<u8>();
        let mut size = 0;
        for new in [1, 16, 17, 500, SMALL_MAX, SMALL_MAX + 1, 9000, 3000, SMALL_MAX, 20, 3] {
            block = heap.resize_taken(block, size, new);
            if size == 0 {
                fill(block, 1, 77);
            }
            assert!(has(block, 1, 77));
            size = new;
        }
        heap.give_plain(block, size);
    }

    #[test]
    fn where_waste_counts_middle_sizes_are_in_pages() {
        let mut heap = Heap::default();
        let before = heap.take(2000);
        let allowance = Allowance::of_limit(1 << 20);
        heap.count_waste(allowance.empty(), 1 << 20);
        for sizes in [[1025, 1030, 4088], [4088, 4089, 1025], [9000, 2000, 3000], [600, 1600, 40]] {
            let mut size = sizes[0];
            let mut block = heap.take(size);
            fill(block, size, 9);
            for new in sizes.into_iter().chain([5000, 2000, 700, 2000]) {
                block = heap.resize_taken(block, size, new);
                assert!(has(block, new.min(size), 9));
                fill(block, new, 9);
                assert!(!heap.has_buffer(block, new));
                size = new;
            }
            heap.give_plain(block, size);
        }
        heap.give_plain(before, 2000);
        assert!(heap.large.is_null());
    }

    #[test]
    fn what_the_arena_has_no_room_for_is_in_pages() {
        let mut heap = Heap::default();
        let mut blocks = Vec::new();
        for number in 0..1000_u32 {
            let block = heap.take(600);
            fill(block, 600, number as u8);
            blocks.push(block);
        }
        assert!(heap.pages.is_some());
        for (block, number) in blocks.into_iter().zip(0_u32..) {
            assert!(has(block, 600, number as u8));
            assert!(!heap.has_buffer(block, 600));
            heap.give_plain(block, 600);
        }
        let buffer = heap.take_buffer(600);
        assert!(heap.has_buffer(buffer, 600));
        // SAFETY: in use, with room for this; the heap expects there to be a buffer.
        unsafe { NlBuffer::init(content_of(buffer), 0) };
    }

    #[test]
    fn buffers_let_go_of_what_they_hold_when_the_heap_goes() {
        let mut heap = Heap::default();
        let blocks = [Bytes::from(vec![1; 9000]), Bytes::from(vec![2; 9000])];
        for number in 0..1000 {
            let room = if number % 3 == 0 { 2000 } else { 0 };
            let size = size_of::<Userdata>() + NlBuffer::size_with(room);
            let place = heap.take_buffer(size);
            let buffer = content_of(place);
            // SAFETY: a new block with room for a buffer, and as many bytes before it.
            unsafe {
                NlBuffer::init(buffer, room);
                assert!(heap.is_buffer(place, size));
                (*buffer).set_shared(Piece::from(blocks[number % 2].clone()));
                if number % 2 == 0 {
                    (*buffer).release();
                    heap.give(place, size, || ());
                }
                // A neighbour of this size that is none.
                let plain = heap.take(size);
                assert!(!heap.is_buffer(plain, size));
                heap.give(plain, size, || ());
            }
        }
        assert!(blocks[0].is_unique() && !blocks[1].is_unique());
        drop(heap);
        assert!(blocks[1].is_unique());
    }
}
