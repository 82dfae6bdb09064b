//! `string.find`, `match`, `gmatch` and `gsub`, and `table.insert`, which end when their context
//! does: LuaJIT's own do not before they are done. To scripts they are those (`stock.rs`); what
//! finds text without a pattern still is.

use std::ffi::{CStr, c_char, c_int};
use std::mem::MaybeUninit;
use std::ptr;

use mlua::ffi::{self, lua_State, luaL_Buffer};

use super::hook;
use super::layout::{self, Function};
use super::pattern::{Caller, Captured, Fault, Matcher};
use super::stock::{Original, go_on, replace};

static FIND: Original = Original::new();
static MATCH: Original = Original::new();
static GMATCH: Original = Original::new();
static GSUB: Original = Original::new();
static INSERT: Original = Original::new();

/// Places in front of a table's first one that `table.insert` may go through in one step.
const PLACES: i32 = 1 << 16;

/// Puts the functions in their place.
///
/// # Safety
/// As for [`replace`], with `string` on top of the stack.
pub(crate) unsafe fn install(raw: *mut lua_State) {
    // SAFETY: the caller's contract.
    unsafe {
        replace(raw, c"find", find, &FIND);
        replace(raw, c"match", first, &MATCH);
        replace(raw, c"gmatch", gmatch, &GMATCH);
        replace(raw, c"gsub", gsub, &GSUB);
        ffi::lua_getglobal(raw, c"table".as_ptr());
        replace(raw, c"insert", insert, &INSERT);
        ffi::lua_settop(raw, -2);
    }
}

/// Whether a byte makes a text a pattern, for `find`.
fn is_special(byte: u8) -> bool {
    matches!(byte, b'^' | b'$' | b'*' | b'+' | b'?' | b'.' | b'(' | b'[' | b'%' | b'-')
}

/// The bytes of the string, or number, at an index, and the zero behind them.
///
/// They are there as long as the string is on the stack.
unsafe fn string<'a>(raw: *mut lua_State, index: c_int) -> &'a [u8] {
    let mut len = 0;
    // SAFETY: called by the VM. All its strings end with a zero.
    unsafe {
        let start = ffi::luaL_checklstring(raw, index, &mut len);
        std::slice::from_raw_parts(start.cast(), len + 1)
    }
}

/// A function of ours that the VM has called.
struct Called(*mut lua_State);

impl Caller for Called {
    fn pause(&self) {
        // SAFETY: called by the VM; nothing is live here that would need dropping.
        unsafe { hook::look(self.0) };
    }

    #[cold]
    fn fail(&self, fault: Fault) -> ! {
        // SAFETY: as above.
        unsafe { ffi::luaL_error(self.0, fault.text().as_ptr()) };
        // It does not come back.
        std::process::abort()
    }
}

type Search<'a> = Matcher<'a, Called>;

/// A matcher for two such strings.
fn matcher<'a>(raw: *mut lua_State, subject: &'a [u8], pattern: &'a [u8]) -> Search<'a> {
    Matcher::new(&subject[..subject.len() - 1], pattern, Called(raw))
}

/// What a match has captured, pushed; `count` values.
unsafe fn push(
    raw: *mut lua_State,
    matcher: &Search<'_>,
    (start, end): (usize, usize),
    count: usize,
) -> c_int {
    // SAFETY: called by the VM.
    unsafe {
        ffi::luaL_checkstack(raw, count as c_int, c"too many captures".as_ptr());
        for index in 0..count {
            push_one(raw, matcher.value(index, start, end));
        }
    }
    count as c_int
}

unsafe fn push_one(raw: *mut lua_State, value: Captured<'_>) {
    // SAFETY: the callers have a stack slot free.
    unsafe {
        match value {
            Captured::Text(text) => ffi::lua_pushlstring_(raw, text.as_ptr().cast(), text.len()),
            Captured::Position(position) => ffi::lua_pushnumber(raw, position as f64),
        }
    }
}

/// string.find and string.match
unsafe fn search(raw: *mut lua_State, is_find: bool) -> c_int {
    // SAFETY: called by the VM, with arguments that stay on the stack.
    unsafe {
        let (subject, pattern) = (string(raw, 1), string(raw, 2));
        let len = subject.len() - 1;
        let from = ffi::luaL_optinteger(raw, 3, 1);
        if is_find
            && (ffi::lua_toboolean(raw, 4) != 0 || !pattern.iter().any(|byte| is_special(*byte)))
        {
            return go_on(raw, &FIND);
        }
        // As LuaJIT converts what is out of range.
        let from = i32::try_from(from).unwrap_or(i32::MIN) as isize;
        let from = if from < 0 { from.saturating_add_unsigned(len) } else { from - 1 };
        let start = usize::try_from(from).unwrap_or(0).min(len);
        let is_anchored = pattern[0] == b'^';
        let mut matcher = matcher(raw, subject, pattern);
        match matcher.find(start, usize::from(is_anchored), is_anchored) {
            Some((start, end)) if is_find => {
                ffi::lua_pushnumber(raw, (start + 1) as f64);
                ffi::lua_pushnumber(raw, end as f64);
                2 + push(raw, &matcher, (start, end), matcher.captures())
            }
            Some(found) => push(raw, &matcher, found, matcher.values()),
            None => {
                ffi::lua_pushnil(raw);
                1
            }
        }
    }
}

/// string.find
unsafe extern "C-unwind" fn find(raw: *mut lua_State) -> c_int {
    // SAFETY: called by the VM.
    unsafe { search(raw, true) }
}

/// string.match
unsafe extern "C-unwind" fn first(raw: *mut lua_State) -> c_int {
    // SAFETY: called by the VM.
    unsafe { search(raw, false) }
}

/// string.gmatch
unsafe extern "C-unwind" fn gmatch(raw: *mut lua_State) -> c_int {
    // SAFETY: called by the VM. LuaJIT's own makes its iterator: a function in C of its own.
    unsafe {
        let results = go_on(raw, &GMATCH);
        (*layout::object::<Function>(raw, -1)).function = gmatch_next;
        results
    }
}

/// What `string.gmatch` returns: the subject, the pattern, and where to go on are its upvalues. The
/// last is an integer where numbers are kept.
unsafe extern "C-unwind" fn gmatch_next(raw: *mut lua_State) -> c_int {
    const POSITION: c_int = ffi::lua_upvalueindex(3);
    // SAFETY: called by the VM, with the upvalues that LuaJIT has given the function.
    unsafe {
        let subject = string(raw, ffi::lua_upvalueindex(1));
        let pattern = string(raw, ffi::lua_upvalueindex(2));
        let start = ffi::lua_tonumber(raw, POSITION).to_bits() as usize;
        let mut matcher = matcher(raw, subject, pattern);
        match matcher.find(start, 0, false) {
            Some((start, end)) => {
                let next = end + usize::from(end == start);
                ffi::lua_pushnumber(raw, f64::from_bits(next as u64));
                ffi::lua_replace(raw, POSITION);
                push(raw, &matcher, (start, end), matcher.values())
            }
            None => 0,
        }
    }
}

/// Adds to what `gsub` makes.
unsafe fn add(buffer: *mut luaL_Buffer, bytes: &[u8]) {
    // SAFETY: a buffer that is in use, whose `p` is where its free room begins.
    unsafe {
        let free = (*buffer).p;
        let end = (&raw const (*buffer).buffer).cast::<c_char>().add(ffi::LUAL_BUFFERSIZE);
        if bytes.len() <= end.offset_from(free) as usize {
            ptr::copy_nonoverlapping(bytes.as_ptr(), free.cast(), bytes.len());
            (*buffer).p = free.add(bytes.len());
        } else {
            ffi::luaL_addlstring(buffer, bytes.as_ptr().cast(), bytes.len());
        }
    }
}

/// Adds what a text with `%0` to `%9` in it stands for.
unsafe fn add_text(
    raw: *mut lua_State,
    buffer: *mut luaL_Buffer,
    matcher: &Search<'_>,
    (start, end): (usize, usize),
    text: &[u8],
) {
    // SAFETY: called by `gsub`.
    unsafe {
        let mut rest = text;
        while let Some(at) = memchr::memchr(b'%', rest) {
            add(buffer, &rest[..at]);
            let next = rest.get(at + 1).copied().unwrap_or(0);
            rest = rest.get(at + 2..).unwrap_or_default();
            match next {
                b'0' => add(buffer, matcher.whole(start, end)),
                b'1'..=b'9' => match matcher.value(usize::from(next - b'1'), start, end) {
                    Captured::Text(text) => add(buffer, text),
                    value => {
                        push_one(raw, value);
                        ffi::luaL_addvalue(buffer);
                    }
                },
                _ => add(buffer, &[next]),
            }
        }
        add(buffer, rest);
    }
}

/// Adds what a function returns for a match, or a table has for it.
unsafe fn add_value(
    raw: *mut lua_State,
    buffer: *mut luaL_Buffer,
    matcher: &Search<'_>,
    (start, end): (usize, usize),
    kind: c_int,
) {
    // SAFETY: called by `gsub`.
    unsafe {
        if kind == ffi::LUA_TFUNCTION {
            ffi::lua_pushvalue(raw, 3);
            let count = push(raw, matcher, (start, end), matcher.values());
            ffi::lua_call(raw, count, 1);
        } else {
            push_one(raw, matcher.value(0, start, end));
            ffi::lua_gettable(raw, 3);
        }
        if ffi::lua_toboolean(raw, -1) == 0 {
            ffi::lua_settop(raw, -2);
            add(buffer, matcher.whole(start, end));
        } else if ffi::lua_isstring(raw, -1) == 0 {
            let format = c"invalid replacement value (a %s)";
            ffi::luaL_error(raw, format.as_ptr(), ffi::luaL_typename(raw, -1));
        } else {
            ffi::luaL_addvalue(buffer);
        }
    }
}

/// string.gsub
unsafe extern "C-unwind" fn gsub(raw: *mut lua_State) -> c_int {
    const WANTED: &CStr = c"string/function/table expected";
    // SAFETY: called by the VM, with arguments that stay on the stack. The buffer is the VM's: what
    // does not fit lies on the stack.
    unsafe {
        let (subject, pattern) = (string(raw, 1), string(raw, 2));
        let len = subject.len() - 1;
        let kind = ffi::lua_type(raw, 3);
        let most = ffi::luaL_optinteger(raw, 4, len as i64 + 1) as i32;
        let is_text = kind == ffi::LUA_TNUMBER || kind == ffi::LUA_TSTRING;
        if !is_text && kind != ffi::LUA_TFUNCTION && kind != ffi::LUA_TTABLE {
            return ffi::luaL_argerror(raw, 3, WANTED.as_ptr());
        }
        let replacement = if is_text { string(raw, 3) } else { &[0] };
        let replacement = &replacement[..replacement.len() - 1];
        let is_anchored = pattern[0] == b'^';
        let mut matcher = matcher(raw, subject, pattern);
        let mut buffer = MaybeUninit::uninit();
        let buffer = buffer.as_mut_ptr();
        ffi::luaL_buffinit(raw, buffer);
        // What is copied begins at `done`.
        let (mut count, mut done, mut at) = (0, 0, 0);
        while count < most {
            let found = matcher.find(at, usize::from(is_anchored), is_anchored);
            let Some((start, end)) = found else { break };
            count += 1;
            add(buffer, &subject[done..start]);
            match is_text {
                true => add_text(raw, buffer, &matcher, (start, end), replacement),
                false => add_value(raw, buffer, &matcher, (start, end), kind),
            }
            done = end;
            at = end + usize::from(end == start);
            if is_anchored || at > len {
                break;
            }
        }
        add(buffer, &subject[done..len]);
        ffi::luaL_pushresult(buffer);
        ffi::lua_pushnumber(raw, f64::from(count));
        2
    }
}

/// table.insert: each value from a place on moves up by one, as many steps as there are places,
/// from 2^31 in front of the first on.
unsafe extern "C-unwind" fn insert(raw: *mut lua_State) -> c_int {
    // SAFETY: called by the VM, with a table there.
    unsafe {
        let is_plain = ffi::lua_gettop(raw) != 3
            || ffi::lua_type(raw, 1) != ffi::LUA_TTABLE
            || ffi::lua_isnumber(raw, 2) == 0;
        // As LuaJIT converts what is out of range.
        let place = i32::try_from(ffi::lua_tointeger(raw, 2)).unwrap_or(i32::MIN);
        if is_plain || place > -PLACES {
            return go_on(raw, &INSERT);
        }
        for to in (place + 1..=ffi::lua_objlen(raw, 1) as i32 + 1).rev() {
            ffi::lua_rawgeti_(raw, 1, to - 1);
            ffi::lua_rawseti_(raw, 1, to);
            if to % PLACES == 0 {
                hook::look(raw);
            }
        }
        ffi::lua_rawseti_(raw, 1, place);
    }
    0
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::ffi::CStr;

    use super::super::state::State;
    use super::super::stock;
    use super::*;

    /// Compares what functions of `string` do with what LuaJIT's own do.
    const COMPARE: &CStr = c"
        local own, stock, count, seed = ...
        math.randomseed(seed)
        local random, format, char = math.random, string.format, string.char
        local function pick(list) return list[random(#list)] end
        local letters = { 'a', 'a', 'a', 'b', 'b', 'c', '1', ' ', '(', ')', '.', '%', '\\0',
          '\\n', '_', 'A', ']', '^', '\\200', '\\255', '-' }
        local items = { 'a', 'b', 'a', '.', '.', '%a', '%d', '%s', '%W', '%z', '%Z', '%x', '%c',
          '%C', '%g', '%l', '%u', '%U', '%p', '%%', '%.', '[ab]', '[^a]', '[a-c]', '[%w_]', '[^%s]',
          '[]]', '[^]]', '[a-]', '[-a]', '[%a-z]', '[a%]', '[', '[^', '%', '(', ')', '(', ')', '()',
          '%b()', '%bab', '%b', '%bx', '%f[%w]', '%f[^a]', '%f', '%f[', '%1', '%2', '%0', '%9', '^',
          '$', '\\0', '\\200', '%\\200', '[\\200-\\255]', '*', '+', '-', '?', '{', '@', '%@', '%{',
          '[%', '[a-%z]' }
        local counts = { '', '', '', '*', '+', '-', '?' }
        local texts = { '', 'x', '%0', '<%1>', '%2', '%%', '%', '%a', 'y%0%1', '%1%1', 5, 1.5 }
        local function word(of, most)
          local parts = {}
          for i = 1, random(0, most) do parts[i] = pick(of) end
          return table.concat(parts)
        end
        local function pattern(most)
          if random(500) == 1 then return ('.-'):rep(random(190, 205)) end
          if random(500) == 1 then return ('()'):rep(random(25, 40)) end
          local parts = { random(8) == 1 and '^' or '' }
          for i = 1, random(0, most) do
            parts[#parts + 1] = pick(items) .. pick(counts)
            if random(60) == 1 then parts[#parts + 1] = ('('):rep(7) .. 'a' .. (')'):rep(7) end
          end
          if random(8) == 1 then parts[#parts + 1] = '$' end
          return table.concat(parts)
        end
        local function first(s) if s ~= '' then return s:upper() end end
        local function position(...) return select('#', ...) .. tostring((...)) end
        local replacements = { first, position, { a = 'A', b = false, ['1'] = 7 },
          setmetatable({}, { __index = function(_, k) return tostring(k) .. '!' end }),
          function() return {} end, function() error('no') end }
        local starts = { 1, 2, 3, -1, -2, 0, 1e9, -1e9, 1e300, -1e300, 0 / 0, 2.5, '2', 'x', {}, 4 }
        local function iterate(gmatch, subject, p)
          local found = {}
          for a, b, c in gmatch(subject, p) do
            found[#found + 1] = tostring(a) .. '|' .. tostring(b) .. '|' .. tostring(c)
          end
          return table.concat(found, ';')
        end
        local function run(functions, kind, ...)
          if kind == 'gmatch' then return pcall(iterate, functions.gmatch, ...) end
          return pcall(functions[kind], ...)
        end
        local function show(...)
          local parts = {}
          for i = 1, select('#', ...) do
            local value = select(i, ...)
            parts[i] = type(value) == 'string' and format('%q', value) or tostring(value)
          end
          return table.concat(parts, ', ')
        end
        local kinds, faults = { 'find', 'match', 'gmatch', 'gsub' }, 0
        for i = 1, count do
          local kind, subject, p = pick(kinds), word(letters, 9), pattern(5)
          if random(300) == 1 then subject, p = word({ 'ab', 'a', 'c ' }, 200), pattern(2) end
          if random(300) == 1 then subject = pick { 12.5, {}, print } end
          local third, fourth
          if kind == 'gsub' then
            third = random(3) == 1 and pick(replacements) or pick(texts)
            if random(20) == 1 then third = pick { true, tostring, newproxy() } end
            if random(4) == 1 then fourth = pick { 0, 1, 2, -1, 2 ^ 32, 2 ^ 31, '1' } end
          elseif random(3) == 1 then
            third = pick(starts)
            if random(4) == 1 then fourth = pick { true, false } end
          end
          local is = show(run(own, kind, subject, p, third, fourth))
          local should = show(run(stock, kind, subject, p, third, fourth))
          if is ~= should then
            error(format('%s(%s):\\n%s instead of\\n%s', kind, show(subject, p, third, fourth), is,
              should), 0)
          end
          if is:sub(1, 5) == 'false' then faults = faults + 1 end
        end
        assert(faults > count / 50 and faults < count / 2, faults)";

    /// More of them: `PATTERNS=5000000 cargo test --release --lib strings`.
    #[test]
    fn patterns_match_as_luajits() {
        let count = std::env::var("PATTERNS").ok().map_or(5e4, |count| count.parse().unwrap());
        let seed = std::env::var("PATTERNS_SEED").ok().map_or(1.0, |seed| seed.parse().unwrap());
        let own = [
            (c"find", find as ffi::lua_CFunction, &FIND),
            (c"match", first, &MATCH),
            (c"gmatch", gmatch, &GMATCH),
            (c"gsub", gsub, &GSUB),
        ];
        let state = State::new().unwrap();
        let raw = state.as_ptr();
        // SAFETY: a state of the test's own, with its libraries open.
        unsafe {
            stock::install(raw);
            assert_eq!(ffi::luaL_loadstring(raw, COMPARE.as_ptr()), ffi::LUA_OK);
            for is_own in [true, false] {
                ffi::lua_createtable(raw, 0, 4);
                for (name, code, original) in own {
                    let code = if is_own { code } else { *original.get().unwrap() };
                    ffi::lua_pushcclosure(raw, code, 0);
                    ffi::lua_setfield(raw, -2, name.as_ptr());
                }
            }
            ffi::lua_pushnumber(raw, count);
            ffi::lua_pushnumber(raw, seed);
            if ffi::lua_pcall(raw, 4, 0, 0) != ffi::LUA_OK {
                panic!("{:?}", CStr::from_ptr(ffi::lua_tostring(raw, -1)));
            }
        }
    }
}
