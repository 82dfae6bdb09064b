//! Single calls of LuaJIT's library that would run for hours: each ends with its context.

#![cfg(all(target_arch = "x86_64", target_os = "linux"))]
#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::io::Read;
use std::process::Stdio;
use std::time::Duration;

use support::{Folder, PATIENCE, Server, node_lua, run};

/// Calls that take a matcher, the sorter, the compiler or a reader longer than any test waits.
const CALLS: &[(&str, &str)] = &[
    ("find", "local _ = (('a'):rep(200)):find(('.-'):rep(12) .. 'b')"),
    ("match", "local _ = (('a'):rep(200)):match(('a*'):rep(30) .. 'b')"),
    ("gmatch", "for _ in (('a'):rep(200)):gmatch(('.-'):rep(12) .. 'b') do end"),
    ("gsub", "local _ = (('a'):rep(200)):gsub(('a?'):rep(150) .. 'b', 'x')"),
    ("lazy", "local _ = (('a'):rep(4e6)):find('.-b')"),
    ("greedy", "local _ = (('a'):rep(4e6)):find('a+b')"),
    ("captured", "local _ = (('a'):rep(4e6)):gsub('(.-)%f[%d]', '')"),
    ("balanced", "local _ = (('('):rep(4e6)):gsub('%b()', '')"),
    ("again", "local _ = (('a'):rep(4e6)):match('(a*)b%1')"),
    ("set", "while true do local _ = (('a'):rep(4e6)):find('[' .. ('b'):rep(4e6) .. ']') end"),
    ("set behind few", "local _ = (('a'):rep(4e6)):find('a-[' .. ('b'):rep(4e6) .. ']')"),
    ("set behind most", "local _ = (('a'):rep(4e6)):find('a*[' .. ('b'):rep(4e6) .. ']')"),
    (
        "sets",
        "local s = '[' .. ('b'):rep(2e6) .. 'a]-' _ = (('a'):rep(4e6)):find(s .. s .. s .. 'b')",
    ),
    (
        "set before a tail",
        "while true do _ = (('a'):rep(4e6)):find('c?[' .. ('b'):rep(4e6) .. 'a]-%s*$') end",
    ),
    ("set of a frontier", "local _ = (('a'):rep(4e6)):find('%f[' .. ('b'):rep(4e6) .. ']')"),
    ("place", "local _ = (('a'):rep(4e6)):find('().*%1')"),
    ("insert", "while true do table.insert({ 1 }, -2 ^ 31, 2) end"),
    ("inserted at NaN", "while true do table.insert({ 1, 2, 3 }, 0 / 0, 2) end"),
    ("inserted at no place", "while true do table.insert({ 1, 2, 3 }, 1e300, 2) end"),
    ("inserted behind", "while true do table.insert({ 1, 2, 3 }, 2 ^ 31, 2) end"),
    ("inserted between", "while true do table.insert({ 1, 2, 3 }, -2e9 - 0.5, 2) end"),
    ("inserted at text", "while true do table.insert({ 1, 2, 3 }, '0x80000000', 2) end"),
    ("sparse insert", "while true do table.insert(require('sparse'), 20, 2) end"),
    ("sparse remove", "while true do table.remove(require('sparse'), 20) end"),
    ("sparse move", "local t = require('sparse') while true do table.move(t, 1, #t, 2) end"),
    ("sparse foreachi", "while true do table.foreachi(require('sparse'), type) end"),
    ("sparse sort", "while true do table.sort(require('sparse'), rawequal) end"),
    (
        "sort",
        "local n, t = 2e6, {}
         for i = 1, n do t[i] = i end
         for l = n - 8, 1, -2 do
           local m = math.floor((l + n) / 2)
           t[l + 1], t[n - 1], t[m], t[l] = t[n - 1], t[m], l + 1, l
         end
         table.sort(t)",
    ),
    (
        "json",
        "local skip, inner, outer = require 'cjson', {}, {}
         skip.encode_skip_unsupported_value_types(true)
         for i = 1, 1e5 do inner[i] = print end
         for i = 1, 1e5 do outer[i] = inner end
         skip.encode(outer)",
    ),
    (
        "text",
        "local text = '[' .. ('[],'):rep(2e6) .. '1'
         while true do pcall(json.decode, text) end",
    ),
    (
        "bytes",
        "local bytes = ('\\x92\\1\\2'):rep(2e6)
         while true do pcall(msgpack.decode, '\\xdd\\0\\x1e\\x84\\x80' .. bytes) end",
    ),
    ("line", "io.open('/dev/zero'):read('*l')"),
    ("lines", "for _ in io.lines('/dev/zero') do end"),
    (
        "load",
        "loadstring('if a then ' .. ('elseif a then '):rep(2e6) .. 'end')
         while true do end",
    ),
];

/// Those that this build has.
fn calls() -> impl Iterator<Item = &'static (&'static str, &'static str)> {
    let has_all = cfg!(all(feature = "json", feature = "msgpack"));
    CALLS.iter().filter(move |(name, _)| has_all || !["json", "text", "bytes"].contains(name))
}

/// A table of few entries, the last of which is far behind the others.
const SPARSE: &str = "
    local t, i, j = require('table.new')(8, 256), 8, 9
    for k = 1, 8 do t[k] = k end
    while j * 2 < 2 ^ 31 - 2 do t[j] = 1 i = j j = j * 2 end
    while j - i > 1 do
      local middle = math.floor((i + j) / 2)
      t[middle] = 1
      i = middle
    end
    assert(#t > 1e9)
    return t";

/// What is written takes as long as its reader does: the call ends in the middle of it.
#[test]
fn destroy_ends_what_writes_much() {
    let folder = Folder::new();
    let main = folder.write(
        "main.lua",
        "local h = context.create((...))
         context.recv(h)
         timer.sleep(0.05)
         context.destroy(h)
         context.wait(h)
         os.exit(0)",
    );
    let texts = "context.send(context.parent(), 'here')
                 timer.sleep(0)
                 local s, t = ('x'):rep(1e6), {}
                 for i = 1, 7900 do t[i] = s end ";
    let calls = [
        "print(unpack(t))",
        "print(true, unpack(t))",
        "io.write(unpack(t))",
        "io.stderr:write(unpack(t))",
        "print(('x'):rep(2e8))",
    ];
    for (number, call) in calls.into_iter().enumerate() {
        let file = folder.write(&format!("{number}.lua"), [texts, call].concat());
        let mut command = node_lua();
        command.arg(&main).arg(&file).stderr(Stdio::piped());
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let readers: [Box<dyn Read + Send>; 2] =
            [Box::new(child.stdout.take().unwrap()), Box::new(child.stderr.take().unwrap())];
        let readers = readers.map(|mut from| {
            std::thread::spawn(move || {
                let mut piece = [0; 4096];
                let mut all = 0_u64;
                while let Ok(bytes @ 1..) = from.read(&mut piece) {
                    all += bytes as u64;
                    std::thread::sleep(Duration::from_micros(100));
                }
                all
            })
        });
        let all: u64 = readers.map(|reader| reader.join().unwrap()).iter().sum();
        assert!(child.wait().unwrap().success(), "{call}");
        assert!(all < 150_000_000, "{call}: {all}");
    }
}

#[test]
fn destroy_ends_long_calls() {
    let folder = Folder::new();
    folder.write("sparse.lua", SPARSE);
    let main = folder.write(
        "main.lua",
        "local h = context.create((...))
         timer.sleep(0.2)
         assert(context.stat(h), 'it is under way')
         context.destroy(h, 'enough')
         local _, code = context.wait(h, 20)
         assert(code == 0 or code == 205, code)",
    );
    for (name, script) in calls() {
        let file = folder.write(&format!("{name}.lua"), script);
        let done = run(node_lua().args([&main, &file]));
        assert_eq!(done.code(), Some(0), "{name}: {done}");
    }
}

#[test]
fn a_turn_limit_ends_long_calls() {
    let folder = Folder::new();
    folder.write("sparse.lua", SPARSE);
    for (name, script) in calls() {
        let file = folder.write(&format!("{name}.lua"), script);
        let done = run(node_lua().args(["--turn-limit", "0.05"]).arg(&file));
        assert_eq!(done.code(), Some(1), "{name}: {done}");
        assert!(done.stderr.contains("(211)"), "{name}: {done}");
        assert!(done.stderr.starts_with("node-lua: context killed"), "{name}: {done}");
    }
}

#[test]
fn a_signal_ends_long_calls() {
    for (name, script) in calls().filter(|(name, _)| ["find", "lazy", "sort"].contains(name)) {
        let mut server = Server::start(["-e", &format!("print('begun') io.flush() {script}")]);
        assert_eq!(server.line(), "begun", "{name}");
        server.signal("INT");
        assert_eq!(server.finish(PATIENCE).code(), Some(130), "{name}");
    }
}

/// Texts are found in as many steps as both are long.
#[test]
fn text_is_found_in_text_of_any_kind() {
    let script = "local text = ('a'):rep(2e6)
                  for i = 1, 100 do
                    assert(not text:find(('a'):rep(1e6) .. 'b', 1, true))
                    assert(not text:find(('a'):rep(1e6) .. 'b'))
                  end
                  for i = 1, 300 do
                    local at = i % 17 + 1
                    assert(('x'):rep(at) .. 'yz' == ('x'):rep(at) .. 'yz')
                    local found, last = (('x'):rep(at) .. 'yz'):find('yz', 1, true)
                    assert(found == at + 1 and last == at + 2)
                    assert(('abc'):find('', 10, true) == 4 and not ('abc'):find('abcd', 1, true))
                    assert(('a\\0b'):find('\\0b', 1, true) == 2)
                  end";
    run(node_lua().args(["--turn-limit", "10", "-e", script])).succeeded();
}

/// Numbers of which LuaJIT puts all into one chain, whatever the table's size.
const COLLIDING: &str = "
    local bit, ffi = require('bit'), require('ffi')
    local both = ffi.new('union { double number; uint32_t words[2]; }')
    local function colliding(count)
      local keys, x = {}, 1
      while #keys < count do
        x = bit.tobit(x * 69069 + 1)
        local high = bit.ror(bit.bxor(bit.rol(x, 13), x), 19)
        if bit.band(high, 1) == 0 and bit.band(high, 0xffe00000) ~= bit.tobit(0xffe00000) then
          both.words[0] = bit.bxor(bit.tobit(x + bit.rol(high, 14)), high)
          both.words[1] = bit.rshift(high, 1)
          local key = both.number
          if key == key and key % 1 ~= 0 then keys[#keys + 1] = key end
        end
      end
      return keys
    end";

/// What is added to such a table, in every way, is there; others, and what is taken out, too.
#[test]
fn tables_of_colliding_keys_keep_what_they_hold() {
    let script = format!(
        "{COLLIDING}
         local keys = colliding(20000)
         for _, add in ipairs {{ rawset, function(t, k, v) t[k] = v end }} do
           local t, count = {{}}, 0
           for i, key in ipairs(keys) do
             add(t, key, i)
             if i % 3 == 0 then add(t, i * 1000, i) add(t, 'k' .. i, i) add(t, {{}}, i) end
             if i % 5 == 0 then add(t, keys[i - 1], nil) end
             if i == 9000 then collectgarbage() end
           end
           for i, key in ipairs(keys) do
             assert(t[key] == (i % 5 ~= 4 and i or nil))
             if i % 3 == 0 then assert(t[i * 1000] == i and t['k' .. i] == i) end
           end
           for _ in pairs(t) do count = count + 1 end
           assert(count == 20000 - 4000 + 3 * math.floor(20000 / 3), count)
         end"
    );
    run(node_lua().args(["-e", &script])).succeeded();
}

/// Such tables travel, whatever else is in them: each takes its senders and receivers no longer
/// than others, of which a hundred fit the limit.
#[test]
fn tables_of_colliding_keys_are_sent_like_others() {
    let script = format!(
        "{COLLIDING}
         local keys = colliding(40000)
         for name, other in pairs {{ int64 = 1LL, buffer = buffer.new('x'), number = 1 }} do
           local t, count = {{}}, 0
           for i, key in ipairs(keys) do
             t[key] = i
             if i % 300 == 0 then timer.sleep(0) end
           end
           for i = 1, 100 do t[i], t['k' .. i] = i, i end
           t.other = other
           timer.sleep(0)
           context.send(context.self(), t)
           t = nil
           timer.sleep(0)
           local _, got = context.recv(context.self())
           timer.sleep(0)
           for _ in pairs(got) do
             count = count + 1
             if count % 300 == 0 then timer.sleep(0) end
           end
           assert(count == 40201 and got[keys[40000]] == 40000, count)
           assert(got.other == other and got[100] == 100 and got.k7 == 7, name)
         end"
    );
    run(node_lua().args(["--turn-limit", "0.5", "-e", &script])).succeeded();
}

/// A peer may write such maps: reading them takes as long as reading others.
#[cfg(feature = "msgpack")]
#[test]
fn maps_of_colliding_keys_are_read_like_others() {
    let script = format!(
        "{COLLIDING}
         local keys, parts = colliding(60000), {{}}
         for i, key in ipairs(keys) do parts[i] = msgpack.encode(key) .. '\\1' end
         local bytes = '\\xdf' .. buffer.pack('>I4', #keys):tostring() .. table.concat(parts)
         timer.sleep(0)
         local got = msgpack.decode(bytes)
         assert(got[keys[1]] == 1 and got[keys[60000]] == 1)"
    );
    run(node_lua().args(["--turn-limit", "0.5", "-e", &script])).succeeded();
}

/// One that adds to such a table for ever can be ended: no single step takes long.
#[test]
fn destroy_ends_whoever_adds_colliding_keys() {
    let folder = Folder::new();
    let file = folder.write(
        "adds.lua",
        format!(
            "{COLLIDING}
             local keys, t = colliding(300000), {{}}
             for i, key in ipairs(keys) do t[key] = i end"
        ),
    );
    let main = folder.write(
        "main.lua",
        "local h = context.create((...))
         timer.sleep(2)
         context.destroy(h, 'enough')
         local _, code = context.wait(h, 20)
         assert(code == 0 or code == 205, code)",
    );
    run(node_lua().args([main, file])).succeeded();
}

/// Wherever something is inserted, all is where it would be in plain Lua.
#[test]
fn what_is_inserted_far_in_front_of_a_table_is_there() {
    let script =
        "for _, place in ipairs { -70000, -65536, -65535, '-70000', -70000.5, -3, 0, 1, 2 } do
                    local is, should = { 'a', 'b' }, { 'a', 'b' }
                    is[-5], should[-5] = 'c', 'c'
                    table.insert(is, place, 'x')
                    local at = place - place % -1
                    for i = 3, at + 1, -1 do should[i] = should[i - 1] end
                    should[at] = 'x'
                    for k, v in pairs(is) do assert(should[k] == v) end
                    for k, v in pairs(should) do assert(is[k] == v) end
                  end
                  for _, count in ipairs { 7, 8, 9, 100, 127, 128, 1000 } do
                    for place = -3, count + 3, math.max(1, math.floor(count / 50)) do
                      local is, should = {}, {}
                      for i = 1, count do is[i], should[i] = {}, 0 should[i] = is[i] end
                      is.x, should.x = 5, 5
                      table.insert(is, place + 0.5, 'x')
                      local at = place < 0 and place + 1 or place
                      for i = count + 1, at + 1, -1 do should[i] = should[i - 1] end
                      should[at] = 'x'
                      for k, v in pairs(is) do assert(should[k] == v) end
                      for k, v in pairs(should) do assert(is[k] == v) end
                    end
                  end
                  for _, wrong in ipairs { 'x', {}, false } do
                    local ok, why = pcall(table.insert, {}, wrong, 1)
                    assert(not ok and why:find('number expected', 1, true), why)
                  end
                  assert(not pcall(table.insert, 5, -70000, 1))";
    run(node_lua().args(["-e", script])).succeeded();
}
