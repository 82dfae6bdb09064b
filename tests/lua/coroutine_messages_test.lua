-- What `coroutine.*` says, word for word and with the positions that LuaJIT's own functions give.

local tap = require("support.tap")
local is = tap.is

local HERE = "coroutine_messages_test.lua:"

-- What f raises, with the file's folder and the numbers of lines left out.
local function message(f, ...)
    local good, text = pcall(f, ...)
    assert(not good, "raises")
    return type(text) == "string" and (text:gsub("[^ ]*" .. HERE .. "%d+: ", "AT ")) or text
end

local function returns(...) return ... end

tap.test("wrong arguments", function()
    for _, value in ipairs({ 1, "x", true, {}, newproxy(), print }) do
        local name = type(value)
        local text = "bad argument #1 to 'resume' (coroutine expected)"
        local resume = function() returns(coroutine.resume(value)) end
        is(message(resume), "AT " .. text, "resume " .. name)
        text = "bad argument #1 to 'status' (coroutine expected)"
        local status = function() returns(coroutine.status(value)) end
        is(message(status), "AT " .. text, "status " .. name)
        if value ~= print then
            text = "(function expected, got " .. name .. ")"
            local wrap = "AT bad argument #1 to 'wrap' " .. text
            is(message(function() returns(coroutine.wrap(value)) end), wrap, "wrap " .. name)
            local create = "AT bad argument #1 to 'create' " .. text
            is(message(function() returns(coroutine.create(value)) end), create, "create " .. name)
        end
    end
    local none = "(function expected, got no value)"
    local empty = function() returns(coroutine.wrap()) end
    is(message(empty), "AT bad argument #1 to 'wrap' " .. none, "wrap()")
    is(message(coroutine.wrap), "bad argument #1 to '?' " .. none, "wrap called by C")
    local text = "bad argument #1 to '?' (coroutine expected)"
    is(message(coroutine.resume), text, "resume called by C")
    local nap = coroutine.resume
    local alias = "AT bad argument #1 to 'nap' (coroutine expected)"
    is(message(function() returns(nap(1)) end), alias, "another name")
    local object = { go = coroutine.resume }
    local method = "AT calling 'go' on bad self (coroutine expected)"
    is(message(function() returns(object:go()) end), method, "a method")
end)

tap.test("coroutines that cannot be resumed", function()
    local dead = coroutine.create(returns)
    coroutine.resume(dead)
    is(select(2, coroutine.resume(dead)), "cannot resume dead coroutine", "dead")
    local failed = coroutine.create(error)
    is(select(2, coroutine.resume(failed, "e")), "e", "a C function's error")
    is(select(2, coroutine.resume(failed)), "cannot resume dead coroutine", "failed")
    is(coroutine.status(failed), "dead", "which is dead")
    local running = "cannot resume running coroutine"
    is(
        coroutine.wrap(function() return select(2, coroutine.resume(coroutine.running())) end)(),
        running,
        "itself"
    )
    local outer
    outer = coroutine.create(function()
        return coroutine.wrap(
            function() return coroutine.status(outer), select(2, coroutine.resume(outer)) end
        )()
    end)
    local _, status, why = coroutine.resume(outer)
    is(status, "normal", "the one outside is normal")
    is(why, running, "and runs")
    -- One that waits, as seen from a callback meanwhile.
    local waits
    waits = coroutine.create(function() timer.sleep(0.01) end)
    local seen, wrapped
    timer.timeout(0, function() seen = select(2, coroutine.resume(waits)) end)
    coroutine.resume(waits)
    local sleep = coroutine.wrap(function() timer.sleep(0.01) end)
    timer.timeout(0, function()
        wrapped = message(function() returns(sleep()) end)
    end)
    sleep()
    is(seen, running, "one that waits runs")
    is(wrapped, "AT " .. running, "so does a wrapped one")
end)

tap.test("errors that pass a wrap", function()
    local function fail(value, level)
        return coroutine.wrap(function() error(value, level) end)
    end
    is(message(function() returns(fail("x")()) end), "AT AT x", "a text gets the caller's line too")
    is(message(function() returns(fail("x", 0)()) end), "AT x", "even without one")
    is(message(fail("x")), "AT x", "but not where C has called")
    is(
        message(function()
            for _ in fail("x") do
            end
        end),
        "AT AT x",
        "an iterator"
    )
    is(message(function() returns(fail(42, 0)()) end), 42, "a number is as it was")
    local value = {}
    is(message(function() returns(fail(value)()) end), value, "so is a table")
    is(message(function() returns(fail(nil)()) end), nil, "so is nil")
    local over = coroutine.wrap(returns)
    over()
    is(message(function() returns(over()) end), "AT cannot resume dead coroutine", "a dead one")
    is(message(over), "cannot resume dead coroutine", "called by C")
    local me
    me = coroutine.wrap(function() returns(me()) end)
    local text = "AT AT cannot resume running coroutine"
    is(message(function() returns(me()) end), text, "itself")
    is(
        message(function()
            returns(coroutine.wrap(function()
                timer.sleep(0.001)
                error("late")
            end)())
        end),
        "AT AT late",
        "after a wait"
    )
end)

tap.test("yields where nobody resumes", function()
    local text = "attempt to yield across C-call boundary"
    is(message(coroutine.yield), text, "called by C")
    is(message(function() returns(coroutine.yield(1)) end), "AT " .. text, "called by Lua")
    is(
        coroutine.wrap(function()
            return message(string.gsub, "x", "x", function() returns(coroutine.yield()) end)
        end)(),
        "AT " .. text,
        "in gsub"
    )
    is(coroutine.wrap(coroutine.yield)(7), 7, "a coroutine that is nothing but a yield")
end)

tap.test("waits where they cannot be", function()
    local text = "inside a C function (table.sort, string.gsub, a finaliser, …): "
        .. "attempt to yield across a C-call boundary; collect first and wait afterwards"
    is(
        message(string.gsub, "x", "x", function() timer.sleep(1) end),
        "AT cannot wait in 'sleep' " .. text,
        "in gsub"
    )
    is(
        message(table.sort, { 2, 1 }, function() context.recv(0) end),
        "AT cannot wait in 'recv' " .. text,
        "in sort"
    )
    is(message(string.gsub, "1", "1", timer.sleep):match("inside.*"), text, "called by C itself")
    is(
        message(string.gsub, "x", "x", function() return timer.sleep(1) end),
        "AT cannot wait " .. text,
        "what calls it, gsub, does not wait"
    )
end)

tap.test("waits in coroutines inside the handler of xpcall", function()
    local text = "AT cannot wait in 'sleep' in a coroutine inside the error handler of xpcall: "
        .. "attempt to yield across a C-call boundary; "
        .. "return from the handler first, and wait after xpcall"
    local function told(handler)
        local _, why = xpcall(error, handler, "told")
        return (why:gsub("^[^ ]*:%d+: ", "AT "))
    end
    local function waits() returns(timer.sleep(1)) end
    local wrap = coroutine.wrap
    local function within(f)
        return wrap(function() return wrap(f)() end)()
    end
    is(told(function() return select(2, coroutine.resume(coroutine.create(waits))) end), text)
    is(told(function() return coroutine.wrap(waits)() end), text, "by wrap")
    is(told(function() return within(waits) end), text, "two levels down")
    is(told(function() return message(coroutine.wrap(waits)) end), text, "caught")
    is(
        coroutine.wrap(function() return told(coroutine.wrap(waits)) end)(),
        text,
        "in a coroutine itself"
    )
    -- Others are as in LuaJIT.
    is(told(function() coroutine.wrap(error)("other") end), "error in error handling", "others")
    local co = coroutine.wrap(function() coroutine.yield("yielded") end)
    is(told(function(why) return why .. co() end), "toldyielded", "yields")
end)

-- LuaJIT replaces every error in a handler by one that tells nothing.
tap.test("waits in the handler of xpcall", function()
    local where = "cannot wait in '%s' inside the error handler of xpcall: attempt to yield across "
        .. "a C-call boundary; return from the handler first, and wait after xpcall. "
        .. "The error was: %s"
    local function fails(handler, value)
        local ok, told = xpcall(function() error(value, 0) end, handler)
        return not ok and told:gsub("^[^ ]*:%d+: ", "AT ")
    end
    is(
        fails(function(why) returns(timer.sleep(1), why) end, "told"),
        "AT " .. where:format("sleep", "told"),
        "sleep"
    )
    is(
        fails(function(...) returns(context.recv(0), ...) end, "told"),
        "AT " .. where:format("recv", "told"),
        "recv, with the error among variable arguments"
    )
    local value = setmetatable({}, { __tostring = function() return "a value" end })
    is(
        fails(function(why) returns(context.query(1, 1), why) end, value),
        "AT " .. where:format("query", "a value"),
        "an error that is no text"
    )
    local caught
    local function handler(why)
        caught = message(timer.sleep, 1)
        return why
    end
    is(fails(handler, "told"), "told", "who catches it goes on")
    is(caught, "AT " .. where:gsub(" in '%%s'", ""):format("told"), "and is told the same")
    is(
        coroutine.wrap(function()
            return fails(function() timer.sleep(1) end, "told")
        end)(),
        "AT " .. where:format("sleep", ""):gsub("%. The error was: $", ""),
        "in a coroutine, by one that takes no error"
    )
    local _, stock = xpcall(error, function() error("x") end, "told")
    is(stock, "error in error handling", "other errors are the VM's affair")
    timer.sleep(0.001)
end)

tap.done()
