-- Timeouts below 0 are deadlines that have passed; those that are no numbers raise.

local sockets = require("support.sockets")
local tap = require("support.tap")
local is, ok = tap.is, tap.ok

local listener, port = sockets.listen()
local server, client = sockets.pair()
local me = context.self()
local path = os.tmpname()
os.remove(path)
local _, unix = assert(tcp.listens(path))
local into = buffer.new(16)
local _, datagrams = assert(udp.open(sockets.HOST, 0))

-- Calls that wait, by the timeout.
local waits = {
    read = function(t) return client:read(t) end,
    read_into = function(t) return client:read_into(into, t) end,
    accept = function(t) return listener:accept(t) end,
    connect = function(t) return tcp.connect(sockets.HOST, port, t) end,
    connect_by_name = function(t) return tcp.connect("localhost", port, t) end,
    connect6 = function(t) return tcp.connect6("::1", port, t) end,
    connects = function(t) return tcp.connects(path, t) end,
    recv = function(t) return context.recv(0, t) end,
    recv_from_one = function(t) return context.recv(me, t) end,
    query = function(t) return context.query(me, "question", t) end,
    wait = function(t) return context.wait(me + 1, t) end,
    read_bytes = function(t) return client:read_bytes(1, t) end,
    read_until = function(t) return client:read_until("x", 9, t) end,
    udp = function(t) return udp.read(datagrams, t) end,
}
-- A text follows the code.
local explained = {}
if http then
    local url = "http://127.0.0.1:" .. port
    explained.request = function(t) return http.request({ url = url, timeout = t }) end
    explained.get = function(t) return http.get(url, { timeout = t }) end
    explained.post = function(t) return http.post(url, "x", { timeout = t }) end
end
if websocket then
    local url = "ws://127.0.0.1:" .. port
    explained.websocket = function(t) return websocket.connect(url, { timeout = t }) end
end

tap.test("a deadline that has passed", function()
    for name, wait in pairs(waits) do
        for _, timeout in ipairs({ -1, -0.5, -1e-9, -1e300, "-2" }) do
            local got = { wait(timeout) }
            ok(got[1] == false and got[2] == 208 and #got == 2, name, tostring(got[2]))
        end
    end
    for name, wait in pairs(explained) do
        local got = { wait(-0.5) }
        ok(got[1] == false and got[2] == 208 and got[3] == "timeout", name, tostring(got[3]))
    end
    -- Nothing was begun, and what is there stays.
    is(listener:stat().backlog, 0, "nobody has connected")
    server:write("early", true)
    is(select(2, client:read(-1)), 208, "whatever has come")
    is(sockets.read(client), "early", "nothing is lost")
    context.send(me, "mail")
    is(select(2, context.recv(0, -1)), 208, "a message likewise")
    is(select(2, context.recv(0, 30)), "mail", "stays in the mailbox")
end)

tap.test("with a callback", function()
    local calls = {
        connect = function(t, f) tcp.connect(sockets.HOST, port, t, f) end,
        connects = function(t, f) tcp.connects(path, t, f) end,
        query = function(t, f) return context.query(me, "question", t, f) end,
        wait = function(t, f) context.wait(me + 1, t, f) end,
    }
    for name, call in pairs(calls) do
        local told
        local first, session = call(-1, function(...) told = { ... } end)
        is(told, nil, name .. ": not at once")
        while not told do
            timer.sleep(0.001)
        end
        ok(told[1] == false and told[2] == 208, name .. ": 208", tostring(told[2]))
        is(told[#told], -1, name .. ": with the arguments of the call")
        if name == "query" then ok(first == true and session > 0, "a query has a session") end
    end
end)

tap.test("what is no time", function()
    for name, wait in pairs(waits) do
        tap.raises(name, "nan", wait, 0 / 0)
        tap.raises(name, "inf", wait, math.huge)
        tap.raises(name, "-inf", wait, -math.huge)
        tap.raises(name, "number of seconds", wait, {})
    end
    for name, wait in pairs(explained) do
        tap.raises(name, "finite number of seconds", wait, 0 / 0)
        tap.raises(name, "number of seconds", wait, {})
    end
end)

tap.test("timers", function()
    local fired
    timer.timeout(-5, function() fired = true end)
    timer.sleep(-5)
    while not fired do
        timer.sleep(-1)
    end
    ok(fired, "below 0 is 0")
    for _, wrong in ipairs({ 0 / 0, math.huge, -math.huge, {}, "x" }) do
        tap.raises("sleep", "bad argument #1 to 'sleep'", timer.sleep, wrong)
        tap.raises("timeout", "bad argument #1 to 'timeout'", timer.timeout, wrong, print)
        tap.raises("loop", "bad argument #2 to 'loop'", timer.loop, 1, wrong, print)
    end
    for _, wrong in ipairs({ {}, "x", 1.5, 0 / 0, math.huge, true, print }) do
        tap.raises("close", "bad argument #1 to 'close'", timer.close, wrong)
    end
    tap.raises("close of nothing", "bad argument #1 to 'close'", timer.close)
    timer.close(987654321)
end)

listener:close()
unix:close()
os.remove(path)
client:close()
server:close()
datagrams:close()
tap.done()
