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
    "pcall(require, 'nothing') return getmetatable(package.preload)",
    "return (pcall(require, 'jit.v'))",
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
    "local ok, code = tcp.write(5, 'x') return ok ~= false or code ~= 50",
    "if not http then return false end
     local calls = {
       function() return http.serve('127.0.0.1', 0, print) end,
       function() return http.get('http://127.0.0.1:1/') end,
       function() return http.get('http://localhost:1/') end,
       function() return http.get('http://x/', { proxy = 'http://127.0.0.1:1' }) end,
       function() return websocket.connect('ws://127.0.0.1:1/') end,
       function() return websocket.connect('wss://localhost:1/') end,
       function() return tls.client { ca = '/etc/ssl/certs/ca-certificates.crt' } end,
       function() return tls.server { cert = '/etc/hostname', key = '/etc/hostname' } end,
     }
     for i, call in ipairs(calls) do
       local ok, code = call()
       if ok or code ~= 50 then return i .. ' ' .. tostring(code) end
     end",
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
    "return (pcall(tcp.fd_src, 5))",
    "local ok, code = udp.open() return ok or code ~= 50",
    "local ok, code = udp.open('localhost', 0) return ok or code ~= 50",
    "local ok, code = udp.open6() return ok or code ~= 50",
    "local ok, code = udp.write(2 ^ 51 + 1, 'x', '127.0.0.1', 9) return ok ~= false or code ~= 50",
    "return (pcall(udp.fd_src, 2 ^ 51 + 1))",
    // Whatever can be reached after the library has loaded all of itself has no other environment.
    "pcall(tcp.listen, '127.0.0.1', 0)
     pcall(context.monitor, 2 ^ 40, function() end)
     pcall(context.stat)
     pcall(context.create, {})
     require 'packet' require 'supervisor'
     local seen, found = {}, false
     local function walk(value, path)
       local kind = type(value)
       if seen[value] or kind ~= 'table' and kind ~= 'function' then return end
       seen[value] = true
       if kind == 'function' then
         if getfenv(value) ~= _G then found = path end
         if debug.getinfo(value).func then found = path end
         return
       end
       for key, inner in next, value do
         if key == 'cdef' or key == 'loadlib' or key == 'attach' then found = path end
         walk(key, path) walk(inner, path .. '.' .. tostring(key))
       end
       local metatable = getmetatable(value)
       if type(metatable) == 'table' then walk(metatable, path .. '<metatable>') end
     end
     walk(_G, '_G')
     walk(buffer.new(1), 'buffer')
     for level = 0, 30 do
       local ok, env = pcall(getfenv, level)
       if ok and env ~= _G then found = 'level ' .. level end
     end
     return found",
    // Nor does the library call what the script has put in the place of its functions.
    "local found, real = false, {}
     for name, value in pairs(_G) do
       if type(value) == 'function' then real[name] = value end
     end
     local pairs, pcall, setmetatable = pairs, pcall, setmetatable
     for name in pairs(real) do
       _G[name] = function(...) found = name return real[name](...) end
     end
     pcall(tcp.listen, '127.0.0.1', 0)
     pcall(context.monitor, 2 ^ 40, function() end)
     pcall(context.stat)
     pcall(context.create, { file = '/nowhere', name = 'x' })
     pcall(buffer.pack, '<i8', 1LL)
     pcall(buffer.new('12345678').u64be, buffer.new('12345678'), 0)
     pcall(timer.sleep, 0.001)
     for name, value in pairs(real) do _G[name] = value end
     return found",
    // A check that is the script's own would let it read any memory.
    "local token, real = getmetatable(buffer.new(1)), getmetatable
     getmetatable = function() return token end
     local u16le, set_u8, pack = buffer.new('12').u16le, buffer.new('12').set_u8, buffer.put_u8
     for _, fake in ipairs { {}, print, coroutine.create(print), 1LL, 'text' } do
       for _, f in ipairs { u16le, set_u8, pack, buffer.varint, buffer.put_varint, buffer.text } do
         if pcall(f, fake, 0, 1) then getmetatable = real return tostring(fake) end
       end
     end
     getmetatable = real",
    // What passes for a buffer, or for a cdata, by its looks.
    "local fake = setmetatable({}, { __metatable = getmetatable(buffer.new(1)) })
     return (pcall(buffer.u8, fake, 0)) or (pcall(buffer.append, buffer.new(1), fake))
       or (pcall(context.send, context.self(), fake)
         and type(select(2, context.recv(0))) ~= 'table')",
    "return getmetatable(2i) ~= 'ffi' or (pcall(function() return (2i).x end)) or (2i)[99] ~= 2
       or (pcall(function() (2i)[99] = 1 end)) or (pcall(context.send, context.self(), 2i))",
    "return getmetatable(1LL) ~= 'ffi' or (pcall(function() return (1LL).x end))
       or (pcall(function() return (1LL)() end)) or (pcall(setmetatable, 1LL, {}))",
    "for _, what in ipairs { '>S', '>f', 'X', '>' } do
       if pcall(debug.getinfo, 1, what) or pcall(debug.getinfo, print, what) then return what end
     end",
    "return (pcall(debug.getinfo, coroutine.create(print), 0, 'f')) or (pcall(getfenv, {}))",
    // Bytecode in pieces, and by every other door.
    "local code, at = string.dump(function() return 1 end), 0
     return load(function() at = at + 1 return code:sub(at, at) end)",
    "local code, sent = string.dump(function() return 1 end), 0
     return load(function()
       sent = sent + 1
       return sent == 1 and ' ' or sent == 2 and code or nil
     end)",
    "return loadstring('\\27LJ\\2') or load('\\27LJ\\2', 'x', 'bt', {})",
    "package.preload.x = function() return 1 end
     return require 'x' ~= 1 or (pcall(require, 'jit.profile')) or (pcall(require, 'jit.opt'))
       or (pcall(require, 'jit.dump')) or (pcall(require, 'table.ffi'))",
    // What cannot travel does not come back as something else.
    "for _, value in ipairs { print, coroutine.create(print), getfenv, { print } } do
       if pcall(context.send, context.self(), value) then return tostring(value) end
       if pcall(context.create, 'x', value) then return tostring(value) end
     end",
    "return arg or (pcall(context.create, print))",
    // Through an error with a metatable, which the runtime turns into text.
    "local h = context.self()
     context.run(function()
       error(setmetatable({}, { __tostring = function()
         if getfenv(2) ~= _G then context.send(context.self(), 'got') end
         return 'x'
       end }))
     end)
     return (context.recv(h, 0.05))",
    // Around the wrapped coroutines.
    "local co = coroutine.wrap(function() timer.sleep(0.001) return getfenv(0) end)
     return co() ~= _G",
    "local seen
     local co = coroutine.create(function() timer.sleep(0.001) return false end)
     local _, first, second = coroutine.resume(co)
      return first or second",
    // `module` gives its caller another environment: scripts' functions alone.
    "local found, real = false, package.loaders
     local function option() found = true end
     context.on_error(function() end)
     pcall(context.run, module, 'x1', option)
     timer.timeout(0, 'x2', option, module)
     package.loaders = { module }
     local ok, why = pcall(require, 'x3')
     package.loaders = real
     pcall(coroutine.wrap(module), 'x4', option)
     pcall(pcall, module, 'x5', option)
     xpcall(error, module)
     timer.sleep(0.01)
     return found or ok or not why:find('not called from a Lua function', 1, true)",
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
fn children_of_the_confined_have_no_limits_above_their_creators() {
    let folder = Folder::new();
    let file = folder.write(
        "confined.lua",
        "local file, depth = ...
         local s = context.stat()
         context.log(depth, s.memory_limit, s.turn_limit, s.mailbox_max)
         if depth == 3 then return end
         local more = { file = file, memory = 2 ^ 40, turn_limit = 1e6, mailbox = 1e6 }
         context.create(depth == 1 and file or more, file, depth + 1)
         context.create({ file = file, memory = 2 ^ 23, turn_limit = 2, mailbox = 5 }, file, 3)",
    );
    let main = folder.write(
        "main.lua",
        "local file = ...
         local limits = { memory = 2 ^ 24, turn_limit = 5, mailbox = 10, deny = { 'io' } }
         limits.file = file
         context.create(limits, file, 1)",
    );
    let done = run(node_lua().env("RUST_LOG", "info").args([main, file])).succeeded();
    let mut told: Vec<&str> =
        done.stderr.lines().filter_map(|line| line.find('\t').map(|at| &line[at - 1..])).collect();
    told.sort_unstable();
    let own = "16777216\t5\t10";
    let less = "3\t8388608\t2\t5".to_owned();
    let [first, second, third] = [1, 2, 3].map(|depth| format!("{depth}\t{own}"));
    assert_eq!(told, [first, second, third, less.clone(), less], "{done}");
}

#[test]
fn creation_can_be_withheld() {
    for script in [
        "return (pcall(context.create, 'x.lua'))",
        "return (pcall(context.create, { file = 'x.lua' }))",
        "return (pcall(require('supervisor').start, { { file = 'x.lua' } }))",
    ] {
        assert_eq!(confined("{ 'create' }", script), "false", "{script}");
    }
}

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

/// Where files can be had, what they have is no way to the metatable that makes them files.
#[test]
fn files_do_not_pass_for_buffers() {
    let script = "local token, file = getmetatable(buffer.new(1)), io.stdout
        local looks = file.__index or file.__gc or file.__tostring or file.__metatable
        if type(file.__index) == 'table' then file.__index.__metatable = token end
        return looks or getmetatable(file) or (pcall(buffer.u8, file, 0))
          or tostring(file):sub(1, 6) ~= 'file (' or not file:flush()";
    for deny in ["{ 'network' }", "{ 'ffi' }", "{ 'os' }", "{ 'create' }"] {
        assert_eq!(confined(deny, script), "false", "{deny}");
    }
}

/// Who has the network alone gets nothing else through requests, answers and what stands for them.
#[cfg(feature = "http")]
#[test]
fn requests_lead_to_nothing_that_is_withheld() {
    let script = "local found
         local function walk(value, path, seen)
           local kind = type(value)
           if seen[value] or kind ~= 'table' and kind ~= 'function' and kind ~= 'userdata' then
             return
           end
           seen[value] = true
           if kind == 'function' and getfenv(value) ~= _G then found = path end
           if kind == 'table' then
             for key, inner in next, value do
               -- What connections are kept by is the library's own.
               if key == 'is_http2' then found = path end
               walk(key, path, seen) walk(inner, path .. '.' .. tostring(key), seen)
             end
           end
           if getmetatable(value) then found = path .. '<metatable>' end
         end
         local fake = setmetatable({}, { __index = function(_, key) found = key end })
         local function give_fake(methods)
           for _, method in pairs(methods) do pcall(method, fake) pcall(method, fake, 'x', 'y') end
         end
         local _, server = http.serve('127.0.0.1', 0, function(req, res)
           local _ = req.headers, req.chunks, req.trailers, req.path
           walk(req, 'req', {}) walk(res, 'res', {})
           give_fake { req.read, req.text, req.body, req.json, req.args }
           give_fake { res.status, res.header, res.write, res.finish, res.json, res.sendfile }
           pcall(websocket.accept, fake, fake)
           local ok, code = res:sendfile('/etc/hostname')
           if ok or code ~= 50 then found = 'sendfile ' .. code end
           res:finish()
         end)
         local _, res = http.get('http://127.0.0.1:' .. server:port())
         walk(server, 'server', {}) walk(res, 'response', {})
         give_fake { res.read, res.text, res.body, res.json, res.close, server.close, server.port }
         res:close()
         server:close(0)
         return found";
    assert_eq!(confined("{ 'io', 'os' }", script), "false");
}

#[test]
fn what_is_not_withheld_works() {
    for (deny, script, expected) in [
        (ALL, "return loadstring('return 1 + 1')()", "2"),
        (ALL, "return ('x'):rep(3)", "xxx"),
        (ALL, "module('old', package.seeall) x = tostring(5) return package.loaded.old.x", "5"),
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
fn sockets_of_others_are_not_written_to_by_number() {
    let folder = Folder::new();
    folder.write(
        "confined.lua",
        "local fd = ...
         local got = {}
         local function told(ok, code)
           if ok or code ~= 50 then got[#got + 1] = 'told ' .. code end
         end
         for _, value in ipairs { 'text', buffer.new('buffer'), buffer.new(('b'):rep(5000)), 5 } do
           for _, how in ipairs { false, true, told } do
             local ok, code = tcp.write(fd, value, how)
             if ok or not code and how ~= told then got[#got + 1] = tostring(value) end
           end
         end
         -- Often enough to be compiled.
         for _ = 1, 300 do tcp.write(fd, buffer.new('buffer')) end
         timer.sleep(0.001)
         context.send(context.parent(), table.concat(got, ' '))",
    );
    let main = folder.write(
        "main.lua",
        "local _, listener = tcp.listen('127.0.0.1', 0)
         local _, client = tcp.connect('127.0.0.1', tcp.local_port(listener))
         local _, sock = listener:accept()
         sock:set_wshared(true)
         local file = arg[0]:match('^(.*)/') .. '/confined.lua'
         local h = context.create({ file = file, deny = { 'network' } }, tcp.fd(sock))
         local _, got = context.recv(h)
         print(got)
         sock:close()
         print(client:read())",
    );
    let done = run(node_lua().arg(main)).succeeded();
    assert_eq!(done.stdout, "\nfalse\t1\n", "{done}");
}

#[test]
fn bytecode_in_files_is_refused_by_all_that_loads_them() {
    let folder = Folder::new();
    let code = folder.path("code.lua");
    folder.write(
        "confined.lua",
        "local file = ...
         package.path = file
         context.send(context.parent(), {
           (pcall(require, 'code')), loadfile(file) ~= nil, loadfile(file, 'b') ~= nil,
           (pcall(dofile, file)), (pcall(assert(package.loaders[2]), 'code')),
         })",
    );
    let main = folder.write(
        "main.lua",
        "local file = io.open((...), 'wb')
         file:write(string.dump(function() return true end))
         file:close()
         assert(dofile((...)) == true)
         local confined = arg[0]:match('^(.*)/') .. '/confined.lua'
         local _, got = context.recv(context.create({ file = confined, deny = { 'ffi' } }, (...)))
         for i = 1, 5 do print(got[i]) end",
    );
    let done = run(node_lua().arg(main).arg(code)).succeeded();
    assert_eq!(done.stdout, "false\n".repeat(5), "{done}");
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

#[test]
fn children_tell_nothing_of_files_to_who_has_no_io() {
    let folder = Folder::new();
    folder.write("hidden/mod.lua", "return 1");
    folder.write("secret.txt", "password = 'hunter2' hunter2 x");
    folder.write("secret.lua", "password = 'hunter2' hunter2 x");
    folder.write("user.lua", "require 'mod'");
    folder.write(
        "confined.lua",
        "local folder = ...
         package.path = folder .. '/hidden/?.lua'
         local function create(name)
           local why
           local h = context.create(folder .. '/' .. name)
           context.monitor(h, function(_, reason, detail)
             why = reason .. ': ' .. string.gsub(detail, '/[^ ]*/' .. name, 'FILE')
           end)
           while not why do timer.sleep(0.001) end
           return why
         end
         local told, text = create('nowhere'), ''
         for _, name in ipairs { 'secret.txt', 'hidden', 'secret.lua', 'nowhere/x' } do
           if create(name) ~= told then text = text .. name .. ' ' end
         end
         -- Where the script has package.path point is of no use to its children.
         local why = create('user.lua')
         if not why:find('not found', 1, true) then text = text .. 'mod ' end
         local _, error = pcall(require, 'secret')
         if error:find('hunter2', 1, true) then text = text .. 'require ' end
         context.send(context.parent(), text .. told)",
    );
    let main = folder.write(
        "main.lua",
        "local folder = arg[0]:match('^(.*)/')
         local file = folder .. '/confined.lua'
         local h = context.create({ file = file, deny = { 'io', 'os' } }, folder)
         print((select(2, context.recv(h))))",
    );
    let done = run(node_lua().arg(main)).succeeded();
    let told = "error: cannot load FILE (why is in the log: io is withheld from its creator)\n";
    assert_eq!(done.stdout, told, "{done}");
    // Who reads the log is told.
    assert!(
        done.stderr.contains("cannot read ") && done.stderr.contains("secret.txt:1: "),
        "{done}"
    );
}

#[test]
fn environments_are_asked_for_as_in_plain_lua() {
    let script = "local told = {}
         local function try(name, f, ...)
           local ok, got = pcall(f, ...)
           local text = type(got) == 'string' and got or got == _G and '_G' or type(got)
           text = text:gsub('^/.*/', '')
           told[#told + 1] = name .. ' ' .. tostring(ok) .. ' ' .. text
         end
         for _, level in ipairs { '1', '0', 'x', '1.5', ' 1 ', '0x1', '-1', 1.9, 0, 1, 99, {} } do
           try('get', function() return (getfenv(level)) end)
           if level ~= '0' and level ~= 0 then try('set', function() setfenv(level, _G) end) end
         end
         try('get', getfenv, nil) try('set', setfenv) try('set', setfenv, 1, 1)
         try('set', setfenv, print, {}) try('get', getfenv, print)
         return table.concat(told, '\\n')";
    let plain = confined("{}", script);
    assert!(plain.contains("get true _G") && plain.contains("get false "), "{plain}");
    assert_eq!(confined(ALL, script), plain);
}
