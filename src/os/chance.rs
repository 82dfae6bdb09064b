//! Random numbers, and where the process lies in memory.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::LazyLock;

/// Has the programs that this process executes find their code, stacks and heaps at the same
/// addresses each time. False if that is so already, or cannot be had.
pub fn fix_addresses() -> bool {
    const NO_CHANGE: libc::c_ulong = 0xffff_ffff;
    // SAFETY: asks, and sets, a flag of the process.
    unsafe {
        let now = libc::personality(NO_CHANGE);
        let fixed = now | libc::ADDR_NO_RANDOMIZE;
        now >= 0 && now != fixed && libc::personality(fixed as libc::c_ulong) >= 0
    }
}

/// Numbers from the system, for seeding.
pub(crate) fn random_words() -> Option<[u64; 4]> {
    let mut words = [0u64; 4];
    let length = size_of_val(&words);
    // SAFETY: room for that many bytes; any content is a valid number.
    let count = unsafe { libc::getrandom(words.as_mut_ptr().cast(), length, 0) };
    (count == length as isize).then_some(words)
}

/// A keyed hash: SipHash, with a key of this process from the system.
pub(crate) fn secret(which: (u64, u64)) -> u64 {
    static KEY: LazyLock<RandomState> = LazyLock::new(RandomState::new);
    // All bytes at once: it is faster than one number after the other.
    let mut hasher = KEY.build_hasher();
    hasher.write(&((u128::from(which.0) << 64) | u128::from(which.1)).to_ne_bytes());
    hasher.finish()
}
