-- Many who wait for one context, some of whom give up; and what a script puts in the place of
-- functions that are loaded late.

local tap = require("support.tap")
local is, ok, raises = tap.is, tap.ok, tap.raises

local path = os.tmpname()
local file = assert(io.open(path, "w"))
file:write("for i = 1, (...) do context.recv(0) context.send(context.parent(), i) end")
file:close()

-- A number below n for each i, in an order that has nothing to do with that of the calls.
local function shuffled(i, n) return i * 7919 % n end

tap.test("those whose time is over are passed over", function()
    local child, n = context.create(path, 40), 400
    local got, over = {}, 0
    for i = 1, n do
        -- Every tenth waits for as long as it takes.
        local timeout = i % 10 > 0 and 0.001 + shuffled(i, n) / n * 0.02 or 0
        context.run(function()
            local good, value = context.recv(child, timeout)
            if good then
                got[#got + 1] = { i, value }
            else
                over = over + 1
            end
        end)
    end
    while over < n - n / 10 do
        timer.sleep(0.005)
    end
    for _ = 1, 40 do
        context.send(child, true)
    end
    context.wait(child)
    while #got < 40 do
        timer.sleep(0.001)
    end
    for i = 1, 40 do
        is(got[i][1], 10 * i, "the others get what comes, the oldest first")
        is(got[i][2], i, "in the order of the messages")
    end
end)

tap.test("so are those who wait for an end", function()
    local child, n = context.create(path, 1), 400
    local told, over = {}, 0
    local function note(i, good, code)
        if good then
            told[#told + 1] = i
        else
            is(code, 208, "a timeout")
            over = over + 1
        end
    end
    for i = 1, n do
        local timeout = i % 10 > 0 and 0.001 + shuffled(i, n) / n * 0.02 or 0
        if i % 2 == 0 then
            context.run(function() note(i, context.wait(child, timeout)) end)
        else
            context.wait(child, timeout, function(good, code) note(i, good, code) end)
        end
    end
    while over < n - n / 10 do
        timer.sleep(0.005)
    end
    context.wait(child, 1000, function() ok(false, "removed") end)
    context.wait(child, nil)
    context.send(child, true)
    context.wait(child)
    while #told < n / 10 do
        timer.sleep(0.001)
    end
    for i = 1, n / 10 do
        is(told[i], 10 * i, "the others are told, the oldest first")
    end
end)

tap.test("functions that a script has replaced", function()
    local before, mine = context.monitor, function() return "mine" end
    rawset(context, "monitor", mine)
    ok(context.stat().turns > 0, "the others are loaded")
    is(context.monitor, mine, "stay replaced")
    rawset(context, "monitor", before)
    raises(
        "the one before works on",
        "#2 to 'monitor' (function or nil expected, got no value)",
        function() context.monitor(context.self() + 1) end
    )
end)

tap.test("names are no handles of destroy", function()
    raises(
        "named",
        "#1 to 'destroy' (context handle, as context.find gives it for a name, "
            .. 'expected, got string "worker")',
        function() context.destroy("worker", "why") end
    )
end)

tap.test("the place of a wrong call that is a tail call", function()
    -- Such a function is not there any more: its caller's line is named.
    local place = "tap.lua:"
    raises("on_signal", place, function() return context.on_signal("KILL", print) end)
    raises("exit", place, function() return context.exit(256) end)
end)

os.remove(path)
tap.done()
