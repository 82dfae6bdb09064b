-- Callbacks that fail do not leave peers waiting: the socket they were given is closed.

local sockets = require("support.sockets")
local tap = require("support.tap")
local is, ok = tap.is, tap.ok

-- What a client reads whose connection `serve` gets.
local function outcome(serve)
    local listener, port = sockets.listen()
    listener:accept(serve)
    local _, client = assert(tcp.connect(sockets.HOST, port, 30))
    client:write("hello")
    local text = ""
    while true do
        local good, data = client:read(30)
        if not good then
            client:close()
            listener:close()
            return data, text
        end
        text = text .. data:tostring()
    end
end

tap.test("accept", function()
    is(outcome(function() error("at once") end), 1, "at once")
    is(
        outcome(function()
            timer.sleep(0.001)
            error("later")
        end),
        1,
        "after waiting"
    )
    is(outcome(function() error() end), 1, "without a message")
    is(
        outcome(function(_, sock)
            sock:read(30)
            error(sock)
        end),
        1,
        "with the socket as the error"
    )
    local code, text = outcome(function(_, sock)
        sock:write("sorry")
        error("after writing")
    end)
    is(code, 1, "after writing")
    is(text, "sorry", "what was written still leaves")
    local kept
    is(
        outcome(function(_, sock)
            kept = sock
            error("kept")
        end),
        1,
        "although it is kept"
    )
    is(tcp.is_closed(kept), true, "it is closed")
    is(
        outcome(function(_, sock)
            sock:close()
            error("closed")
        end),
        1,
        "which has closed it itself"
    )
    is(
        outcome(coroutine.wrap(function(_, sock)
            sock:read(30)
            coroutine.wrap(error)("in a coroutine")
        end)),
        1,
        "in a coroutine"
    )
end)

tap.test("other readers", function()
    local has_read, got
    is(
        outcome(function(_, sock)
            context.run(function()
                sock:read(30)
                has_read = true
                got = { sock:read(30) }
            end)
            while not has_read do
                timer.sleep(0.001)
            end
            error("while another reads")
        end),
        1,
        "the peer is told"
    )
    while not got do
        timer.sleep(0.001)
    end
    is(got[2], 203, "who reads is told too")
end)

tap.test("connect", function()
    local listener, port = sockets.listen()
    tcp.connect(sockets.HOST, port, function() error("connected") end)
    local _, server = assert(listener:accept(30))
    is(sockets.read(server), 1, "the connection is closed")
    server:close()
    tcp.connect(sockets.HOST, port, 30, function(_, sock)
        sock:read(0.001)
        error("later")
    end)
    _, server = assert(listener:accept(30))
    is(sockets.read(server), 1, "after waiting, too")
    server:close()
    listener:close()
end)

tap.test("who watches a connection", function()
    local listener, port = sockets.listen()
    local told
    local function fail(sock)
        sock:monitor(function(code, gone) told = { code, gone == sock, tcp.is_closed(gone) } end)
        timer.sleep(0.001)
        error("served")
    end
    listener:accept(function(_, sock) fail(sock) end)
    local _, client = assert(tcp.connect(sockets.HOST, port, 30))
    while not told do
        timer.sleep(0.001)
    end
    is(told[1], 203, "is told that it was closed")
    ok(told[2] and told[3], "with the socket, once it is")
    told = nil
    tcp.connect(sockets.HOST, port, 30, function(_, sock) fail(sock) end)
    while not told do
        timer.sleep(0.001)
    end
    is(told[1], 203, "of connect too")
    client:close()
    listener:close()
end)

tap.test("listen", function()
    local path = os.tmpname()
    os.remove(path)
    local kept
    tcp.listens(path, function(_, listener)
        kept = listener
        error("listening")
    end)
    while not kept do
        timer.sleep(0.001)
    end
    timer.sleep(0.001)
    is(tcp.is_closed(kept), true, "nobody waits in the backlog")
    is(select(2, tcp.connects(path, 30)), 12, "who connects is refused")
    os.remove(path)
end)

tap.test("those that do not fail", function()
    local listener, port = sockets.listen()
    local served
    listener:accept(function(_, sock) served = sock end)
    local _, client = assert(tcp.connect(sockets.HOST, port, 30))
    while not served do
        timer.sleep(0.001)
    end
    -- Another callback uses the same coroutine, and fails.
    context.run(function() error("elsewhere") end)
    local other, from = sockets.pair()
    other:read(function() error("a reader") end)
    from:write("x")
    timer.sleep(0.001)
    served:write("well")
    is(sockets.read(client), "well", "keep their socket")
    ok(not tcp.is_closed(other), "a callback of read stays registered, as ever")
    client:close()
    served:close()
    other:close()
    from:close()
    listener:close()
end)

tap.done()
