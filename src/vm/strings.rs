//! `string.find`, `match`, `gmatch` and `gsub`, and `table.insert`, which end when their context
//! does: LuaJIT's own do not before they are done. To scripts they are those (`stock.rs`); what
//! finds text without a pattern still is.

use std::cell::Cell;
use std::ffi::{CStr, c_char, c_int};
use std::mem::MaybeUninit;
use std::ptr;

use mlua::ffi::{self, luaL_Buffer};

use super::layout::{self, Function, Live, Slot};
use super::pattern::{Caller, Captured, Fault, Matcher};
use super::stack::{Stack, function};
use super::stock::{Original, go_on, replace};

static FIND: Original = Original::new();
static MATCH: Original = Original::new();
static GMATCH: Original = Original::new();
static GSUB: Original = Original::new();
static INSERT: Original = Original::new();

/// Values that `table.insert` may move one by one without a look whether the context ends.
const STEPS_MAX: i64 = 1 << 16;

/// From this many values on it is worth a try to move them at once.
const STEPS_FEW: i64 = 8;

/// Puts the functions of `string`, the table on top, in their place.
pub(super) fn install(lua: Stack<'_>) {
    replace(lua, c"find", function(find), &FIND);
    replace(lua, c"match", function(first), &MATCH);
    replace(lua, c"gmatch", function(gmatch), &GMATCH);
    replace(lua, c"gsub", function(gsub), &GSUB);
}

/// The same for `table`.
pub(super) fn install_insert(lua: Stack<'_>) {
    replace(lua, c"insert", function(insert), &INSERT);
}

/// Whether a byte makes a text a pattern, for `find`.
fn is_special(byte: u8) -> bool {
    matches!(byte, b'^' | b'$' | b'*' | b'+' | b'?' | b'.' | b'(' | b'[' | b'%' | b'-')
}

/// The bytes of the string, or number, at an index, and the zero behind them.
///
/// They are there as long as the string is on the stack.
#[inline]
fn string(lua: Stack<'_>, index: c_int) -> &[u8] {
    let given = lua.arguments().get(index as usize - 1);
    if let Some(text) = given.and_then(|value| value.text_with_zero()) {
        return text;
    }
    let text = lua.check_text(index);
    // SAFETY: all strings of the VM end with a zero.
    unsafe { std::slice::from_raw_parts(text.as_ptr(), text.len() + 1) }
}

/// A function of ours that the VM has called.
struct Called<'a>(Stack<'a>);

impl Caller for Called<'_> {
    fn pause(&self) {
        self.0.look();
    }

    #[cold]
    fn fail(&self, fault: Fault) -> ! {
        self.0.place_and_raise(fault.text())
    }
}

type Search<'a> = Matcher<'a, Called<'a>>;

/// A matcher for two such strings.
fn matcher<'a>(lua: Stack<'a>, subject: &'a [u8], pattern: &'a [u8]) -> Search<'a> {
    Matcher::new(&subject[..subject.len() - 1], pattern, Called(lua))
}

/// What a match has captured, pushed; `count` values.
fn push(lua: Stack<'_>, matcher: &Search<'_>, (start, end): (usize, usize), count: usize) -> c_int {
    lua.want_room(count as c_int, c"too many captures");
    for index in 0..count {
        push_one(lua, matcher.value(index, start, end));
    }
    count as c_int
}

fn push_one(lua: Stack<'_>, value: Captured<'_>) {
    match value {
        Captured::Text(text) => lua.push_text(text),
        Captured::Position(position) => lua.push_number(position as f64),
    }
}

/// string.find and string.match
fn search(lua: Stack<'_>, is_find: bool) -> c_int {
    let (subject, pattern) = (string(lua, 1), string(lua, 2));
    let len = subject.len() - 1;
    let from = lua.optional_integer(3, 1);
    if is_find && (lua.boolean(4) || !pattern.iter().any(|byte| is_special(*byte))) {
        return go_on(lua, &FIND);
    }
    // As LuaJIT converts what is out of range.
    let from = i32::try_from(from).unwrap_or(i32::MIN) as isize;
    let from = if from < 0 { from.saturating_add_unsigned(len) } else { from - 1 };
    let start = usize::try_from(from).unwrap_or(0).min(len);
    let is_anchored = pattern[0] == b'^';
    let mut matcher = matcher(lua, subject, pattern);
    match matcher.find(start, usize::from(is_anchored), is_anchored) {
        Some((start, end)) if is_find => {
            lua.push_number((start + 1) as f64);
            lua.push_number(end as f64);
            2 + push(lua, &matcher, (start, end), matcher.captures())
        }
        Some(found) => push(lua, &matcher, found, matcher.values()),
        None => {
            lua.push_nil();
            1
        }
    }
}

fn find(lua: Stack<'_>) -> c_int {
    search(lua, true)
}

/// string.match
fn first(lua: Stack<'_>) -> c_int {
    search(lua, false)
}

fn gmatch(lua: Stack<'_>) -> c_int {
    let results = go_on(lua, &GMATCH);
    // SAFETY: LuaJIT's own makes its iterator: a function in C of its own.
    unsafe { (*layout::object::<Function>(lua.raw(), -1)).function = function(gmatch_next) };
    results
}

/// The upvalues of what `string.gmatch` returns: the subject and the pattern, strings or numbers,
/// and where to go on, in the lower half of a slot.
#[repr(C)]
struct Walk<'a> {
    texts: [Live<'a>; 2],
    next: Cell<Slot>,
}

/// What `string.gmatch` returns.
fn gmatch_next(lua: Stack<'_>) -> c_int {
    // SAFETY: the function has these three upvalues, which are alive as it is.
    let walk = unsafe { &*layout::upvalues(lua.raw()).cast::<Walk<'_>>() };
    let text = |index: usize| {
        let text = walk.texts[index].text_with_zero();
        text.unwrap_or_else(|| string(lua, ffi::lua_upvalueindex(index as c_int + 1)))
    };
    let (subject, pattern) = (text(0), text(1));
    let start = walk.next.get() as usize;
    let mut matcher = matcher(lua, subject, pattern);
    match matcher.find(start, 0, false) {
        Some((start, end)) => {
            let next = end + usize::from(end == start);
            walk.next.set(next as u64);
            push(lua, &matcher, (start, end), matcher.values())
        }
        None => 0,
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
    lua: Stack<'_>,
    buffer: *mut luaL_Buffer,
    matcher: &Search<'_>,
    (start, end): (usize, usize),
    text: &[u8],
) {
    // SAFETY: `gsub`'s buffer, which is in use, with what it has put on the stack on top.
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
                        push_one(lua, value);
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
    lua: Stack<'_>,
    buffer: *mut luaL_Buffer,
    matcher: &Search<'_>,
    (start, end): (usize, usize),
    kind: c_int,
) {
    // SAFETY: `gsub`'s buffer, which is in use, with what it has put on the stack on top.
    unsafe {
        if kind == ffi::LUA_TFUNCTION {
            lua.push_copy(3);
            let count = push(lua, matcher, (start, end), matcher.values());
            lua.call(count, 1);
        } else {
            push_one(lua, matcher.value(0, start, end));
            ffi::lua_gettable(lua.raw(), 3);
        }
        if !lua.boolean(-1) {
            lua.pop();
            add(buffer, matcher.whole(start, end));
        } else if ffi::lua_isstring(lua.raw(), -1) == 0 {
            let format = c"invalid replacement value (a %s)";
            ffi::luaL_error(lua.raw(), format.as_ptr(), ffi::luaL_typename(lua.raw(), -1));
        } else {
            ffi::luaL_addvalue(buffer);
        }
    }
}

fn gsub(lua: Stack<'_>) -> c_int {
    const WANTED: &CStr = c"string/function/table expected";
    let (subject, pattern) = (string(lua, 1), string(lua, 2));
    let len = subject.len() - 1;
    let kind = lua.kind(3);
    let most = lua.optional_integer(4, len as i64 + 1) as i32;
    let is_text = kind == ffi::LUA_TNUMBER || kind == ffi::LUA_TSTRING;
    if !is_text && kind != ffi::LUA_TFUNCTION && kind != ffi::LUA_TTABLE {
        lua.wrong_argument(3, WANTED);
    }
    let replacement = if is_text { string(lua, 3) } else { &[0] };
    let replacement = &replacement[..replacement.len() - 1];
    let is_anchored = pattern[0] == b'^';
    let mut matcher = matcher(lua, subject, pattern);
    let mut buffer = MaybeUninit::uninit();
    let buffer = buffer.as_mut_ptr();
    // SAFETY: the buffer is the VM's, from here to the end: what does not fit lies on the stack,
    // where nothing else is put or taken meanwhile.
    unsafe {
        ffi::luaL_buffinit(lua.raw(), buffer);
        // What is copied begins at `done`.
        let (mut count, mut done, mut at) = (0, 0, 0);
        while count < most {
            let found = matcher.find(at, usize::from(is_anchored), is_anchored);
            let Some((start, end)) = found else { break };
            count += 1;
            add(buffer, &subject[done..start]);
            match is_text {
                true => add_text(lua, buffer, &matcher, (start, end), replacement),
                false => add_value(lua, buffer, &matcher, (start, end), kind),
            }
            done = end;
            at = end + usize::from(end == start);
            if is_anchored || at > len {
                break;
            }
        }
        add(buffer, &subject[done..len]);
        ffi::luaL_pushresult(buffer);
        lua.push_number(f64::from(count));
    }
    2
}

/// table.insert: each value from a place on moves up by one, in as many steps as there are places.
fn insert(lua: Stack<'_>) -> c_int {
    if lua.top() != 3 || lua.kind(1) != ffi::LUA_TTABLE || !lua.is_number(2) {
        return go_on(lua, &INSERT);
    }
    let (place, end) = (i64::from(lua.whole(2)), lua.length(1) as i64 + 1);
    let is_moved = end - place > STEPS_FEW && lua.move_up(1, place, end);
    if !is_moved && end - place <= STEPS_MAX {
        return go_on(lua, &INSERT);
    }
    if !is_moved {
        for to in (place + 1..=end).rev() {
            lua.entry(1, to - 1);
            lua.set_entry(1, to);
            if to % STEPS_MAX == 0 {
                lua.look();
            }
        }
    }
    lua.set_entry(1, place);
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
            (c"find", function(find), &FIND),
            (c"match", function(first), &MATCH),
            (c"gmatch", function(gmatch), &GMATCH),
            (c"gsub", function(gsub), &GSUB),
        ];
        let state = State::new().unwrap();
        let lua = state.stack();
        stock::install(lua);
        assert_eq!(lua.load_plain(COMPARE.to_bytes(), c"=compare"), ffi::LUA_OK);
        for is_own in [true, false] {
            lua.push_table(0, 4);
            for (name, code, original) in own {
                lua.push_function(if is_own { code } else { *original.get().unwrap() });
                lua.set_field(-2, name);
            }
        }
        lua.push_number(count);
        lua.push_number(seed);
        let status = lua.protected_call(4, 0, 0);
        assert_eq!(status, ffi::LUA_OK, "{:?}", lua.text(-1).map(String::from_utf8_lossy));
    }
}
