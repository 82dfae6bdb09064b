//! `print` and what writes of `io`: one call, one piece, whatever other contexts print meanwhile.
//!
//! LuaJIT's own function objects stay (what a script sees of them is as ever), but lead here.
//! `print` is ours; `write` goes on to LuaJIT's, and holds the stream's lock from the first piece
//! that goes to standard output to the last. The compiler, which would call the C library itself,
//! does not know `write` any more, and calls it like other C functions.

use std::cell::Cell;
use std::ffi::{CStr, c_int};
use std::io::Error;
use std::sync::OnceLock;

use mlua::ffi::{self, lua_CFunction, lua_State};

use super::layout::{self, Function, NUMBER_C};
use super::{hook, state};
use crate::os::stdio::{self, ErrorLock, FILE, Lock};

unsafe extern "C-unwind" {
    /// A string's bytes, or a number as text in memory of the VM's that is used again; null for
    /// anything else. LuaJIT's own, for a value where slots of its stack are.
    fn lj_strfmt_wstrnum(
        raw: *mut lua_State,
        value: *const f64,
        length: *mut u32,
    ) -> *const std::ffi::c_char;
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
    /// Losses of output that it was told of, or that were before its time.
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

    /// Writes what a call has printed, if it is not to wait; false if that fails.
    #[cold]
    fn end_call(&self, lock: &Lock, has_line: bool) -> bool {
        match self.mode.get() {
            Mode::Call => lock.flush(),
            Mode::Line if has_line => lock.flush(),
            _ => true,
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
/// led to. `number` is what the compiler is to take it for, if something else. `None` if functions
/// do not look as expected.
///
/// # Safety
/// `raw` must be a new state.
unsafe fn lead(
    raw: *mut lua_State,
    function: lua_CFunction,
    number: Option<u8>,
) -> Option<lua_CFunction> {
    // SAFETY: a new state with a function on top. A function object is as large as what is looked
    // at, and written to only if that is what a function of the VM's own looks like.
    unsafe {
        let before = ffi::lua_tocfunction(raw, -1);
        let object = layout::object::<Function>(raw, -1);
        ffi::lua_settop(raw, -2);
        let before = before?;
        if (*object).number <= NUMBER_C {
            return None;
        }
        (*object).function = function;
        if let Some(number) = number {
            (*object).number = number;
        }
        Some(before)
    }
}

/// Pushes a field of the library `io`, or of its files' methods.
unsafe fn push(raw: *mut lua_State, table: &CStr, field: &CStr) {
    // SAFETY: a new state with the libraries open.
    unsafe {
        match table.is_empty() {
            true => ffi::lua_getfield(raw, ffi::LUA_REGISTRYINDEX, c"FILE*".as_ptr()),
            false => ffi::lua_getglobal(raw, table.as_ptr()),
        };
        ffi::lua_getfield(raw, -1, field.as_ptr());
        ffi::lua_remove(raw, -2);
    }
}

/// Has the functions of a new state lead here.
///
/// # Safety
/// `raw` must be a new state with the libraries open and 4 free stack slots. Raises if this LuaJIT
/// is not known.
pub(crate) unsafe fn install(raw: *mut lua_State) {
    // SAFETY: a new state with its libraries open, and slots free.
    unsafe {
        let top = ffi::lua_gettop(raw);
        let found = (|| {
            ffi::lua_getglobal(raw, c"print".as_ptr());
            lead(raw, print, None)?;
            push(raw, c"io", c"write");
            let write = lead(raw, write, Some(NUMBER_C))?;
            push(raw, c"", c"write");
            let method_write = lead(raw, method_write, Some(NUMBER_C))?;
            push(raw, c"", c"setvbuf");
            let setvbuf = lead(raw, setvbuf, None)?;
            ffi::lua_getglobal(raw, c"tostring".as_ptr());
            let tostring = (*layout::object::<Function>(raw, -1)).number;
            Some(Originals { write, method_write, setvbuf, tostring })
        })();
        ffi::lua_settop(raw, top);
        let Some(found) = found else {
            ffi::luaL_error(raw, c"this LuaJIT's functions are laid out in a strange way".as_ptr());
            return;
        };
        ORIGINALS.get_or_init(|| found);
    }
}

/// print(…)
unsafe extern "C-unwind" fn print(raw: *mut lua_State) -> c_int {
    // SAFETY: called by the VM, by way of an object whose first upvalue is "tostring".
    unsafe {
        let count = ffi::lua_gettop(raw);
        ffi::lua_pushvalue(raw, ffi::lua_upvalueindex(1));
        ffi::lua_gettable(raw, ffi::LUA_GLOBALSINDEX);
        let is_usual = ffi::lua_type(raw, -1) == ffi::LUA_TFUNCTION
            && ORIGINALS.get().is_some_and(|known| {
                (*layout::object::<Function>(raw, -1)).number == known.tostring
            });
        if is_usual && (1..=count).all(|index| is_plain(raw, index)) {
            print_plain(raw, count);
        } else {
            print_any(raw, count, is_usual);
        }
    }
    0
}

/// Whether the text of an argument is known without calling anything.
#[inline]
unsafe fn is_plain(raw: *mut lua_State, index: c_int) -> bool {
    // SAFETY: called by `print`.
    unsafe {
        match ffi::lua_type(raw, index) {
            ffi::LUA_TSTRING => true,
            // Numbers may have been given a metatable.
            ffi::LUA_TNUMBER => ffi::lua_getmetatable(raw, index) == 0,
            _ => false,
        }
    }
}

/// The text of a plain argument, until the next one is asked for.
#[inline]
unsafe fn plain_text<'a>(raw: *mut lua_State, index: c_int) -> &'a [u8] {
    // SAFETY: called for an argument that is a string, or a number, which is what the VM keeps in a
    // slot of its stack. Both ways of getting at the bytes tell their number.
    unsafe {
        if ffi::lua_type(raw, index) == ffi::LUA_TSTRING {
            let mut length = 0;
            let start = ffi::lua_tolstring(raw, index, &mut length);
            return std::slice::from_raw_parts(start.cast::<u8>(), length);
        }
        let (number, mut length) = (ffi::lua_tonumber(raw, index), 0);
        let start = lj_strfmt_wstrnum(raw, &raw const number, &raw mut length);
        std::slice::from_raw_parts(start.cast::<u8>(), length as usize)
    }
}

/// Prints strings and numbers as they are.
unsafe fn print_plain(raw: *mut lua_State, count: c_int) {
    // SAFETY: called by `print`, which has looked at the arguments. May raise, as the context ends
    // or for want of memory: the lock is let go.
    unsafe {
        let (lock, is_written) = write_plain(raw, count, b"\n", |raw| hook::look(raw));
        end_print(raw, &lock, is_written);
    }
}

/// Gives the stream so many arguments, each once the one before it is there, and what ends them;
/// `look` is called now and then. Returns the lock, and whether nothing is lost.
#[inline]
unsafe fn write_plain(
    raw: *mut lua_State,
    count: c_int,
    end: &[u8],
    look: impl Fn(*mut lua_State),
) -> (Lock, bool) {
    let lock = Lock::take();
    let mut pieces = Pieces { lock: &lock, bytes: [0; PIECES_BYTES], length: 0, is_written: true };
    for index in 1..=count {
        if index > 1 {
            pieces.add(b"\t");
        }
        // SAFETY: these arguments are strings and numbers.
        unsafe {
            let is_number = ffi::lua_type(raw, index) == ffi::LUA_TNUMBER;
            if is_number && pieces.add_whole(ffi::lua_tonumber(raw, index)) {
                continue;
            }
            let text = plain_text(raw, index);
            if text.len() <= PIECES_BYTES {
                pieces.add(text);
            } else {
                pieces.add_long(text, || look(raw));
            }
        }
    }
    pieces.add(end);
    let is_written = pieces.write();
    (lock, is_written)
}

/// Bytes that are put together before the stream is given them.
const PIECES_BYTES: usize = 256;

/// What the stream is given at once: as much as a pipe takes. With a slow reader, or much to write,
/// whoever writes may have to end before that is done.
pub(super) const PART_BYTES: usize = 64 << 10;

/// Digits of the whole numbers that are written as such; longer ones have an exponent.
const DIGITS_MAX: usize = 14;

/// What is on its way to the stream.
struct Pieces<'a> {
    lock: &'a Lock,
    bytes: [u8; PIECES_BYTES],
    length: usize,
    is_written: bool,
}

impl Pieces<'_> {
    /// Adds a piece that is not longer than what is put together.
    #[inline]
    fn add(&mut self, piece: &[u8]) {
        if piece.len() > PIECES_BYTES - self.length {
            self.is_written &= self.lock.make_room(self.length + piece.len());
            self.is_written &= self.write();
        }
        self.bytes[self.length..][..piece.len()].copy_from_slice(piece);
        self.length += piece.len();
    }

    /// The same for more than is put together.
    fn add_long(&mut self, piece: &[u8], look: impl Fn()) {
        self.is_written &= self.lock.make_room(self.length + piece.len());
        self.is_written &= self.write();
        for part in piece.chunks(PART_BYTES) {
            look();
            self.is_written &= self.lock.write(part);
        }
    }

    /// Adds a whole number as the VM would write it, but faster; false if it is none, or too long.
    #[inline]
    fn add_whole(&mut self, number: f64) -> bool {
        const END: f64 = 1e14;
        // `as` makes 0 of -0, which is written with its sign.
        let whole = number as i64;
        if whole as f64 != number || number.abs() >= END || whole == 0 {
            return false;
        }
        let (mut digits, mut at, mut rest) =
            ([0; DIGITS_MAX + 1], DIGITS_MAX + 1, whole.unsigned_abs());
        while rest > 0 {
            at -= 1;
            digits[at] = b'0' + (rest % 10) as u8;
            rest /= 10;
        }
        if whole < 0 {
            at -= 1;
            digits[at] = b'-';
        }
        self.add(&digits[at..]);
        true
    }

    /// Gives the stream what there is; false if that, or something before it, is lost.
    #[inline]
    fn write(&mut self) -> bool {
        let length = std::mem::take(&mut self.length);
        self.is_written && self.lock.write(&self.bytes[..length])
    }
}

#[inline]
unsafe fn end_print(raw: *mut lua_State, lock: &Lock, mut is_written: bool) {
    // SAFETY: called by `print`.
    let output = unsafe { &state::account(raw).output };
    if output.mode.get() != Mode::Turn {
        is_written &= output.end_call(lock, true);
    }
    if !is_written {
        // There is no result to tell of it.
        stdio::note_loss();
    }
}

/// The first arguments of a call, which are texts by now. If one after them raises, they are
/// printed, as by LuaJIT.
struct Texts {
    raw: *mut lua_State,
    count: c_int,
}

impl Drop for Texts {
    fn drop(&mut self) {
        // SAFETY: what raises has left the frame of `print` as it is, with the error on its top.
        let is_written = unsafe { write_plain(self.raw, self.count, b"", |_| ()).1 };
        if !is_written {
            stdio::note_loss();
        }
    }
}

/// Prints anything. What `tostring` returns takes the arguments' places, so that it is the VM that
/// holds it. Whatever that does, others can print meanwhile.
#[cold]
unsafe fn print_any(raw: *mut lua_State, count: c_int, is_usual: bool) {
    let mut texts = Texts { raw, count: 0 };
    // SAFETY: called by `print`, with `tostring` on the top of the stack. What raises unwinds.
    unsafe {
        for index in 1..=count {
            if is_usual && is_plain(raw, index) {
                // Nothing is to be made of numbers later, as something is raised.
                ffi::lua_tolstring(raw, index, std::ptr::null_mut());
            } else {
                ffi::lua_pushvalue(raw, count + 1);
                ffi::lua_pushvalue(raw, index);
                ffi::lua_call(raw, 1, 1);
                if ffi::lua_tolstring(raw, -1, std::ptr::null_mut()).is_null() {
                    ffi::luaL_error(raw, c"'tostring' must return a string to 'print'".as_ptr());
                    return;
                }
                ffi::lua_replace(raw, index);
            }
            texts.count = index;
        }
        std::mem::forget(texts);
        print_plain(raw, count);
    }
}

/// A call of `write` that runs on this thread.
#[derive(Debug)]
struct Call {
    /// Taken for the first piece that goes to standard output.
    lock: Option<Lock>,
    has_line: bool,
    /// Why what was printed before is lost, as in `errno`.
    loss: Option<c_int>,
    /// What goes to standard error, which writes each piece by itself: other threads, the log among
    /// them, would write in between. No more than [`PART_BYTES`].
    errors: Vec<u8>,
    /// Taken once there are more.
    error_lock: Option<ErrorLock>,
}

impl Drop for Call {
    fn drop(&mut self) {
        if !self.errors.is_empty() {
            // An argument was refused.
            write_error(&self.errors);
        }
    }
}

/// Writes to standard error at once; false, with the reason in `errno`, if that fails.
fn write_error(bytes: &[u8]) -> bool {
    lock_errors().write(bytes) == bytes.len()
}

/// The right to write to standard error. Who reads both outputs finds them in order.
pub(crate) fn lock_errors() -> ErrorLock {
    stdio::flush();
    stdio::precede_error()
}

/// Takes a piece for standard error, if it is one of a call: so many bytes of it, less if they
/// cannot be written.
#[cfg(target_env = "gnu")]
pub(crate) fn take_error_piece(bytes: &[u8]) -> Option<usize> {
    let mut call = CALL.take()?;
    if call.error_lock.is_none()
        && call.errors.len() + bytes.len() <= PART_BYTES
        && call.errors.try_reserve(bytes.len()).is_ok()
    {
        call.errors.extend_from_slice(bytes);
        CALL.set(Some(call));
        return Some(bytes.len());
    }
    // Nobody comes in between what was collected and the rest, which is written as it comes.
    let lock = call.error_lock.get_or_insert_with(lock_errors);
    let collected = std::mem::take(&mut call.errors);
    let written = match lock.write(&collected) {
        written if written < collected.len() => 0,
        _ => write_parts(bytes, |part| lock.write(part)),
    };
    CALL.set(Some(call));
    Some(written)
}

/// Has `write` write bytes, few at a time, and looks in between whether the context ends. Returns
/// how many are written.
#[cfg(target_env = "gnu")]
pub(crate) fn write_parts(bytes: &[u8], write: impl Fn(&[u8]) -> usize) -> usize {
    if bytes.len() <= PART_BYTES {
        return write(bytes);
    }
    let mut all = 0;
    for part in bytes.chunks(PART_BYTES) {
        if let Some(raw) = hook::current() {
            // SAFETY: the coroutine that has called the function of `io` that writes.
            unsafe { hook::look(raw) };
        }
        let written = write(part);
        all += written;
        if written < part.len() {
            break;
        }
    }
    all
}

/// Notes a piece that is about to go to standard output.
#[inline]
#[cfg(target_env = "gnu")]
pub(crate) fn note_piece(bytes: &[u8]) {
    if let Some(mut call) = CALL.take() {
        // More pieces may follow.
        let size = bytes.len() + PIECES_BYTES;
        if !call.lock.get_or_insert_with(Lock::take).make_room(size) {
            call.loss = Error::last_os_error().raw_os_error();
        }
        call.has_line = call.has_line || bytes.contains(&b'\n');
        CALL.set(Some(call));
    }
}

thread_local! {
    /// LuaJIT's `write` calls nothing of a script's, so there is one at a time.
    static CALL: Cell<Option<Call>> = const { Cell::new(None) };
}

/// Runs LuaJIT's `write`, and what follows it.
#[inline]
unsafe fn write_with(raw: *mut lua_State, original: lua_CFunction) -> c_int {
    /// Lets the lock go, also if arguments are refused.
    struct End;
    impl Drop for End {
        fn drop(&mut self) {
            CALL.take();
        }
    }
    // Where nobody tells of pieces, all may be some.
    let lock = (!cfg!(target_env = "gnu")).then(Lock::take);
    CALL.set(Some(Call {
        lock,
        has_line: false,
        loss: None,
        errors: Vec::new(),
        error_lock: None,
    }));
    let end = End;
    // SAFETY: called by the VM for a call of this very function.
    let results = unsafe { original(raw) };
    let call = CALL.take();
    drop(end);
    let Some(mut call) = call else { return results };
    let errors = std::mem::take(&mut call.errors);
    if !errors.is_empty() && !write_error(&errors) {
        // SAFETY: called by the VM, right after what it reports has failed.
        return unsafe { luaL_fileresult(raw, 0, std::ptr::null()) };
    }
    let Some(lock) = call.lock.take() else { return results };
    let has_line = call.has_line;
    // SAFETY: called by the VM; the first of the results tells whether it was written.
    unsafe {
        let output = &state::account(raw).output;
        let is_over = ffi::lua_toboolean(raw, -results) == 0
            || output.mode.get() == Mode::Turn
            || output.end_call(&lock, has_line);
        if is_over && call.loss.is_none() {
            return results;
        }
        let error = || Error::last_os_error().raw_os_error();
        let reason = call.loss.or_else(error).unwrap_or(libc::EIO);
        // What was lost before is told of by this, too.
        stdio::loss_after(&output.told);
        *libc::__errno_location() = reason;
        luaL_fileresult(raw, 0, std::ptr::null())
    }
}

/// io.write(…)
unsafe extern "C-unwind" fn write(raw: *mut lua_State) -> c_int {
    let Some(known) = ORIGINALS.get() else { return 0 };
    // SAFETY: called by the VM.
    unsafe { write_with(raw, known.write) }
}

/// file:write(…)
unsafe extern "C-unwind" fn method_write(raw: *mut lua_State) -> c_int {
    let Some(known) = ORIGINALS.get() else { return 0 };
    // SAFETY: called by the VM.
    unsafe { write_with(raw, known.method_write) }
}

/// file:setvbuf(mode, size)
unsafe extern "C-unwind" fn setvbuf(raw: *mut lua_State) -> c_int {
    let Some(known) = ORIGINALS.get() else { return 0 };
    // SAFETY: called by the VM. A userdata as long as a file is looked at as one: what is there is
    // only compared.
    unsafe {
        let file = ffi::lua_touserdata(raw, 1).cast::<*mut FILE>();
        let is_long = ffi::lua_objlen(raw, 1) >= size_of::<*mut FILE>();
        if file.is_null() || !is_long || file.read_unaligned() != stdio::stream() {
            return (known.setvbuf)(raw);
        }
        let names = [c"full".as_ptr(), c"line".as_ptr(), c"no".as_ptr(), std::ptr::null()];
        let mode = ffi::luaL_checkoption(raw, 2, std::ptr::null(), names.as_ptr());
        // A size would be everybody's.
        ffi::luaL_optinteger(raw, 3, 0);
        let mode = [Mode::Full, Mode::Line, Mode::Call][mode as usize];
        let output = &state::account(raw).output;
        output.mode.set(mode);
        stdio::flush();
        if let Some(reason) = stdio::loss_after(&output.told) {
            *libc::__errno_location() = reason;
            return luaL_fileresult(raw, 0, std::ptr::null());
        }
        ffi::lua_pushboolean(raw, 1);
    }
    1
}
