-- `pairs` shows every function of the library's modules, though most are not loaded before they are
-- called.

local tap = require("support.tap")
local is, ok, raises = tap.is, tap.ok, tap.raises

local function names(module)
    local list = {}
    for name, f in pairs(module) do
        ok(type(name) == "string" and type(f) == "function", tostring(name) .. " is a function")
        list[#list + 1] = name
    end
    table.sort(list)
    return table.concat(list, " ")
end

local modules = { "context", "timer", "tcp", "udp", "buffer" }
local before = {}
tap.test("what is shown", function()
    for _, name in ipairs(modules) do
        before[name] = names(_G[name])
    end
    ok(before.tcp:find("accept close connect connect6 connects", 1, true), "tcp", before.tcp)
    ok(before.context:find("create destroy", 1, true), "context", before.context)
    ok(before.timer:find("close loop", 1, true), "timer", before.timer)
    ok(before.buffer:find("set_u16be", 1, true), "buffer", before.buffer)
end)

tap.test("stand-ins", function()
    local listen, sleep, u16be = tcp.listen, timer.sleep, buffer.u16be
    local line = "listing_test.lua:" .. debug.getinfo(1, "l").currentline + 1
    raises("blame the caller", line, function() listen(5, 5) end)
    is(sleep(0.001), nil, "do what they stand for")
    is(u16be(buffer.new("\1\2"), 0), 258, "methods too")
    is(buffer.new("\1\2"):u16le(0), 513, "called as such")
    local good, listener = listen("127.0.0.1", 0)
    is(good, true, "later as well")
    listener:close()
    is(tcp.is_closed(listener), true, "beside those that were loaded")
end)

tap.test("what is replaced", function()
    local module = require("context")
    local wait, parent = context.wait, context.parent
    local function mine() return "mine" end
    module.wait, module.ncpu = mine, nil
    ok(context.create ~= nil, "others are there")
    context.log("this loads what is left")
    is(context.wait(), "mine", "stays what a script has put there")
    is(rawget(context, "ncpu"), nil, "or taken away")
    is(select(2, wait(context.self() + 1, 30)), 205, "what was there before goes on to work")
    is(parent(), nil, "as ever")
    module.wait = wait
end)

-- What is loaded in the end must be what was shown in the beginning.
tap.test("the list", function()
    for _, name in ipairs(modules) do
        local _ = _G[name].there_is_no_such_function
    end
    local module = require("context")
    module.ncpu = print
    pcall(context.stat)
    for _, name in ipairs(modules) do
        is(names(_G[name]), before[name], name .. " is complete")
    end
end)

tap.done()
