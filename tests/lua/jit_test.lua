-- Loops over accessors, writes and messages must compile: no aborts, and the loop is in a trace.

local packet = require "packet"

-- Not failures: a function became hot just before the loop that calls it, or that it contains (hot
-- counters share slots by address); the loop comes next, and must be there in the end.
local LEAVING_LOOP, INNER_LOOP = 8, 9
-- Nor this: the collector ran a finaliser, or a hook was called, while a trace was recorded.
local INTERRUPTED = 0
local HARMLESS = { [LEAVING_LOOP] = true, [INNER_LOOP] = true, [INTERRUPTED] = true }

local aborts, links = {}, {}
local function on_trace(what, number, f, pc, code, reason)
    if what == "abort" and not HARMLESS[code] then
        local at = require("jit.util").funcinfo(f, pc)
        aborts[#aborts + 1] =
            string.format("code %s (%s) at %s", tostring(code), tostring(reason), tostring(at.loc))
    elseif what == "stop" then
        local info = require("jit.util").traceinfo(number)
        if info then links[info.linktype] = (links[info.linktype] or 0) + 1 end
    end
end

local function compiles(name, f, link)
    f() -- whatever is loaded late, is loaded now
    jit.flush()
    -- A finaliser that runs while a trace is recorded ends the recording.
    collectgarbage()
    collectgarbage("stop")
    aborts, links = {}, {}
    jit.attach(on_trace, "trace")
    f()
    jit.attach(on_trace)
    collectgarbage("restart")
    if #aborts > 0 then error(name .. " aborts: " .. table.concat(aborts, ", ")) end
    link = link or "loop"
    if not links[link] then error(name .. " has no trace that ends in a " .. link) end
    io.write("ok ", name, " (", links[link], " of kind ", link, ")\n")
end

-- The loops of this file itself would only be in the way.
jit.off(true)
jit.off(compiles)

local N = 20000
local inline, block = buffer.new(("\1"):rep(400)), buffer.new(("\1"):rep(4000))
block:u8(0)

for _, name in ipairs {
    "u8",
    "i8",
    "u16le",
    "u16be",
    "i16le",
    "i16be",
    "u32le",
    "u32be",
    "i32le",
    "i32be",
    "f32le",
    "f32be",
    "f64le",
    "f64be",
    "u64le",
    "u64be",
    "i64le",
    "i64be",
} do
    local get, set, put = buffer[name], buffer["set_" .. name], buffer["put_" .. name]
    for place, b in pairs { inline = inline, block = block } do
        compiles("get " .. name .. " " .. place, function()
            local sum = 0
            for i = 1, N do
                sum = sum + tonumber(get(b, i % 256))
            end
            return sum
        end)
        compiles("set " .. name .. " " .. place, function()
            for i = 1, N do
                set(b, i % 256, i % 100)
            end
        end)
    end
    compiles("put " .. name, function()
        local b = buffer.new(N * 8)
        for i = 1, N do
            put(b, i % 100)
        end
    end)
end

compiles("method call", function()
    local sum = 0
    for i = 0, N do
        sum = sum + block:u16be(i % 2000)
    end
    return sum
end)

compiles("length, skip, reset, commit", function()
    local total = 0
    local b = buffer.new(4000)
    for _ = 1, N do
        b:put_u32le(1)
        b:skip(2)
        total = total + b:length()
        b:reset()
        if b:unfill() < 100 then b:reserve(2000) end
    end
    return total
end)

compiles("varint", function()
    local b = buffer.new(100)
    local sum = 0
    for _ = 1, N do
        b:reset():put_varint(5):put_zigzag(-5)
        local x, at = b:varint(0)
        sum = sum + x + b:zigzag(at)
    end
    return sum
end)

compiles("index_of and text", function()
    local b = buffer.new "abc\n"
    local sum = 0
    for _ = 1, N do
        sum = sum + b:index_of(10) + #b:text(0, 2)
    end
    return sum
end)

compiles("put text", function()
    local b = buffer.new(N * 3)
    for _ = 1, N do
        b:put("abc")
    end
end)

local layout = packet.layout {
    endian = "B",
    { "id", "u16" },
    { "flags", "u8" },
    { "pos", "f32", 3 },
    { "name", "s2" },
}

compiles("packet decode", function()
    local b = layout:encode { id = 1, flags = 2, pos = { 1, 2, 3 }, name = "abc" }
    local sum = 0
    for _ = 1, N do
        sum = sum + layout:decode(b, 0).id
    end
    return sum
end)

compiles("packet encode", function()
    local values = { id = 1, flags = 2, pos = { 1, 2, 3 }, name = "abc" }
    local b = buffer.new(N * 32)
    for i = 1, N do
        values.id = i
        layout:encode(values, b)
    end
end)

compiles("packet get and set", function()
    local b = layout:encode { id = 1, flags = 2, pos = { 1, 2, 3 }, name = "abc" }
    local get, set = layout.get, layout.set
    local sum = 0
    for i = 1, N do
        set.id(b, 0, i)
        sum = sum + get.id(b, 0) + get.pos(b, 0, 2)
    end
    return sum
end)

-- The rest needs the runtime: tests/buffer.rs runs this file without it too.
if tcp then
    local listener = context.check(tcp.listen("127.0.0.1", 0))
    local sock = context.check(tcp.connect("127.0.0.1", tcp.local_port(listener)))
    local peer = context.check(listener:accept())
    peer:read(function() end)
    local bytes = buffer.new("abc")
    compiles("write a text", function()
        for _ = 1, N do
            tcp.write(sock, "abc")
        end
    end)
    compiles("write a buffer", function()
        for _ = 1, N do
            sock:write(bytes)
        end
    end)
    peer:close()
    sock:close()
    listener:close()

    -- A C function, which compiled code leaves and comes back from, within the loop.
    local me, received = context.self(), 0
    context.recv(me, function() received = received + 1 end)
    compiles("send", function()
        for i = 1, N do
            context.send(me, i)
        end
    end, "stitch")
    while received < 2 * N do
        timer.sleep(0)
    end
    context.recv(me, nil)
end

-- An error of a library function that compiled code calls leaves that code for the pcall around it.
local function triple(count) return #("xxx"):rep(count) end
local failed = 0
for i = 1, 2000 do
    local ok, why = pcall(triple, i <= 1500 and i % 7 or 2 ^ 30)
    if not ok then
        failed = failed + 1
        assert(why:match("memory"), why)
    end
end
assert(failed == 500, failed)
