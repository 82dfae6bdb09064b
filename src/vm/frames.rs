//! Which frames of a stack scripts do not see: see `stock.rs`.

use std::ffi::{c_int, c_void};
use std::mem::MaybeUninit;

use mlua::ffi::{self, lua_State};

use super::stock::{BUILT_IN, Kind, NUMBER_OFFSET, frame};

/// Where the code of a C function comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Origin {
    /// LuaJIT's built-in functions, but for those of `package`.
    BuiltIn,
    Program,
    Module,
}

/// The origin of the C function of this frame.
unsafe fn origin(of: *mut lua_State, level: c_int) -> Origin {
    // SAFETY: a live state; the function is pushed onto its stack, where there is room for what is
    // shown of frames (`has_room`), and taken off again. `dladdr` fills what it is given.
    unsafe {
        let Some((mut found, _)) = frame(of, level) else { return Origin::Module };
        ffi::lua_getinfo(of, c"f".as_ptr(), &mut found);
        let number = ffi::lua_topointer(of, -1).cast::<u8>().add(NUMBER_OFFSET).read();
        let code = ffi::lua_tocfunction(of, -1);
        ffi::lua_settop(of, -2);
        let Some(code) = code.filter(|_| number < BUILT_IN) else { return Origin::BuiltIn };
        let image = |address: *const c_void| {
            let mut about = MaybeUninit::<libc::Dl_info>::zeroed();
            (libc::dladdr(address, about.as_mut_ptr()) != 0)
                .then(|| about.assume_init().dli_fbase as usize)
        };
        match image(code as *const c_void) == image(origin as *const c_void) {
            true => Origin::Program,
            false => Origin::Module,
        }
    }
}

/// Frames of C functions, each called by the next, that the library may lie behind. Recursion
/// through C makes thousands, and to find one costs as many steps as there are above it.
const C_FRAMES_MAX: usize = 16;

/// Whether scripts do not see this frame: it was called by the library's own.
pub(crate) unsafe fn is_hidden(of: *mut lua_State, level: c_int) -> bool {
    let (first, mut level) = (level, level);
    // SAFETY: the caller's.
    unsafe {
        let mut here = frame(of, level);
        for _ in 0..C_FRAMES_MAX {
            // Who loads a module shows the C code that it calls, as LuaJIT does; but not `error`.
            let is_shown_by_stand_in = match &here {
                Some((_, Kind::Beneath)) => return true,
                Some((_, kind)) if kind.is_ours() => false,
                Some((_, Kind::C)) => match origin(of, level) {
                    Origin::BuiltIn => false,
                    Origin::Program => true,
                    Origin::Module => return false,
                },
                _ => return false,
            };
            level += 1;
            here = frame(of, level);
            match &here {
                Some((_, Kind::Library)) => return true,
                // Only what it has called itself.
                Some((_, Kind::Beneath)) => return level == first + 1,
                Some((_, Kind::StandIn)) => return !is_shown_by_stand_in,
                Some((_, Kind::C)) => {}
                _ => return false,
            }
        }
    }
    false
}
