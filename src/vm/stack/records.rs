//! What the VM tells of functions, and of the frames on a stack.

use std::ffi::{CStr, c_char, c_int};
use std::ptr;

use mlua::ffi::{self, lua_CFunction, lua_Debug};

use super::Stack;
use crate::vm::layout::{THREAD, referred, tag};

/// What is known of a function, or of a frame. What was not asked for is empty.
pub(crate) struct Record(lua_Debug);

/// Where on the stack the frame is that this is about: deeper ones have larger numbers.
pub(crate) fn place_of(record: &lua_Debug) -> c_int {
    const { assert!(size_of::<lua_Debug>() == 120, "its last field is the last four bytes") };
    let last = size_of::<lua_Debug>() / size_of::<c_int>() - 1;
    // SAFETY: LuaJIT keeps the place in the record's last field, which mlua has no name for; above
    // it is how large the frame is.
    unsafe { ptr::from_ref(record).cast::<c_int>().add(last).read() & 0xffff }
}

/// A text of the VM's; nothing if there is none.
fn text<'a>(text: *const c_char) -> &'a [u8] {
    // SAFETY: a record has what the VM has put into it: terminated texts, which live as long as the
    // function does that they are about; or nulls.
    if text.is_null() { &[] } else { unsafe { CStr::from_ptr(text) }.to_bytes() }
}

impl Record {
    fn new() -> Record {
        // SAFETY: numbers and pointers, for which zeros are valid.
        Record(unsafe { std::mem::zeroed() })
    }

    /// "C", "Lua", "main".
    pub(crate) fn what(&self) -> &[u8] {
        text(self.0.what)
    }

    /// The name of the chunk.
    pub(crate) fn source(&self) -> &[u8] {
        text(self.0.source)
    }

    /// The same for people.
    pub(crate) fn short_source(&self) -> &[u8] {
        text(self.0.short_src.as_ptr())
    }

    /// How it was called.
    pub(crate) fn name(&self) -> &[u8] {
        text(self.0.name)
    }

    /// What that name is.
    pub(crate) fn name_kind(&self) -> &[u8] {
        text(self.0.namewhat)
    }

    /// The line that runs; negative if that is not known.
    pub(crate) fn line(&self) -> c_int {
        self.0.currentline
    }

    /// See [`place_of`].
    pub(crate) fn place(&self) -> c_int {
        place_of(&self.0)
    }

    /// The line at which the function begins.
    pub(crate) fn first_line(&self) -> c_int {
        self.0.linedefined
    }
}

impl<'a> Stack<'a> {
    /// What is known of the frame at a level, if there is one: of "nSl" what was asked for. With
    /// "f" its function is pushed.
    #[inline]
    pub(crate) fn frame(self, level: c_int, asked: &CStr) -> Option<Record> {
        let mut record = Record::new();
        if level < 0 || vm!(self, lua_getstack, level, &mut record.0) == 0 {
            return None;
        }
        vm!(self, lua_getinfo, asked.as_ptr(), &mut record.0);
        Some(record)
    }

    /// How many frames there are.
    pub(crate) fn depth(self) -> c_int {
        const { assert!(size_of::<lua_Debug>() == 120, "its last field is the last four bytes") };
        let mut record = Record::new();
        vm!(self, lua_getstack, c_int::MAX, &mut record.0);
        let last = size_of::<lua_Debug>() / size_of::<c_int>() - 1;
        // SAFETY: of a level that is not there LuaJIT tells how far it has come, in the record's
        // last field.
        unsafe { (&raw const record.0).cast::<c_int>().add(last).read() }
    }

    /// What "S" tells of the function at `index`.
    pub(crate) fn function_record(self, index: c_int) -> Record {
        let mut record = Record::new();
        self.push_copy(index);
        vm!(self, lua_getinfo, c">S".as_ptr(), &mut record.0);
        record
    }

    /// The code of the function in C that runs.
    pub(crate) fn running_function(self) -> Option<lua_CFunction> {
        self.frame(0, c"f")?;
        let running = self.c_function(-1);
        self.pop();
        running
    }

    /// Pushes what is in the first local variable, or argument, of the frame at a level; false if
    /// it has none.
    pub(crate) fn first_local(self, level: c_int) -> bool {
        let mut record = Record::new();
        vm!(self, lua_getstack, level, &mut record.0) != 0
            && !vm!(self, lua_getlocal, &record.0, 1).is_null()
    }

    /// The coroutine at `index`, if one is there. It has what slots its own function has: see
    /// [`Stack::has_room`].
    pub(crate) fn thread(self, index: c_int) -> Option<Stack<'a>> {
        let slot = self.slot(index);
        let thread = match tag(slot) {
            THREAD => referred(slot),
            _ => vm!(self, lua_tothread, index),
        };
        // SAFETY: alive while it is on this stack, and of the same state.
        (!thread.is_null()).then(|| unsafe { Stack::new(thread) })
    }

    /// Pushes the coroutine itself.
    pub(crate) fn push_thread(self) {
        vm!(self, lua_pushthread);
    }

    /// How the coroutine is: `LUA_OK`, `LUA_YIELD`, or how it has failed.
    pub(crate) fn status(self) -> c_int {
        vm!(self, lua_status)
    }
}
