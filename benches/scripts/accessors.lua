-- Reading numbers out of a buffer: node-lua accessors.lua DIR COUNT
-- All through 4 KiB, summed as doubles.
local dir, count = ...
local bench = dofile(dir .. "/clock.lua")
count = tonumber(count)

local size = 4096
local pieces = {}
for i = 1, size do
    pieces[i] = string.char((i * 7) % 256)
end
local b = buffer.new(table.concat(pieces))

-- As code does that is to be fast: what a loop works on is local to it. A variable of an enclosing
-- function that still runs is looked for anew in each iteration.
local function timed(name, step, run)
    run(b, math.floor(count / 10) * step / size)
    local start = bench.now()
    run(b, count * step / size)
    bench.say("metric", name, (bench.now() - start) * 1e9 / count)
end

bench.say("begin")
timed("u8_ns", 1, function(bytes, rounds)
    local total = 0
    for _ = 1, rounds do
        for offset = 0, 4095 do
            total = total + bytes:u8(offset)
        end
    end
    return total
end)
timed("u16_ns", 2, function(bytes, rounds)
    local total = 0
    for _ = 1, rounds do
        for offset = 0, 4094, 2 do
            total = total + bytes:u16le(offset)
        end
    end
    return total
end)
timed("u32_ns", 4, function(bytes, rounds)
    local total = 0
    for _ = 1, rounds do
        for offset = 0, 4092, 4 do
            total = total + bytes:u32le(offset)
        end
    end
    return total
end)
bench.say("end")
