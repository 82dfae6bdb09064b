//! Memory for the small objects of a state that its first slot has no room for, and for buffers:
//! slots cut into pages, each for blocks of one class. A page that holds nothing any more serves
//! another class, and a slot that holds nothing another state.
//!
//! Buffers have pages of their own: when the collector frees one, [`Pages::kind_of`] tells, and
//! what it holds outside the VM is let go. So buffers need no finaliser.
//!
//! Not for threads: pages belong to the state that they serve.

use std::ptr::{self, NonNull};

use crate::message::Held;

use super::free::FreeList;
use super::slots::{SLOT_BYTES, give_slot, give_slot_back, slot_of, take_slot};
use super::waste::Waste;

/// Blocks are as long as a multiple of this, and aligned to it: LuaJIT asks for no more, and most
/// of its objects are small.
const GRAIN: usize = 8;
/// Bytes: sizes up to this are told apart in steps of a grain …
pub(super) const FINE_MAX: usize = 512;
const FINE_CLASSES: usize = FINE_MAX / GRAIN;
/// … and those above in four steps per doubling, up to this.
pub(crate) const SMALL_MAX: usize = 1024;
/// Sizes that are told apart.
pub(crate) const CLASSES: usize = FINE_CLASSES + 4;
/// Blocks for buffers have up to this, in four steps per doubling too; others as well, of states
/// whose waste counts.
pub(crate) const BUFFER_MAX: usize = 4096;
const PAGE_CLASSES: usize = CLASSES + 8;

const PAGE_BYTES: usize = 16 * 1024;
const PAGES: usize = SLOT_BYTES / PAGE_BYTES;
const ALL_PAGES: u32 = (1 << PAGES) - 1;

/// Slots without content that a state keeps for what comes next.
const EMPTY_KEPT: usize = 4;

/// What a page's blocks are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Anything that needs nothing but its memory.
    Plain,
    /// Userdata with a buffer in it.
    Buffer,
}

/// The class of a size of at most [`BUFFER_MAX`], and what blocks of that class take.
#[inline]
pub(crate) fn class_of(size: usize) -> (usize, usize) {
    if size <= FINE_MAX {
        let steps = size.div_ceil(GRAIN).max(1);
        return (steps - 1, steps * GRAIN);
    }
    // The position of the top bit, and the two bits below it of what is rounded up.
    let top = (size - 1).ilog2();
    let step = 1usize << (top - 2);
    let steps = size.div_ceil(step);
    (FINE_CLASSES + (top as usize - 9) * 4 + (steps - 5), steps * step)
}

/// Bytes that blocks of a class take.
pub(super) fn class_bytes(class: usize) -> usize {
    match class.checked_sub(FINE_CLASSES) {
        None => (class + 1) * GRAIN,
        Some(above) => (5 + above % 4) << (7 + above / 4),
    }
}

/// A part of a slot.
struct Page {
    free: FreeList,
    /// Untouched bytes begin here, and end there, as offsets in the slot.
    fresh: u32,
    end: u32,
    block_bytes: u32,
    /// Blocks in use.
    used: u32,
    /// Which list of [`Pages`] it belongs to.
    list: u32,
    /// Whether it is in that list, as one with room.
    is_listed: bool,
    kind: Kind,
    next: *mut Page,
    previous: *mut Page,
}

impl Page {
    const EMPTY: Page = Page {
        free: FreeList::EMPTY,
        fresh: 0,
        end: 0,
        block_bytes: 0,
        used: 0,
        list: 0,
        is_listed: false,
        kind: Kind::Plain,
        next: ptr::null_mut(),
        previous: ptr::null_mut(),
    };

    /// The least that a block in it was made for.
    fn least(&self) -> usize {
        let bytes = self.block_bytes as usize;
        if bytes > FINE_MAX { bytes - (1 << ((bytes - 1).ilog2() - 2)) + 1 } else { bytes }
    }

    /// The blocks in use, of which the first would begin at this offset in the slot.
    fn blocks(&self, start: usize) -> impl Iterator<Item = *mut u8> {
        let slot = slot_of(ptr::from_ref(self).cast_mut().cast());
        let bytes = self.block_bytes as usize;
        let mut is_free = vec![false; (self.fresh as usize - start) / bytes];
        for block in self.free.blocks() {
            is_free[(block.addr() - slot.addr() - start) / bytes] = true;
        }
        let blocks = is_free.into_iter().enumerate().filter(|(_, is_free)| !is_free);
        blocks.map(move |(index, _)| slot.wrapping_add(start + index * bytes))
    }

    /// A block, freed or untouched; null if there is none.
    #[inline]
    fn take(&mut self) -> *mut u8 {
        if let Some(block) = self.free.pop() {
            self.used += 1;
            return block;
        }
        if self.fresh + self.block_bytes > self.end {
            return std::ptr::null_mut();
        }
        let offset = self.fresh as usize;
        self.fresh += self.block_bytes;
        self.used += 1;
        let page: *mut Page = self;
        slot_of(page.cast()).wrapping_add(offset)
    }
}

/// What a slot begins with.
struct Slot {
    pages: [Page; PAGES],
    /// A bit for each page without a class.
    unused: u32,
    /// Its place in `Pages::slots`.
    index: u32,
    /// Neighbours among the slots with unused pages.
    next: *mut Slot,
    previous: *mut Slot,
}

/// The pages of one state.
///
/// # Invariant
/// Every list holds the pages of its class that have room, the one to use first at its head.
#[derive(Debug)]
pub(crate) struct Pages {
    lists: [*mut Page; 2 * PAGE_CLASSES],
    slots: Vec<NonNull<Slot>>,
    /// Slots with unused pages.
    roomy: *mut Slot,
    empty: usize,
    /// What slots take beside the blocks in use counts here, if there is a memory limit.
    waste: Option<Box<Waste>>,
}

/// Where a page's blocks begin.
fn page_start(index: usize) -> usize {
    if index == 0 { size_of::<Slot>().next_multiple_of(64) } else { index * PAGE_BYTES }
}

fn list_of(kind: Kind, class: usize) -> usize {
    class + if kind == Kind::Buffer { PAGE_CLASSES } else { 0 }
}

impl Pages {
    pub(crate) fn new() -> Pages {
        Pages {
            lists: [std::ptr::null_mut(); 2 * PAGE_CLASSES],
            slots: Vec::new(),
            roomy: std::ptr::null_mut(),
            empty: 0,
            waste: None,
        }
    }

    /// From now on what slots take beside the blocks in use counts with what the context holds
    /// elsewhere, of which `limit` bytes are allowed in all.
    pub(crate) fn count_waste(&mut self, held: Held, limit: usize) {
        self.waste = Some(Box::new(Waste::new(held, limit)));
    }

    /// What slots take beside the blocks in use, if it counts.
    pub(crate) fn waste(&mut self) -> Option<&mut Waste> {
        self.waste.as_deref_mut()
    }

    /// Whether `bytes` may be taken that are not in pages: those that waste theirs take the room.
    #[inline]
    pub(crate) fn may_grow(&mut self, bytes: usize) -> bool {
        let Some(waste) = &mut self.waste else { return true };
        if !waste.grow(bytes) {
            return true;
        }
        let may = self.check_waste();
        if may && let Some(waste) = &mut self.waste {
            waste.has_grown();
        }
        may
    }

    /// Bytes of the slots that no block in use takes, each taken to be as small as its page has.
    fn wasted(&self) -> usize {
        let used = self.slots.iter().map(|slot| {
            // SAFETY: a slot of ours, which begins with its head; nobody writes to it meanwhile.
            let slot = unsafe { slot.as_ref() };
            let pages = slot.pages.iter().zip(0..).filter(|(_, bit)| slot.unused >> bit & 1 == 0);
            pages.map(|(page, _)| page.used as usize * page.least()).sum::<usize>()
        });
        (self.slots.len() * SLOT_BYTES).saturating_sub(used.sum())
    }

    /// Looks at what is wasted, if there is reason to; false if that is too much.
    #[cold]
    fn check_waste(&mut self) -> bool {
        let count = self.slots.len();
        if self.waste.as_ref().is_none_or(|waste| !waste.is_due(count)) {
            return true;
        }
        let wasted = self.wasted();
        self.waste.as_mut().is_none_or(|waste| waste.admits(wasted, count))
    }

    /// A block of at least `size` bytes, which are at most [`SMALL_MAX`], or for buffers
    /// [`BUFFER_MAX`]; null if there is no memory.
    #[inline(always)]
    pub(crate) fn allocate(&mut self, kind: Kind, size: usize) -> *mut u8 {
        let (class, bytes) = class_of(size);
        let list = list_of(kind, class);
        let page = self.lists[list];
        // SAFETY: pages in lists are those of slots of ours, and nobody else refers to them.
        if let Some(page) = unsafe { page.as_mut() } {
            let block = page.take();
            if !block.is_null() {
                return block;
            }
        }
        self.allocate_slowly(kind, list, bytes)
    }

    /// The page that a block lies in.
    ///
    /// # Safety
    /// The block must be one of some state's pages.
    #[inline]
    unsafe fn page_of<'a>(block: *mut u8) -> &'a mut Page {
        let index = (block.addr() & (SLOT_BYTES - 1)) / PAGE_BYTES;
        let slot = slot_of(block).cast::<Slot>();
        // SAFETY: a block of a slot that is in use: the slot begins with its head. No other
        // reference to the page exists while a method runs.
        unsafe { &mut (*slot).pages[index] }
    }

    /// The blocks of buffers in use, and how long each is.
    pub(crate) fn buffers(&self) -> impl Iterator<Item = (*mut u8, usize)> {
        self.slots.iter().flat_map(|slot| {
            // SAFETY: a slot of ours, which begins with its head.
            let Slot { pages, unused, .. } = unsafe { slot.as_ref() };
            let buffers = pages.iter().enumerate().filter(move |&(index, page)| {
                unused >> index & 1 == 0 && page.kind == Kind::Buffer
            });
            buffers.flat_map(|(index, page)| {
                let bytes = page.block_bytes as usize;
                page.blocks(page_start(index)).map(move |block| (block, bytes))
            })
        })
    }

    /// What the page of a block holds.
    ///
    /// # Safety
    /// The block must be one of these pages.
    #[inline]
    pub(crate) unsafe fn kind_of(block: *mut u8) -> Kind {
        // SAFETY: a block that is in use.
        unsafe { Pages::page_of(block) }.kind
    }

    /// Takes a block back.
    ///
    /// # Safety
    /// It must be one of these pages, and not be used again.
    #[inline]
    pub(crate) unsafe fn release(&mut self, block: *mut u8) {
        // SAFETY: a block that is in use, and nobody's from here on; it has at least a grain.
        let page = unsafe {
            let page = Pages::page_of(block);
            page.free.push(block);
            page
        };
        page.used -= 1;
        if page.used == 0 || !page.is_listed {
            self.make_room(page);
        }
    }

    /// A page has room again, or holds nothing.
    #[cold]
    fn make_room(&mut self, page: &mut Page) {
        if !page.is_listed {
            self.link(page);
        }
        // The only page of its class with room is kept: the next block is likely like the last.
        if page.used == 0 && !(page.next.is_null() && page.previous.is_null()) {
            self.unlink(page);
            self.retire(page);
        }
    }

    #[cold]
    fn allocate_slowly(&mut self, kind: Kind, list: usize, bytes: usize) -> *mut u8 {
        loop {
            // SAFETY: pages in a list are in slots that are in use, and nobody else refers to them.
            let page = match unsafe { self.lists[list].as_mut() } {
                Some(page) => page,
                None => match self.take_page(kind, list, bytes) {
                    Some(page) => page,
                    None => return std::ptr::null_mut(),
                },
            };
            let block = page.take();
            if !block.is_null() {
                return block;
            }
            self.unlink(page);
        }
    }

    fn link(&mut self, page: &mut Page) {
        let head = self.lists[page.list as usize];
        page.next = head;
        page.previous = std::ptr::null_mut();
        page.is_listed = true;
        // SAFETY: the first page of a list is in a slot that is in use.
        if let Some(head) = unsafe { head.as_mut() } {
            head.previous = page;
        }
        self.lists[page.list as usize] = page;
    }

    fn unlink(&mut self, page: &mut Page) {
        // SAFETY: the page before it in the list is in use, and nobody refers to it.
        match unsafe { page.previous.as_mut() } {
            Some(previous) => previous.next = page.next,
            None => self.lists[page.list as usize] = page.next,
        }
        // SAFETY: the next page of the list is in use too, and nobody refers to it.
        if let Some(next) = unsafe { page.next.as_mut() } {
            next.previous = page.previous;
        }
        (page.next, page.previous) = (std::ptr::null_mut(), std::ptr::null_mut());
        page.is_listed = false;
    }

    /// An unused page gets a class.
    fn take_page<'a>(&mut self, kind: Kind, list: usize, bytes: usize) -> Option<&'a mut Page> {
        if self.roomy.is_null() {
            self.add_slot()?;
        }
        let slot = self.roomy;
        // SAFETY: slots in the list are ours, and begin with their heads.
        let head = unsafe { &mut *slot };
        let index = head.unused.trailing_zeros() as usize;
        if head.unused == ALL_PAGES {
            self.empty -= 1;
        }
        head.unused &= !(1 << index);
        if head.unused == 0 {
            self.unlink_slot(slot);
        }
        let start = page_start(index);
        let page = &mut head.pages[index];
        *page = Page {
            fresh: start as u32,
            end: ((index + 1) * PAGE_BYTES) as u32,
            block_bytes: bytes as u32,
            list: list as u32,
            kind,
            ..Page::EMPTY
        };
        self.link(page);
        Some(page)
    }

    /// A page that holds nothing loses its class.
    fn retire(&mut self, page: &mut Page) {
        let page: *mut Page = page;
        let slot = slot_of(page.cast()).cast::<Slot>();
        // SAFETY: the page lies in the head of a slot of ours.
        unsafe {
            let first = (&raw const (*slot).pages).cast::<Page>();
            let index = page.cast_const().offset_from(first) as u32;
            if (*slot).unused == 0 {
                self.link_slot(slot);
            }
            (*slot).unused |= 1 << index;
            if (*slot).unused == ALL_PAGES {
                self.empty += 1;
                if self.empty > EMPTY_KEPT {
                    self.remove_slot(slot);
                }
            }
        }
    }

    fn add_slot(&mut self) -> Option<()> {
        if self.waste.is_some() && !self.check_waste() {
            return None;
        }
        let slot = NonNull::new(take_slot().cast::<Slot>())?;
        let head = Slot {
            pages: [const { Page::EMPTY }; PAGES],
            unused: ALL_PAGES,
            index: self.slots.len() as u32,
            next: std::ptr::null_mut(),
            previous: std::ptr::null_mut(),
        };
        // SAFETY: a slot of ours, larger than a head, and aligned.
        unsafe { slot.write(head) };
        self.slots.push(slot);
        self.empty += 1;
        self.link_slot(slot.as_ptr());
        Some(())
    }

    fn link_slot(&mut self, slot: *mut Slot) {
        let head = self.roomy;
        // SAFETY: the callers pass a slot of ours; so is the head of the list.
        unsafe {
            (*slot).next = head;
            (*slot).previous = std::ptr::null_mut();
            if !head.is_null() {
                (*head).previous = slot;
            }
        }
        self.roomy = slot;
    }

    fn unlink_slot(&mut self, slot: *mut Slot) {
        // SAFETY: the callers pass a slot of ours that is in the list; so are its neighbours.
        unsafe {
            let (next, previous) = ((*slot).next, (*slot).previous);
            match previous.is_null() {
                true => self.roomy = next,
                false => (*previous).next = next,
            }
            if !next.is_null() {
                (*next).previous = previous;
            }
        }
    }

    fn remove_slot(&mut self, slot: *mut Slot) {
        self.unlink_slot(slot);
        self.empty -= 1;
        // SAFETY: a slot of ours.
        let index = unsafe { (*slot).index } as usize;
        self.slots.swap_remove(index);
        if let Some(moved) = self.slots.get(index) {
            // SAFETY: a slot in the list is in use.
            unsafe { (*moved.as_ptr()).index = index as u32 };
        }
        if self.waste.is_some() {
            // What it has let go of counts no more, so it does not stay.
            give_slot_back(slot.cast());
            self.check_waste();
        } else {
            give_slot(slot.cast());
        }
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        for slot in self.slots.drain(..) {
            give_slot(slot.as_ptr().cast());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    fn release(pages: &mut Pages, block: *mut u8) {
        // SAFETY: the tests have allocated it, and do not use it again.
        unsafe { pages.release(block) };
    }

    /// Whether a block of the tests has this many of these bytes.
    fn has(block: *mut u8, size: usize, mark: u8) -> bool {
        // SAFETY: in use, and this many bytes were written.
        unsafe { std::slice::from_raw_parts(block, size) }.iter().all(|&byte| byte == mark)
    }

    #[test]
    fn classes_hold_their_sizes_and_stay_apart() {
        let (mut last, mut room) = (0, GRAIN);
        for size in 1..=BUFFER_MAX {
            let (class, bytes) = class_of(size);
            assert!(bytes >= size && bytes < size + (size / 4).max(GRAIN), "{size}: {bytes}");
            assert!(bytes.is_multiple_of(GRAIN) && class < PAGE_CLASSES);
            assert_eq!(class < CLASSES, size <= SMALL_MAX);
            assert_eq!(class != last, bytes != room, "{size}");
            assert!(class == last || class == last + 1);
            assert!(class >= CLASSES || class_bytes(class) == bytes);
            (last, room) = (class, bytes);
        }
        assert_eq!(last, PAGE_CLASSES - 1);
    }

    #[test]
    fn what_holds_nothing_is_given_back() {
        let mut pages = Pages::new();
        let blocks: Vec<_> = (0..10_000).map(|_| pages.allocate(Kind::Plain, 1000)).collect();
        assert!(pages.slots.len() > 70);
        for block in blocks {
            release(&mut pages, block);
        }
        assert!(pages.slots.len() <= EMPTY_KEPT + 1, "{} slots", pages.slots.len());
    }

    proptest! {
        /// Blocks in use never overlap, and keep what was written to them.
        #[test]
        fn blocks_stay_apart(steps in vec((1..=BUFFER_MAX, any::<u8>()), 1..400)) {
            let mut pages = Pages::new();
            let mut live: Vec<(*mut u8, usize, u8)> = Vec::new();
            let mut buffers = BTreeSet::new();
            for (number, (size, choice)) in steps.into_iter().enumerate() {
                if choice % 3 == 0 && !live.is_empty() {
                    let (block, size, mark) = live.swap_remove(choice as usize % live.len());
                    prop_assert!(has(block, size, mark));
                    release(&mut pages, block);
                    buffers.remove(&block);
                } else {
                    let is_plain = choice % 2 == 0 && size <= SMALL_MAX;
                    let kind = if is_plain { Kind::Plain } else { Kind::Buffer };
                    let block = pages.allocate(kind, size);
                    prop_assert!(!block.is_null() && block.addr().is_multiple_of(GRAIN));
                    // SAFETY: a new block with room for this many bytes.
                    unsafe { block.write_bytes(number as u8, size) };
                    live.push((block, size, number as u8));
                    if kind == Kind::Buffer {
                        buffers.insert(block);
                    }
                }
            }
            let found: BTreeSet<_> = pages.buffers().map(|(block, _)| block).collect();
            prop_assert_eq!(found, buffers);
            for (block, size, mark) in live {
                prop_assert!(has(block, size, mark));
            }
        }
    }
}
