//! How errors leave compiled code.
//!
//! LuaJIT tells the unwinder of each area of machine code that a state has. That of GCC, before
//! version 13, keeps these in a list, which it searches, locked, for each frame of each error and
//! each trace that is given up: ten thousand states with compiled code make both a thousand times
//! dearer. So the linker puts these functions in the place of the two that LuaJIT calls (build.rs),
//! and the unwinder is told once of all addresses where such areas can be: around the code of the
//! VM, which they must reach with short jumps, and where nothing else is.
//!
//! An area that is elsewhere is registered by itself, as ever.
//!
//! A panic that gets to a frame of the VM is caught there like an error, and taken for one of C++,
//! which Rust answers by aborting the process: [`__wrap__Unwind_DeleteException`].

use std::any::Any;
use std::ffi::{c_int, c_void};
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::OnceLock;

/// How far from the VM's code its areas are at most.
const REACH: usize = 1 << 31;

/// Bytes of what the unwinder keeps about each registration: more than any version needs.
const OBJECT_WORDS: usize = 16;

/// The common part of LuaJIT's own description of an area, up to where the handler's address is.
const HEAD: [u8; 18] = [0x1c, 0, 0, 0, 0, 0, 0, 0, 1, b'z', b'P', b'R', 0, 1, 0x78, 16, 10, 0];
const COMMON_BYTES: usize = 32;
/// Where it says how addresses are written; LuaJIT's are relative, ours are not.
const ENCODING_AT: usize = 26;
const ENCODING_RELATIVE: u8 = 0x1b;
const ENCODING_ABSOLUTE: u8 = 0;

unsafe extern "C" {
    static __executable_start: u8;
    static _end: u8;
    fn __register_frame_info(begin: *const c_void, object: *mut c_void);
    fn __deregister_frame_info(begin: *const c_void) -> *mut c_void;
}

/// What of the address space is told of at once; none if something else is there.
static SPANS: OnceLock<Option<[Range<usize>; 2]>> = OnceLock::new();

/// The addresses within reach, before and behind the executable.
fn spans() -> [Range<usize>; 2] {
    // The linker's marks of where the executable is: only their addresses mean anything.
    let (start, end) = ((&raw const __executable_start) as usize, (&raw const _end) as usize);
    [start.saturating_sub(REACH)..start, end..end.saturating_add(REACH)]
}

/// Whether the system's loader has put a library there.
fn has_libraries(spans: &[Range<usize>; 2]) -> bool {
    struct Search<'a>(&'a [Range<usize>; 2], bool);
    unsafe extern "C" fn look(
        info: *mut libc::dl_phdr_info,
        _size: usize,
        search: *mut c_void,
    ) -> c_int {
        // SAFETY: the loader's record, and what `has_libraries` has passed.
        let (info, search) = unsafe { (&*info, &mut *search.cast::<Search<'_>>()) };
        for index in 0..info.dlpi_phnum {
            // SAFETY: there are this many headers.
            let header = unsafe { &*info.dlpi_phdr.add(usize::from(index)) };
            let start = (info.dlpi_addr as usize).wrapping_add(header.p_vaddr as usize);
            let end = start.saturating_add(header.p_memsz as usize);
            let is_code = header.p_type == libc::PT_LOAD && header.p_flags & libc::PF_X != 0;
            search.1 |= is_code && search.0.iter().any(|span| start < span.end && end > span.start);
        }
        0
    }
    let mut search = Search(spans, false);
    // SAFETY: the callback gets what it expects, and keeps nothing.
    unsafe { libc::dl_iterate_phdr(Some(look), (&raw mut search).cast()) };
    search.1
}

/// A description of one span, for as long as the process lives: LuaJIT's common part, one entry
/// with the span's addresses, and the end.
fn describe(common: &[u8; COMMON_BYTES], span: &Range<usize>) -> &'static [u64] {
    let mut bytes = common.to_vec();
    bytes[ENCODING_AT] = ENCODING_ABSOLUTE;
    bytes.extend(28u32.to_ne_bytes());
    // From here back to the common part.
    bytes.extend((COMMON_BYTES as u32 + 4).to_ne_bytes());
    bytes.extend(span.start.to_ne_bytes());
    bytes.extend(span.len().to_ne_bytes());
    bytes.extend([0; 16]);
    let words =
        bytes.chunks_exact(8).map(|word| u64::from_ne_bytes(word.try_into().unwrap_or([0; 8])));
    words.collect::<Vec<u64>>().leak()
}

/// Registers one description.
///
/// # Safety
/// `begin` must be well-formed, and live until it is deregistered.
unsafe fn register(begin: *const c_void) {
    let object = Box::leak(Box::new([0u64; OBJECT_WORDS]));
    // SAFETY: the description is LuaJIT's; the object belongs to the unwinder from now on.
    unsafe { __register_frame_info(begin, object.as_mut_ptr().cast()) };
}

/// Tells of all addresses, with the handler of this description; none if it is not known.
///
/// # Safety
/// As for [`__wrap___register_frame`].
unsafe fn register_spans(frame: *const u8) -> Option<[Range<usize>; 2]> {
    // SAFETY: every description begins with a common part.
    let common = unsafe { &*frame.cast::<[u8; COMMON_BYTES]>() };
    let spans = spans();
    let is_known = common.starts_with(&HEAD) && common[ENCODING_AT] == ENCODING_RELATIVE;
    if !is_known || has_libraries(&spans) {
        return None;
    }
    for span in &spans {
        // SAFETY: it lives for ever.
        unsafe { register(describe(common, span).as_ptr().cast()) };
    }
    Some(spans)
}

fn covers(spans: Option<&[Range<usize>; 2]>, frame: *const u8) -> bool {
    spans.is_some_and(|spans| spans.iter().any(|span| span.contains(&(frame as usize))))
}

/// What LuaJIT calls in place of `__register_frame`, with the description at the start of an area.
///
/// # Safety
/// The description must be LuaJIT's, and live until it is deregistered.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn __wrap___register_frame(frame: *const u8) {
    // SAFETY: LuaJIT describes an area of its own, which lives until it is deregistered.
    let spans = SPANS.get_or_init(|| unsafe { register_spans(frame) });
    if !covers(spans.as_ref(), frame) {
        // SAFETY: LuaJIT deregisters the description before it frees it; no span has it yet.
        unsafe { register(frame.cast()) };
    }
}

/// What it calls in place of `__deregister_frame`.
///
/// # Safety
/// The description must have been registered.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn __wrap___deregister_frame(frame: *const u8) {
    if covers(SPANS.get().and_then(Option::as_ref), frame) {
        return;
    }
    // SAFETY: the description was registered, by `register` or as part of a span.
    let object = unsafe { __deregister_frame_info(frame.cast()) };
    if !object.is_null() {
        // SAFETY: from `register`.
        drop(unsafe { Box::from_raw(object.cast::<[u64; OBJECT_WORDS]>()) });
    }
}

/// What all exceptions begin with.
#[repr(C)]
#[derive(Debug)]
pub struct Exception {
    class: u64,
    cleanup: Option<extern "C" fn(c_int, *mut Exception)>,
}

/// The class of Rust's, and what whoever deletes one of another language is to say.
const RUST: [u8; 8] = *b"MOZ\0RUST";
const FOREIGN_EXCEPTION_CAUGHT: c_int = 1;

unsafe extern "C-unwind" {
    fn _Unwind_RaiseException(exception: *mut Exception) -> c_int;
}

/// What is told of a panic that has got to the VM's frames.
static ON_PANIC: OnceLock<fn(Box<dyn Any + Send>)> = OnceLock::new();

/// Has `tell` called with a panic that the VM has caught; it must not raise.
pub(crate) fn on_panic(tell: fn(Box<dyn Any + Send>)) {
    let _ = ON_PANIC.set(tell);
}

/// What LuaJIT calls, in place of `_Unwind_DeleteException`, once it has caught what is not its
/// own: a panic is caught by Rust, which alone can, and told of; the VM goes on with an error.
///
/// # Safety
/// As for that function: the exception was caught, and nobody uses it any more.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn __wrap__Unwind_DeleteException(exception: *mut Exception) {
    // SAFETY: all exceptions begin like this.
    let Exception { class, cleanup } = unsafe { &*exception };
    // Which end comes first has changed.
    if class.to_be_bytes() != RUST && class.to_le_bytes() != RUST {
        if let Some(cleanup) = cleanup {
            cleanup(FOREIGN_EXCEPTION_CAUGHT, exception);
        }
        return;
    }
    // SAFETY: who has caught it has no use for it: it can be raised once more.
    let raise = || unsafe { _Unwind_RaiseException(exception) };
    if let (Err(panic), Some(tell)) = (catch_unwind(AssertUnwindSafe(raise)), ON_PANIC.get()) {
        tell(panic);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn spans_surround_the_executable_and_no_library() {
        let spans = spans();
        let here = spans_surround_the_executable_and_no_library as *const () as usize;
        assert!(spans[0].end <= here && here < spans[1].start);
        let words = describe(&[7; COMMON_BYTES], &spans[0]);
        assert_eq!(words[5..7], [spans[0].start as u64, spans[0].len() as u64]);
        assert_eq!(words.len(), 9);
        assert!(has_libraries(&[0..usize::MAX, 0..1]));
    }
}
