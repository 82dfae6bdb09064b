//! Buffers through a real VM: scripts, the Rust interface, memory accounting.

#![allow(unsafe_code, reason = "a state without the runtime")]
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test")]

mod support;

use bytes::Bytes;
use mlua::ffi;
use node_lua::buf::{INLINE_MAX, Piece, SIZE_MAX};
use node_lua::lua::buffer::userdata::{self, buffer_at};
use node_lua::vm::stack::Stack;

fn script(name: &str, source: &str) {
    let state = support::vm::state();
    let result = support::vm::run(&state, name, source);
    print!("{}", support::vm::output(&state));
    result.unwrap();
}

#[test]
fn buffer_script() {
    script("@tests/lua/buffer_test.lua", include_str!("lua/buffer_test.lua"));
}

#[test]
fn buffer_access_script() {
    script("@tests/lua/buffer_access_test.lua", include_str!("lua/buffer_access_test.lua"));
}

#[test]
fn packet_script() {
    script("@tests/lua/packet_test.lua", include_str!("lua/packet_test.lua"));
}

#[test]
fn jit_script() {
    script("@tests/lua/jit_test.lua", include_str!("lua/jit_test.lua"));
}

#[test]
fn pushed_bytes_arrive_at_every_size() {
    let state = support::vm::state();
    let lua = state.stack();
    for size in [0, 1, 32, 33, INLINE_MAX, INLINE_MAX + 1, INLINE_MAX + 33, 100_000] {
        let bytes: Vec<u8> = (0..size).map(|i| i as u8).collect();
        let shared = Bytes::from(bytes.clone());
        // Without a limit nothing raises.
        userdata::push_bytes(lua, &bytes);
        userdata::push_shared(lua, Piece::from(shared.clone()));
        assert_eq!(buffer_at(lua, -2).unwrap().as_slice(), bytes);
        let second = buffer_at(lua, -1).unwrap();
        assert_eq!(second.as_slice(), bytes);
        assert_eq!(second.as_slice().as_ptr() == shared.as_ptr(), size > INLINE_MAX);
        assert_eq!(*second.share(), *bytes);
        lua.set_top(0);
    }
}

#[test]
fn only_buffers_pass_the_type_check() {
    let state = support::vm::state();
    let (raw, lua) = (state.as_ptr(), state.stack());
    support::vm::run(
        &state,
        "=values",
        "values = { 1, 'x', true, {}, print, io.stdout, newproxy(true), coroutine.create(print),
            setmetatable({}, { __metatable = getmetatable(buffer.new()) }) }",
    )
    .unwrap();
    lua.push_nil();
    assert!(buffer_at(lua, -1).is_none());
    // SAFETY: the state is not running; the VM keeps the number alone.
    unsafe { ffi::lua_pushlightuserdata(raw, raw.cast()) };
    assert!(buffer_at(lua, -1).is_none());
    lua.push_global(c"values");
    for index in 1..=9 {
        lua.entry(-1, index);
        assert!(buffer_at(lua, -1).is_none(), "value {index}");
        lua.pop();
    }
    lua.set_top(0);
}

#[test]
fn memory_outside_the_vm_is_counted_and_given_back() {
    let state = support::vm::state();
    let external = || state.account().external_bytes();
    support::vm::run(&state, "=small", "local b = buffer.new(('x'):rep(100)) b:append('y')")
        .unwrap();
    assert_eq!(external(), 0);
    support::vm::run(&state, "=large", "b = buffer.new(100000)").unwrap();
    assert_eq!(external(), 100_000);
    support::vm::run(&state, "=split", "b:append(('x'):rep(90000)) c = b:split(50000)").unwrap();
    // Each of both keeps the whole block in memory.
    assert_eq!(external(), 200_000);
    support::vm::run(&state, "=view", "d = c:slice(0, 40000)").unwrap();
    assert_eq!(external(), 300_000);
    support::vm::run(&state, "=release", "d:release() d:release()").unwrap();
    assert_eq!(external(), 200_000);
    support::vm::run(&state, "=collect", "b, c, d = nil collectgarbage() collectgarbage()")
        .unwrap();
    assert_eq!(external(), 0);
    support::vm::run(
        &state,
        "=grow",
        "local b = buffer.new() for i = 1, 5000 do b:append('0123456789') end
         assert(b:length() == 50000) b:release()",
    )
    .unwrap();
    assert_eq!(external(), 0);
}

#[test]
fn the_limit_of_a_state_holds_for_buffers() {
    let state = support::vm::state();
    state.account().set_limit(state.account().lua_bytes() + (4 << 20));
    support::vm::run(
        &state,
        "=limit",
        "local ok, text = pcall(buffer.new, 8 * 2^20)
         assert(not ok and text:find 'not enough memory for a buffer of 8388608 bytes', text)
         local b = buffer.new(('x'):rep(1500))
         ok, text = pcall(function() while true do b:append(b) end end)
         assert(not ok and text:find 'not enough memory', text)
         ok, text = pcall(function() while true do b:put_u8(1) end end)
         assert(not ok and text:find 'not enough memory', text)
         local held = b:length()
         assert(held >= 1000 and b:text(0, 3) == 'xxx')
         b:release()
         for i = 1, 100 do buffer.new(2^20) end -- garbage is collected for the next one",
    )
    .unwrap();
    // SAFETY: the state is not running.
    unsafe { ffi::lua_gc(state.as_ptr(), ffi::LUA_GCCOLLECT, 0) };
    assert_eq!(state.account().external_bytes(), 0);
}

#[test]
fn shared_bytes_that_are_refused_are_let_go() {
    let state = support::vm::state();
    let raw = state.as_ptr();
    state.account().set_limit(state.account().lua_bytes() + 100_000);
    let bytes = Bytes::from(vec![1; 1 << 20]);
    let mut second = Some(bytes.clone());
    unsafe extern "C-unwind" fn push(raw: *mut mlua::ffi::lua_State) -> i32 {
        // SAFETY: the test passes its own option.
        let bytes = unsafe { (*ffi::lua_touserdata(raw, 1).cast::<Option<Bytes>>()).take() };
        // SAFETY: called protected.
        userdata::push_shared(unsafe { Stack::new(raw) }, Piece::from(bytes.expect("some")));
        0
    }
    // SAFETY: the state is not running.
    let status = unsafe { ffi::lua_cpcall(raw, push, (&raw mut second).cast()) };
    assert_eq!(status, ffi::LUA_ERRRUN);
    assert!(bytes.is_unique());
}

#[test]
fn largest_size_is_named() {
    let state = support::vm::state();
    support::vm::run(
        &state,
        "=size",
        &format!(
            "local ok, text = pcall(buffer.new, {SIZE_MAX} + 1)
             local wanted = '0 to {SIZE_MAX} expected, got number {}'
             assert(not ok and text:find(wanted, 1, true), text)",
            SIZE_MAX + 1
        ),
    )
    .unwrap();
}
