//! Memory for states of a simulation, at addresses that the next run finds again.
//!
//! Where a table or function lies decides its place among the keys of a table, and so the order of
//! `pairs`. The allocator of the system starts somewhere else in each process; this one hands out
//! the same addresses for the same calls.

use std::ffi::c_void;
use std::ptr;
use std::sync::Mutex;

use super::slots::SLOT_BYTES;

use crate::sync::lock;

/// Where the memory is: far from where systems put programs, libraries, stacks and heaps.
const START: usize = 0x2000_0000_0000;

/// How much there is: addresses only, until something is written.
const BYTES: usize = 64 << 30;

/// Blocks are as long as a power of two, from 16 bytes on.
const CLASSES: usize = 40;
const SIZE_MIN: usize = 16;

struct Heap {
    used: usize,
    /// Blocks that are free, by class, the last one freed first.
    free: [Vec<usize>; CLASSES],
}

static HEAP: Mutex<Option<Heap>> = Mutex::new(None);

fn class(size: usize) -> usize {
    size.max(SIZE_MIN).next_power_of_two().trailing_zeros() as usize
}

fn map() -> Option<Heap> {
    let kind =
        libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE | libc::MAP_FIXED_NOREPLACE;
    let access = libc::PROT_READ | libc::PROT_WRITE;
    let wanted = ptr::without_provenance_mut(START);
    // SAFETY: new memory at addresses that nothing is mapped at, or none.
    let found = unsafe { libc::mmap(wanted, BYTES, access, kind, -1, 0) };
    let is_there = found.expose_provenance() == START;
    is_there.then_some(Heap { used: 0, free: [const { Vec::new() }; CLASSES] })
}

impl Heap {
    fn take(&mut self, size: usize) -> Option<usize> {
        let class = class(size);
        if let Some(block) = self.free.get_mut(class)?.pop() {
            return Some(block);
        }
        let bytes = 1usize << class;
        // Slots are aligned to their size.
        let first = self.used.next_multiple_of(bytes.min(SLOT_BYTES));
        if first >= BYTES || bytes > BYTES - first {
            return None;
        }
        self.used = first + bytes;
        Some(START + first)
    }
}

/// A block of at least `size` bytes; null if there is no room.
pub(crate) fn allocate(size: usize) -> *mut c_void {
    let mut heap = lock(&HEAP);
    if heap.is_none() {
        *heap = map();
    }
    let block = heap.as_mut().and_then(|heap| heap.take(size));
    block.map_or(ptr::null_mut(), ptr::with_exposed_provenance_mut)
}

/// Takes a block back that was asked for with this size.
pub(crate) fn release(block: *mut c_void, size: usize) {
    let mut heap = lock(&HEAP);
    if let Some(heap) = heap.as_mut().filter(|_| !block.is_null()) {
        heap.free[class(size)].push(block.addr());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_calls_find_the_same_addresses() {
        let run = || {
            let mut heap = Heap { used: 0, free: [const { Vec::new() }; CLASSES] };
            let sizes = [1, 16, 17, 1000, 100_000, BYTES];
            sizes.map(|size| heap.take(size))
        };
        assert_eq!(run(), run());
        assert_eq!(run()[..3], [0, 16, 32].map(|offset| Some(START + offset)));
        assert_eq!(run()[5], None, "there is not that much left");
    }

    #[test]
    fn what_is_given_back_is_handed_out_again() {
        let block = allocate(100);
        assert!(!block.is_null() && block.addr() >= START);
        // SAFETY: a block of that size, which nobody else has.
        unsafe { block.cast::<u8>().write_bytes(7, 100) };
        release(block, 100);
        assert_eq!(allocate(128), block);
        assert_ne!(allocate(128), block);
        assert!(allocate(2 * BYTES).is_null());
    }
}
