//! Which frames of a stack scripts do not see: see `stock.rs`.

use std::ffi::{c_int, c_void};
use std::sync::OnceLock;

use mlua::ffi;

use super::stack::Stack;
use super::stock::{BUILT_IN, Kind, frame};

/// Where the code of a C function comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Origin {
    /// LuaJIT's functions that look for modules, of which `require` calls one after the other.
    Loader,
    Program,
    Module,
}

/// LuaJIT's functions in `package.loaders`.
static LOADERS: OnceLock<Vec<usize>> = OnceLock::new();

/// Remembers them: the table `package` is on top, as it was opened.
pub(super) fn note_loaders(lua: Stack<'_>) {
    lua.field(-1, c"loaders");
    if lua.kind(-1) == ffi::LUA_TTABLE {
        LOADERS.get_or_init(|| {
            let loaders = (1..).map_while(|at| {
                lua.push_integer(at);
                lua.raw_get(-2);
                let code = lua.c_function(-1);
                lua.pop();
                code.map(|code| code as usize)
            });
            loaders.collect()
        });
    }
    lua.pop();
}

/// The origin of the C function of this frame. There is room for it on the stack (`has_room`).
fn origin(of: Stack<'_>, level: c_int) -> Origin {
    if of.frame(level, c"f").is_none() {
        return Origin::Module;
    }
    let (number, code) = (of.function_number(-1), of.c_function(-1));
    of.pop();
    let Some(code) = code.filter(|_| number < BUILT_IN) else { return Origin::Program };
    if LOADERS.get().is_some_and(|loaders| loaders.contains(&(code as usize))) {
        return Origin::Loader;
    }
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
    let mut is_shown_by_stand_in = false;
    for _ in 0..C_FRAMES_MAX {
        match &here {
            Some(Kind::Beneath) => return true,
            Some(kind) if kind.is_ours() => {}
            Some(Kind::C) => match origin(of, level) {
                // Who loads a module shows who looks for it, as LuaJIT does.
                Origin::Loader => is_shown_by_stand_in |= level == first,
                Origin::Program => {}
                Origin::Module => return false,
            },
            _ => return false,
        }
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
