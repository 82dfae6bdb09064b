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
    is(type(context.name()), "string", "a name")
    is(context.name(me), context.name(), "is that of the own handle")
    local answer = context.create(here .. "/support/answers.lua")
    local _, about = context.query(answer, "about", 30)
    is(about.self, answer, "a child knows its handle")
    is(about.parent, me, "and its parent")
    ok(about.name:find("answers.lua", 1, true), "and its name", about.name)
    is(context.name(answer), about.name, "which others can ask for")
    context.destroy(answer)
end)

tap.test("run", function()
    local got
    is(select("#", context.run(function(...)
        got = { n = select("#", ...), ... }
        context.send(me, "ran")
    end, 1, nil, 3, nil)), 0, "returns nothing")
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
            if good and answer == i + 1 then
                right = right + 1
            end
            left = left - 1
            if left == 0 then
                context.send(me, "all")
            end
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
        if session > 0 then
            context.reply(from, session, value * 2)
        end
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

tap.done()
