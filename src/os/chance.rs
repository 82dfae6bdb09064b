//! Random numbers, and where the process lies in memory.

use std::ffi::{c_int, c_ulong};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::LazyLock;

use rustix::rand::{GetRandomFlags, getrandom};

/// Has the programs that this process executes find their code, stacks and heaps at the same
/// addresses each time. False if that is so already, or cannot be had.
pub fn fix_addresses() -> bool {
    const NO_CHANGE: c_ulong = 0xffff_ffff;
    // SAFETY: asks for, and sets, flags of the process.
    unsafe extern "C" {
        safe fn personality(flags: c_ulong) -> c_int;
    }
    let now = personality(NO_CHANGE);
    let fixed = now | libc::ADDR_NO_RANDOMIZE;
    now >= 0 && now != fixed && personality(fixed as c_ulong) >= 0
}

/// Numbers from the system, for seeding.
pub(crate) fn random_words() -> Option<[u64; 4]> {
    let mut bytes = [0; 32];
    let count = getrandom(&mut bytes, GetRandomFlags::empty()).ok()?;
    let (words, _) = bytes.as_chunks();
    (count == bytes.len()).then(|| std::array::from_fn(|at| u64::from_ne_bytes(words[at])))
}

/// A keyed hash: SipHash, with a key of this process from the system.
pub(crate) fn secret(which: (u64, u64)) -> u64 {
    static KEY: LazyLock<RandomState> = LazyLock::new(RandomState::new);
    // All bytes at once: it is faster than one number after the other.
    let mut hasher = KEY.build_hasher();
    hasher.write(&((u128::from(which.0) << 64) | u128::from(which.1)).to_ne_bytes());
    hasher.finish()
}
