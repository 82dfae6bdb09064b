//! Where LuaJIT keeps things that no function of its API gives access to, found out at the start by
//! looking for known values in states of our own.

use std::cell::Cell;
use std::ffi::{CStr, c_int, c_void};

use mlua::ffi::{self, lua_Debug, lua_State};

use super::state::State;

/// Places in a state, in bytes from its beginning.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Layout {
    /// The hook mask, a byte.
    pub(crate) hook_mask: usize,
    /// The pointer to the coroutine that runs.
    pub(crate) current: usize,
    /// The number of instructions until the hook is called, if it was found.
    hook_count: Option<usize>,
    compiler: Compiler,
}

/// What can be said of the trace compiler.
#[derive(Clone, Copy, Debug)]
enum Compiler {
    /// There is none for this processor.
    Absent,
    /// Its state is in this word, 0 if it is idle.
    At(usize),
    /// It is not known where its state is.
    Unknown,
}

/// Bytes of a state that are searched for the first two: the main coroutine and the global state
/// come first.
const SEARCHED: usize = 1024;

/// Bytes that are searched for the compiler's state, if a state is as large: what follows is large
/// tables.
const SEARCHED_FOR_COMPILER: usize = 16 * 1024;

/// A bit of the compiler's state while it records or compiles.
const IS_COMPILING: u32 = 0x10;

impl Layout {
    /// Looks for everything; `None` if this LuaJIT is another one than is known.
    pub(crate) fn find() -> Option<Layout> {
        let state = State::new()?;
        let (hook_mask, current) = (find_hook_mask(&state)?, find_current(&state)?);
        let (hook_count, compiler) = (find_hook_count(&state), find_compiler(&state));
        Some(Layout { hook_mask, current, hook_count, compiler })
    }

    /// How many instructions are left until the hook is called, if that can be told.
    ///
    /// # Safety
    /// `raw` must be a live state, used by this thread.
    pub(crate) unsafe fn hook_count(self, raw: *mut lua_State) -> Option<c_int> {
        // SAFETY: a word of the live state, see `find_hook_count`.
        self.hook_count
            .map(|offset| unsafe { raw.byte_add(offset).cast::<c_int>().read_volatile() })
    }

    /// Sets how many are left.
    ///
    /// # Safety
    /// As above.
    pub(crate) unsafe fn set_hook_count(self, raw: *mut lua_State, left: c_int) {
        if let Some(offset) = self.hook_count {
            // SAFETY: as above.
            unsafe { raw.byte_add(offset).cast::<c_int>().write_volatile(left) };
        }
    }

    /// Whether it can be told what the trace compiler does.
    pub(crate) fn knows_compiler(self) -> bool {
        !matches!(self.compiler, Compiler::Unknown)
    }

    /// Whether the trace compiler does nothing, and has nothing left to do.
    ///
    /// # Safety
    /// `raw` must be a live state, used by this thread.
    pub(crate) unsafe fn is_compiler_idle(self, raw: *mut lua_State) -> bool {
        match self.compiler {
            Compiler::Absent => true,
            // SAFETY: a word of the live state, see `find_compiler`.
            Compiler::At(offset) => unsafe {
                raw.cast::<u8>().add(offset).cast::<u32>().read_volatile() == 0
            },
            Compiler::Unknown => false,
        }
    }
}

/// A hook that does nothing, of which only the address matters.
unsafe extern "C-unwind" fn nothing(_raw: *mut lua_State, _activation: *mut lua_Debug) {}

fn find_hook_mask(state: &State) -> Option<usize> {
    let raw = state.as_ptr();
    let bytes = |offset: usize| {
        // SAFETY: a state is larger than what is searched (checked by the test below: LuaJIT's
        // dispatch table alone, allocated with it, takes more).
        unsafe { raw.cast::<u8>().add(offset).read_volatile() }
    };
    let masks = [0, ffi::LUA_MASKCOUNT, ffi::LUA_MASKLINE, ffi::LUA_MASKCALL | ffi::LUA_MASKRET];
    let mut places: Vec<usize> = (0..SEARCHED).collect();
    for mask in masks {
        // SAFETY: our own state, which is not running.
        unsafe { ffi::lua_sethook(raw, Some(nothing), mask, 1) };
        places.retain(|&offset| c_int::from(bytes(offset)) == mask);
    }
    // SAFETY: as above.
    unsafe { ffi::lua_sethook(raw, None, 0, 0) };
    let &[hook_mask] = places.as_slice() else { return None };
    Some(hook_mask)
}

/// The first of two words that hold what a hook's count was set to: what is left of it, and what
/// it starts from.
fn find_hook_count(state: &State) -> Option<usize> {
    let raw = state.as_ptr();
    // SAFETY: as in `find_hook_mask`.
    let word = |index: usize| unsafe { raw.cast::<c_int>().add(index).read_volatile() };
    let mut places: Vec<usize> = (0..SEARCHED / size_of::<c_int>()).collect();
    for count in [0x1234_5678, 77, 54_321] {
        // SAFETY: our own state, which is not running.
        unsafe { ffi::lua_sethook(raw, Some(nothing), ffi::LUA_MASKCOUNT, count) };
        places.retain(|&place| word(place) == count && word(place + 1) == count);
    }
    // SAFETY: as above.
    unsafe { ffi::lua_sethook(raw, None, 0, 0) };
    let &[place] = places.as_slice() else { return None };
    Some(place * size_of::<c_int>())
}

thread_local! {
    static FOUND: Cell<Option<usize>> = const { Cell::new(None) };
}

fn find_current(state: &State) -> Option<usize> {
    FOUND.set(None);
    // SAFETY: our own state, which is not running; want of memory is caught.
    let status =
        unsafe { ffi::lua_cpcall(state.as_ptr(), start_look_for_itself, std::ptr::null_mut()) };
    (status == ffi::LUA_OK).then(|| FOUND.take()).flatten()
}

/// Calls `look_for_itself` in a coroutine.
unsafe extern "C-unwind" fn start_look_for_itself(raw: *mut lua_State) -> c_int {
    // SAFETY: called by the VM, on the main coroutine of `find_current`'s state.
    unsafe {
        let thread = ffi::lua_newthread(raw);
        ffi::lua_pushlightuserdata(thread, raw.cast());
        ffi::lua_pushcclosure(thread, look_for_itself, 1);
        // What it has found is what counts.
        ffi::lua_resume_(thread, 0);
    }
    0
}

/// Finds where the main state, its upvalue, refers to the coroutine that this is called in.
unsafe extern "C-unwind" fn look_for_itself(thread: *mut lua_State) -> c_int {
    // SAFETY: called by the VM; the upvalue is the state of `find_current`, of which as many bytes
    // as there are searched.
    unsafe {
        let raw = ffi::lua_touserdata(thread, ffi::lua_upvalueindex(1)).cast::<*mut lua_State>();
        let words = SEARCHED / size_of::<*mut lua_State>();
        let mut places = (0..words).filter(|&word| raw.add(word).read_volatile() == thread);
        let place = places.next().filter(|_| places.next().is_none());
        FOUND.set(place.map(|word| word * size_of::<*mut lua_State>()));
    }
    0
}

/// The words of a state that may be the compiler's state.
struct Search {
    raw: *mut lua_State,
    places: Vec<usize>,
    /// What each of them held when a trace was begun.
    begun: Vec<u32>,
    /// Traces that were begun and ended.
    traces: usize,
}

impl Search {
    fn word(&self, place: usize) -> u32 {
        // SAFETY: a word inside the state's block, which is alive.
        unsafe { self.raw.cast::<u32>().add(place).read_volatile() }
    }

    fn keep(&mut self, holds: impl Fn(u32) -> bool) {
        let mut places = std::mem::take(&mut self.places);
        places.retain(|&place| holds(self.word(place)));
        self.places = places;
    }

    /// What the compiler tells of a trace, while it is at it.
    fn on_event(&mut self, event: &[u8]) {
        match event {
            b"start" => {
                self.keep(|word| word & IS_COMPILING != 0 && word < 2 * IS_COMPILING);
                self.begun = self.places.iter().map(|&place| self.word(place)).collect();
            }
            // Where no machine code may be made, every trace is given up.
            b"stop" | b"abort" => {
                // It is at another step by now.
                let before: Vec<(usize, u32)> =
                    self.places.iter().copied().zip(self.begun.iter().copied()).collect();
                let is_further = |&(place, old): &(usize, u32)| {
                    let word = self.word(place);
                    word != old && word & IS_COMPILING != 0 && word < 2 * IS_COMPILING
                };
                self.places =
                    before.iter().filter(|&it| is_further(it)).map(|&(place, _)| place).collect();
                self.traces += 1;
            }
            _ => {}
        }
    }
}

/// Has a trace compiled, and looks for the word that is 0 before and afterwards, and at every event
/// of it says what is being done.
fn find_compiler(state: &State) -> Compiler {
    if !has_compiler(state) {
        return Compiler::Absent;
    }
    let raw = state.as_ptr();
    let bytes = state_bytes().min(SEARCHED_FOR_COMPILER);
    let places = (0..bytes / size_of::<u32>()).collect();
    let mut search = Search { raw, places, begun: Vec::new(), traces: 0 };
    search.keep(|word| word == 0);
    let pointer: *mut Search = &mut search;
    // SAFETY: our own state, which is not running; whatever is raised is caught.
    let status = unsafe { ffi::lua_cpcall(raw, compile, pointer.cast()) };
    // SAFETY: as above.
    unsafe { ffi::lua_settop(raw, 0) };
    search.keep(|word| word == 0);
    match (status, search.traces, search.places.as_slice()) {
        (ffi::LUA_OK, 1.., &[place]) => Compiler::At(place * size_of::<u32>()),
        _ => Compiler::Unknown,
    }
}

/// A loop that is compiled whole, with a function that is told of it.
const LOOP: &CStr = c"local tell = ...
jit.attach(tell, 'trace')
local x = 0
for i = 1, 200 do x = x + i end
jit.attach(tell)";

/// Runs `LOOP` for a [`Search`].
unsafe extern "C-unwind" fn compile(raw: *mut lua_State) -> c_int {
    // SAFETY: called by the VM with a pointer to the search, which outlives the call.
    unsafe {
        if ffi::luaL_loadstring(raw, LOOP.as_ptr()) != ffi::LUA_OK {
            ffi::lua_error(raw);
        }
        ffi::lua_pushvalue(raw, 1);
        ffi::lua_pushcclosure(raw, tell, 1);
        ffi::lua_call(raw, 1, 0);
    }
    0
}

/// Tells the search, its upvalue, of an event.
unsafe extern "C-unwind" fn tell(raw: *mut lua_State) -> c_int {
    let mut length = 0;
    // SAFETY: called by the VM; the bytes are not used after the stack changes, and nobody else
    // uses the search while the loop runs.
    unsafe {
        let search = ffi::lua_touserdata(raw, ffi::lua_upvalueindex(1)).cast::<Search>();
        let text = ffi::lua_tolstring(raw, 1, &mut length);
        if !text.is_null() {
            (*search).on_event(std::slice::from_raw_parts(text.cast(), length));
        }
    }
    0
}

/// Whether traces can be compiled at all: `jit.on` raises where not.
fn has_compiler(state: &State) -> bool {
    let raw = state.as_ptr();
    // SAFETY: our own state, which is not running; what is raised is caught.
    unsafe {
        let is_on = ffi::luaL_loadstring(raw, c"jit.on()".as_ptr()) == ffi::LUA_OK
            && ffi::lua_pcall(raw, 0, 0, 0) == ffi::LUA_OK;
        ffi::lua_settop(raw, 0);
        is_on
    }
}

/// The size of the block that a state, its global state and its compiler's are in: the first one
/// that a new state asks for.
fn state_bytes() -> usize {
    unsafe extern "C" fn allocate(
        first: *mut c_void,
        block: *mut c_void,
        _old_size: usize,
        new_size: usize,
    ) -> *mut c_void {
        let first = first.cast::<usize>();
        // SAFETY: a pointer to a number of the caller's, and blocks that come from here.
        unsafe {
            if new_size == 0 {
                libc::free(block);
                return std::ptr::null_mut();
            }
            if *first == 0 {
                *first = new_size;
            }
            libc::realloc(block, new_size)
        }
    }
    let mut first = 0;
    let pointer: *mut usize = &mut first;
    // SAFETY: the function is an allocator, and the number outlives the state.
    unsafe {
        let raw = ffi::lua_newstate(allocate, pointer.cast());
        if !raw.is_null() {
            ffi::lua_close(raw);
        }
    }
    first
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn the_layout_of_states_is_found() {
        let state = State::new().unwrap();
        assert!(find_hook_mask(&state).is_some());
        assert!(find_current(&state).is_some());
        assert!(find_hook_count(&state).is_some());
        assert!(state_bytes() > 2 * SEARCHED);
        assert!(state.account().lua_bytes() > state_bytes());
    }

    thread_local! {
        static SEEN: Cell<Option<(Layout, Vec<bool>)>> = const { Cell::new(None) };
    }

    /// Notes whether the compiler counts as idle.
    unsafe extern "C-unwind" fn look(raw: *mut lua_State) -> c_int {
        if let Some((layout, mut seen)) = SEEN.take() {
            // SAFETY: called by the VM, in the main coroutine.
            seen.push(unsafe { layout.is_compiler_idle(raw) });
            SEEN.set(Some((layout, seen)));
        }
        0
    }

    /// In another state, and at every step of traces that are given up as well.
    #[test]
    fn the_state_of_the_compiler_is_found() {
        let layout = Layout::find().unwrap();
        assert!(matches!(layout.compiler, Compiler::At(_)), "{layout:?}");
        let state = State::new().unwrap();
        let raw = state.as_ptr();
        // The events are told by functions on coroutines of their own: the main one is asked.
        unsafe extern "C-unwind" fn look_at_main(raw: *mut lua_State) -> c_int {
            // SAFETY: called by the VM; the upvalue is the state of the test.
            unsafe { look(ffi::lua_touserdata(raw, ffi::lua_upvalueindex(1)).cast()) }
        }
        let script = c"local look = ...
            look()
            local events = {}
            jit.attach(function(event) events[#events + 1] = event look() end, 'trace')
            local x = 0
            for i = 1, 200 do x = x + i end
            for i = 1, 200 do x = x + #string.rep('x', i) local f = function() end end
            jit.attach(look)
            look()
            return table.concat(events, ' ')";
        SEEN.set(Some((layout, Vec::new())));
        // SAFETY: a state of the test's own.
        let events = unsafe {
            assert_eq!(ffi::luaL_loadstring(raw, script.as_ptr()), ffi::LUA_OK);
            ffi::lua_pushlightuserdata(raw, raw.cast());
            ffi::lua_pushcclosure(raw, look_at_main, 1);
            assert_eq!(ffi::lua_pcall(raw, 1, 1, 0), ffi::LUA_OK);
            CStr::from_ptr(ffi::lua_tostring(raw, -1)).to_str().unwrap().to_owned()
        };
        let (_, seen) = SEEN.take().unwrap();
        assert!(events.contains("start") && events.contains("stop") && events.contains("abort"));
        let (first, others) = seen.split_first().unwrap();
        let (last, during) = others.split_last().unwrap();
        assert!(*first && *last, "{seen:?}");
        assert!(!during.is_empty() && during.iter().all(|is_idle| !is_idle), "{events}: {seen:?}");
    }
}
