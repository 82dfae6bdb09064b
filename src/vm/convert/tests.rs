#![allow(clippy::unwrap_used, reason = "tests")]

use crate::buf::Piece;
use mlua::ffi;
use proptest::prelude::*;

use super::to_lua::push_encoded;
use super::*;
use crate::message::encode::DEPTH_MAX;
use crate::message::{Malformed, Text, Value, Writer};
use crate::vm::run::OUT_OF_MEMORY;
use crate::vm::stack::Stack;
use crate::vm::state::State;

/// Stands in for buffers: a full userdata that holds the address of leaked content, or null.
struct TestBuffers;

type Content77 = (u64, *mut Piece);

impl Buffers for TestBuffers {
    fn share(lua: Stack<'_>, index: c_int) -> Result<Option<Content>, Released> {
        if lua.length(index) != size_of::<Content77>() {
            return Ok(None);
        }
        // SAFETY: the userdata of these tests are made below, or are io files.
        unsafe {
            let (mark, content) = *lua.userdata(index).cast::<Content77>();
            if mark != 77 {
                return Ok(None);
            }
            content.as_ref().map(|content| Some(Content::Shared(content.clone()))).ok_or(Released)
        }
    }

    fn push_copy(lua: Stack<'_>, content: &[u8]) {
        Self::push(lua, &Piece::copy(content));
    }

    fn push(lua: Stack<'_>, content: &Piece) {
        push_content(lua, Box::into_raw(Box::new(content.clone())));
    }
}

fn push_content(lua: Stack<'_>, content: *mut Piece) {
    // SAFETY: the new userdata is large enough.
    unsafe {
        let userdata = ffi::lua_newuserdata(lua.raw(), size_of::<Content77>());
        userdata.cast::<Content77>().write((77, content));
    }
}

fn prepared() -> State {
    State::new().unwrap()
}

/// Runs a chunk that gets what is on the stack, and leaves only its results there.
fn run(state: &State, chunk: &str) {
    let lua = state.stack();
    let arguments = lua.top();
    let mut status = lua.load_plain(chunk.as_bytes(), c"=test");
    if status == ffi::LUA_OK {
        lua.insert(1);
        status = lua.protected_call(arguments, ffi::LUA_MULTRET, 0);
    }
    assert_eq!(status, ffi::LUA_OK, "{:?}", lua.text(-1).map(String::from_utf8_lossy));
}

fn take(state: &State) -> Result<Value, Unsupported> {
    let lua = state.stack();
    let top = lua.top();
    let value = to_value::<TestBuffers>(lua, -1, &mut Scratch::default());
    assert_eq!(lua.top(), top, "the stack stays as it is");
    value
}

fn push(state: &State, value: &Value) -> Result<(), Refused> {
    push_value::<TestBuffers>(state.stack(), value)
}

/// Sends what `make` returns to another state, and checks it there with `check`, which gets it as
/// `...`. Both ways of writing tables must agree: `_opaque` forces the one through calls.
fn send(make: &str, check: &str) {
    for opaque in ["", "if type(v) == 'table' then v._opaque = require('ffi').new('int64_t') end "]
    {
        let (from, to) = (prepared(), prepared());
        run(&from, &format!("local v = (function() {make} end)() {opaque}return v"));
        let value = take(&from).unwrap();
        push(&to, &value).unwrap();
        let check = format!("local v = ... if type(v) == 'table' then v._opaque = nil end {check}");
        run(&to, &check);
    }
}

fn refusal(make: &str) -> String {
    let state = prepared();
    run(&state, make);
    take(&state).unwrap_err().to_string()
}

#[test]
fn plain_tables_are_known() {
    let state = prepared();
    run(&state, "return {1, 2, x = {'y', true}}");
    let mut bytes = Vec::new();
    let writer = Writer::new(&mut bytes, 1000);
    assert!(plain::write(state.stack(), writer, &mut Default::default()));
}

#[test]
fn simple_values_travel() {
    let state = prepared();
    for (make, expected) in [
        ("return nil", Value::Nil),
        ("return true", Value::Bool(true)),
        ("return false", Value::Bool(false)),
        ("return -0.5", Value::Number(-0.5)),
        ("return 'a\\0b'", Value::String(Text::new(b"a\0b"))),
        ("return -9223372036854775807LL - 1", Value::Int64(i64::MIN)),
        ("return 18446744073709551615ULL", Value::UInt64(u64::MAX)),
    ] {
        run(&state, make);
        assert_eq!(take(&state), Ok(expected.clone()), "{make}");
        push(&state, &expected).unwrap();
        run(&state, "local a, b = ... assert(a == b and type(a) == type(b))");
    }
}

/// Keys that come in any order: what fills the gaps between some takes nothing from the others.
#[test]
fn numbered_values_in_any_order_travel() {
    for order in ["20, 1, -1", "1, 40", "1, 40, 3", "40, 1, -3", "9, 26"] {
        for extra in ["v[1] = 0", "v[1], v[2], v[3] = 0, 0, 0", "v[21] = 21", "v[5] = nil"] {
            // All in the hash part.
            let make = format!(
                "local v = require('table.new')(0, 64)
                 for i = {order} do v[i] = i end {extra} return v"
            );
            let check = format!(
                "local copy, v = v, (function() {make} end)()
                 for i = 1, 40 do assert(copy[i] == v[i], i) end"
            );
            send(&make, &check);
        }
    }
}

#[test]
fn tables_travel() {
    send("return {a = 1, b = 'x', c = {1, 2, 3}}", "assert(v.a == 1 and v.b == 'x' and #v.c == 3)");
    send("return {}", "assert(next(v) == nil)");
    send("return {1, nil, 3, nil, nil, 6}", "assert(v[1] == 1 and v[2] == nil and v[6] == 6)");
    send(
        "return {[0] = 'z', 'a', [true] = 1, [false] = 2, [-1] = 3, [0.5] = 4, [1e300] = 5}",
        "assert(v[0] == 'z' and v[1] == 'a' and v[true] == 1 and v[false] == 2)
         assert(v[-1] == 3 and v[0.5] == 4 and v[1e300] == 5)",
    );
    send(
        "local t = {} for i = 1, 1000 do t[i] = i t['k' .. i] = {i} end return t",
        "for i = 1, 1000 do assert(v[i] == i and v['k' .. i][1] == i) end assert(#v == 1000)",
    );
    send(
        "return {('x'):rep(300), [('y'):rep(300)] = 0 / 0, inf = 1 / 0}",
        "local n = v[('y'):rep(300)] assert(#v[1] == 300 and n ~= n and v.inf == 1 / 0)",
    );
    send("local t = {1, 2, 3, x = 1} t[2] = nil t.x = nil return t", "assert(v[3] == 3)");
    send("return setmetatable({1}, {__index = error})", "assert(getmetatable(v) == nil)");
}

#[test]
fn shared_and_cyclic_tables_keep_their_shape() {
    send("local t = {} t.self = t return t", "assert(v.self == v)");
    send("local s = {1} return {s, s, {s}}", "assert(v[1] == v[2] and v[3][1] == v[1])");
    send(
        "local t = {} for i = 1, 100 do t[i] = {i} end t.last, t.first = t[100], t[1] return t",
        "assert(v.last == v[100] and v.first == v[1] and v[2] ~= v[3] and v[50][1] == 50)",
    );
}

#[test]
fn integers_and_buffers_travel_within_tables() {
    send(
        "return {1LL, {x = 2ULL}}",
        "assert(v[1] == 1LL and v[2].x == 2ULL and tostring(v[2].x) == '2ULL')",
    );
    let (from, to) = (prepared(), prepared());
    let content = Piece::copy(&[1, 2, 3]);
    push(&from, &Value::Buffer(Box::new(content.clone()))).unwrap();
    assert_eq!(take(&from), Ok(Value::Buffer(Box::new(content.clone()))));
    run(&from, "return {x = {...}}");
    let value = take(&from).unwrap();
    let Value::Table(encoded) = &value else { panic!("{value:?}") };
    assert_eq!(encoded.buffers()[0].as_ptr(), content.as_ptr(), "shared, not copied");
    push(&to, &value).unwrap();
    run(&to, "return (...).x[1]");
    assert_eq!(take(&to), Ok(Value::Buffer(Box::new(content))));
}

/// A buffer is an object that is made by the VM, so that its collector may see the tables around it
/// before they are filled; here it does so at every chance.
#[test]
fn a_collector_at_work_loses_nothing() {
    let from = prepared();
    run(
        &from,
        "local v = {}
         for i = 1, 60 do
             v['key' .. i] = { 'a' .. i, 'b' .. i, [0.5] = 'c' .. i, name = { text = 'd' .. i } }
             v[i] = { ('e'):rep(i), i / 0, 0 / 0, false, { true } }
         end
         return v",
    );
    let lua = from.stack();
    for inner in 1..=30 {
        for name in [c"first", c"last"] {
            lua.entry(1, inner);
            push_content(lua, Box::into_raw(Box::new(Piece::copy(b"buffer"))));
            lua.set_field(-2, name);
            lua.pop();
        }
    }
    let value = take(&from).unwrap();
    let to = prepared();
    for slow in 1..40 {
        // Nothing is waited for between two cycles; each step does little.
        run(&to, &format!("collectgarbage('setpause', 0) collectgarbage('setstepmul', {slow})"));
        push(&to, &value).unwrap();
        run(
            &to,
            "local v = ...
             collectgarbage() collectgarbage()
             local other = {}
             for i = 1, 2000 do other[i] = 'o' .. i end
             for i = 1, 60 do
                 local t, u = v['key' .. i], v[i]
                 assert(t[1] == 'a' .. i and t[2] == 'b' .. i and t[0.5] == 'c' .. i)
                 assert(t.name.text == 'd' .. i and u[1] == ('e'):rep(i) and u[2] == i / 0)
                 assert(u[3] ~= u[3] and u[4] == false and u[5][1] == true)
                 local kind = i <= 30 and 'userdata' or 'nil'
                 assert(type(u.first) == kind and type(u.last) == kind)
             end",
        );
    }
}

#[test]
fn light_userdata_travel() {
    let (from, to) = (prepared(), prepared());
    push(&from, &Value::LightUserdata(0x7000)).unwrap();
    run(&from, "return {...}");
    let value = take(&from).unwrap();
    push(&to, &value).unwrap();
    run(&to, "return (...)[1]");
    assert_eq!(take(&to), Ok(Value::LightUserdata(0x7000)));
}

#[test]
fn refusals_name_what_and_where() {
    for (make, expected) in [
        ("return print", "value is a function; functions stay in their context: send the name"),
        ("return coroutine.create(print)", "value is a coroutine; coroutines stay"),
        ("return io.stdout", "value is userdata; only buffers travel"),
        ("return require('ffi').new('int32_t')", "value is cdata; of cdata only 64-bit integers"),
        ("return {a = {1, {b = print}}}", "value.a[2].b is a function; "),
        ("return {[true] = {[0.5] = io.stdout}}", "value[true][0.5] is userdata; "),
        ("return {['a b'] = {['1'] = print}}", "value[\"a b\"][\"1\"] is a function; "),
        ("return {[{}] = 1}", "value has a table as a key; keys are strings, numbers and booleans"),
        ("return {x = {[print] = 1}}", "value.x has a function as a key; "),
    ] {
        let text = refusal(make);
        let expected = format!("transfer data type not supported: {expected}");
        assert!(text.starts_with(&expected), "{make}: {text}");
    }
}

#[test]
fn released_buffers_are_refused() {
    let state = prepared();
    push_content(state.stack(), std::ptr::null_mut());
    run(&state, "return {b = ...}");
    let text = take(&state).unwrap_err().to_string();
    assert!(text.contains(": value.b is a released buffer; "), "{text}");
}

#[test]
fn depth_is_bounded_with_and_without_calls() {
    for leaf in ["1", "1LL"] {
        let nested = |levels: u32| {
            format!("local t = {{{leaf}}} for _ = 2, {levels} do t = {{t}} end return t")
        };
        send(
            &nested(DEPTH_MAX),
            &format!("for _ = 2, {DEPTH_MAX} do v = v[1] end assert(v[1] == {leaf})"),
        );
        let text = refusal(&nested(DEPTH_MAX + 1));
        assert!(text.contains(&format!("deeper than {DEPTH_MAX} levels")), "{text}");
    }
}

#[test]
fn size_is_bounded() {
    let state = prepared();
    run(&state, "return {('x'):rep(1000)}");
    let of = |max| to_value::<NoBuffers>(state.stack(), -1, &mut Scratch::new(max)).map(drop);
    assert_eq!(of(2000), Ok(()));
    let text = of(1000).unwrap_err().to_string();
    assert!(text.contains("not supported") && text.contains("1000 bytes"), "{text}");
}

#[test]
fn malformed_tables_push_nothing() {
    let state = prepared();
    for bytes in [&[][..], &[9], &[0], &[0, 200], &[0, 10, 1, 0, 0, 0, 0, 0, 0, 0, 12], &[0, 12, 0]]
    {
        let result = push_encoded::<NoBuffers>(state.stack(), bytes, &[]);
        assert!(matches!(result, Err(Refused::Malformed(_))), "{bytes:?}");
        assert_eq!(state.stack().top(), 0);
    }
    let missing = push_encoded::<NoBuffers>(state.stack(), &[0, 9, 1, 0, 0, 0], &[]);
    assert_eq!(missing, Err(Refused::Malformed(Malformed::Reference(1))));
}

/// Number keys of large tables wait in a table of their own: none is looked for where there is
/// none, whatever was announced.
#[test]
fn tables_with_other_keys_than_announced_are_refused() {
    let state = prepared();
    for (positional, pairs, nils) in [(1000, 512_u32, 514), (600, 512, 0), (1, 600, 0)] {
        let mut bytes = vec![0, 10];
        bytes.extend([positional, pairs].map(u32::to_le_bytes).concat());
        for number in 0..positional + pairs {
            bytes.push(14);
            bytes.extend((-0.5 - f64::from(number)).to_le_bytes());
            bytes.extend(if number < nils { &[0][..] } else { &[3, 0, 0, 0, 0, 0, 0, 0xf0, 0x3f] });
        }
        let result = push_encoded::<NoBuffers>(state.stack(), &bytes, &[]);
        assert_eq!(result, Err(Refused::Malformed(Malformed::Key)));
        assert_eq!(state.stack().top(), 0);
        state.stack().collect();
    }
}

#[test]
fn refused_value_leaves_nothing_to_the_next() {
    let state = prepared();
    let content = Piece::copy(&[1, 2, 3]);
    push(&state, &Value::Buffer(Box::new(content.clone()))).unwrap();
    run(&state, "return {1}, {{x = ...}, print}");
    let mut scratch = Scratch::default();
    to_value::<TestBuffers>(state.stack(), 2, &mut scratch).unwrap_err();
    let value = to_value::<TestBuffers>(state.stack(), 1, &mut scratch).unwrap();
    let Value::Table(encoded) = value else { panic!("{value:?}") };
    assert!(encoded.buffers().is_empty());
}

/// Tells by its counter whether it was dropped.
struct Guard<'a>(&'a std::cell::Cell<u32>);

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get() + 1);
    }
}

#[test]
fn want_of_memory_unwinds_and_drops_what_rust_owns() {
    let (from, to) = (prepared(), prepared());
    run(&from, "local t = {} for i = 1, 20000 do t[i] = {x = 'text ' .. i} end return t");
    let value = take(&from).unwrap();
    let drops = std::cell::Cell::new(0);
    let receive_value = || {
        to.protect(|lua| {
            let _guard = Guard(&drops);
            push_value::<NoBuffers>(lua, &value).unwrap();
        })
    };
    to.account().set_limit(to.account().lua_bytes() + 500_000);
    assert_eq!(receive_value(), Err(OUT_OF_MEMORY.into()));
    assert!(to.account().exceeded());
    assert_eq!(drops.get(), 1, "destructors run");
    to.account().set_limit(0);
    assert_eq!(receive_value(), Ok(()), "the value is whole");
}

/// Lua source for a random nested value, and nothing that `==` could not compare.
fn any_source() -> impl Strategy<Value = String> {
    let key = prop_oneof![
        "[a-z]{1,6}".prop_map(|name| format!("k{name}")),
        (-3i32..40).prop_map(|n| format!("[{n}]")),
        any::<i16>().prop_map(|n| format!("[{}]", f64::from(n) / 4.0)),
        any::<bool>().prop_map(|b| format!("[{b}]")),
    ];
    let leaf = prop_oneof![
        any::<i32>().prop_map(|n| n.to_string()),
        any::<i32>().prop_map(|n| format!("{}", f64::from(n) / 8.0)),
        any::<bool>().prop_map(|b| b.to_string()),
        "[ -!#-Z^-~]{0,40}".prop_map(|text| format!("\"{text}\"")),
        any::<i64>().prop_filter("no literal", |n| *n != i64::MIN).prop_map(|n| format!("{n}LL")),
        any::<u64>().prop_map(|n| format!("{n}ULL")),
        Just("nil".to_owned()),
        Just("shared".to_owned()),
    ];
    leaf.prop_recursive(5, 60, 8, move |inner| {
        let list = proptest::collection::vec(inner.clone(), 0..20);
        let map = proptest::collection::vec((key.clone(), inner), 0..8);
        (list, map).prop_map(|(list, map)| {
            let map = map.into_iter().map(|(key, value)| format!("{key} = {value}"));
            format!("{{{}}}", list.into_iter().chain(map).collect::<Vec<_>>().join(", "))
        })
    })
}

/// Compares values of one source, one made here and one received; `shared` must stay one table.
const COMPARE: &str = "
local shared_here = shared
local function same(a, b, where)
    if a == shared then
        if shared_there == nil then shared_there = b end
        assert(rawequal(b, shared_there), where)
    end
    assert(type(a) == type(b), where)
    if type(a) == 'cdata' then assert(tostring(a) == tostring(b), where) return end
    if type(a) ~= 'table' then assert(a == b, where) return end
    for k, v in pairs(a) do same(v, b[k], where .. '.' .. tostring(k)) end
    for k in pairs(b) do assert(a[k] ~= nil, where) end
end
same(value, received, '')";

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn random_values_round_trip(source in any_source()) {
        let (from, to) = (prepared(), prepared());
        let make = format!("local shared = {{'s'}} local value = {source} ");
        run(&from, &format!("{make} return value"));
        push(&to, &take(&from).unwrap()).unwrap();
        run(&to, &format!("local received, shared_there = ... {make}{COMPARE}"));
    }

    #[test]
    fn any_bytes_can_be_pushed(
        tags in proptest::collection::vec((0u8..18, any::<u64>(), 0usize..9), 0..60),
        is_graph in any::<bool>(),
    ) {
        let mut bytes = vec![u8::from(is_graph)];
        for (tag, bits, len) in tags {
            bytes.push(tag);
            // Small counts, for something to be read after them.
            let bits = if tag == 10 { bits & 0x3_0000_0003 } else { bits };
            bytes.extend(&bits.to_ne_bytes()[..if tag == 10 { 8 } else { len }]);
        }
        // Light userdata of any bits may be refused by raising.
        let _ = prepared().protect(|lua| {
            let _ = push_encoded::<NoBuffers>(lua, &bytes, &[]);
            lua.collect();
        });
    }
}

#[test]
fn kinds_and_truths_are_those_that_the_vm_tells() {
    let state = prepared();
    run(
        &state,
        "return nil, false, true, 0, -0.5, 0/0, 1e300, '', 'text', {}, print, function() end,
            coroutine.create(print), io.stdout, require('ffi').new('int[1]'), 1LL",
    );
    let lua = state.stack();
    lua.push_address(std::ptr::dangling_mut());
    let top = lua.top();
    assert_eq!(top, 17);
    for index in (-top..=top + 2).filter(|index| *index != 0) {
        // SAFETY: a state of this test, with a value there, or none.
        let (kind, truth, number) = unsafe {
            let raw = lua.raw();
            let truth = ffi::lua_toboolean(raw, index) != 0;
            (ffi::lua_type(raw, index), truth, ffi::lua_tonumber(raw, index))
        };
        assert_eq!((lua.kind(index), lua.boolean(index)), (kind, truth), "{index}");
        assert_eq!(lua.number(index).to_bits(), number.to_bits(), "{index}");
    }
    for (index, left) in [(-3, 15), (20, 20), (20, 20), (2, 2), (-1, 2), (0, 0)] {
        lua.set_top(index);
        // SAFETY: the state of this test, which nothing runs.
        assert_eq!((lua.top(), unsafe { ffi::lua_gettop(lua.raw()) }), (left, left));
    }
}
