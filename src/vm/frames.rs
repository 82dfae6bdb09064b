//! Which frames of a stack scripts do not see: see `stock.rs`.

use std::ffi::{c_int, c_void};

use super::stack::Stack;
use super::stock::{BUILT_IN, Kind, frame};

/// Where the code of a C function comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Origin {
    /// LuaJIT's built-in functions, but for those of `package`.
    BuiltIn,
    Program,
    Module,
}

/// The origin of the C function of this frame. There is room for it on the stack (`has_room`).
fn origin(of: Stack<'_>, level: c_int) -> Origin {
    if of.frame(level, c"f").is_none() {
        return Origin::Module;
    }
    let (number, code) = (of.function_number(-1), of.c_function(-1));
    of.pop();
    let Some(code) = code.filter(|_| number < BUILT_IN) else { return Origin::BuiltIn };
    let image = |address: *const c_void| {
        // SAFETY: all zeros are a valid record, which is filled.
        unsafe {
            let mut about = std::mem::zeroed::<libc::Dl_info>();
            (libc::dladdr(address, &mut about) != 0).then_some(about.dli_fbase as usize)
        }
    };
    match image(code as *const c_void) == image(origin as *const c_void) {
        true => Origin::Program,
        false => Origin::Module,
    }
}

/// Frames of C functions, each called by the next, that the library may lie behind. Recursion
/// through C makes thousands, and to find one costs as many steps as there are above it.
const C_FRAMES_MAX: usize = 16;

/// Whether scripts do not see this frame: it was called by the library's own.
pub(crate) fn is_hidden(of: Stack<'_>, level: c_int) -> bool {
    let (first, mut level) = (level, level);
    let mut here = frame(of, level);
    for _ in 0..C_FRAMES_MAX {
        // Who loads a module shows the C code that it calls, as LuaJIT does; but not `error`.
        let is_shown_by_stand_in = match &here {
            Some(Kind::Beneath) => return true,
            Some(kind) if kind.is_ours() => false,
            Some(Kind::C) => match origin(of, level) {
                Origin::BuiltIn => false,
                Origin::Program => true,
                Origin::Module => return false,
            },
            _ => return false,
        };
        level += 1;
        here = frame(of, level);
        match &here {
            Some(Kind::Library) => return true,
            // Only what it has called itself.
            Some(Kind::Beneath) => return level == first + 1,
            Some(Kind::StandIn) => return !is_shown_by_stand_in,
            Some(Kind::C) => {}
            _ => return false,
        }
    }
    false
}
