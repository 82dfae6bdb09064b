//! Whether this LuaJIT is the one whose structures [`layout`](super::layout) has.

use std::cell::Cell;
use std::ffi::{CStr, c_int, c_void};
use std::sync::OnceLock;

use mlua::ffi::{self, lua_Debug, lua_State};

use super::layout::*;
use super::state::State;

/// A bit of the compiler's state while it records or compiles.
const IS_COMPILING: u32 = 0x10;

/// Whether LuaJIT's structures are the known ones, found out at the first call. `None` if there
/// was no memory to do so. `allocate` is the allocator of states.
pub(crate) fn is_known(allocate: *const c_void) -> Option<bool> {
    static IS_KNOWN: OnceLock<bool> = OnceLock::new();
    if let Some(is_known) = IS_KNOWN.get() {
        return Some(*is_known);
    }
    let state = State::open()?;
    let mut look = Look { state: &state, allocate, found: false };
    let look_pointer: *mut Look<'_> = &mut look;
    // SAFETY: a state of our own; what is raised is caught, and what is looked for outlives it.
    let status = unsafe { ffi::lua_cpcall(state.as_ptr(), look_at_all, look_pointer.cast()) };
    if state.account().exceeded() {
        return None;
    }
    let is_known = status == ffi::LUA_OK && look.found;
    if !is_known {
        log::error!("this LuaJIT lays its objects out in a way that is not known");
    }
    Some(*IS_KNOWN.get_or_init(|| is_known))
}

struct Look<'a> {
    state: &'a State,
    allocate: *const c_void,
    found: bool,
}

/// Looks at everything, for [`is_known`]; follows a pointer only once it is known to be one.
unsafe extern "C-unwind" fn look_at_all(raw: *mut lua_State) -> c_int {
    // SAFETY: called by the VM with a pointer to a `Look`, in a new state, whose stack has slots
    // free.
    unsafe {
        let look = &mut *ffi::lua_touserdata(raw, 1).cast::<Look<'_>>();
        ffi::lua_settop(raw, 0);
        look.found = has_global(raw, look)
            && has_table(raw)
            && has_userdata(raw)
            && has_functions(raw)
            && has_prototypes(raw)
            && has_hooks(raw)
            && has_current(raw)
            && has_compiler(raw);
    }
    0
}

/// Whatever a state begins with is longer than [`Thread`], and what the third word points to is
/// compared with what begins the shared part before more is read.
unsafe fn has_global(raw: *mut lua_State, look: &Look<'_>) -> bool {
    // SAFETY: called by `look_at_all`.
    unsafe {
        let (thread, global, account) = (raw.cast::<Thread>(), global(raw), look.state.account());
        if (*global).allocate != look.allocate || (*global).user != (&raw const *account).cast() {
            return false;
        }
        ffi::lua_gc(raw, ffi::LUA_GCSTOP, 0);
        let stopped = (*global).threshold;
        ffi::lua_gc(raw, ffi::LUA_GCRESTART, 0);
        (*global).total == account.lua_bytes()
            && stopped > 1 << 40
            && (*global).threshold <= (*global).total
            && (*thread).top.offset_from((*thread).base) == ffi::lua_gettop(raw) as isize
    }
}

/// First sizes, which lie within the object in any case, and what pointers lead to only then.
unsafe fn has_table(raw: *mut lua_State) -> bool {
    // SAFETY: called by `look_at_all`; the table stays on the stack while it is read.
    unsafe {
        ffi::lua_createtable(raw, 2, 3);
        ffi::lua_pushnumber(raw, 2.5);
        ffi::lua_rawseti(raw, -2, 1);
        ffi::lua_pushboolean(raw, 1);
        ffi::lua_rawseti(raw, -2, 2);
        ffi::lua_pushlstring(raw, c"key".as_ptr(), 3);
        ffi::lua_createtable(raw, 0, 0);
        let inner = ffi::lua_topointer(raw, -1);
        let is_root = (*global(raw)).root == inner as u64;
        ffi::lua_rawset(raw, -3);
        let table = &*object::<Table>(raw, -1);
        if !is_root || (table.array_len, table.mask) != (3, 3) {
            return false;
        }
        let array = std::slice::from_raw_parts(table.array, 3);
        let nodes = std::slice::from_raw_parts(table.nodes, 4);
        let mut entries = nodes.iter().filter(|node| node.value != NIL);
        let entry = entries.next().filter(|_| entries.next().is_none());
        let is_pair = entry.is_some_and(|node| {
            tag(node.key) == STRING
                && text(node.key) == b"key"
                && node.value == reference(TABLE, inner)
        });
        let has_free = (table.nodes..=table.nodes.add(4)).contains(&table.free);
        array[0] == NIL
            && array[1] == 2.5f64.to_bits()
            && tag(array[2]) == TRUE
            && is_pair
            && has_free
    }
}

/// With the table that [`has_table`] has left on the stack as metatable.
unsafe fn has_userdata(raw: *mut lua_State) -> bool {
    // SAFETY: called by `look_at_all`.
    unsafe {
        let (thread, global, place) =
            (raw.cast::<Thread>(), global(raw), (*raw.cast::<Thread>()).top);
        let content = ffi::lua_newuserdata(raw, 20).cast::<u8>();
        let userdata = content.sub(size_of::<Userdata>()).cast::<Userdata>();
        ffi::lua_pushvalue(raw, -2);
        let before = (*userdata).metatable;
        ffi::lua_setmetatable(raw, -2);
        ffi::lua_getfenv(raw, -1);
        let is_known = place < (*thread).top
            && place.read() == reference(USERDATA, userdata.cast())
            && ((*userdata).kind, (*userdata).length) == (KIND_USERDATA, 20)
            && (*userdata).marked == (*global).white & WHITES
            && (before, (*userdata).metatable) == (0, ffi::lua_topointer(raw, -3) as u64)
            && (*userdata).environment == ffi::lua_topointer(raw, -1) as u64;
        ffi::lua_settop(raw, 0);
        is_known && (*thread).top == (*thread).base
    }
}

/// One of the VM's own functions, and one of others.
unsafe fn has_functions(raw: *mut lua_State) -> bool {
    // SAFETY: called by `look_at_all`; a function object is as large as what is looked at.
    unsafe {
        ffi::lua_getglobal(raw, c"print".as_ptr());
        ffi::lua_pushcfunction(raw, look_at_all);
        let is_one = |index| {
            let object = object::<Function>(raw, index);
            (*object).kind == KIND_FUNCTION
                && ffi::lua_tocfunction(raw, index).map(|function| function as usize)
                    == Some((*object).function as usize)
        };
        let (own, other) = (object::<Function>(raw, 1), object::<Function>(raw, 2));
        let is_known = is_one(1) && is_one(2) && (*own).number > NUMBER_C;
        let is_known = is_known && (*other).number == NUMBER_C;
        ffi::lua_settop(raw, 0);
        is_known
    }
}

/// A function in a function, with lines and a name.
unsafe fn has_prototypes(raw: *mut lua_State) -> bool {
    const TEXT: &CStr = c"local a\n\nreturn function()\n\n return a end";
    // SAFETY: called by `look_at_all`.
    unsafe {
        load(raw, TEXT);
        let outer = prototype(raw, -1);
        let has_one = (*outer).kind == KIND_PROTOTYPE && (*outer).objects == 1;
        let is_known = has_one
            && inner(outer).all(|inner| {
                ((*inner).instructions, (*inner).upvalues) == (3, 1)
                    && ((*inner).first_line, (*inner).lines) == (3, 2)
                    && (*inner).name == (*outer).name
                    && (*inner).line_table.addr() + 2 == (*inner).upvalue_names.addr()
            });
        ffi::lua_settop(raw, 0);
        is_known
    }
}

/// Pushes the function of a text; raises if there is no memory for it.
unsafe fn load(raw: *mut lua_State, text: &CStr) {
    // SAFETY: called by functions of `look_at_all`, with slots free.
    unsafe {
        if ffi::luaL_loadstring(raw, text.as_ptr()) != ffi::LUA_OK {
            ffi::lua_error(raw);
        }
    }
}

unsafe fn has_hooks(raw: *mut lua_State) -> bool {
    /// A hook that does nothing, of which only the address matters.
    unsafe extern "C-unwind" fn nothing(_raw: *mut lua_State, _activation: *mut lua_Debug) {}
    // SAFETY: called by `look_at_all`: no instruction of a script runs meanwhile.
    unsafe {
        let global = global(raw);
        let is_known = [(ffi::LUA_MASKCOUNT, 77), (ffi::LUA_MASKCOUNT, 0x1234_5678)]
            .into_iter()
            .chain([(ffi::LUA_MASKLINE, 1), (ffi::LUA_MASKCALL | ffi::LUA_MASKRET, 3)])
            .all(|(mask, count)| {
                ffi::lua_sethook(raw, Some(nothing), mask, count);
                c_int::from((*global).hook_mask) == mask
                    && ((*global).hook_count, (*global).hook_start) == (count, count)
                    && (*global)
                        .hook
                        .is_some_and(|hook| hook as usize == nothing as *const () as usize)
            });
        ffi::lua_sethook(raw, None, 0, 0);
        is_known && (*global).hook_mask == 0
    }
}

unsafe fn has_current(raw: *mut lua_State) -> bool {
    /// Pushes whether the coroutine that runs is this one.
    unsafe extern "C-unwind" fn look(raw: *mut lua_State) -> c_int {
        // SAFETY: called by the VM; `has_global` has found the shared part.
        unsafe { ffi::lua_pushboolean(raw, c_int::from((*global(raw)).current == raw)) };
        1
    }
    // SAFETY: called by `look_at_all`.
    unsafe {
        let is_current = (*global(raw)).current == raw;
        let thread = ffi::lua_newthread(raw);
        ffi::lua_pushcfunction(thread, look);
        let status = ffi::lua_resume_(thread, 0);
        let was_current = status == ffi::LUA_OK && ffi::lua_toboolean(thread, -1) != 0;
        ffi::lua_settop(raw, 0);
        is_current && was_current
    }
}

thread_local! {
    /// Events that the compiler has told of, and those at which it was not at work.
    static EVENTS: Cell<(usize, usize)> = const { Cell::new((0, 0)) };
}

/// Has traces compiled, one of which is given up, and looks what the compiler does before, at every
/// event of them, and afterwards.
unsafe fn has_compiler(raw: *mut lua_State) -> bool {
    const LOOP: &CStr = c"local tell = ...
        jit.on()
        jit.attach(tell, 'trace')
        local x = 0
        for i = 1, 200 do x = x + i end
        for i = 1, 200 do x = x + #string.rep('x', i) local f = function() end end
        jit.attach(tell)";
    unsafe extern "C-unwind" fn tell(raw: *mut lua_State) -> c_int {
        // SAFETY: called by the VM, in a coroutine of the state that is looked at.
        let state = unsafe { (*global(raw)).compiler_state };
        let is_busy = (IS_COMPILING..2 * IS_COMPILING).contains(&state);
        let (events, others) = EVENTS.get();
        EVENTS.set((events + 1, others + usize::from(!is_busy)));
        0
    }
    EVENTS.set((0, 0));
    // SAFETY: called by `look_at_all`. What `jit.on` raises where there is no compiler is caught.
    unsafe {
        let before = (*global(raw)).compiler_state;
        load(raw, LOOP);
        ffi::lua_pushcfunction(raw, tell);
        let status = ffi::lua_pcall(raw, 1, 0, 0);
        let (events, others) = EVENTS.get();
        (before, status, others) == (0, ffi::LUA_OK, 0)
            && events > 3
            && (*global(raw)).compiler_state == 0
    }
}
