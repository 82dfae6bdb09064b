-- What scripts use is opened and loaded when they first look at it: in whatever order they do,
-- each finds its own. Every pair is tried, in a context of its own.

-- All of it is looked up by who calls the function, and only then.
-- luacheck: push ignore 113
local uses = {
    { "require", function() return require("supervisor").start end },
    {
        "require packet",
        function() return require("packet").layout({ { "a", "u8" } }).size == 1 end,
    },
    { "require ffi", function() return require("ffi").new("int[1]")[0] == 0 end },
    {
        "require string.buffer",
        function() return #require("string.buffer").new():put("x") == 1 end,
    },
    { "require table.new", function() return require("table.new")(1, 1) end },
    { "require jit.util", function() return require("jit.util").funcinfo end },
    { "package.loaded", function() return package.loaded._G == _G end },
    {
        "package.preload",
        function()
            package.preload.ours = function() return 7 end
            return require("ours") == 7
        end,
    },
    { "module", function() return type(module) == "function" and package.seeall end },
    { "setfenv", function() return setfenv(loadstring("return a"), { a = 5 })() == 5 end },
    {
        "getmetatable",
        function() return getmetatable(_G) == nil and getmetatable("").__index == string end,
    },
    {
        "pairs",
        function()
            local names = {}
            for name in pairs(_G) do
                names[#names + 1] = name
            end
            return #names > 20
        end,
    },
    { "string", function() return ("x"):rep(2) == "xx" and string.format("%d", 5) == "5" end },
    { "table", function() return table.concat({ 1, 2 }) == "12" end },
    { "math", function() return math.floor(1.5) == 1 and math.random() < 1 end },
    { "io", function() return io.open("/") and io.write end },
    { "os", function() return os.time() > 0 end },
    { "debug", function() return debug.getinfo(1, "l").currentline > 0 end },
    { "bit", function() return bit.band(3, 1) == 1 end },
    {
        "coroutine",
        function()
            return coroutine.wrap(function() return 1 end)() == 1
        end,
    },
    {
        "waiting in a coroutine",
        function()
            coroutine.wrap(timer.sleep)(0.001)
            return true
        end,
    },
    {
        "xpcall",
        function()
            return not xpcall(error, function() end)
        end,
    },
    { "loadstring", function() return loadstring("return 1")() == 1 end },
    { "dofile", function() return not pcall(dofile, "/") end },
    { "timer", function() return timer.now() >= 0 and timer.time() > 0 end },
    { "buffer", function() return buffer.new("x"):u8(0) == 120 end },
    { "buffer.pack", function() return buffer.pack(">I2", 1):length() == 2 end },
    { "query", function() return context.query(2 ^ 50, 1) == false end },
    { "topics", function() return context.publish("a.b", 1) end },
    { "stat", function() return context.stat().turns end },
    {
        "tcp",
        function()
            local _, listener = tcp.listen("127.0.0.1", 0)
            local _, far = tcp.connect("127.0.0.1", listener:local_port())
            local _, near = listener:accept()
            near:write("x\n")
            local _, line = far:read_until("\n")
            return tostring(line) == "x" and listener:close()
        end,
    },
    {
        "udp",
        function()
            local _, sock = udp.open("127.0.0.1", 0)
            return sock:close()
        end,
    },
}
if json then
    uses[#uses + 1] = { "json.encode", function() return json.encode({ 1 }) == "[1]" end }
    uses[#uses + 1] = { "json.decode", function() return json.decode("[1]")[1] == 1 end }
    uses[#uses + 1] = { "json.array", function() return json.encode(json.array({})) == "[]" end }
    uses[#uses + 1] = {
        "json.object",
        function()
            local mark = getmetatable(json.object({}))
            return next(mark) == nil and json.encode(json.object({ 1 })) == '{"1":1}'
        end,
    }
    uses[#uses + 1] = { "cjson", function() return require("cjson").encode({ 1 }) == "[1]" end }
end
if msgpack then
    uses[#uses + 1] = { "msgpack", function() return msgpack.decode(msgpack.encode(5)) == 5 end }
    uses[#uses + 1] = {
        "msgpack.ext",
        function() return msgpack.decode(msgpack.encode(msgpack.ext(5, "x"))).type == 5 end,
    }
end
if tls then uses[#uses + 1] = { "tls", function() return tls.client({ verify = false }) end } end
if websocket then
    uses[#uses + 1] = {
        "websocket",
        function() return not websocket.connect("ws://127.0.0.1:1/", { timeout = -1 }) end,
    }
end
if http then
    uses[#uses + 1] = {
        "http",
        function()
            local _, server = http.serve("127.0.0.1", 0, function() return 200, nil, "well" end)
            local url = "http://127.0.0.1:" .. server:port()
            local res = context.check(http.get(url, { proxy = false }))
            return res:text() == "well" and server:close()
        end,
    }
end
-- luacheck: pop

local first, second = ...
if first then
    if not uses[first][2]() then error("first: " .. uses[first][1]) end
    if not uses[second][2]() then error("second: " .. uses[second][1]) end
    return
end

local tap = require("support.tap")

for i, use in ipairs(uses) do
    tap.test(use[1], function()
        local left, failed = #uses, {}
        local me = context.self()
        for j = 1, #uses do
            local child = context.create(arg[0], i, j)
            context.monitor(child, function(_, reason, detail)
                if reason ~= "normal" then
                    local what = "%s, then %s: %s, %s"
                    failed[#failed + 1] = what:format(use[1], uses[j][1], reason, tostring(detail))
                end
                left = left - 1
                if left == 0 then context.send(me, "over") end
            end)
        end
        context.recv(me)
        tap.ok(not failed[1], "before all others", failed[1])
    end)
end

tap.done()
