-- The frames that the profiler writes, in every format.
local profile = require("jit.profile")

local function normal(text) return (text:gsub("0x%x+", "ADDR"):gsub("builtin#%d+", "builtin#N")) end

local FORMATS = { "f ", "F ", "l ", "pF ", "pl;", "flZ < ", "F:lZ;", "x%", "" }

local function leaf() coroutine.yield() end

local function show(name, body)
    local co = coroutine.create(body)
    coroutine.resume(co)
    for _, format in ipairs(FORMATS) do
        for _, depth in ipairs({ 10, -10, 2, -2, 1, 0, -1 }) do
            print(name, format, depth, normal(profile.dumpstack(co, format, depth)))
        end
    end
end

local function outer()
    leaf()
    return 1
end

show("plain", outer)
show("pcall", function()
    pcall(outer)
    return 1
end)
show("xpcall", function()
    xpcall(outer, print)
    return 1
end)
show("chunk", loadstring("local f = ... f() return 1", "=(a/chunk)"))
show("text", function() return loadstring("local f = ... f() return 1", "a text")(outer) end)
show("built in", function()
    table.foreach({ 1 }, outer)
    return 1
end)
show("iterator", function()
    for _ in outer do
    end
end)
show("method", function()
    local t = setmetatable({}, { __index = function() return outer() + 1 end })
    return t.x + 1
end)
print(select("#", profile.dumpstack(coroutine.create(outer), "f", 3)))
print(pcall(profile.dumpstack))
print(pcall(profile.dumpstack, "f"))
print(pcall(profile.dumpstack, "f", {}))
print(pcall(profile.dumpstack, {}, 1))
