-- Connections and listen sockets: each refuses what is for the other, says what to use, and tells
-- what it is.

local sockets = require("support.sockets")
local tap = require("support.tap")
local is, ok, raises = tap.is, tap.ok, tap.raises

local listener, port = sockets.listen()
local _, client = assert(tcp.connect(sockets.HOST, port))
local _, server = assert(listener:accept())

tap.test("methods", function()
    for _, name in ipairs({ "close", "is_closed", "stat", "local_addr", "local_port" }) do
        raises("listener." .. name .. " of a connection", "tcp." .. name, listener[name], client)
        raises("connection." .. name .. " of a listener", "tcp." .. name, client[name], listener)
        raises("of something else", "'" .. name .. "' (tcp socket", client[name], 5)
    end
    for _, name in ipairs({
        "read",
        "read_into",
        "read_bytes",
        "read_until",
        "reframe",
        "shutdown",
        "abort",
        "set_keepalive",
        "write",
        "set_rwopt",
        "get_rwopt",
        "set_nodelay",
        "set_wshared",
        "set_write_limit",
        "fd",
        "monitor",
        "remote_addr",
        "remote_port",
    }) do
        raises(name .. " of a listener", "'accept'", tcp[name], listener)
        raises("as its method", "'accept'", listener[name], listener)
    end
    raises("accept of a connection", "use 'read'", tcp.accept, client)
    raises("as its method", "use 'read'", client.accept, client)
    is(tcp.is_closed(listener) or tcp.is_closed(client), false, "nothing was closed by these")
end)

tap.test("closed sockets", function()
    local _, one = assert(tcp.connect(sockets.HOST, port))
    one:close()
    for _, name in ipairs({ "read", "write", "fd", "set_wshared" }) do
        raises(name, ("closed: '%s' needs an open one"):format(name), tcp[name], one, "x")
    end
    local other = sockets.listen()
    other:close()
    raises("accept", "closed: 'accept' needs an open one", tcp.accept, other)
end)

tap.test("text", function()
    local function matches(sock, pattern, name)
        ok(tostring(sock):find(pattern), name, tostring(sock))
    end
    local other = tcp.local_port(client)
    local way = ("127.0.0.1:%d %%-> 127.0.0.1:%d, open$"):format(other, port)
    matches(client, "^tcp socket 0x%x+: " .. way, "of a connection")
    local back = ("127.0.0.1:%d %%-> 127.0.0.1:%d, open$"):format(port, other)
    matches(server, back, "of its other end")
    local open = ("^tcp listen socket 0x%%x+: 127.0.0.1:%d, listening$"):format(port)
    matches(listener, open, "of a listener")
    ok(tostring(client) ~= tostring(server), "tells one from another")
    is(tostring(client), tostring(client), "stays the same")
    server:close()
    is(sockets.read(client), 1, "its peer ends")
    matches(client, "ended by its peer$", "of one without a peer")
    matches(server, "^tcp socket 0x%x+: closed$", "of a closed one")
    local path = os.tmpname()
    os.remove(path)
    local _, unix = assert(tcp.listens(path))
    local _, near = assert(tcp.connects(path))
    local _, far = assert(unix:accept())
    matches(unix, "^unix listen socket 0x%x+: " .. path .. ", listening$", "of a unix listener")
    matches(near, "^unix socket 0x%x+: " .. path .. ", open$", "of a unix connection")
    matches(far, "^unix socket 0x%x+: " .. path .. ", open$", "of its other end")
    near:close()
    far:close()
    unix:close()
    os.remove(path)
    local good, six = tcp.listen6("::1", 0)
    if good then
        matches(six, "%[::1%]:%d+, listening$", "of an IPv6 one")
        six:close()
    end
end)

tap.test("names and paths", function()
    local names = {
        "",
        ".",
        "a..b",
        ".a",
        "a b",
        "a\0b",
        "\255\254",
        "a\n",
        ("a"):rep(64),
        ("a."):rep(130) .. "b",
    }
    for _, name in ipairs(names) do
        local good, code = tcp.connect(name, 80, 30)
        ok(good == false and code == 2, ("connect to %q"):format(name), tostring(code))
        if #name <= 253 then
            good, code = tcp.listen(name, 0)
            ok(good == false and code == 2, ("listen on %q"):format(name), tostring(code))
        end
    end
    raises("to listen on more than any name has", "of 254 bytes", tcp.listen, ("a"):rep(254), 0)
    local long = ("x"):rep(108)
    raises("a path that is too long", "of 108 bytes", tcp.listens, long)
    raises("to connect to", "of 108 bytes", tcp.connects, long)
    raises("none", 'got string ""', tcp.listens, "")
    raises("a zero byte", 'got string "a\\0b"', tcp.connects, "a\0b")
    raises("a port that is too large", "number 65536", tcp.connect, "127.0.0.1", 65536)
    raises("half a port", "number 1.5", tcp.connect, "127.0.0.1", 1.5)
    raises("a port below 0", "number -1", tcp.listen, "127.0.0.1", -1)
    raises("a backlog below 0", "number -1", tcp.listen, "127.0.0.1", 0, -1)
    raises("half a backlog", "number 0.5", tcp.listen, "127.0.0.1", 0, 0.5)
end)

listener:close()
client:close()
tap.done()
