//! Whether this LuaJIT is the one whose structures [`layout`](super::layout) has.

use std::cell::Cell;
use std::ffi::{CStr, c_int, c_void};
use std::sync::OnceLock;

use mlua::ffi::{self, lua_Debug, lua_State};

use super::layout::*;
use super::stack::{Stack, function};
use super::state::State;
use super::{line_hook, texts};

/// A bit of the compiler's state while it records or compiles.
const IS_COMPILING: u32 = 0x10;

/// Whether LuaJIT's structures are the known ones, found out at the first call. `None` if there
/// was no memory to do so. `allocate` is the allocator of states.
pub(crate) fn is_known(allocate: *const c_void) -> Option<bool> {
    static IS_KNOWN: OnceLock<bool> = OnceLock::new();
    if let Some(is_known) = IS_KNOWN.get() {
        return Some(*is_known);
    }
    let state = State::unknown()?;
    let mut found = false;
    let result = state.protect(|lua| {
        // A pointer is followed only once it is known to be one.
        found = has_global(lua, allocate)
            && has_table(lua)
            && has_texts(lua)
            && has_userdata(lua)
            && has_functions(lua)
            && has_prototypes(lua)
            && has_hooks(lua)
            && has_current(lua)
            && has_compiler(lua);
    });
    if state.account().exceeded() {
        return None;
    }
    let is_known = result.is_ok() && found;
    if !is_known {
        log::error!("this LuaJIT lays its objects out in a way that is not known");
    }
    Some(*IS_KNOWN.get_or_init(|| is_known))
}

/// Whatever a state begins with is longer than [`Thread`], and what the third word points to is
/// compared with what begins the shared part before more is read.
fn has_global(lua: Stack<'_>, allocate: *const c_void) -> bool {
    let (raw, account) = (lua.raw(), lua.account());
    // SAFETY: a new state with slots free.
    unsafe {
        let (thread, global) = (raw.cast::<Thread>(), global(raw));
        if (*global).allocate != allocate || (*global).user != (&raw const *account).cast() {
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
fn has_table(lua: Stack<'_>) -> bool {
    let raw = lua.raw();
    // SAFETY: a new state with slots free; the table stays on the stack while it is read.
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

/// Strings of some lengths, found as LuaJIT finds them; and where the stack ends.
fn has_texts(lua: Stack<'_>) -> bool {
    const LETTERS: &[u8] = b"a text of which there is no other, nor of its parts";
    let raw = lua.raw();
    // SAFETY: a new state with slots free, whose shared part is known; what is at this place of it
    // is a count of chains, and as many chains, only if that is so.
    unsafe {
        let thread = &*raw.cast::<Thread>();
        let texts = &(*global(raw)).texts;
        if !(texts.mask as usize + 1).is_power_of_two() || texts.chains.is_null() {
            return false;
        }
        let has_end = thread.end > thread.top && thread.end < thread.top.add(1000);
        has_end
            && [(0, 0), (1, 0), (0, 1), (15, 3), (16, 4), (0, 5)].into_iter().all(|(list, keys)| {
                lua.push_table(list, keys);
                let (is, own) = (&*object::<Table>(raw, -1), &*Table::make(raw, list, keys));
                let is_same = own.array().len() == is.array().len()
                    && (own.kind, own.absent, own.inside) == (is.kind, is.absent, is.inside)
                    && (own.marked, own.metatable, own.mask) == (is.marked, 0, is.mask)
                    && own.array.is_null() == is.array.is_null()
                    && (own.mask > 0 || own.nodes == is.nodes && own.free == is.free)
                    && own.nodes.addr().abs_diff(own.free.addr())
                        == is.nodes.addr().abs_diff(is.free.addr());
                lua.pop();
                is_same
            })
            && (1..20).all(|len| {
                // One of LuaJIT's is found; and LuaJIT finds what is made here.
                lua.push_text(&LETTERS[..len]);
                let is_known = texts::is_found(
                    lua,
                    (*raw.cast::<Thread>()).top.sub(1).read(),
                    &LETTERS[..len],
                );
                let new =
                    if is_known { texts::text(lua, &LETTERS[len..2 * len], LETTERS) } else { NIL };
                lua.push_text(&LETTERS[len..2 * len]);
                let is_same = new == (*raw.cast::<Thread>()).top.sub(1).read();
                lua.set_top(-3);
                is_same
            })
    }
}

/// With the table that [`has_table`] has left on the stack as metatable.
fn has_userdata(lua: Stack<'_>) -> bool {
    let raw = lua.raw();
    // SAFETY: a new state with slots free.
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
fn has_functions(lua: Stack<'_>) -> bool {
    fn nothing(_lua: Stack<'_>) -> c_int {
        0
    }
    lua.push_global(c"print");
    lua.push_function(function(nothing));
    let number = |index| {
        // SAFETY: a function in C is there, whose object is as large as what is looked at.
        let object = unsafe { &*object::<Function>(lua.raw(), index) };
        let code = lua.c_function(index).map(|function| function as usize);
        let is_one = object.kind == KIND_FUNCTION && code == Some(object.function as usize);
        is_one.then_some(object.number)
    };
    let is_known = number(1).is_some_and(|number| number > NUMBER_C) && number(2) == Some(NUMBER_C);
    lua.set_top(0);
    is_known && has_print(lua)
}

/// What `print` and `io.write` look at: globals, metatables of types, a name, a file.
fn has_print(lua: Stack<'_>) -> bool {
    let raw = lua.raw();
    // SAFETY: a new state with slots free, whose shared part is known. `print` has one value, a
    // string, and `io.stdout` is a userdata.
    unsafe {
        ffi::lua_getglobal(raw, c"print".as_ptr());
        let name = (*object::<Function>(raw, -1)).upvalue;
        ffi::lua_getglobal(raw, c"io".as_ptr());
        ffi::lua_getfield(raw, -1, c"stdout".as_ptr());
        let file = ffi::lua_touserdata(raw, -1).cast::<Userdata>().sub(1);
        ffi::lua_pushlstring(raw, c"".as_ptr(), 0);
        let has_metatable = ffi::lua_getmetatable(raw, -1) != 0;
        let metatables = (*global(raw)).metatables;
        let of_strings = ffi::lua_topointer(raw, -1) as u64;
        let is_known = tag(name) == STRING
            && text(name) == b"tostring"
            && (*global(raw)).output == file
            && ((*file).kind, (*file).subkind) == (KIND_USERDATA, SUBKIND_FILE)
            && has_metatable
            && metatables[!STRING as usize] == of_strings
            && metatables.iter().filter(|&&table| table != 0).count() == 1
            && (*raw.cast::<Thread>()).environment.cast_const().cast()
                == ffi::lua_topointer(raw, ffi::LUA_GLOBALSINDEX);
        ffi::lua_settop(raw, 0);
        is_known
    }
}

/// A function in a function, with lines and a name.
fn has_prototypes(lua: Stack<'_>) -> bool {
    let raw = lua.raw();
    const TEXT: &CStr = c"local a\n\nreturn function()\n\n return a end";
    // SAFETY: a new state with slots free.
    unsafe {
        lua.load_or_raise(TEXT.to_bytes(), TEXT);
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

fn has_hooks(lua: Stack<'_>) -> bool {
    let raw = lua.raw();
    /// A hook that does nothing, of which only the address matters.
    unsafe extern "C-unwind" fn nothing(_raw: *mut lua_State, _activation: *mut lua_Debug) {}
    // SAFETY: a new state with slots free: no instruction of a script runs meanwhile.
    unsafe {
        let global = global(raw);
        let is_known = [(ffi::LUA_MASKCOUNT, 77), (ffi::LUA_MASKCOUNT, 0x1234_5678)]
            .into_iter()
            .chain([(ffi::LUA_MASKLINE, 1), (ffi::LUA_MASKCALL | ffi::LUA_MASKRET, 3)])
            .all(|(mask, count)| {
                ffi::lua_sethook(raw, Some(nothing), mask, count);
                c_int::from((*global).hook_mask) == mask
                    && ((*global).hook_count, (*global).hook_start) == (count, count)
                    && line_hook::behind(raw, (*global).hook)
                        .map_or((*global).hook, |set| Some(set.hook))
                        .is_some_and(|hook| hook as usize == nothing as *const () as usize)
            });
        ffi::lua_sethook(raw, None, 0, 0);
        is_known && (*global).hook_mask == 0
    }
}

fn has_current(lua: Stack<'_>) -> bool {
    fn is_current(lua: Stack<'_>) -> bool {
        // SAFETY: a live state; `has_global` has found the shared part.
        unsafe { (*global(lua.raw())).current == lua.raw() }
    }
    let is_main = is_current(lua);
    // SAFETY: a new state with slots free, which the coroutine stays on the stack of.
    let thread = unsafe { Stack::new(ffi::lua_newthread(lua.raw())) };
    thread.push_function(function(|lua| {
        lua.push_boolean(is_current(lua));
        1
    }));
    // SAFETY: a new coroutine with a function on its stack.
    let status = unsafe { ffi::lua_resume_(thread.raw(), 0) };
    let was_current = status == ffi::LUA_OK && thread.boolean(-1);
    lua.set_top(0);
    is_main && was_current
}

thread_local! {
    /// Events that the compiler has told of, and those at which it was not at work.
    static EVENTS: Cell<(usize, usize)> = const { Cell::new((0, 0)) };
}

/// Has traces compiled, one of which is given up, and looks what the compiler does before, at every
/// event of them, and afterwards.
fn has_compiler(lua: Stack<'_>) -> bool {
    const LOOP: &CStr = c"local tell = ...
        jit.on()
        jit.attach(tell, 'trace')
        local x = 0
        for i = 1, 200 do x = x + i end
        for i = 1, 200 do x = x + #string.rep('x', i) local f = function() end end
        jit.attach(tell)";
    fn state(lua: Stack<'_>) -> u32 {
        // SAFETY: a live state; `has_global` has found the shared part.
        unsafe { (*global(lua.raw())).compiler_state }
    }
    fn tell(lua: Stack<'_>) {
        let is_busy = (IS_COMPILING..2 * IS_COMPILING).contains(&state(lua));
        let (events, others) = EVENTS.get();
        EVENTS.set((events + 1, others + usize::from(!is_busy)));
    }
    EVENTS.set((0, 0));
    let before = state(lua);
    lua.load_or_raise(LOOP.to_bytes(), LOOP);
    lua.push_function(function(tell));
    // What `jit.on` raises where there is no compiler is caught.
    let status = lua.protected_call(1, 0, 0);
    let (events, others) = EVENTS.get();
    (before, status, others) == (0, ffi::LUA_OK, 0) && events > 3 && state(lua) == 0
}
