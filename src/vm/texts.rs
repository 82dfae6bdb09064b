//! Strings of the VM, found and made where it keeps them. It has each only once: most that are read
//! are there already, and of the others finding that out is half of the work.

use std::ffi::c_char;

use mlua::ffi::lua_State;

use super::layout::{self, KIND_TEXT, STRING, Slot, Text, WHITES, reference};
use super::stack::Stack;
use super::tables::take;

unsafe extern "C-unwind" {
    /// LuaJIT's: the string with these bytes. Raises if there is no memory; runs no finalisers.
    fn lj_str_new(raw: *mut lua_State, bytes: *const c_char, len: usize) -> *const Text;
}

/// Longer ones are LuaJIT's affair.
const SHORT_MAX: usize = 16;

/// The longest chain that LuaJIT leaves as it is.
const CHAIN_MAX: u32 = 32;

/// A short text. Its bytes are compared all at once, whatever its length is: a processor cannot
/// guess that.
#[derive(Clone, Copy)]
struct Short<'t> {
    bytes: &'t [u8],
    /// Its bytes are the last, which are the highest; those before them are anything.
    window: u128,
}

impl<'t> Short<'t> {
    /// `from` is what the bytes are likely a part of.
    #[inline(always)]
    fn new(bytes: &'t [u8], from: &[u8]) -> Option<Short<'t>> {
        let len = bytes.len();
        if len == 0 || len > SHORT_MAX {
            return None;
        }
        let start = bytes.as_ptr().addr().wrapping_sub(from.as_ptr().addr());
        let end = start.wrapping_add(len);
        let sixteen = |start: usize| from.get(start..)?.first_chunk::<SHORT_MAX>();
        let window = if let Some(window) = end.checked_sub(SHORT_MAX).and_then(sixteen) {
            u128::from_le_bytes(*window)
        } else if let Some(window) = sixteen(start) {
            u128::from_le_bytes(*window) << (8 * (SHORT_MAX - len))
        } else {
            let mut window = [0; SHORT_MAX];
            window[SHORT_MAX - len..].copy_from_slice(bytes);
            u128::from_le_bytes(window)
        };
        Some(Short { bytes, window })
    }

    /// The bytes alone, the first the lowest, of a window with as many.
    #[inline(always)]
    fn number(self, window: u128) -> u128 {
        window >> (8 * (SHORT_MAX - self.bytes.len()))
    }

    /// LuaJIT's hash.
    #[inline(always)]
    fn hash(self, seed: u64) -> u32 {
        let (bytes, len) = (self.bytes, self.bytes.len());
        let four =
            |at: usize| bytes[at..].first_chunk().map_or(0, |four| u32::from_le_bytes(*four));
        let [first, last, middle, more] = match len >= 4 {
            true => [four(0), four(len - 4), four(len / 2 - 2), four(len / 4 - 1)],
            false => [bytes[0], bytes[len - 1], bytes[len / 2], 0].map(u32::from),
        };
        let hash = len as u32 ^ seed as u32 ^ last ^ middle;
        let hash = hash.wrapping_sub(middle.rotate_left(14));
        let a = (first ^ hash).wrapping_sub(hash.rotate_left(11));
        let b = (middle.wrapping_add(more) ^ a).wrapping_sub(a.rotate_left(25));
        (hash ^ b).wrapping_sub(b.rotate_left(16))
    }

    /// The string itself, if the state has it. `Err`: with its hash, if it has none, and may be
    /// given one here.
    #[inline(always)]
    fn find(self, lua: Stack<'_>) -> Result<Slot, Option<u32>> {
        // SAFETY: a running state, in which nothing runs meanwhile: chains consist of strings, each
        // followed by its bytes, before the last of which are sixteen of the object.
        unsafe {
            let global = layout::global(lua.raw());
            let texts = &(*global).texts;
            let hash = self.hash(texts.seed);
            let mut next = texts.chains.add((hash & texts.mask) as usize).read();
            // Only the first of a chain has the mark of one that is looked through otherwise.
            if next & 1 != 0 {
                return Err(None);
            }
            for _ in 0..=CHAIN_MAX {
                let text = next as *mut Text;
                if text.is_null() {
                    let may_make = texts.count <= texts.mask && texts.ids_left > 0;
                    return Err(may_make.then_some(hash));
                }
                if (*text).hash == hash && (*text).len as usize == self.bytes.len() {
                    let end = text.cast::<u8>().add(size_of::<Text>() + self.bytes.len());
                    let window = end.sub(SHORT_MAX).cast::<[u8; SHORT_MAX]>().read();
                    if self.number(u128::from_le_bytes(window) ^ self.window) == 0 {
                        // What was to be freed lives on.
                        if (*text).marked & WHITES & !(*global).white != 0 {
                            (*text).marked ^= WHITES;
                        }
                        return Ok(reference(STRING, text.cast()));
                    }
                }
                next = (*text).next;
            }
        }
        Err(None)
    }

    /// Makes the string, which the state does not have.
    #[inline(never)]
    fn make(self, lua: Stack<'_>, hash: u32) -> Slot {
        let mut bytes = [0; SHORT_MAX + 4];
        bytes[..SHORT_MAX].copy_from_slice(&self.number(self.window).to_le_bytes());
        // With at least one zero behind.
        let len = (self.bytes.len() + 4) & !3;
        // SAFETY: a running state, which gives as much memory as its own strings have, or raises;
        // the string is whole when it is put into its chain, and nothing was made meanwhile.
        unsafe {
            let text = take(lua.raw(), size_of::<Text>() + len).cast::<Text>();
            let global = layout::global(lua.raw());
            let texts = &mut (*global).texts;
            let chain = texts.chains.add((hash & texts.mask) as usize);
            text.write(Text {
                next: chain.read(),
                marked: (*global).white & WHITES,
                kind: KIND_TEXT,
                flags: [0; 2],
                id: texts.id,
                hash,
                len: self.bytes.len() as u32,
            });
            text.add(1).cast::<u8>().copy_from_nonoverlapping(bytes.as_ptr(), len);
            chain.write(text as u64);
            texts.id = texts.id.wrapping_add(1);
            texts.ids_left -= 1;
            texts.count += 1;
            reference(STRING, text.cast())
        }
    }
}

/// The string with these bytes, which are likely a part of `from`: nothing but the stack or a table
/// keeps it alive. May raise if there is no memory; runs no finalisers.
#[inline]
pub(crate) fn text(lua: Stack<'_>, bytes: &[u8], from: &[u8]) -> Slot {
    if let Some(short) = Short::new(bytes, from) {
        match short.find(lua) {
            Ok(text) => return text,
            Err(Some(hash)) => return short.make(lua, hash),
            Err(None) => {}
        }
    }
    new(lua, bytes)
}

/// The same by LuaJIT.
#[inline(never)]
fn new(lua: Stack<'_>, bytes: &[u8]) -> Slot {
    // SAFETY: a running state; the bytes are copied.
    let text = unsafe { lj_str_new(lua.raw(), bytes.as_ptr().cast(), bytes.len()) };
    reference(STRING, text.cast())
}

/// Whether the state has this string where it is looked for.
pub(crate) fn is_found(lua: Stack<'_>, text: Slot, bytes: &[u8]) -> bool {
    Short::new(bytes, bytes).is_none_or(|short| short.find(lua) == Ok(text))
}

/// Whether two texts of the same length are the same, without a call: few bytes, as they are here.
#[inline]
pub(crate) fn is_same(a: &[u8], b: &[u8]) -> bool {
    if let (Some(a_last), Some(b_last)) = (a.last_chunk::<8>(), b.last_chunk::<8>()) {
        let mut eights = a.chunks_exact(8).zip(b.chunks_exact(8));
        return a_last == b_last && eights.all(|(a, b)| a == b);
    }
    if let (Some(a_first), Some(b_first)) = (a.first_chunk::<4>(), b.first_chunk::<4>()) {
        return a_first == b_first && a.last_chunk::<4>() == b.last_chunk::<4>();
    }
    a.iter().zip(b).all(|(a, b)| a == b)
}
