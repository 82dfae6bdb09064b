//! What is withheld from a context stays withheld, whatever its script tries.

#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use support::{Folder, node_lua, run};

/// Each returns something true if it got at something that is withheld.
const ESCAPES: &[&str] = &[
    "return pcall(require, 'ffi')",
    "return package.loaded.ffi or package.preload.ffi",
    "loadstring('return 1LL')() return package.loaded.ffi",
    "return (pcall(require, 'string.buffer'))",
    "return (pcall(require, 'jit.util')) or jit.util or jit.attach",
    "return debug.getregistry or debug.getupvalue or debug.setmetatable or debug.getlocal",
    "return debug.getinfo(1, 'f').func or debug.getinfo(print, 'f').func",
    "return debug.sethook or debug.setfenv or debug.getmetatable or debug.upvaluejoin",
    "return loadstring(string.dump(function() return 1 end))",
    "return load(string.dump(function() return 1 end), 'x', 'b')",
    "local code, done = string.dump(function() return 1 end)
     return load(function() if not done then done = true return code end end)",
    "return package.loadlib or package.loaders[3]",
    "return newproxy",
    "return io.open or io.popen or io.lines or io.output or io.stdout",
    "return os.execute or os.exit or os.getenv or os.remove or os.rename or os.tmpname",
    "return loadfile or dofile or package.searchpath",
    "return buffer.ptr or buffer.reserve or buffer.new(8).ptr or buffer.new(8).commit",
    "local ok, code = tcp.listen('127.0.0.1', 0) return ok or code ~= 50",
    "local ok, code = tcp.connect('127.0.0.1', 1) return ok or code ~= 50",
    "local ok, code = tcp.connect('localhost', 1) return ok or code ~= 50",
    "local ok, code = tcp.listens('/tmp/node-lua-confined.sock') return ok or code ~= 50",
    "local ok, code = tcp.connects('/tmp/node-lua-confined.sock') return ok or code ~= 50",
    "return (pcall(tcp.write, 5, 'x'))",
    // The environment of the library's functions, and what it does with globals.
    "return getfenv(tcp.listen) ~= _G or getfenv(buffer.new(1).u8) ~= _G",
    "return (pcall(setfenv, tcp.listen, {}))",
    "local found
     loadstring = function(text) return function(env) found = env end end
     load, assert, require = loadstring, function(f) found = found or f return f end,
       function(name) found = found or name end
     string.gsub = function() return 'return ...' end
     string.format, table.concat = string.gsub, string.gsub
     local b = buffer.new('12345678')
     pcall(function() return b:u16le(0) end)
     pcall(function() return b:put_varint(7) end)
     return found",
    "local found
     setmetatable(_G, { __index = function(_, name) found = name end })
     buffer.new('12345678'):u32be(0)
     setmetatable(_G, nil)
     return found",
    "package.path = '/etc/?' local ok, why = pcall(require, 'passwd')
     return ok or why:find('root', 1, true)",
    "return getmetatable('') ~= false",
];

fn confined(deny: &str, script: &str) -> String {
    let folder = Folder::new();
    let file = folder.write(
        "confined.lua",
        format!(
            "local ok, got = pcall(function() {script} end)
             context.send(context.parent(), ok and tostring(got or false) or 'failed: ' .. got)"
        ),
    );
    let main = folder.write(
        "main.lua",
        format!(
            "local h = context.create({{ file = (...), deny = {deny} }})
             local ok, value = context.recv(h, 20)
             print(value)"
        ),
    );
    let done = run(node_lua().args([main, file]));
    assert_eq!(done.code(), Some(0), "{script}: {done}");
    done.stdout.trim_end().to_owned()
}

const ALL: &str = "{ 'ffi', 'io', 'os', 'loadlib', 'network' }";

#[test]
fn nothing_brings_back_what_is_withheld() {
    let mut wrong = Vec::new();
    for script in ESCAPES {
        let got = confined(ALL, script);
        if got != "false" {
            wrong.push(format!("{got}: {script}"));
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn what_is_not_withheld_works() {
    for (deny, script, expected) in [
        (ALL, "return loadstring('return 1 + 1')()", "2"),
        (ALL, "return ('x'):rep(3)", "xxx"),
        (ALL, "function string.twice(s) return s .. s end return ('x'):twice()", "xx"),
        (ALL, "return buffer.new('\\1\\2'):u16be(0)", "258"),
        (ALL, "return require 'packet'.layout({ { 'a', 'u16' } }).size", "2"),
        (ALL, "return buffer.pack('<i8', 5):unpack('<i8')", "5"),
        (
            ALL,
            "return type(os.time()) .. type(debug.traceback()) .. debug.getinfo(1, 'S').what",
            "numberstringLua",
        ),
        (ALL, "timer.sleep(0.001) return context.stat().turns > 0", "true"),
        ("{ 'network' }", "return io.open('/dev/null') ~= nil and io.popen == nil", "true"),
        ("{ 'io' }", "return (tcp.listen('127.0.0.1', 0))", "true"),
        ("{}", "return require('ffi').sizeof('int')", "4"),
    ] {
        assert_eq!(confined(deny, script), expected, "{script}");
    }
}

#[test]
fn children_are_confined_like_their_creator() {
    // Withheld is FFI alone, so that the script can write the file.
    let got = confined(
        "{ 'ffi' }",
        "local name = os.tmpname()
         local file = io.open(name, 'w')
         file:write [[context.send(context.parent(), (pcall(require, 'ffi')))]]
         file:close()
         local _, got = context.recv(context.create({ file = name, deny = {} }), 20)
         os.remove(name)
         return got",
    );
    assert_eq!(got, "false");
}

#[test]
fn bytecode_is_refused_as_a_script_too() {
    let folder = Folder::new();
    let code = folder.path("code.luac");
    let main = folder.write(
        "main.lua",
        "local file = io.open((...), 'wb') file:write(string.dump(function() print 'ran' end))
         file:close()
         context.wait(context.create((...)))
         context.wait(context.create({ file = (...), deny = { 'ffi' } }))",
    );
    let done = run(node_lua().arg(main).arg(code)).succeeded();
    assert_eq!(done.stdout, "ran\n", "{done}");
}
