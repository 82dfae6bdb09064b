-- Reading numbers out of a buffer: node-lua accessors.lua DIR COUNT
-- All through 4 KiB, summed as doubles.
local dir, count = ...
local bench = dofile(dir .. "/clock.lua")
count = tonumber(count)

local size = 4096
local bytes = {}
for i = 1, size do
    bytes[i] = string.char((i * 7) % 256)
end
local b = buffer.new(table.concat(bytes))

local function timed(name, step, read)
    local function run(n)
        local total = 0
        for _ = 1, n * step / size do
            for offset = 0, size - step, step do
                total = total + read(offset)
            end
        end
        return total
    end
    run(math.floor(count / 10))
    local start = bench.now()
    run(count)
    bench.say("metric", name, (bench.now() - start) * 1e9 / count)
end

bench.say("begin")
timed("u8_ns", 1, function(o)
    return b:u8(o)
end)
timed("u16_ns", 2, function(o)
    return b:u16le(o)
end)
timed("u32_ns", 4, function(o)
    return b:u32le(o)
end)
bench.say("end")
