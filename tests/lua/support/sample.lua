-- sample.lua FOLDER [hostile]: a bit of everything that the library does, with its answers printed.
-- With `hostile` every function and field of every public table has been replaced before by one
-- that notes that it was called, and raises: the answers are the same, and nothing was called.

local folder, how = ...

-- What the script itself uses. Functions of the modules are stand-ins for what is not loaded yet.
local function copy(from)
    local to = {}
    for name, value in pairs(from) do
        to[name] = value
    end
    return to
end
local C, T, W, B = copy(context), copy(tcp), copy(timer), copy(buffer)
local co, require, dofile = copy(coroutine), require, dofile
local next, type, tostring, pcall, error, select = next, type, tostring, pcall, error, select
local getmetatable, setmetatable, rawset, xpcall = getmetatable, setmetatable, rawset, xpcall
local sort, concat = table.sort, table.concat
local format, find, gsub = string.format, string.find, string.gsub
local write, traceback = io.write, debug.traceback

-- Replacement -------------------------------------------------------------------------------------

local calls = {}
local function hostile(name)
    return function()
        calls[name] = true
        calls[#calls + 1] = name

        error("hostile " .. name, 0)
    end
end

local function replace(library, path, kept)
    for name, value in next, library do
        local is_kept = kept and find(kept, " " .. tostring(name) .. " ", 1, true)
        if type(value) == "function" and not is_kept then
            rawset(library, name, hostile(path .. "." .. tostring(name)))
        elseif type(value) == "number" then
            rawset(library, name, hostile(path .. "." .. tostring(name)))
        end
    end
    local metatable = getmetatable(library)
    if type(metatable) ~= "table" then
        metatable = {}
        setmetatable(library, metatable)
    end
    for _, event in next, { "__index", "__newindex", "__call", "__len", "__tostring" } do
        metatable[event] = hostile(path .. "'s " .. event)
    end
end

if how == "hostile" then
    local globals, names =
        _G, {
            "string",
            "table",
            "math",
            "bit",
            "coroutine",
            "debug",
            "os",
            "io",
            "jit",
            "tcp",
            "context",
            "timer",
            "buffer",
        }
    local libraries = {}
    for _, name in next, names do
        libraries[name] = globals[name]
    end
    if pcall(require, "ffi") then libraries.ffi = require("ffi") end
    libraries.buffers = getmetatable(buffer.new(1))
    local text = getmetatable("")
    if text then libraries["text metatable"] = text end
    local file = getmetatable(io.stdout)
    if file then libraries["file metatable"] = file end
    local loaded, package = package.loaded, package
    for name in next, loaded do
        if type(globals[name]) == "table" and name ~= "_G" and name ~= "package" then
            loaded[name] = setmetatable({}, { __index = hostile("loaded." .. name) })
        end
    end
    for name, library in next, libraries do
        replace(library, name, " __gc ")
    end
    replace(package, "package")
    if text then text.__index = hostile("text's __index") end
    for name in next, libraries do
        if type(globals[name]) == "table" then globals[name] = hostile("_G." .. name) end
    end
    globals.package = hostile("_G.package")
    replace(globals, "_G", " tostring ")
end

-- Answers -----------------------------------------------------------------------------------------

local function show(value, depth)
    local kind = type(value)
    if kind == "string" then return format("%q", value) end
    if kind == "number" or kind == "boolean" or kind == "nil" then return tostring(value) end
    if kind == "table" and (depth or 0) < 3 then
        local parts = {}
        for key, inner in next, value do
            parts[#parts + 1] = show(key, 3) .. "=" .. show(inner, (depth or 0) + 1)
        end
        sort(parts)
        return "{" .. concat(parts, ",") .. "}"
    end
    if kind == "userdata" and getmetatable(value) == getmetatable(B.new(1)) then
        return "buffer " .. gsub(tostring(value), "0x%x+", "?")
    end
    if kind == "cdata" then return tostring(value) end
    return kind
end

local function say(...)
    local parts = {}
    for i = 1, select("#", ...) do
        parts[i] = show((select(i, ...)))
    end
    local text = gsub(concat(parts, " "), "0x%x+", "?")
    text = gsub(text, "context %d+", "context N")
    write(text, "\n")
end
local function try(name, f, ...) say(name, pcall(f, ...)) end

-- Buffers -----------------------------------------------------------------------------------------

local kinds = { "u8", "i8" }
for _, kind in next, { "u16", "i16", "u32", "i32", "u64", "i64", "f32", "f64" } do
    kinds[#kinds + 1], kinds[#kinds + 2] = kind .. "le", kind .. "be"
end
for _, kind in next, kinds do
    local b = B.new("\1\2\3\4\5\6\7\8")
    try(kind, B[kind], b, 0)
    try(kind, B["set_" .. kind], b, 0, 42)
    try(kind, B["put_" .. kind], b, 43)
    say(B.text(b, 0))
    try(kind, B[kind], b, 99)
    try(kind, B["set_" .. kind], b, 0, "x")
    try(kind, B["put_" .. kind], {}, 1)
end
for _, name in next, { "varint", "zigzag" } do
    local b = B.new()
    try(name, B["put_" .. name], b, 300)
    try(name, B["put_" .. name], b, 2 ^ 53)
    try(name, B[name], b, 0)
    try(name, B[name], b, 100)
end
local b = B.new("some text")
try("index_of", B.index_of, b, 32)
try("text", B.text, b, 2, 3)
try("put", B.put, b, "more")
try("skip", B.skip, b, 2)
try("length", B.length, b)
try("unfill", B.unfill, B.new(4))
try("reset", B.reset, b)
local names = {}
for name in next, B do
    names[#names + 1] = name
end
sort(names)
for _, name in next, names do
    if name ~= "ptr" and name ~= "reserve" and name ~= "commit" then
        try(name, B[name], B.new("12345678"))
        try(name, B[name], B.new("12345678"), "x")
        try(name, B[name], nil, {})
    end
end
try("pack", B.pack, "<i8>I4zs2n", -5, 7, "z", "s", 0.5)
local packed = B.pack("<i8>I4zs2n", -5, 7, "z", "s", 0.5)
try("unpack", B.unpack, packed, "<i8>I4zs2n")
try("..", function() return B.new("a") .. "b" end)
try("==", function() return B.new("a") == B.new("a") end)
try("tostring", tostring, B.new("a"))

-- Packets -----------------------------------------------------------------------------------------

local packet = require("packet")
local layout = packet.layout({
    endian = "B",
    { "a", "u16" },
    { "b", "i64" },
    { "c", "f32", 2 },
    { "d", "char", 3 },
    { "e", "s1" },
    { "f", "varint" },
    { "g", "s4" },
})
local fields = { a = 1, b = 2, c = { 3, 4 }, d = "abc", e = "text", f = 300, g = "longer" }
local encoded = layout.encode(layout, fields)
say(encoded, B.text(encoded, 0))
try("decode", layout.decode, layout, encoded)
try("get", layout.get.b, encoded)
try("set", layout.set.a, encoded, 77)
try("decode", layout.decode, layout, B.new("x"))
try("encode", layout.encode, layout, { a = "x" })
try("layout", packet.layout, { { "a", "no" } })

-- Coroutines and timers ---------------------------------------------------------------------------

local wrapped = co.wrap(function(...)
    W.sleep(0.001)
    local got = co.yield(...)
    W.sleep(0.001)
    return got, co.isyieldable(), type(co.running())
end)
say(wrapped(1, 2))
say(wrapped("x"))
try("dead", wrapped)
local thread = co.create(function()
    W.sleep(0.001)
    error("inside", 0)
end)
say(co.resume(thread), co.status(thread))
try("sleep", W.sleep, "x")
say(type(W.now()), type(W.time()))
local rung = 0
W.timeout(0.001, 1, 2, function(...)
    rung = rung + 1
    say("timeout", ...)
end)
local loop
loop = W.loop(0.001, 0.001, function()
    rung = rung + 1
    W.close(loop)
end)
while rung < 2 do
    W.sleep(0.001)
end
try("timeout", W.timeout, -1, {})
try("close", W.close, "x")

-- Contexts ----------------------------------------------------------------------------------------

local echo = folder .. "/echo.lua"
local child = C.create({ file = echo, name = "echo", deny = { "ffi" }, turn_limit = 5 }, { 1 })
say("query", C.query(child, { "a", 1 }), C.query(child, "x", 5))
C.query(child, "back", function(ok, value)
    say("answer", ok, value)
    rung = rung + 1
end)
while rung < 3 do
    W.sleep(0.001)
end
C.send(child, "hello")
say("recv", (C.recv(child)))
say("name", C.name(child), C.strerror(208), type(C.ncpu()), type(C.self()), C.parent() == nil)
say("stat", type(C.stat()), C.stat(2 ^ 40))
local reasons = {}
C.monitor(child, function(_, reason, detail)
    reasons[#reasons + 1] = reason
    say(reason, detail)
end)
C.destroy(child, "enough")
say("wait", C.wait(child))
while not reasons[1] do
    W.sleep(0.001)
end
local broken = C.create(echo, "broken")
C.monitor(broken, function(_, reason, detail)
    reasons[2] = reason
    say(reason, detail)
end)
while not reasons[2] do
    W.sleep(0.001)
end
C.recv(0, function(ok, value)
    say("message", ok, value)
    rung = rung + 1
end)
C.send(C.self(), B.new("b"))
C.run(function(...)
    say("run", ...)
    rung = rung + 1
end, 1, nil)
while rung < 5 do
    W.sleep(0.001)
end
C.recv(0, nil)
C.log("logged", 1, nil, {})
for _, name in
    next,
    {
        "create",
        "monitor",
        "wait",
        "query",
        "send",
        "recv",
        "name",
        "stat",
        "strerror",
        "run",
        "reply",
        "on_signal",
        "exit",
    }
do
    try(name, C[name], {}, {}, {})
end
try("create", C.create, { file = echo, deny = { "x" } })
try("create", C.create, { file = echo, worker = 99 })
try("create", C.create, { file = echo, no = 1 })
try("wait", C.wait, 2 ^ 40)
try("send", C.send, C.self(), C.run)
try("on_signal", C.on_signal, "HUP", nil)

-- Sockets -----------------------------------------------------------------------------------------

local _, listener = T.listen("127.0.0.1", 0)
local port = T.local_port(listener)
say(type(port))
T.accept(listener, function(_, sock)
    T.set_nodelay(sock, true)
    T.set_rwopt(sock, { read_head_bytes = 2, write_head_bytes = 2 })
    T.read(sock, function(ok, data)
        if ok then
            T.write(sock, data)
        else
            T.close(sock)
        end
    end)
end)
local _, sock = T.connect("127.0.0.1", port)
T.set_rwopt(sock, { read_head_bytes = 2, write_head_bytes = 2 })
for i = 1, 50 do
    T.write(sock, "text " .. i)
    T.write(sock, B.new("buffer " .. i), true)
    say(T.read(sock))
    say(T.read_into(sock, B.new()))
end
say(T.write(sock, 5, true), T.read(sock, 5))
say(T.get_rwopt(sock))
say(type(T.fd(sock)), T.fd_src(T.fd(sock)) == C.self(), T.is_closed(sock))
T.set_wshared(sock, true)
T.set_write_limit(sock, 1e6)
say(T.stat(sock).write_queue_bytes, T.stat(listener).accepted, T.remote_addr(sock))
T.monitor(sock, function() end)
try("read", T.read, listener)
try("accept", T.accept, sock)
for _, name in
    next,
    {
        "connect",
        "listen",
        "read",
        "write",
        "accept",
        "close",
        "stat",
        "set_rwopt",
        "fd",
        "fd_src",
        "listens",
        "connects",
        "monitor",
        "set_nodelay",
        "local_addr",
        "read_into",
    }
do
    try(name, T[name], {}, {}, {})
end
try("set_rwopt", T.set_rwopt, sock, { no = 1 })
say(find(tostring(sock), "tcp socket", 1, true), find(tostring(listener), "listen", 1, true))
local connected, other = T.connect("localhost", port, 5)
say(connected, T.close(other))
say(T.close(sock), T.close(sock), T.is_closed(sock), T.close(listener))
say(pcall(T.read, sock))

-- Supervisors and modules -------------------------------------------------------------------------

local supervisor = require("supervisor")
local ended, finished = 0, nil
local s = supervisor.start({
    { echo, "broken", restart = "permanent" },
    intensity = 1,
    period = 5,
    on_exit = function(_, reason)
        ended = ended + 1
        say("ended", reason)
    end,
    on_finish = function(why, detail)
        finished = true
        say(why, detail)
    end,
})
say(type(s.handle(s, 1)))
while not finished do
    W.sleep(0.001)
end
try("start", supervisor.start, { { restart = "x" } })
try("module", require, "sample_module")
try("module", require, "sample_broken")
try("module", require, "sample_missing")
try("dofile", dofile, folder .. "/sample_module.lua")
try("dofile", dofile, folder .. "/nowhere.lua")

-- Failures of callbacks: the log is compared too.
local failed = 0
W.timeout(0.001, function()
    failed = failed + 1
    error("of a timer")
end)
C.run(function()
    failed = failed + 1
    error({}, 0)
end)
local co2 = co.wrap(function()
    local x = nil
    return x.y
end)
C.run(function()
    failed = failed + 1
    co2()
end)
while failed < 3 do
    W.sleep(0.001)
end
say(xpcall(function() error("handled", 0) end, traceback) == false)

for _, name in next, calls do
    if type(name) == "string" then write("CALLED ", name, "\n") end
end
write("done\n")
