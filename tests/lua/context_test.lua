-- Contexts: what goes beyond the recorded cases of the contract.

local tap = require("support.tap")
local is, ok = tap.is, tap.ok

local here = arg[0]:match("^(.*)/") or "."
local me = context.self()

tap.test("about oneself", function()
    ok(me > 0, "a handle", tostring(me))
    is(context.parent(), nil, "the main context has no parent")
    ok(context.ncpu() >= 1, "cores", tostring(context.ncpu()))
    ok(context.thread() >= 0, "worker", tostring(context.thread()))
    is((context.name()), nil, "no name at first")
    context.name("tester")
    is(context.name(), "tester", "then the one it gives itself")
    is(context.name(me), "tester", "found by the handle")
    is((context.name(123456789)), nil, "nobody, no name")
    local answer = context.create(here .. "/support/answers.lua")
    local _, about = context.query(answer, "about", 30)
    is(about.self, answer, "a child knows its handle")
    is(about.parent, me, "and its parent")
    is(about.name, "answers", "and its name")
    is(context.name(answer), "answers", "which others can ask for")
    context.destroy(answer)
end)

tap.test("run", function()
    local got
    is(
        select(
            "#",
            context.run(function(...)
                got = { n = select("#", ...), ... }
                context.send(me, "ran")
            end, 1, nil, 3, nil)
        ),
        0,
        "returns nothing"
    )
    is(got, nil, "calls later")
    context.recv(me)
    is(got.n, 4, "with all arguments")
    is(got[3], 3, "in their places")
    tap.raises("raises without a function", "", context.run, 1)
end)

tap.test("many queries at once", function()
    local workers = {}
    for i = 1, 8 do
        workers[i] = context.create(here .. "/support/answers.lua")
    end
    local right, left = 0, 400
    for i = 1, left do
        context.query(workers[i % 8 + 1], { add = { i, 1 } }, 30, function(good, answer)
            if good and answer == i + 1 then right = right + 1 end
            left = left - 1
            if left == 0 then context.send(me, "all") end
        end)
    end
    context.recv(me)
    is(right, 400, "each gets its own answer")
    for i = 1, 8 do
        context.destroy(workers[i])
        local ended, code = context.wait(workers[i], 30)
        ok(ended or code == 205, "worker " .. i .. " ends", tostring(code))
    end
end)

tap.test("queries to oneself", function()
    context.recv(me, function(_, value, from, session)
        if session > 0 then context.reply(from, session, value * 2) end
    end)
    is(select(2, context.query(me, 21, 30)), 42, "work with a callback")
    context.recv(me, nil)
    context.run(function()
        local _, value, from, session = context.recv(me)
        timer.sleep(0.001)
        context.reply(from, session, value + 1)
    end)
    is(select(2, context.query(me, 1, 30)), 2, "and with a coroutine that waits")
end)

tap.test("timeouts", function()
    local answer = context.create(here .. "/support/answers.lua")
    is(select(2, context.query(answer, "silence", 0.01)), 208, "of a query")
    is(select(2, context.recv(answer, 0.01)), 208, "of a recv")
    is(select(2, context.wait(answer, 0.01)), 208, "of a wait")
    is(select(2, context.query(answer, { add = { 1, 2 } }, 30)), 3, "harm no later query")
    context.destroy(answer)
end)

tap.test("recv calls whose time is over", function()
    local function memory()
        collectgarbage()
        collectgarbage()
        return collectgarbage("count")
    end
    context.recv(me, 0.001)
    local before = memory()
    for i = 1, 300 do
        context.recv(0, 0.0001)
        context.recv(1e14 + i, 0.0001)
    end
    local grown = memory() - before
    ok(grown < 25, "leave nothing behind", ("%.1f KiB"):format(grown))
    -- A waiter between two that stay is left out, and the two keep their order.
    local got = {}
    local function wait_for_message(name, timeout)
        context.run(function()
            local good, value = context.recv(me, timeout)
            got[#got + 1] = name .. ":" .. tostring(good and value)
        end)
    end
    wait_for_message("first", 30)
    wait_for_message("second", 0.001)
    wait_for_message("third", 30)
    timer.sleep(0.05)
    context.send(me, "a")
    context.send(me, "b")
    while #got < 3 do
        timer.sleep(0.001)
    end
    is(table.concat(got, " "), "second:false first:a third:b", "others are served in order")
end)

tap.test("messages that are there already", function()
    local got = {}
    for i = 1, 3000 do
        context.send(me, i)
    end
    local other = 0
    timer.timeout(0.001, function() other = other + 1 end)
    for i = 1, 3000 do
        local _, value = context.recv(me)
        got[i] = value
    end
    local in_order = true
    for i = 1, 3000 do
        in_order = in_order and got[i] == i
    end
    ok(in_order, "are received in order, over many turns")
    -- While a callback takes them, a call that waits gets what is meant for it alone.
    local taken = {}
    context.recv(0, function(_, value)
        taken[#taken + 1] = value
        if value == "slow" then
            timer.sleep(0.01)
            taken[#taken + 1] = "woke"
        end
    end)
    context.send(me, "slow")
    context.send(me, "quick")
    while #taken < 3 do
        timer.sleep(0.001)
    end
    context.recv(0, nil)
    is(table.concat(taken, " "), "slow quick woke", "reach a callback that waits")
    is(select("#", context.parent()), 1, "parent gives one value also where there is none")
end)

tap.done()
