-- Waiting calls inside coroutines: to whoever resumes one, a call that waits looks like any other.

local tap = require("support.tap")
local is, ok = tap.is, tap.ok

local function wait() timer.sleep(0.001) end

-- Waits for a message of this context to itself: the way other values come back from a wait.
local function echo(value)
    context.send(context.self(), value)
    local good, answer = context.recv(context.self())
    assert(good, answer)
    return answer
end

tap.test("create and resume", function()
    local co = coroutine.create(function(a, b)
        wait()
        local c = coroutine.yield(a + b)
        wait()
        local d, e = coroutine.yield(c * 2)
        wait()
        return d, e, nil
    end)
    is(coroutine.status(co), "suspended", "new")
    is(select(2, coroutine.resume(co, 1, 2)), 3, "first yield")
    is(coroutine.status(co), "suspended", "between")
    is(select(2, coroutine.resume(co, 10)), 20, "second yield")
    local results = { n = select("#", coroutine.resume(co, "d", "e")) }
    is(results.n, 4, "trailing nil of the return is kept")
    is(coroutine.status(co), "dead", "after the return")
    is((coroutine.resume(co)), false, "a dead one cannot be resumed")
end)

tap.test("values through a wait", function()
    local co = coroutine.wrap(function(...)
        local first = echo("one")
        local second = coroutine.yield(first, ...)
        return echo(second) .. echo("three")
    end)
    local a, b, c, d = co(nil, "x", nil)
    is(a, "one", "answer of the wait")
    is(b, nil, "first argument")
    is(c, "x", "second argument")
    is(d, nil, "third argument")
    is(co("two"), "twothree", "values handed in after a wait")
end)

tap.test("wrap", function()
    local sum = 0
    for value in
        coroutine.wrap(function()
            for i = 1, 10 do
                wait()
                coroutine.yield(i)
            end
        end)
    do
        sum = sum + value
    end
    is(sum, 55, "a generator that waits between values")
    local fails = coroutine.wrap(function()
        wait()
        error("after the wait", 0)
    end)
    tap.raises("an error passes through", "after the wait", fails)
    tap.raises("then it is dead", "dead", fails)
end)

tap.test("depth", function()
    local function level(n)
        if n == 0 then
            wait()
            return 0
        end
        local good, value = coroutine.resume(coroutine.create(level), n - 1)
        assert(good, value)
        return value + 1
    end
    is(level(50), 50, "fifty coroutines inside each other")
    local function wrapped(n)
        if n == 0 then return echo("bottom") end
        return coroutine.wrap(wrapped)(n - 1) .. "."
    end
    is(wrapped(5), "bottom.....", "five wraps inside each other")
end)

tap.test("pcall and xpcall", function()
    is(select(2, pcall(echo, "in pcall")), "in pcall", "pcall")
    is(select(2, pcall(pcall, echo, "x")), true, "pcall of pcall")
    local good, message = pcall(function()
        wait()
        error({ "kept" })
    end)
    is(good, false, "error after a wait")
    is(message[1], "kept", "error value is kept")
    local handled = select(
        2,
        xpcall(function()
            wait()
            error("late", 0)
        end, function(text) return "handled " .. text end)
    )
    is(handled, "handled late", "xpcall runs its handler")
    is(select(2, xpcall(echo, debug.traceback, "argument")), "argument", "xpcall with arguments")
    local co = coroutine.wrap(function()
        local caught = select(
            2,
            pcall(function()
                wait()
                coroutine.yield("yield in pcall")
                wait()
                error("raised in pcall", 0)
            end)
        )
        return caught
    end)
    is(co(), "yield in pcall", "a yield inside pcall inside a coroutine")
    is(co(), "raised in pcall", "then an error there")
end)

tap.test("metamethods", function()
    local object = setmetatable({}, {
        __index = function(_, key) return echo("index " .. key) end,
        __newindex = function(self, key, value) rawset(self, key, echo(value)) end,
        __call = function(_, value) return echo(value) end,
        __add = function(_, value) return echo(value) + 1 end,
        __concat = function(_, value) return echo("concat ") .. value end,
        __unm = function() return echo(-1) end,
        __lt = function() return echo(true) end,
        __le = function() return echo(false) end,
        __eq = function() return echo(true) end,
    })
    is(object.name, "index name", "__index")
    object.set = "new"
    is(rawget(object, "set"), "new", "__newindex")
    is(object("called"), "called", "__call")
    is(object + 41, 42, "__add")
    is(object .. "text", "concat text", "__concat")
    is(-object, -1, "__unm")
    is(object < object, true, "__lt")
    is(object <= object, false, "__le")
    is(object == setmetatable({}, getmetatable(object)), true, "__eq")
    local inside = coroutine.wrap(function()
        coroutine.yield(object.inside)
        return object + 1
    end)
    is(inside(), "index inside", "__index inside a coroutine")
    is(inside(), 2, "__add inside a coroutine")
end)

tap.test("iterators", function()
    local function numbers(last, before)
        wait()
        if before < last then return before + 1 end
    end
    local sum = 0
    for i in numbers, 5, 0 do
        sum = sum + i
    end
    is(sum, 15, "a stateless iterator that waits")
end)

tap.test("require", function()
    local module = require("support.waits")
    is(module.name, "support.waits", "the module's own name")
    is(module.steps[2], "second", "a module that waits while it loads")
    is(require("support.waits"), module, "loaded once")
end)

tap.test("running and isyieldable", function()
    is(coroutine.running(), nil, "the root is none, as in plain Lua")
    wait()
    is(coroutine.running(), nil, "after a wait neither")
    is(coroutine.isyieldable(), false, "the root cannot yield")
    tap.raises("a yield in the root raises", "", coroutine.yield)
    local outer
    outer = coroutine.create(function()
        is(coroutine.running(), outer, "running names the user's coroutine")
        is(coroutine.isyieldable(), true, "it can yield")
        local inner = coroutine.create(function()
            wait()
            is(coroutine.status(outer), "normal", "the one that resumed it is normal")
        end)
        assert(coroutine.resume(inner))
        wait()
        is(coroutine.running(), outer, "running after a wait")
        is(coroutine.status(outer), "running", "status of oneself")
        string.gsub("x", "x", function() is(coroutine.isyieldable(), false, "not inside gsub") end)
    end)
    assert(coroutine.resume(outer))
    is(coroutine.status(outer), "dead", "ended")
end)

tap.test("a parked coroutine", function()
    local finished
    local parked = coroutine.create(function()
        local good, answer = context.recv(context.self())
        finished = good and answer
        return "its own result"
    end)
    local tried, status
    context.run(function()
        status = coroutine.status(parked)
        tried = { coroutine.resume(parked, "from elsewhere") }
        context.send(context.self(), "the message")
    end)
    local good, result = coroutine.resume(parked)
    is(good, true, "it ends as if nobody had touched it")
    is(result, "its own result", "with its own result")
    is(finished, "the message", "and the answer of its wait")
    is(status, "normal", "while it waits it is neither suspended nor dead")
    is(tried[1], false, "it cannot be resumed from elsewhere")
    is(type(tried[2]), "string", "and that says why")
end)

tap.test("other coroutines run meanwhile", function()
    local order = {}
    for i = 1, 3 do
        context.run(function(name)
            for _ = 1, 2 do
                timer.sleep(0.002 * i)
                order[#order + 1] = name
            end
            if i == 3 then context.send(context.self(), "done") end
        end, "run" .. i)
    end
    context.recv(context.self())
    is(#order, 6, "three that sleep twice each")
    is(order[1], "run1", "the shortest first")
    is(order[6], "run3", "the longest last")
end)

tap.test("errors", function()
    local co = coroutine.create(function()
        wait()
        local nothing = nil
        return nothing.field
    end)
    local good, message = coroutine.resume(co)
    is(good, false, "an error after a wait")
    ok(message:find("coroutine_test.lua", 1, true), "says where", message)
    is(coroutine.status(co), "dead", "and ends the coroutine")
    ok(debug.traceback(co):find("stack traceback", 1, true), "its stack can be seen")
end)

-- Where C code is on the stack, nothing can wait. Had one of these calls left its timer or its
-- claim on a message behind, the checks after it would fail or the script would never end.
tap.test("C callbacks", function()
    local function refused(name, f)
        local good, message = pcall(string.gsub, "x", "x", f)
        is(good, false, name .. " in gsub raises")
        is(type(message), "string", name .. " in gsub says why")
        is((pcall(table.sort, { 2, 1 }, f)), false, name .. " in sort raises")
        is((coroutine.resume(coroutine.create(string.gsub), "x", "x", f)), false, name .. " deeper")
    end
    refused("sleep", function() timer.sleep(3600) end)
    refused("recv", function() context.recv(0) end)
    refused("query", function() context.query(context.self(), "never asked") end)
    refused("connect", function() tcp.connect("127.0.0.1", 1) end)
    refused("looking up a name", function() tcp.listen("localhost", 0) end)
    local good, listener = tcp.listen("127.0.0.1", 0)
    assert(good, listener)
    refused("accept", function() listener:accept() end)
    local _, client = assert(tcp.connect("127.0.0.1", tcp.local_port(listener)))
    local _, server = assert(listener:accept(10))
    refused("read", function() server:read() end)
    client:write("whole", true)
    is(select(2, server:read(10)):tostring(), "whole", "no data went to a refused read")
    client:close()
    server:close()
    listener:close()
    local _, refused_query = context.recv(context.self(), 0.01)
    is(refused_query, 208, "no refused query was sent")
    is(echo("mine"), "mine", "no message went to a refused recv")
end)

tap.test("generators keep working beside waits", function()
    local function count(n)
        return coroutine.wrap(function()
            for i = 1, n do
                coroutine.yield(i)
            end
        end)
    end
    local sum = 0
    for i in count(100000) do
        sum = sum + i
        if i % 25000 == 0 then wait() end
    end
    is(sum, 5000050000, "a long generator")
end)

tap.test("a coroutine in between that cannot be left", function()
    local outer = coroutine.wrap(function()
        local middle = coroutine.wrap(function()
            local first, why, last
            string.gsub("x", "x", function()
                local inner = coroutine.wrap(function()
                    coroutine.yield(pcall(timer.sleep, 0.001))
                    return coroutine.isyieldable()
                end)
                first, why = inner()
                last = inner()
            end)
            timer.sleep(0.001)
            return first, why, last, coroutine.yield("between")
        end)
        local between = middle()
        timer.sleep(0.001)
        return between, middle("given")
    end)
    local between, first, why, last, given = outer()
    is(first, false, "a wait inside raises")
    ok(why:find(context.strerror(200), 1, true), "with the text of its code")
    is(last, true, "and the one inside goes on")
    is(between, "between", "one that is outside of that function waits")
    is(given, "given", "and is resumed as ever")
    is(coroutine.running(), nil, "the main chunk is where it was")
end)

tap.test("a resume of what is no coroutine", function()
    tap.raises("raises", "coroutine expected", coroutine.resume, nil)
    tap.raises("whatever it is", "coroutine expected", coroutine.resume, print)
    is(coroutine.running(), nil, "and leaves the main chunk where it was")
    tap.raises("so that it still cannot yield", "across C-call boundary", coroutine.yield)
end)

tap.test("coroutines inside each other without end", function()
    local function deep() return (coroutine.wrap(deep)()) end
    tap.raises("raise", "C stack overflow", deep)
    -- Each inside many functions of C, which take far more of the stack.
    local function nest(level)
        if level == 0 then return (coroutine.wrap(nest)(150)) end
        local inner
        string.gsub("x", "x", function() inner = nest(level - 1) end)
        return inner
    end
    tap.raises("inside functions of C too", "C stack overflow", nest, 150)
    local function resumed()
        local good, why = coroutine.resume(coroutine.create(resumed))
        return good and why or why or "?"
    end
    is(resumed(), "C stack overflow", "a resume returns it")
    local function down(n)
        if n == 0 then
            wait()
            return 1
        end
        return 1 + coroutine.wrap(down)(n - 1)
    end
    is(down(2000), 2001, "two thousand levels are fine, waits included")
end)

tap.done()
