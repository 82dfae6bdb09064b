-- Levels, places and counts that are no whole numbers, or far away.
local numbers = {
    2 ^ 31 - 1,
    2 ^ 31,
    -2 ^ 31,
    2 ^ 32 + 1,
    2 ^ 53,
    2 ^ 63,
    1e300,
    1 / 0,
    -1 / 0,
    0 / 0,
    1.9,
    -0.5,
    "1",
    "0x1",
    "1.5",
    99,
}

local function say(name, ok, ...)
    local parts = { name, tostring(ok) }
    for i = 1, select("#", ...) do
        local value = select(i, ...)
        local kind = type(value)
        parts[#parts + 1] = kind == "table" and (value == _G and "_G" or kind)
            or (tostring(value):gsub("\n.*", " ..."))
    end
    print(table.concat(parts, " "))
end

for _, number in ipairs(numbers) do
    local name = tostring(number):gsub("-nan", "nan")
    say(name .. " traceback", pcall(debug.traceback, "text", number))
    say(name .. " getinfo", pcall(debug.getinfo, number, "l"))
    say(name .. " getlocal", pcall(debug.getlocal, number, 1))
    say(name .. " setlocal", pcall(debug.setlocal, number, 9, 1))
    say(name .. " getfenv", pcall(getfenv, number))
    local co = coroutine.create(function() coroutine.yield() end)
    coroutine.resume(co)
    say(name .. " traceback", pcall(debug.traceback, co, "text", number))
    say(name .. " getinfo", pcall(debug.getinfo, co, number, "l"))
    say(name .. " select", pcall(select, number, "a", "b"))
    say(name .. " sub", pcall(string.sub, "text", number))
    say(name .. " find", pcall(string.find, "text", "t", number))
    say(name .. " rep", pcall(string.rep, "", number))
    say(name .. " byte", pcall(string.byte, "text", number))
    say(name .. " concat", pcall(table.concat, { "a", "b" }, "", number))
    say(name .. " remove", pcall(table.remove, { "a", "b" }, number))
    say(name .. " unpack", pcall(unpack, { "a", "b" }, number))
    say(name .. " unpack", pcall(unpack, { "a", "b" }, 1, number))
end

for _, place in ipairs { 2 ^ 31 - 1, 2, 2.9, 1.5, 0.5, -0.5, -1.5, "2", "0x2", "1.5", 7, 3 } do
    local t = { "a", "b", [0] = "z", [-1] = "y" }
    say("insert", pcall(table.insert, t, place, "new"))
    local keys = {}
    for key in pairs(t) do
        keys[#keys + 1] = key
    end
    table.sort(keys)
    for i, key in ipairs(keys) do
        keys[i] = key .. "=" .. t[key]
    end
    print(place, table.concat(keys, " "))
end
