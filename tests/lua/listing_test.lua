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

-- Objects show what scripts may use, and nothing of what the library knows of them.
if http and websocket then
    tap.test("objects", function()
        local function shown(object)
            local list = {}
            for name, value in pairs(object) do
                list[#list + 1] = type(name) == "string" and name
                    or type(name) .. " " .. type(value)
            end
            table.sort(list)
            return table.concat(list, " ")
        end
        local _, server = http.serve("127.0.0.1", 0, function(req, res)
            is(shown(req), "path", "a request")
            is(shown(res), "", "its answer")
            local fields = { req.method, req.headers, req.args, req.version }
            is(#fields, 4, "has more")
            is(shown(req), "args headers method path version", "one that was looked at")
            is(shown(req.headers), "accept host user-agent", "headers")
            res:status(200):write("a")
            is(shown(res), "", "an answer that has begun")
            res:finish("b")
            is(shown(res) .. shown(req):sub(1, 4), "args", "one that has ended")
            is(res:write("c"), false, "which takes no more")
            raises("takes no request", "'status' (answer of a request", res.status, req, 200)
            raises("takes no answer", "'text' (request expected", req.text, res)
        end)
        local _, res = http.get("http://127.0.0.1:" .. server:port())
        is(shown(res), "headers status url version", "a response")
        is(res:text(), "ab", "that is read")
        is(shown(res), "headers status url version", "shows no more then")
        is(shown(server) .. shown(json and json.array({}) or {}), "", "a server, an array")
        raises("takes no server", "'text' (response expected", res.text, server)
        server:close(0)
    end)
end

tap.done()
