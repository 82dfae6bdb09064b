-- Timers: never early, in order, many at once.

local ffi = require("ffi")
local tap = require("support.tap")
local is, ok = tap.is, tap.ok

ffi.cdef([[
typedef struct { long seconds; long nanoseconds; } clock_reading;
int clock_gettime(int clock, clock_reading *to);
]])

local reading = ffi.new("clock_reading")

local function now()
    ffi.C.clock_gettime(1, reading)
    return tonumber(reading.seconds) + tonumber(reading.nanoseconds) / 1e9
end

tap.test("never early", function()
    local early = 0
    for _, seconds in ipairs({ 0.001, 0.0015, 0.003, 0.0101, 0.05 }) do
        for _ = 1, 5 do
            local start = now()
            timer.sleep(seconds)
            if now() - start < seconds - 1e-9 then early = early + 1 end
        end
    end
    is(early, 0, "sleep")
    local start, took = now(), nil
    timer.timeout(0.02, function() took = now() - start end)
    while not took do
        timer.sleep(0.001)
    end
    ok(took >= 0.02, "timeout", tostring(took))
    is(select("#", timer.sleep(0)), 0, "sleep returns nothing")
end)

tap.test("clocks", function()
    local began, time = timer.now(), timer.time()
    timer.sleep(0.01)
    local passed = timer.now() - began
    ok(passed >= 0.01 and passed < 60, "now passes", passed)
    ok(math.abs(timer.time() - time - passed) < 60, "and so does time")
    ok(math.abs(timer.time() - os.time()) < 60, "time is that of os.time")
end)

tap.test("times", function()
    tap.raises("not a number raises", "", timer.sleep, 0 / 0)
    tap.raises("infinity raises", "", timer.sleep, math.huge)
    tap.raises("no function raises", "", timer.timeout, 1)
    tap.raises("infinite timeout raises", "", timer.timeout, math.huge, function() end)
    local fired
    timer.timeout(-1, function() fired = true end)
    timer.sleep(0.005)
    ok(fired, "a negative time is none")
end)

tap.test("arguments", function()
    local got
    timer.timeout(
        0.001,
        1,
        nil,
        "three",
        nil,
        function(...) got = { n = select("#", ...), ... } end
    )
    while not got do
        timer.sleep(0.001)
    end
    is(got.n, 4, "nils are kept")
    is(got[3], "three", "in their places")
end)

tap.test("order", function()
    local order = {}
    for i = 1, 20 do
        timer.timeout(0.01, function() order[#order + 1] = i end)
    end
    timer.timeout(0.005, function() order[#order + 1] = 0 end)
    while #order < 21 do
        timer.sleep(0.001)
    end
    local sorted = true
    for i = 1, 21 do
        sorted = sorted and order[i] == i - 1
    end
    ok(sorted, "equal deadlines fire as created", table.concat(order, " "))
end)

tap.test("close", function()
    local fired
    local id = timer.timeout(0.001, function() fired = true end)
    is(select("#", timer.close(id)), 0, "returns nothing")
    timer.close(id)
    timer.close(123456789)
    timer.sleep(0.01)
    is(fired, nil, "a closed timer never fires")
end)

tap.test("loop", function()
    local times, id = 0, nil
    id = timer.loop(0.001, 0.001, function()
        times = times + 1
        if times == 5 then timer.close(id) end
        timer.sleep(0.003)
    end)
    while times < 5 do
        timer.sleep(0.001)
    end
    timer.sleep(0.01)
    is(times, 5, "a callback that waits does not hold up the next; close ends it")
    is(select("#", timer.loop(0, 0, function() end)), 0, "without any interval there is no timer")
    local once = 0
    timer.loop(0.001, 0, function() once = once + 1 end)
    timer.sleep(0.02)
    is(once, 1, "without repetition it fires once")
end)

-- Has `count` timers that are due at the same time.
local function all_due(count, callback)
    local ids = {}
    for i = 1, count do
        ids[i] = timer.timeout(0.001, function() callback(i, ids) end)
    end
    local start = now()
    while now() - start < 0.01 do
    end
end

tap.test("due at once", function()
    local order, new = {}, nil
    all_due(200, function(i, ids)
        order[#order + 1] = i
        if i == 1 then
            timer.close(ids[1])
            timer.close(ids[3])
            new = timer.timeout(0, function() order[#order + 1] = "new" end)
        elseif i == 4 then
            timer.sleep(0.002)
            order[#order + 1] = "slept"
        end
    end)
    local seen = {}
    while not seen.new or not seen.slept do
        timer.sleep(0.001)
        for at, what in ipairs(order) do
            seen[what] = at
        end
    end
    is(seen[3], nil, "what one callback closes is not called, though it was due")
    is(#order, 201, "all others are")
    ok(seen.new > seen[200], "before what is set meanwhile")
    ok(seen.slept > seen[5], "one that waits does not hold up the next")
    timer.close(new)
end)

tap.test("the end of the context", function()
    local path = os.tmpname()
    local file = assert(io.open(path, "w"))
    file:write([[
        local parent, how = ...
        for _ = 1, 10 do
            timer.timeout(0, function()
                context.send(parent, "fired")
                context.destroy(how and context.self())
            end)
        end
    ]])
    file:close()
    local fired = 0
    context.recv(0, function() fired = fired + 1 end)
    for _, how in ipairs({ false, true }) do
        context.wait(context.create(path, context.self(), how or nil))
    end
    timer.sleep(0.001)
    context.recv(0, nil)
    os.remove(path)
    is(fired, 2, "no timer is called once one has destroyed it")
end)

tap.test("100,000 at once", function()
    local count, fired = 100000, 0
    for i = 1, count do
        timer.timeout(0.1 + i % 100 / 1000, function() fired = fired + 1 end)
    end
    while fired < count do
        timer.sleep(0.02)
    end
    is(fired, count, "all fire")
end)

tap.done()
