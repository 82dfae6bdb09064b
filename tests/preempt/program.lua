-- Runs programs made from a seed, and sends a hash of what they have seen to the parent. It must
-- not depend on where turns are cut, nor on what is compiled.
local seed, rounds, echo = ...
local generate, parts, objects = require("generate"), require("parts"), require("objects")

local bxor, rol, tobit = bit.bxor, bit.rol, bit.tobit
local hash = 5381

local function put(...)
    for i = 1, select("#", ...) do
        local value = select(i, ...)
        local kind, x = type(value), 17
        if kind == "number" then
            x = tobit(value)
        elseif kind == "string" then
            for j = 1, #value do
                x = tobit(x * 31 + value:byte(j))
            end
        elseif kind == "boolean" then
            x = value and 11 or 13
        elseif kind ~= "nil" then
            x = 19
        end
        hash = bxor(rol(hash, 5), x)
    end
end

-- Ends what runs too long.
local fuel = 0
local function tick()
    fuel = fuel - 1
    if fuel < 0 then error("out of fuel", 0) end
end
local function refuel() fuel = 300 end

local names, all = {}, {}
for _, group in ipairs({ parts.plain, parts.waiting }) do
    for name, part in pairs(group) do
        names[#names + 1], all[name] = name, part
    end
end
table.sort(names)
parts.start(echo)

for round = 1, rounds do
    local source = generate.source(seed * 1000 + round, names)
    local program = assert(loadstring(source, "=program"))
    local ok, why = pcall(program, put, tick, refuel, all, objects)
    put(ok, why)
    if round % 4 == 0 then collectgarbage() end
end
put(parts.all_called())
local finalised = parts.all_finalised()
local stat = context.stat()
context.send(context.parent(), {
    seed = seed,
    hash = hash,
    finalised = finalised,
    cuts = stat.slices - stat.turns,
})
