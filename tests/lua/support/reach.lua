-- reach.lua [plant]: confines this very context as lua/context/confine.lua confines others, with
-- the real debug library kept aside, and looks from outside at all that a script can reach then.
-- Prints one line for every way in: what is withheld, but can be reached; and what can be reached,
-- and changed, but is used by the library. With `plant` there are some of each kind.

local real = {}
for name, value in pairs(debug) do
    real[name] = value
end
local next, pairs, ipairs, type, tostring, rawget = next, pairs, ipairs, type, tostring, rawget
local pcall, select = pcall, select
local find, format, sub, match = string.find, string.format, string.sub, string.match
local util, vmdef, band = require("jit.util"), require("jit.vmdef"), bit.band
local plants = (...) == "plant"

local function holds(kind)
    return kind == "table" or kind == "function" or kind == "userdata" or kind == "thread"
end

local function is_library(f)
    -- They look like C functions, but are none.
    local about = util.funcinfo(f)
    return about.proto ~= nil and about.source == "=[C]"
end

-- The natives, which the library's functions have among their upvalues ----------------------------

local natives
do
    local seen = {}
    local function search(value)
        if natives or seen[value] or type(value) ~= "function" then return end
        seen[value] = true
        for i = 1, 60 do
            local name, inner = real.getupvalue(value, i)
            if name == nil then return end
            if type(inner) == "table" and rawget(inner, "next_event") then natives = inner end
            search(inner)
        end
    end
    search(context.create)
    search(tcp.listen)
    assert(natives, "no native among the upvalues")
end

-- What is withheld, by its name -------------------------------------------------------------------

local withheld = {}
local function withhold(name, library, allowed)
    if type(library) == "table" then
        withheld[library] = allowed == nil and name or nil
        for key, value in next, library do
            local kind = type(value)
            if kind == "function" or kind == "table" or kind == "userdata" then
                if not (allowed and find(allowed, " " .. tostring(key) .. " ", 1, true)) then
                    withheld[value] = name .. "." .. tostring(key)
                end
            end
        end
    else
        withheld[library] = name
    end
end
withhold("debug", debug, " traceback ")
withhold("ffi", require("ffi"))
withhold("string.buffer", require("string.buffer"))
withhold("jit.util", util)
withhold("jit.profile", require("jit.profile"))
withhold("jit.opt", package.loaded["jit.opt"])
withhold("jit", jit, " on off flush status opt util ")
withhold("io", io, " write ")
withhold("os", os, " clock date difftime time ")
withhold("package", package, " loaded preload loaders seeall ")
for i = 2, #package.loaders do
    withhold("loader " .. i, package.loaders[i])
end
for name in string.gmatch("load loadstring loadfile dofile newproxy getfenv setfenv", "%a+") do
    withhold(name, _G[name])
end
withhold("buffer", { ptr = buffer.ptr, reserve = buffer.reserve, commit = buffer.commit }, " ")
withhold("FILE*", getmetatable(io.stdout))
local public = " self parent send reply ncpu thread now wall_clock getfenv setfenv strerror "
withhold("native", natives, public)
withheld[natives] = "native"
withheld[real.getregistry()] = "the registry"

-- Confinement, and all that the library has -------------------------------------------------------

-- With the natives of a context that may use the network, so that there are sockets to look at.
setfenv(natives.load("context/confine"), _G)(natives, buffer, true, true, true)
local io_write = io.write
local function print(text) io_write(text, "\n") end

local reached = {}
local findings = 0
local function tell(...)
    findings = findings + 1
    print(format(...))
end

-- What a script gets by looking: elements, metatables and environments as they are shown to it.
local function reach(value, path)
    local kind = type(value)
    if not holds(kind) or value == real or reached[value] then return end
    reached[value] = path
    if withheld[value] then tell("%s is reached as %s", withheld[value], path) end
    if kind == "function" then
        local environment = getfenv(value)
        if environment ~= _G then tell("the environment of %s is shown", path) end
        if debug.getinfo(value).func then tell("getinfo shows %s", path) end
        return
    end
    if kind == "table" then
        for key, inner in next, value do
            reach(key, path .. " key " .. tostring(key))
            reach(inner, path .. "." .. tostring(key))
        end
    end
    reach(getmetatable(value), path .. "<metatable>")
end

local function reach_all(path, ...)
    for i = 1, select("#", ...) do
        reach((select(i, ...)), path .. " " .. i)
    end
end

local names = {
    "context",
    "tcp",
    "udp",
    "timer",
    "buffer",
    "json",
    "msgpack",
    "tls",
    "websocket",
    "http",
    "coroutine",
    "package",
}
for _, name in ipairs(names) do
    reach(_G[name], name)
end
local cjson
if json and msgpack then
    cjson = require("cjson")
    reach(cjson, "cjson")
    reach(json.array({}), "array")
    reach(json.object({}), "object")
    reach(msgpack.ext(1, ""), "ext")
    -- They are that and nothing else: see KNOWN below.
    local marks = { array = json.array(), object = json.object(), ext = msgpack.ext(1, "") }
    for name, marked in pairs(marks) do
        marks[name] = getmetatable(marked)
    end
    marks.empty = cjson.empty_array_mt
    for name, mark in pairs(marks) do
        for other, another in pairs(marks) do
            if mark == another and name ~= other then tell("marks %s, %s are one", name, other) end
        end
        if next(mark) ~= nil or getmetatable(mark) then tell("mark %s is something else", name) end
    end
end
reach(_G, "_G")
local packet, supervisor = require("packet"), require("supervisor")
reach(_G, "_G")
reach(getmetatable(""), "string")
reach(packet.layout({ { "a", "u16" }, { "b", "s1" }, { "c", "varint" } }), "layout")
local b = buffer.new("text")
b:u8(0)
reach(b, "buffer")
reach_all("levels", pcall(getfenv, 0))
for level = 1, 20 do
    reach_all("getfenv " .. level, pcall(getfenv, level))
    reach_all("getinfo " .. level, pcall(debug.getinfo, level, "nSluf"))
end
-- Errors of the library, by value and by handler.
local function handler(message)
    for level = 0, 20 do
        reach_all("handler's level " .. level, pcall(getfenv, level))
        reach_all("handler's info " .. level, pcall(debug.getinfo, level))
    end
    reach(message, "message")
    return message
end
local modules = { context, tcp, udp, timer, buffer, packet, supervisor }
for _, module in pairs({ json, msgpack, tls, cjson, websocket, http }) do
    modules[#modules + 1] = module
end
for _, module in ipairs(modules) do
    for name, f in pairs(module) do
        local is_end = name == "destroy" or name == "exit"
        if type(f) == "function" and not is_end and name ~= "self" then
            reach_all("error of " .. tostring(name), xpcall(f, handler, {}))
            reach_all("error of " .. tostring(name), pcall(f, b, -1, {}))
        end
    end
end
reach_all("running", coroutine.running())
reach_all(
    "running inside",
    coroutine.wrap(function()
        timer.sleep(0.001)
        return coroutine.running()
    end)()
)
local parked = coroutine.create(function()
    timer.sleep(0.002)
    return 1
end)
reach_all("resumed", coroutine.resume(parked))

-- What callbacks are given, and what runs them.
local called, expected = 0, 0
local function callback(path, after)
    expected = expected + 1
    local is_first = true
    return function(...)
        if is_first then called = called + 1 end
        is_first = false
        reach_all(path, ...)
        reach_all(path .. " running", coroutine.running())
        for level = 0, 20 do
            reach_all(path .. " level " .. level, pcall(getfenv, level))
            reach_all(path .. " info " .. level, pcall(debug.getinfo, level))
        end
        if after then after(...) end
    end
end
local ok, listener = tcp.listen("127.0.0.1", 0)
assert(ok, listener)
tcp.accept(
    listener,
    callback("accept", function(_, sock)
        tcp.read(
            sock,
            callback("read", function(_, data)
                if type(data) == "userdata" then tcp.write(sock, data, callback("written")) end
            end)
        )
        tcp.monitor(sock, callback("monitor"))
    end)
)
local _, sock = tcp.connect("127.0.0.1", tcp.local_port(listener))
reach(sock, "socket")
reach(listener, "listener")
tcp.write(sock, "hello")
reach_all("read", tcp.read(sock))
for _, f in ipairs({ tcp.stat, tcp.get_rwopt, tostring, tcp.local_addr }) do
    reach_all("told", f(sock))
end
local _, port = udp.open("127.0.0.1", 0)
udp.read(port, callback("udp.read"))
reach(port, "udp socket")
reach_all("udp.write", udp.write(port, "x", "127.0.0.1", udp.local_port(port), callback("sent")))
for _, f in ipairs({ udp.stat, tostring, udp.local_addr, udp.fd }) do
    reach_all("udp told", f(port))
end
context.recv(context.self(), callback("recv"))
context.send(context.self(), { 1, "x", buffer.new("x") })
timer.timeout(0.001, 1, callback("timeout"))
context.run(callback("run"), 1)
local child = context.create({ file = "/nowhere", deny = {} }, 1)
context.monitor(child, callback("context.monitor"))
context.wait(child, callback("wait"))
context.query(child, 1, 1, callback("query"))
reach_all("stat", context.stat())
tcp.close(sock)
while called < expected do
    timer.sleep(0.001)
end
context.recv(context.self(), nil)

if plants then
    reach(real.getupvalue, "planted")
    reach(select(2, real.getupvalue(listener.close, 1)), "planted streams")
end
reach(_G, "_G")

-- From outside: what the library's functions use that a script can reach, and so change -----------

local function uses_globals(prototype)
    local about = util.funcinfo(prototype)
    for pc = 1, about.bytecodes - 1 do
        local at = 6 * band(util.funcbc(prototype, pc), 0xff)
        local name = match(sub(vmdef.bcnames, at + 1, at + 6), "%S+")
        if name == "GGET" or name == "GSET" then return true end
    end
    for i = -1, -about.gcconsts, -1 do
        local constant = util.funck(prototype, i)
        if type(constant) == "proto" and uses_globals(constant) then return true end
    end
end

-- What is only ever compared, or read and written without its metatable, or documented as the way
-- to tell the library something: path of the table.
local KNOWN = {
    -- Functions are looked up, and put, without metatables.
    ["context<metatable>"] = true,
    tcp = true,
    udp = true,
    timer = true,
    context = true,
    coroutine = true,
    buffer = true,
    json = true,
    msgpack = true,
    tls = true,
    websocket = true,
    http = true,
    -- Marks of tables are compared, and given to tables.
    ["array<metatable>"] = true,
    ["object<metatable>"] = true,
    ["ext<metatable>"] = true,
    ["cjson.array_mt"] = true,
    ["cjson.empty_array_mt"] = true,
    ["package.loaded"] = true,
    -- What getmetatable shows of a buffer is compared.
    ["buffer<metatable>"] = true,
    -- package.path, loaded, loaders: see docs/api.
    package = true,
}

local told = {}
local function use(user, path)
    if KNOWN[path] or told[path] then return end
    told[path] = true
    tell("%s uses %s, which scripts can change", user, path)
end

local written = {} -- tables that a script can reach and write to
for value, path in pairs(reached) do
    if type(value) == "table" then written[value] = path end
end

local inside = {}
local function look(value, path)
    local kind = type(value)
    if inside[value] or not holds(kind) then return end
    if value == real or value == _G or value == reached or value == withheld then return end
    inside[value] = true
    local metatable = real.getmetatable(value)
    if kind == "function" then
        if not is_library(value) then return end
        if uses_globals(value) and written[real.getfenv(value)] then
            tell("%s uses globals of %s", path, written[real.getfenv(value)])
        end
        for i = 1, 255 do
            local name, inner = real.getupvalue(value, i)
            if name == nil then break end
            if written[inner] then
                use(path, written[inner])
            else
                look(inner, path .. " upvalue " .. i)
            end
        end
        return
    end
    if kind == "table" and not written[value] then
        for key, inner in next, value do
            look(key, path .. " key")
            look(inner, path .. "." .. tostring(key))
        end
    end
    if metatable then
        if written[metatable] and not written[value] then
            tell("%s has the metatable %s", path, written[metatable])
        end
        look(metatable, path .. "<metatable>")
    end
end
for value, path in pairs(reached) do
    look(value, path)
end
look(natives, "native")
look(real.getregistry(), "registry")

print(findings == 0 and "nothing" or findings .. " ways in")
context.destroy()
