//! `print` and what writes of `io`: one call, one piece, whatever other contexts print meanwhile.
//!
//! LuaJIT's own function objects stay (what a script sees of them is as ever), but lead here.
//! `print`, and `write` to standard output, are ours; other writes go on to LuaJIT's. The compiler,
//! which would call the C library itself, does not know `write` any more, and calls it like other C
//! functions.

use std::cell::Cell;
use std::ffi::c_int;
use std::sync::OnceLock;

use mlua::ffi::{self, lua_CFunction, lua_State};

use super::hook;
use super::layout::{
    self, FALSE, FUNCTION, Function, INTEGER, Live, NIL, NUMBER_C, STRING, SUBKIND_FILE, Slot,
    TRUE, Table, Text, Thread, USERDATA, Userdata, is_number, referred, tag,
};
use super::stack::Stack;
use crate::os::errno::set_errno;
use crate::os::stdio::stream::Stream;
use crate::os::stdio::{self, ErrorLock, FILE, Lock};

unsafe extern "C-unwind" {
    /// A string's bytes, or a number as text in memory of the VM's that is used again; null for
    /// anything else. LuaJIT's own, for a value where slots of its stack are.
    fn lj_strfmt_wstrnum(
        raw: *mut lua_State,
        value: *const Slot,
        length: *mut u32,
    ) -> *const std::ffi::c_char;
    /// The value of a name in a table itself; null for none.
    fn lj_tab_getstr(table: *mut Table, name: *const Text) -> *const Slot;
    fn luaL_fileresult(raw: *mut lua_State, is_ok: c_int, name: *const std::ffi::c_char) -> c_int;
}

/// When what a script prints is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Mode {
    /// When the turn ends, on a terminal after each line.
    #[default]
    Turn,
    /// After each call: `setvbuf("no")`.
    Call,
    /// After each call that ends a line: `setvbuf("line")`.
    Line,
    /// When the buffer is full: `setvbuf("full")`.
    Full,
}

/// What a script has chosen for its standard output, which is none of the other contexts' business.
#[derive(Debug)]
pub(crate) struct Choice {
    mode: Cell<Mode>,
    /// How many losses of output it was told of, or were before its time.
    pub(crate) told: Cell<u32>,
}

impl Default for Choice {
    fn default() -> Choice {
        Choice { mode: Cell::default(), told: Cell::new(stdio::losses()) }
    }
}

impl Choice {
    /// Has what a turn has printed written.
    #[inline]
    pub(crate) fn end_turn(&self) {
        match self.mode.get() {
            Mode::Full => stdio::leave(),
            _ => stdio::flush(),
        }
    }

    /// Ends a call, and writes what it has printed, if that is not to wait; tells why something is
    /// lost, as in `errno`.
    #[inline]
    fn end_call(&self, lock: &Lock, has_line: impl FnOnce() -> bool) -> Option<c_int> {
        let loss = lock.end_call();
        match self.mode.get() {
            Mode::Turn | Mode::Full => loss,
            Mode::Line if !has_line() => loss,
            Mode::Line | Mode::Call => lock.flush().or(loss),
        }
    }
}

/// The functions that lead here.
#[derive(Clone, Copy, Debug)]
struct Originals {
    write: lua_CFunction,
    method_write: lua_CFunction,
    setvbuf: lua_CFunction,
    /// The number that LuaJIT gives its `tostring`.
    tostring: u8,
}

static ORIGINALS: OnceLock<Originals> = OnceLock::new();

/// Has the function on the top of the stack, which is popped, lead to `function`; returns what it
/// led to. `number` is what the compiler is to take it for, if something else. Raises if functions
/// do not look as expected.
fn lead(lua: Stack<'_>, function: lua_CFunction, number: Option<u8>) -> lua_CFunction {
    let before = lua.c_function(-1);
    // SAFETY: called with a function of a new state on top, which nobody else looks at meanwhile.
    let object = unsafe { &mut *layout::object::<Function>(lua.raw(), -1) };
    match before.filter(|_| object.number > NUMBER_C) {
        Some(before) => {
            object.function = function;
            object.number = number.unwrap_or(object.number);
            lua.pop();
            before
        }
        None => {
            lua.push_text(b"this LuaJIT's functions are laid out in a strange way");
            lua.raise_top()
        }
    }
}

/// Has the functions of a new state, whose libraries are open, lead here. Raises if this LuaJIT is
/// not known.
pub(crate) fn install(lua: Stack<'_>) {
    lead_print(lua);
    let (write, method_write, setvbuf) = lead_io(lua);
    lua.push_global(c"tostring");
    let tostring = lua.function_number(-1);
    lua.pop();
    ORIGINALS.get_or_init(|| Originals { write, method_write, setvbuf, tostring });
}

/// The same for `print`.
pub(super) fn lead_print(lua: Stack<'_>) {
    lua.push_global(c"print");
    lead(lua, print, None);
}

/// The same for `io`; what its functions were: `write`, that of files, and `setvbuf`.
pub(super) fn lead_io(lua: Stack<'_>) -> (lua_CFunction, lua_CFunction, lua_CFunction) {
    lua.field(ffi::LUA_REGISTRYINDEX, c"FILE*");
    lua.field(-1, c"setvbuf");
    let setvbuf = lead(lua, setvbuf, None);
    lua.field(-1, c"write");
    let method_write = lead(lua, method_write, Some(NUMBER_C));
    lua.pop();
    lua.push_global(c"io");
    lua.field(-1, c"write");
    let write = lead(lua, write, Some(NUMBER_C));
    lua.pop();
    (write, method_write, setvbuf)
}

/// print(…)
unsafe extern "C-unwind" fn print(raw: *mut lua_State) -> c_int {
    // SAFETY: called by the VM, by way of an object whose first upvalue is "tostring".
    let (lua, metatables) = unsafe { (Stack::new(raw), &(*layout::global(raw)).metatables) };
    let values = lua.arguments();
    let is_plain = |value: &Live<'_>| text_of_plain(value.slot(), metatables).is_some();
    // SAFETY: this very function, whose first upvalue is a string.
    if unsafe { is_usual(raw) } && values.iter().all(is_plain) {
        end_print(lua, write_plain(lua, values, Some(b'\t'), Some(b'\n')));
        return 0;
    }
    lua.push_copy(ffi::lua_upvalueindex(1));
    lua.look_up(ffi::LUA_GLOBALSINDEX);
    print_any(lua, values.len() as c_int);
    0
}

/// Whether the global `tostring` is LuaJIT's.
#[inline]
unsafe fn is_usual(raw: *mut lua_State) -> bool {
    // SAFETY: called by `print`, which has a string as upvalue.
    unsafe {
        let name = layout::upvalues(raw).read();
        let found = lj_tab_getstr((*raw.cast::<Thread>()).environment, referred(name));
        let is_function = !found.is_null() && tag(found.read()) == FUNCTION;
        is_function
            && ORIGINALS
                .get()
                .is_some_and(|known| (*referred::<Function>(found.read())).number == known.tostring)
    }
}

/// What `tostring` makes of a value without calling anything: of a string or number its own text,
/// for which this is empty.
#[inline]
fn text_of_plain(value: Slot, metatables: &[u64; 14]) -> Option<&'static [u8]> {
    let (of, text): (i64, &[u8]) = match tag(value) {
        STRING => return Some(b""),
        _ if is_number(value) => (INTEGER, b""),
        _ if value == NIL => (!0, b"nil"),
        FALSE => (FALSE, b"false"),
        TRUE => (TRUE, b"true"),
        _ => return None,
    };
    // All types may have been given metatables.
    (metatables[!of as usize] == 0).then_some(text)
}

/// Adds plain values to what is printed, each once the one before it is there, and what comes in
/// between and ends them. Returns the lock, and why something is lost, as in `errno`, if so; none
/// if what the thread runs is to end, or too many wait.
#[inline]
fn write_plain(
    lua: Stack<'_>,
    values: &[Live<'_>],
    between: Option<u8>,
    end: Option<u8>,
) -> (Option<Lock>, Option<c_int>) {
    let lock = match Lock::take() {
        Ok(lock) => lock,
        Err(reason) => return (None, Some(reason)),
    };
    for (index, value) in values.iter().enumerate() {
        if index > 0
            && let Some(between) = between
        {
            lock.add_byte(between);
        }
        let slot = value.slot();
        if let Some(text) = value.text() {
            match text.len() {
                ..=PART_BYTES => lock.add(text),
                _ => add_parts(lua, &lock, text),
            }
        } else if !is_number(slot) {
            lock.add(text_of_plain(slot, &[0; 14]).unwrap_or_default());
        } else if tag(slot) == INTEGER || !add_whole(&lock, f64::from_bits(slot)) {
            let mut length = 0;
            // SAFETY: a number in a slot, for the state that runs; what it returns is as long.
            lock.add(unsafe {
                let start = lj_strfmt_wstrnum(lua.raw(), &slot, &raw mut length);
                std::slice::from_raw_parts(start.cast(), length as usize)
            });
        }
    }
    if let Some(end) = end {
        lock.add_byte(end);
    }
    let has_line = || {
        let of = |value: &Live<'_>| value.text().is_some_and(|text| text.contains(&b'\n'));
        end == Some(b'\n') || values.iter().any(of)
    };
    let loss = lua.account().output.end_call(&lock, has_line);
    (Some(lock), loss)
}

/// Adds much, and looks in between whether the context ends.
#[cold]
fn add_parts(lua: Stack<'_>, lock: &Lock, text: &[u8]) {
    for part in text.chunks(PART_BYTES) {
        // Raising lets the lock go.
        lua.look();
        lock.add(part);
    }
}

/// Bytes that the stream is given at once: as many as a pipe takes. With a slow reader, or much to
/// write, whoever writes may have to end before that is done.
pub(super) const PART_BYTES: usize = 64 << 10;

/// Adds a whole number as the VM would write it, but faster; false if it is none, or too long.
#[inline]
fn add_whole(lock: &Lock, number: f64) -> bool {
    // From here on the VM writes an exponent.
    const END: f64 = 1e14;
    // `as` makes 0 of -0, which is written with its sign.
    let whole = number as i64;
    if whole as f64 != number || number.abs() >= END || whole == 0 {
        return false;
    }
    lock.add(itoa::Buffer::new().format(whole).as_bytes());
    true
}

/// Ends `print`, which has no result to tell of a loss.
#[inline]
fn end_print(lua: Stack<'_>, (lock, loss): (Option<Lock>, Option<c_int>)) {
    drop(lock);
    if let Some(reason) = loss {
        lua.end_if_interrupted();
        stdio::note_loss(reason);
    }
}

/// The first arguments of a call, which are texts by now. If one after them raises, they are
/// printed, as by LuaJIT.
struct Texts<'a> {
    lua: Stack<'a>,
    count: usize,
}

impl Drop for Texts<'_> {
    fn drop(&mut self) {
        // What raises has left the frame of `print` as it is, with the error on its top. Nothing is
        // raised: what is long is cut off.
        let texts = &self.lua.arguments()[..self.count];
        let is_short = |text: &&Live<'_>| text.text().is_some_and(|t| t.len() <= PART_BYTES);
        let texts = &texts[..texts.iter().take_while(is_short).count()];
        if let Some(reason) = write_plain(self.lua, texts, Some(b'\t'), None).1 {
            stdio::note_loss(reason);
        }
    }
}

/// Prints anything. What `tostring` returns takes the arguments' places, so that it is the VM that
/// holds it. Whatever that does, others can print meanwhile.
#[cold]
fn print_any(lua: Stack<'_>, count: c_int) {
    let mut texts = Texts { lua, count: 0 };
    for index in 1..=count {
        lua.push_copy(count + 1);
        lua.push_copy(index);
        lua.call(1, 1);
        if lua.text(-1).is_none() {
            lua.place_and_raise(c"'tostring' must return a string to 'print'");
        }
        lua.replace(index);
        texts.count += 1;
    }
    std::mem::forget(texts);
    let texts = &lua.arguments()[..count as usize];
    end_print(lua, write_plain(lua, texts, Some(b'\t'), Some(b'\n')));
}

/// What a call of `write` that runs on this thread gives to standard error, which writes each piece
/// by itself: other threads, the log among them, would write in between.
#[derive(Debug, Default)]
struct Call {
    /// No more than [`PART_BYTES`].
    errors: Vec<u8>,
    /// Taken once there are more.
    lock: Option<ErrorLock>,
}

impl Drop for Call {
    fn drop(&mut self) {
        if !self.errors.is_empty() {
            // An argument was refused.
            lock_errors().write(&self.errors);
        }
    }
}

/// The right to write to standard error. Who reads both outputs finds them in order.
pub(crate) fn lock_errors() -> ErrorLock {
    stdio::flush();
    stdio::precede_error()
}

/// Takes a piece for standard error, if it is one of a call: this many bytes of it, less if they
/// cannot be written.
pub(crate) fn take_error_piece(bytes: &[u8]) -> Option<usize> {
    let mut call = CALL.take()?;
    if call.lock.is_none()
        && call.errors.len() + bytes.len() <= PART_BYTES
        && call.errors.try_reserve(bytes.len()).is_ok()
    {
        call.errors.extend_from_slice(bytes);
        CALL.set(Some(call));
        return Some(bytes.len());
    }
    // Nobody comes in between what was collected and the rest, which is written as it comes.
    let lock = call.lock.get_or_insert_with(lock_errors);
    let collected = std::mem::take(&mut call.errors);
    let written = match lock.write(&collected) {
        (_, Some(reason)) => fail(reason, 0),
        _ => write_parts(bytes, |part| write_error(lock, part)),
    };
    CALL.set(Some(call));
    Some(written)
}

/// Writes to standard error; how many bytes, and why not all in `errno`.
pub(crate) fn write_error(lock: &ErrorLock, bytes: &[u8]) -> usize {
    match lock.write(bytes) {
        (written, Some(reason)) => fail(reason, written),
        (written, None) => written,
    }
}

/// Sets `errno`.
fn fail<R>(reason: c_int, result: R) -> R {
    set_errno(reason);
    result
}

/// Has `write` write bytes, few at a time, and looks in between whether the context ends. Returns
/// how many are written.
pub(crate) fn write_parts(bytes: &[u8], write: impl Fn(&[u8]) -> usize) -> usize {
    if bytes.len() <= PART_BYTES {
        return write(bytes);
    }
    let mut all = 0;
    for part in bytes.chunks(PART_BYTES) {
        hook::with_current(|lua| lua.look());
        let written = write(part);
        all += written;
        if written < part.len() {
            break;
        }
    }
    all
}

thread_local! {
    /// LuaJIT's `write` calls nothing of a script's, so there is one at a time.
    static CALL: Cell<Option<Call>> = const { Cell::new(None) };
}

/// Writes arguments from `first` on: to standard output as `print` does, elsewhere by LuaJIT's
/// `write`.
#[inline]
unsafe fn write_to(
    raw: *mut lua_State,
    file: *const Userdata,
    first: usize,
    original: lua_CFunction,
) -> c_int {
    // SAFETY: called by the VM; a file's content is its stream, null if it is closed.
    unsafe {
        if !Stream::output().is(file.add(1).cast::<*mut FILE>().read()) {
            return write_with(raw, original);
        }
        let lua = Stack::new(raw);
        let values = &lua.arguments()[first..];
        let is_plain = |&slot: &Slot| tag(slot) == STRING || is_number(slot);
        let count = values.iter().take_while(|value| is_plain(&value.slot())).count();
        let (lock, loss) = write_plain(lua, &values[..count], None, None);
        drop(lock);
        if loss.is_some() {
            lua.end_if_interrupted();
        }
        if count < values.len() {
            // Raises, as LuaJIT does once it has written what comes before.
            lua.check_text((first + count + 1) as c_int);
        }
        let Some(reason) = loss else {
            lua.push_boolean(true);
            return 1;
        };
        // What was lost before is told of by this, too.
        stdio::loss_after(&lua.account().output.told);
        fail(reason, ());
        luaL_fileresult(raw, 0, std::ptr::null())
    }
}

/// Runs LuaJIT's `write`, and what follows it.
unsafe fn write_with(raw: *mut lua_State, original: lua_CFunction) -> c_int {
    /// Lets the lock go, also if arguments are refused.
    struct End;
    impl Drop for End {
        fn drop(&mut self) {
            CALL.take();
        }
    }
    CALL.set(Some(Call::default()));
    let end = End;
    // SAFETY: called by the VM for a call of this very function.
    let results = unsafe { original(raw) };
    let call = CALL.take();
    drop(end);
    let errors = call.map(|mut call| std::mem::take(&mut call.errors)).unwrap_or_default();
    if !errors.is_empty() && write_error(&lock_errors(), &errors) < errors.len() {
        // SAFETY: called by the VM, right after what it reports has failed.
        unsafe {
            Stack::new(raw).end_if_interrupted();
            return luaL_fileresult(raw, 0, std::ptr::null());
        }
    }
    results
}

/// io.write(…)
unsafe extern "C-unwind" fn write(raw: *mut lua_State) -> c_int {
    let Some(known) = ORIGINALS.get() else { return 0 };
    // SAFETY: called by the VM; there is always a file that is written to.
    unsafe { write_to(raw, (*layout::global(raw)).output, 0, known.write) }
}

/// file:write(…)
unsafe extern "C-unwind" fn method_write(raw: *mut lua_State) -> c_int {
    let Some(known) = ORIGINALS.get() else { return 0 };
    // SAFETY: called by the VM; a userdata is looked at as what it is.
    unsafe {
        let file = Stack::new(raw).arguments().first().map(|value| value.slot());
        let file = file.filter(|&slot| tag(slot) == USERDATA).map(referred::<Userdata>);
        match file.filter(|&file| (*file).subkind == SUBKIND_FILE) {
            Some(file) => write_to(raw, file, 1, known.method_write),
            None => (known.method_write)(raw),
        }
    }
}

/// file:setvbuf(mode, size)
unsafe extern "C-unwind" fn setvbuf(raw: *mut lua_State) -> c_int {
    let Some(known) = ORIGINALS.get() else { return 0 };
    // SAFETY: called by the VM. A userdata as long as a file is looked at as one: what is there is
    // only compared.
    unsafe {
        let lua = Stack::new(raw);
        let file = lua.userdata(1).cast::<*mut FILE>();
        let is_long = lua.length(1) >= size_of::<*mut FILE>();
        if file.is_null() || !is_long || !Stream::output().is(file.read_unaligned()) {
            return (known.setvbuf)(raw);
        }
        let names = [c"full".as_ptr(), c"line".as_ptr(), c"no".as_ptr(), std::ptr::null()];
        let mode = ffi::luaL_checkoption(raw, 2, std::ptr::null(), names.as_ptr());
        // A size would be everybody's.
        ffi::luaL_optinteger(raw, 3, 0);
        let mode = [Mode::Full, Mode::Line, Mode::Call][mode as usize];
        let output = &lua.account().output;
        output.mode.set(mode);
        stdio::flush();
        if let Some(reason) = stdio::loss_after(&output.told) {
            fail(reason, ());
            return luaL_fileresult(raw, 0, std::ptr::null());
        }
        lua.push_boolean(true);
    }
    1
}
