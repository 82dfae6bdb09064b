//! JSON and MessagePack, with what others write and read, and within the bounds of a context.

#![cfg(all(feature = "json", feature = "msgpack"))]
#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::process::Command;

use support::{Folder, node_lua, repository, run};

/// The cases of <https://github.com/nst/JSONTestSuite>, but for the two longest: a name, whose
/// first letter says whether it is JSON (`i`: as one likes), a tab, and the text with `\xNN` for
/// bytes.
const SUITE: &str = "tests/json/suite.txt";

#[test]
fn every_case_of_the_test_suite_is_accepted_or_refused_as_it_should_be() {
    let suite = repository(SUITE);
    let script = r#"
        local seen, wrong = { y = 0, n = 0, i = 0 }, {}
        local function check(name, text)
          local kind = name:sub(1, 1)
          seen[kind] = seen[kind] + 1
          for _, given in ipairs { text, buffer.new(text) } do
            local ok, value = pcall(json.decode, given)
            if ok ~= (kind == 'y') and kind ~= 'i' then wrong[#wrong + 1] = name end
            if not ok and not tostring(value):find('at line %d+ column %d+ %(byte %d+%)') then
              wrong[#wrong + 1] = name .. ': ' .. tostring(value)
            end
          end
        end
        for line in io.lines((...)) do
          local name, text = line:match('^(%S+)\t(.*)$')
          check(name, (text:gsub('\\x(%x%x)', function(byte)
            return string.char(tonumber(byte, 16))
          end)))
        end
        check('n_structure_100000_opening_arrays', ('['):rep(100000))
        check('n_structure_open_array_object', ('[{"":'):rep(50000) .. '\n')
        print(seen.y, seen.n, seen.i, table.concat(wrong, '\n'))"#;
    let folder = Folder::new();
    let done = run(node_lua().arg(folder.write("suite.lua", script)).arg(suite));
    assert_eq!(done.succeeded().stdout, "95\t188\t35\t\n");
}

/// Documents of all sorts, from a seed.
const DOCUMENTS: &str = r#"
    local seed = 7
    local function random(n)
      seed = (seed * 16807) % 2147483647
      return seed % n
    end
    local words = {
      '', 'a', 'häß', '€😀', '"\\/\b\f\n\r\t', '\0\1\31\127', ('x'):rep(40), ('y'):rep(300),
    }
    local function number()
      local kinds = {
        function() return random(200) - 100 end,
        function() return (random(2147483647) - 1e9) * random(4000000) end,
        function() return (random(2000) - 1000) / 8 end,
        function() return random(1000000007) / random(1000003) * 10 ^ (random(40) - 20) end,
        function() return 2 ^ 53 - random(3) end,
      }
      return kinds[1 + random(#kinds)]()
    end
    local function value(depth)
      local kind = random(depth > 0 and 9 or 6)
      if kind == 0 then return json.null end
      if kind == 1 then return random(2) == 0 end
      if kind <= 3 then return number() end
      if kind <= 5 then return words[1 + random(#words)] .. random(50) end
      local t = {}
      for i = 1, random(depth <= 2 and random(40) == 0 and 400 or 6) do
        if kind == 6 then t[i] = value(depth - 1) else
          t[words[1 + random(#words)] .. random(1000)] = value(depth - 1)
        end
      end
      return kind == 6 and json.array(t) or json.object(t)
    end
    function documents(count)
      local list = {}
      for i = 1, count do list[i] = value(4) end
      return list
    end
    function same(a, b)
      if type(a) ~= 'table' or type(b) ~= 'table' then return a == b end
      for k, v in pairs(a) do if not same(v, b[k]) then return false end end
      for k in pairs(b) do if a[k] == nil then return false end end
      return true
    end"#;

/// Runs a program of Python; false without Python, or without what it imports. The Python of the
/// path may be another one than the system's, which is who has the packages of the system.
fn python(script: &str, arguments: &[&str]) -> bool {
    for program in ["python3", "/usr/bin/python3"] {
        let Ok(done) = Command::new(program).args(["-c", script]).args(arguments).output() else {
            continue;
        };
        let text = String::from_utf8_lossy(&done.stderr);
        if text.contains("ModuleNotFoundError") {
            continue;
        }
        assert!(done.status.success(), "{program}: {text}");
        return true;
    }
    false
}

#[test]
fn documents_come_back_as_they_were() {
    let script = format!(
        "{DOCUMENTS}
         for i, document in ipairs(documents(400)) do
           for _, codec in ipairs {{ json, msgpack }} do
             local text = codec.encode(document)
             assert(same(document, codec.decode(text)), i)
             assert(same(document, codec.decode(buffer.new(text))), i)
             assert(codec.encode(codec.decode(text), {{ sort_keys = true }})
               == codec.encode(document, {{ sort_keys = true }}), i)
           end
         end"
    );
    let folder = Folder::new();
    run(node_lua().arg(folder.write("main.lua", script))).succeeded();
}

/// What Python reads is what was meant, and what it writes is read.
#[test]
fn python_reads_what_is_written_and_is_read() {
    let folder = Folder::new();
    let write = folder.write(
        "write.lua",
        format!(
            "{DOCUMENTS}
             local text, bytes = (...), select(2, ...)
             local list = documents(300)
             assert(io.open(text, 'w')):write(json.encode(list))
             assert(io.open(bytes, 'w')):write(msgpack.encode(list))"
        ),
    );
    let read = folder.write(
        "read.lua",
        format!(
            "{DOCUMENTS}
             local list = documents(300)
             local codec = ({{ json = json, msgpack = msgpack }})[(...)]
             for i = 2, select('#', ...) do
               local back = codec.decode(assert(io.open((select(i, ...)))):read('*a'))
               assert(same(list, back), i)
             end"
        ),
    );
    let path = |name: &str| folder.path(name).to_str().unwrap().to_owned();
    let (text, bytes) = (path("lua.json"), path("lua.msgpack"));
    run(node_lua().arg(&write).args([&text, &bytes])).succeeded();
    let (plain, escaped) = (path("plain.json"), path("escaped.json"));
    let has_json = python(
        "import json, sys
value = json.load(open(sys.argv[1], encoding='utf-8'))
json.dump(value, open(sys.argv[2], 'w', encoding='utf-8'), ensure_ascii=False)
json.dump(value, open(sys.argv[3], 'w', encoding='utf-8'), ensure_ascii=True, indent=2)",
        &[&text, &plain, &escaped],
    );
    if has_json {
        run(node_lua().arg(&read).args(["json", &text, &plain, &escaped])).succeeded();
    }
    let (again, single) = (path("again.msgpack"), path("single.msgpack"));
    let has_msgpack = python(
        "import msgpack, sys
value = msgpack.unpackb(open(sys.argv[1], 'rb').read())
open(sys.argv[2], 'wb').write(msgpack.packb(value))
import json
assert json.load(open(sys.argv[3], encoding='utf-8')) == value
open(sys.argv[4], 'wb').write(msgpack.packb(msgpack.unpackb(msgpack.packb(value))))",
        &[&bytes, &again, &text, &single],
    );
    if has_msgpack {
        run(node_lua().arg(&read).args(["msgpack", &bytes, &again, &single])).succeeded();
    }
    let must = std::env::var_os("NODE_LUA_LIBRARIES").is_some();
    assert!(!must || has_json && has_msgpack, "Python and its module msgpack are there");
}

/// A context that has no memory for a document ends, and others go on. Nothing of it is left.
#[test]
fn documents_too_large_for_their_context_end_it_alone() {
    let folder = Folder::new();
    let worker = folder.write(
        "worker.lua",
        "local what = ...
         if what == 'decode' then
           local text = '[' .. ('[],'):rep(100000) .. '1]'
           local ok, why = pcall(json.decode, text)
           print('not ended', ok, why)
         elseif what == 'encode' then
           local list, word = {}, ('x'):rep(100000)
           for i = 1, 200 do list[i] = word end
           print('not ended', pcall(json.encode, list))
         elseif what == 'msgpack' then
           local text = '\\xdd\\0\\1\\0\\0' .. ('\\x90'):rep(65536)
           print('not ended', pcall(msgpack.decode, ('\\x92\\xa1a'):rep(900) .. text))
         end",
    );
    let main = folder.write(
        "main.lua",
        "local worker = ...
         local ended = {}
         for _, what in ipairs { 'decode', 'encode', 'msgpack' } do
           for i = 1, 10 do
             local h = context.create({ file = worker, memory = 4e6 }, what)
             context.monitor(h, function(_, why) ended[#ended + 1] = why end)
             context.wait(h, 20)
           end
         end
         timer.sleep(0)
         local counts = {}
         for _, why in ipairs(ended) do counts[why] = (counts[why] or 0) + 1 end
         print(counts.memory, #ended)
         local function resident()
           return tonumber(io.open('/proc/self/statm'):read('*a'):match('%d+ (%d+)')) * 4096
         end
         print(resident() < 150e6 or resident())",
    );
    let done = run(node_lua().arg(&main).arg(&worker));
    assert_eq!(done.succeeded().stdout, "30\t30\ntrue\n");
}

/// What fails leaves nothing behind.
#[test]
fn failures_leave_nothing_behind() {
    let script = "
        local deep, wide = {}, {}
        for i = 1, 3000 do deep = { deep } end
        for i = 1, 20000 do wide[i] = ('w'):rep(10) .. i end
        wide[20001] = print
        local bad = '[' .. ('\"abc\",{\"k\":[1,2]},'):rep(20000)
        local function fail()
          assert(not pcall(json.encode, deep))
          assert(not pcall(json.encode, wide))
          assert(not pcall(msgpack.encode, wide))
          assert(not pcall(json.decode, bad))
          assert(not pcall(json.decode, buffer.new(bad)))
          assert(not pcall(json.encode, wide, { max_bytes = 100000 }))
        end
        local function held()
          collectgarbage() collectgarbage()
          local s = context.stat(context.self())
          return s.lua_bytes + s.buffer_bytes
        end
        for i = 1, 5 do fail() end
        local before = held()
        for i = 1, 30 do fail() end
        assert(held() - before < 100000, held() - before)";
    run(node_lua().args(["-e", script])).succeeded();
}

/// Contexts that use neither pay for two names.
#[test]
fn nothing_is_loaded_before_it_is_used() {
    let script = "
        local function held()
          collectgarbage() collectgarbage()
          return collectgarbage('count')
        end
        local before = held()
        assert(json.encode(1) == '1')
        local loaded = held()
        assert(loaded - before > 1, loaded - before)";
    run(node_lua().args(["-e", script])).succeeded();
    let script = "assert(package.loaded.json == nil and require 'json' == json)
                  assert(require 'msgpack' == msgpack and package.loaded.msgpack == msgpack)";
    run(node_lua().args(["-e", script])).succeeded();
}

/// A file of a script's own comes first; built in comes before what is installed in C.
#[test]
fn a_scripts_own_module_comes_first() {
    let folder = Folder::new();
    folder.write("json.lua", "return 'my json'");
    folder.write("cjson.lua", "return 'my cjson'");
    let main = folder.write("main.lua", "print(require 'json', require 'cjson', json.encode(1))");
    let done = run(node_lua().current_dir(folder.path("")).arg(&main));
    assert_eq!(done.succeeded().stdout, "my json\tmy cjson\t1\n");
    let script =
        "print(require 'cjson'.encode_empty_table_as_object(), require 'cjson.safe'.decode('['))";
    let done = run(node_lua().args(["-e", script]));
    assert_eq!(
        done.succeeded().stdout,
        "true\tnil\tunexpected end of text at line 1 column 2 (byte 2)\n"
    );
}

/// What is withheld from a context does not include what only computes.
#[test]
fn confined_contexts_have_both() {
    let folder = Folder::new();
    let worker = folder.write(
        "worker.lua",
        "local cjson = require 'cjson'
         local value = json.decode('{\"a\":[1,18446744073709551615]}')
         assert(cjson.encode(msgpack.decode(msgpack.encode(value))) == json.encode(value))
         assert(json.encode(value) == '{\"a\":[1,18446744073709551615]}')
         context.send(context.parent(), require 'msgpack' == msgpack and 'good')",
    );
    let main = folder.write(
        "main.lua",
        "local h = context.create {
           file = (...), deny = { 'io', 'os', 'network', 'create', 'ffi', 'loadlib' } }
         print((select(2, context.recv(h, 20))))",
    );
    let done = run(node_lua().arg(&main).arg(&worker));
    assert_eq!(done.succeeded().stdout, "good\n");
}

/// Libraries of LuaJIT are opened when they are looked up, and so is what a module makes for
/// itself: whatever comes first, the other finds its own.
#[test]
fn marks_are_nothing_that_the_library_keeps_elsewhere() {
    const LOOK: &str = "
        local marks = {}
        for i, t in ipairs { json.array {}, json.object {}, msgpack.ext(1, 'x') } do
          marks[i] = getmetatable(t)
          assert(next(marks[i]) == nil, 'it shows something')
        end
        assert(marks[1] ~= marks[2] and marks[2] ~= marks[3] and marks[1] ~= marks[3])
        assert(json.encode(json.object {}) == '{}' and json.encode(json.array {}) == '[]')
        assert(not pcall(json.object, setmetatable({}, package)), 'package is a mark')
        assert(type(package.preload) == 'table' and type(package.loaded) == 'table')
        assert(type(module) == 'function')
        assert(require 'cjson'.encode { require 'cjson'.empty_array } == '[[]]')
        assert(require 'packet'.layout and require 'supervisor'.start)
        local f = setfenv(function() return x end, setmetatable({}, { __index = { x = 5 } }))
        assert(f() == 5)
        print 'well'";
    for first in [
        "",
        "json.encode(1)",
        "json.decode('{}')",
        "json.array {}",
        "json.object {}",
        "msgpack.encode(1)",
        "msgpack.ext(1, 'x')",
        "require 'cjson'",
        "require 'packet'",
        "print(package.path)",
        "module('other', package.seeall) print(json.encode(json.object {})) setfenv(1, _G)",
    ] {
        for confined in ["", "deny = { 'io' }", "deny = { 'ffi', 'io', 'os', 'loadlib' }"] {
            let folder = Folder::new();
            folder.write("child.lua", format!("{first}\n{LOOK}"));
            let code = format!("context.create {{ file = 'child.lua', {confined} }}");
            let mut command = node_lua();
            let done = run(command.current_dir(folder.path("")).args(["-e", &code])).succeeded();
            assert!(done.stdout.ends_with("well\n"), "{first}, {confined}: {done}");
        }
    }
}
