-- Clocks and the words that the runner listens for. Loaded by the other scripts with `dofile`.
local ffi = require("ffi")
ffi.cdef([[
typedef struct { long sec, nsec; } node_lua_bench_timespec;
int clock_gettime(int, node_lua_bench_timespec *);
]])

local M = {}
local spec = ffi.new("node_lua_bench_timespec")

-- Monotonic seconds.
function M.now()
    ffi.C.clock_gettime(1, spec)
    return tonumber(spec.sec) + tonumber(spec.nsec) / 1e9
end

function M.say(...)
    io.stdout:write(table.concat({ ... }, " "), "\n")
    io.stdout:flush()
end

-- Calls `work` between the words that make the runner read its counters; returns its wall time.
function M.measured(sleep, work)
    M.say("begin")
    sleep(0.05)
    local start = M.now()
    work()
    local wall = M.now() - start
    M.say("end")
    sleep(0.3)
    return wall
end

function M.payload(name)
    if name == "number" then
        return 42
    elseif name == "string" then
        return "twenty bytes of text"
    end
    return { a = 1, b = "x", c = { 1, 2, 3 } }
end

function M.check(name, value)
    if name == "table" then
        assert(value.a == 1 and value.b == "x" and value.c[3] == 3, "wrong answer")
    else
        assert(value == M.payload(name), "wrong answer")
    end
end

-- Creates a context that runs where it likes, or, if `place` is not "any", on that worker alone.
function M.create(place, file, ...)
    if place == "any" then return context.create(file, ...) end
    return context.create({ file = file, worker = place }, ...)
end

return M
