-- Generators with coroutine.wrap, for node-lua and for bare LuaJIT: generators.lua DIR COUNT
local _, count = ...
count = tonumber(count)
local say = function(...)
    io.stdout:write(table.concat({ ... }, " "), "\n")
    io.stdout:flush()
end

local function range(n)
    return coroutine.wrap(function()
        for i = 1, n do
            coroutine.yield(i)
        end
    end)
end

local function filter(keep, source)
    return coroutine.wrap(function()
        for value in source do
            if keep(value) then coroutine.yield(value) end
        end
    end)
end

-- The numbers low..high in the order of a balanced tree's leaves, a coroutine per node.
local function tree(low, high)
    return coroutine.wrap(function()
        if low == high then return coroutine.yield(low) end
        local middle = math.floor((low + high) / 2)
        for value in tree(low, middle) do
            coroutine.yield(value)
        end
        for value in tree(middle + 1, high) do
            coroutine.yield(value)
        end
    end)
end

local function sum(source)
    local total = 0
    for value in source do
        total = total + value
    end
    return total
end

local function timed(name, work)
    work(math.floor(count / 10))
    local start = os.clock()
    local total = work(count)
    say("metric", name, (os.clock() - start) * 1e9 / count)
    return total
end

say("begin")
assert(timed("range_ns", function(n) return sum(range(n)) end) == count * (count + 1) / 2)
timed("filter_ns", function(n)
    return sum(filter(function(v) return v % 2 == 0 end, range(n)))
end)
timed("tree_ns", function(n)
    local total = 0
    for _ = 1, n / 1000 do
        total = total + sum(tree(1, 1000))
    end
    return total
end)
timed("start_ns", function(n)
    local total = 0
    for _ = 1, n do
        total = total + range(1)()
    end
    return total
end)
say("end")
