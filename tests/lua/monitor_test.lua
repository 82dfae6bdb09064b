-- tcp.monitor: who does not read, or does not write, learns that a connection is gone.

local sockets = require("support.sockets")
local tap = require("support.tap")
local is, ok, pair, read = tap.is, tap.ok, sockets.pair, sockets.read

-- What the callback of a socket's monitor got; and a function that waits for it.
local function watch(sock)
    local told = {}
    sock:monitor(function(code, of) told[#told + 1] = { code, of } end)
    return told,
        function()
            while not told[1] do
                timer.sleep(0.001)
            end
            return told[1][1], told[1][2]
        end
end

tap.test("a peer that closes", function()
    local server, client = pair()
    local told, wait = watch(server)
    client:close()
    local code, of = wait()
    is(code, 1, "is told with code 1")
    ok(of == server, "and the socket")
    is(read(server), 1, "reading finds the same")
    timer.sleep(0.001)
    is(#told, 1, "once")
    server:close()
end)

tap.test("unread data", function()
    local server, client = pair()
    client:write("last words", true)
    client:close()
    local _, wait = watch(server)
    is(wait(), 1, "does not hide the end")
    is(read(server), "last words", "and is still there")
    is(read(server), 1, "before the end")
    server:close()
end)

tap.test("a socket that is gone already", function()
    local server, client = pair()
    client:close()
    is(read(server), 1, "as reading has found")
    local told, wait = watch(server)
    is(#told, 0, "is not told at once")
    is(wait(), 1, "but on the next turn")
    server:close()
end)

tap.test("a write limit", function()
    local server, client = pair()
    server:set_write_limit(100000)
    local told, wait = watch(server)
    local piece = ("x"):rep(60000)
    while not told[1] do
        for _ = 1, 20 do
            server:write(piece)
        end
        timer.sleep(0.001)
    end
    is(wait(), 212, "that is passed is told")
    client:close()
    server:close()
end)

tap.test("callbacks", function()
    local server, client = pair()
    local first = watch(server)
    local second, wait = watch(server)
    local other = watch(client)
    client:monitor(nil)
    client:monitor(nil)
    client:close()
    wait()
    is(#first, 0, "one replaces another")
    is(#second, 1, "the last one is called")
    is(#other, 0, "one that was removed is not")
    server:close()
    server, client = pair()
    local own = watch(server)
    local _, peer = watch(client)
    server:close()
    is(peer(), 1, "the peer is told of a close")
    is(#own, 0, "who closes is not")
    client:close()
end)

tap.test("a callback that fails", function()
    local server, client = pair()
    server:monitor(function() error("on purpose") end)
    local other, again = pair()
    local _, wait = watch(other)
    client:close()
    again:close()
    is(wait(), 1, "concerns nobody else")
    server:close()
    other:close()
end)

tap.test("unix sockets", function()
    local path = os.tmpname()
    os.remove(path)
    local _, listener = assert(tcp.listens(path))
    local _, client = assert(tcp.connects(path))
    local _, server = assert(listener:accept())
    local _, wait = watch(server)
    client:close()
    is(wait(), 1, "are monitored likewise")
    server:close()
    listener:close()
    os.remove(path)
end)

tap.test("a broadcaster", function()
    local listener, port = sockets.listen()
    local subscribers, gone = {}, 0
    listener:accept(function(_, sock)
        subscribers[sock] = true
        sock:monitor(function(_, of)
            subscribers[of] = nil
            gone = gone + 1
            of:close()
        end)
    end)
    local clients = {}
    for i = 1, 20 do
        local _, client = assert(tcp.connect(sockets.HOST, port))
        clients[i] = client
    end
    local function count()
        local n = 0
        for sock in pairs(subscribers) do
            sock:write("news")
            n = n + 1
        end
        return n
    end
    while count() < 20 do
        timer.sleep(0.001)
    end
    for i = 1, 13 do
        clients[i]:close()
    end
    while gone < 13 do
        timer.sleep(0.001)
    end
    is(count(), 7, "that only writes drops those who left")
    listener:close()
    for sock in pairs(subscribers) do
        sock:monitor(nil)
        sock:close()
    end
end)

tap.test("misuse", function()
    local server, client = pair()
    tap.raises("no callback", "bad argument #2 to 'monitor'", tcp.monitor, server)
    tap.raises("no function", "bad argument #2 to 'monitor'", tcp.monitor, server, 5)
    tap.raises("no socket", "bad argument #1 to 'monitor'", tcp.monitor, {}, print)
    server:close()
    tap.raises("a closed socket", "closed", tcp.monitor, server, print)
    client:close()
end)

tap.done()
