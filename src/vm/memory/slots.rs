//! Slots of 128 KiB, what the memory of states is made of, aligned to their size: the slot of a
//! block follows from its address. Slots of states that have ended serve the next ones.

use std::sync::Mutex;

use super::deterministic_heap;
use crate::os::memory;
use crate::rt;
use crate::sync::lock;

/// Bytes of a slot: what a small context needs.
pub(crate) const SLOT_BYTES: usize = 128 * 1024;

/// Slots that are mapped at once.
const REGION_SLOTS: usize = 64;

/// Slots that keep their memory while nobody uses them, until [`trim`]: what a cycle of a collector
/// frees at once, and takes again, without the system's help.
const WARM_MAX: usize = 1024;

/// Slots that nobody uses, by address: pointers would tie the list to one thread.
struct Slots {
    /// Used last, so that their memory is likely still in the caches.
    warm: Vec<usize>,
    /// Without memory of their own.
    cold: Vec<usize>,
    /// The fewest that were warm since the last [`trim`]: this many have not been needed.
    spare: usize,
}

static SLOTS: Mutex<Slots> = Mutex::new(Slots { warm: Vec::new(), cold: Vec::new(), spare: 0 });

/// Takes the memory from the slots that were not needed since the last call.
pub(crate) fn trim() {
    let mut slots = lock(&SLOTS);
    let spare = slots.spare.min(slots.warm.len());
    let unused: Vec<usize> = slots.warm.drain(..spare).collect();
    slots.spare = slots.warm.len();
    drop(slots);
    unused.iter().for_each(|&slot| cool(slot));
    lock(&SLOTS).cold.extend(unused);
}

/// Takes the memory from a slot that nobody uses, and that is in no list.
fn cool(slot: usize) {
    let place = std::ptr::with_exposed_provenance_mut(slot);
    // SAFETY: whole pages of anonymous memory, which is the caller's alone.
    unsafe { libc::madvise(place, SLOT_BYTES, libc::MADV_DONTNEED) };
    memory::changed(SLOT_BYTES, 0);
}

#[inline]
pub(crate) fn slot_of(block: *mut u8) -> *mut u8 {
    block.map_addr(|address| address & !(SLOT_BYTES - 1))
}

/// A slot that nobody uses, with any content; null if no memory can be mapped.
pub(crate) fn take_slot() -> *mut u8 {
    if rt::is_simulated() {
        return deterministic_heap::allocate(SLOT_BYTES).cast();
    }
    let mut slots = lock(&SLOTS);
    if let Some(slot) = slots.warm.pop() {
        slots.spare = slots.spare.min(slots.warm.len());
        return std::ptr::with_exposed_provenance_mut(slot);
    }
    let slot = slots.cold.pop().or_else(|| map(&mut slots.cold));
    drop(slots);
    let Some(slot) = slot else { return std::ptr::null_mut() };
    // This may take the lock.
    memory::changed(0, SLOT_BYTES);
    std::ptr::with_exposed_provenance_mut(slot)
}

/// Maps slots: the first, and the others into this list.
fn map(cold: &mut Vec<usize>) -> Option<usize> {
    // One more than are used: the system aligns to pages only.
    let bytes = (REGION_SLOTS + 1) * SLOT_BYTES;
    let access = libc::PROT_READ | libc::PROT_WRITE;
    let kind = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
    // SAFETY: new memory at an address that the system chooses.
    let region = unsafe { libc::mmap(std::ptr::null_mut(), bytes, access, kind, -1, 0) };
    if region == libc::MAP_FAILED {
        return None;
    }
    let first = region.expose_provenance().next_multiple_of(SLOT_BYTES);
    cold.extend((1..REGION_SLOTS).rev().map(|slot| first + slot * SLOT_BYTES));
    Some(first)
}

/// Gives a slot back that nobody uses any more.
pub(crate) fn give_slot(slot: *mut u8) {
    if rt::is_simulated() {
        return deterministic_heap::release(slot.cast(), SLOT_BYTES);
    }
    let address = slot.expose_provenance();
    {
        let mut slots = lock(&SLOTS);
        if slots.warm.len() < WARM_MAX {
            slots.warm.push(address);
            return;
        }
    }
    give_slot_back(slot);
}

/// The same, with its memory.
pub(crate) fn give_slot_back(slot: *mut u8) {
    if rt::is_simulated() {
        return deterministic_heap::release(slot.cast(), SLOT_BYTES);
    }
    let address = slot.expose_provenance();
    cool(address);
    lock(&SLOTS).cold.push(address);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_aligned_and_apart() {
        let slots: Vec<*mut u8> = std::iter::repeat_with(take_slot).take(100).collect();
        for (index, &slot) in slots.iter().enumerate() {
            assert!(!slot.is_null() && slot.addr().is_multiple_of(SLOT_BYTES));
            assert_eq!(slot_of(slot.wrapping_add(SLOT_BYTES - 1)), slot);
            assert!(!slots[..index].contains(&slot));
            // SAFETY: the slot is ours.
            unsafe { slot.write_bytes(1, SLOT_BYTES) };
        }
        slots.into_iter().for_each(give_slot);
    }
}
