-- Datagrams.

local tap = require("support.tap")
local is, ok, raises = tap.is, tap.ok, tap.raises

local HOST = "127.0.0.1"

local function open(...)
    local good, sock = udp.open(...)
    assert(good, sock)
    return sock, sock:local_port()
end

-- The text of the next datagram, or the code.
local function read(sock)
    local good, data = sock:read(30)
    return good and data:tostring() or data
end

tap.test("one datagram", function()
    local a, port = open(HOST, 0)
    local b, from = open(HOST, 0)
    is(select("#", b:write("hello", HOST, port)), 0, "a plain write returns nothing")
    local good, data, addr, number = a:read(30)
    is(good, true, "it arrives")
    is(data:tostring(), "hello", "as it was sent")
    is(getmetatable(data), getmetatable(buffer.new()), "as a buffer")
    is(addr, HOST, "with the address")
    is(number, from, "and the port of who has sent it")
    is(select("#", a:read(-1)), 2, "a deadline that has passed")
    is(select(2, a:read(0.01)), 208, "nothing more")
    a:close()
    b:close()
end)

tap.test("what can be sent", function()
    local a, port = open(HOST, 0)
    local b = open(HOST, 0)
    for _, data in ipairs({ "", "text\0", 12.5, buffer.new("of a buffer"), ("x"):rep(65507) }) do
        local good, code = b:write(data, HOST, port, true)
        is(good, true, "taken: " .. #tostring(data))
        is(code, 0, "success")
        is(read(a), tostring(data), "and received")
    end
    local changed = buffer.new("before")
    b:write(changed, HOST, port)
    changed:clear()
    changed:append("after")
    is(read(a), "before", "the content at the time of the call")
    local large = ("x"):rep(65508)
    local good, code = b:write(large, HOST, port)
    is(good, false, "a larger one is not")
    is(code, 21, "it is too long")
    is(select(2, b:write(large, HOST, port, true)), 21, "waited for")
    local told
    b:write(large, HOST, port, function(...) told = { ... } end)
    b:write("behind it", HOST, port)
    is(read(a), "behind it", "others are")
    while not told do
        timer.sleep(0.001)
    end
    is(told[2], 21, "the callback gets the code")
    is(told[3], b, "the socket")
    is(told[4], large, "the data")
    is(told[5], HOST, "the address")
    is(told[6], port, "and the port")
    local stat = b:stat()
    is(stat.sent, 7, "sent")
    is(stat.failed, 3, "failed")
    is(a:stat().received, 7, "received")
    is(a:stat().dropped, 0, "none dropped")
    a:close()
    is(next(a:stat()), nil, "none of a closed one")
    b:close()
end)

tap.test("many at once", function()
    local a, port = open(HOST, 0)
    local b = open()
    local count = 200
    for i = 1, count do
        b:write("number " .. i, HOST, port)
    end
    for i = 1, count do
        local text = read(a)
        if text ~= "number " .. i then ok(false, "in order", tostring(text)) end
    end
    ok(true, "arrive one by one")
    for size = 0, 65000, 2500 do
        b:write(("y"):rep(size), HOST, port, true)
        local text = read(a)
        if text ~= ("y"):rep(size) then ok(false, "of all sizes", tostring(size)) end
    end
    local kept = {}
    for i = 1, 5 do
        b:write(tostring(i):rep(9000 * i), HOST, port, true)
        kept[i] = select(2, a:read(30))
    end
    for i = 1, 5 do
        is(kept[i]:tostring(), tostring(i):rep(9000 * i), "large ones stay apart")
    end
    a:close()
    b:close()
end)

tap.test("callbacks", function()
    local a, port = open(HOST, 0)
    local b, from = open(HOST, 0)
    local seen, done = {}, nil
    a:read(function(...)
        seen[#seen + 1] = { ... }
        timer.sleep(0.001) -- may wait
        if #seen == 3 then done = true end
    end)
    for i = 1, 3 do
        b:write("to the callback " .. i, HOST, port)
    end
    while not done do
        timer.sleep(0.001)
    end
    for i = 1, 3 do
        local good, data, addr, number, is_ip6, sock = unpack(seen[i], 1, 6)
        is(good, true, "result")
        is(data:tostring(), "to the callback " .. i, "data")
        is(addr, HOST, "address")
        is(number, from, "port")
        is(is_ip6, false, "family")
        is(sock, a, "socket")
    end
    local other
    a:read(function(_, data) other = data:tostring() end)
    context.run(function() is(read(a), "first", "who waits goes first") end)
    timer.sleep(0.001)
    b:write("first", HOST, port)
    b:write("second", HOST, port)
    while not other do
        timer.sleep(0.001)
    end
    is(other, "second", "the second callback replaces the first")
    a:close()
    b:close()
end)

tap.test("opening with a callback", function()
    local got
    udp.open(HOST, 0, function(...) got = { n = select("#", ...), ... } end)
    while not got do
        timer.sleep(0.001)
    end
    is(got[1], true, "result")
    is(got[2]:local_addr(), HOST, "socket")
    is(got[4], 0, "the arguments of the call")
    is(got.n, 4, "and no more")
    local port = got[2]:local_port()
    local failed
    udp.open(HOST, port, function(...) failed = { ... } end)
    udp.open(function(...) got = { n = select("#", ...), ... } end)
    while not failed or got.n ~= 2 do
        timer.sleep(0.001)
    end
    is(failed[2], 5, "the address is in use")
    is(got[2]:local_addr(), "0.0.0.0", "without an address")
    is(select(2, udp.open(HOST, port)), 5, "waited for")
    is(select(2, udp.open("192.0.2.1", 0)), 6, "not of this machine")
    is(select(2, udp.open6(HOST, 0)), 7, "open6 takes IPv6 addresses only")
end)

tap.test("names", function()
    local good, a = udp.open("localhost", 0)
    is(good, true, "open at a name")
    local b = open()
    is(b:write("by name", "localhost", a:local_port(), true), true, "written to a name")
    is(read(a), "by name", "arrives")
    b:write("not waited for", "localhost", a:local_port())
    is(read(a), "not waited for", "nor a plain write")
    is(b:connect("localhost", a:local_port()), true, "connected to a name")
    b:write("connected")
    is(read(a), "connected", "arrives")
    local impossible = ("x"):rep(64)
    is(select(2, b:connect(impossible, 1)), 2, "an impossible name")
    is(select(2, b:write("x", impossible, 1, true)), 2, "written to")
    is(select(2, udp.open(impossible, 1)), 2, "opened at")
end)

tap.test("connected", function()
    local a, port = open(HOST, 0)
    local b = open(HOST, 0)
    raises("a write without address", "not connected", function() b:write("x") end)
    is(b:connect(HOST, port), true, "connects")
    ok(tostring(b):find(("-> %s:%d, open"):format(HOST, port), 1, true), "shown", tostring(b))
    b:write("plain")
    is(read(a), "plain", "a write without address")
    is(b:write("waits", true), true, "that waits")
    is(read(a), "waits", "arrives")
    local told
    b:write("tells", function(...) told = { n = select("#", ...), ... } end)
    is(read(a), "tells", "with a callback")
    while not told do
        timer.sleep(0.001)
    end
    is(told[4], "tells", "which gets the data")
    is(told.n, 4, "and no address")
    local stranger = open(HOST, 0)
    stranger:write("forged", HOST, b:local_port(), true)
    a:write("from the peer", HOST, b:local_port())
    is(read(b), "from the peer", "others are not heard")
    a:close()
    b:write("to nobody")
    is(select(2, b:read(30)), 12, "nobody there: refused")
    b:write("again")
    b:write("and again")
    is(select(2, b:read(30)), 12, "not for good")
    local refused
    b:read(function(...) refused = { n = select("#", ...), ... } end)
    b:write("once more")
    while not refused do
        timer.sleep(0.001)
    end
    is(refused[1], false, "a callback is told")
    is(refused[2], 12, "why")
    is(refused[6], b, "where")
    local c, other = open(HOST, 0)
    is(b:connect(HOST, other), true, "connects again")
    b:write("elsewhere")
    is(read(c), "elsewhere", "to somebody else")
    b:close()
end)

tap.test("IPv6", function()
    local good, a = udp.open6("::1", 0)
    if not good then return ok(true, "not on this machine: " .. context.strerror(a)) end
    local _, b = assert(udp.open6())
    is(b:local_addr(), "::", "without an address")
    b:write6("six", "::1", a:local_port())
    local _, data, addr, port = assert(a:read(30))
    is(data:tostring(), "six", "arrives")
    is(addr, "::1", "from")
    is(port, b:local_port(), "port")
    is(select(2, b:write6("x", HOST, a:local_port())), 7, "write6 takes IPv6 addresses only")
    local four, number = open(HOST, 0)
    is(select(2, four:write("x", "::1", a:local_port())), 7, "an IPv4 socket cannot send there")
    is(select(2, four:connect("::1", 5)), 7, "nor connect")
    b:write("four", HOST, number)
    _, data, addr = assert(four:read(30))
    is(data:tostring(), "four", "one for both families can")
    is(addr, HOST, "an IPv4 address")
    local is_ip6, from
    b:read(function(_, _, who, _, six)
        is_ip6, from = six, who
    end)
    four:write("back", HOST, b:local_port())
    while not from do
        timer.sleep(0.001)
    end
    is(from, HOST, "shown as such")
    is(is_ip6, false, "and told as such")
    from = nil
    a:write("back", "::1", b:local_port())
    while not from do
        timer.sleep(0.001)
    end
    is(is_ip6, true, "beside those of IPv6")
    local long = ("x"):rep(65527)
    is(a:write(long, "::1", b:local_port(), true), true, "some more bytes fit")
    is(select(2, a:write(long .. "x", "::1", 9)), 21, "but no more than these")
    b:close()
end)

tap.test("closing", function()
    local a, port = open(HOST, 0)
    local results = {}
    for i = 1, 2 do
        context.run(function() results[i] = { a:read() } end)
    end
    timer.sleep(0.001)
    is(udp.is_closed(a), false, "open")
    is(a:close(), true, "closed the first time")
    is(a:close(), false, "and the second")
    is(udp.is_closed(a), true, "closed")
    is(udp.is_closed("x"), false, "of anything else")
    timer.sleep(0.001)
    for i = 1, 2 do
        while not results[i] do
            timer.sleep(0.001)
        end
        is(results[i][2], 203, "who waits is told")
    end
    raises("reading", "closed", function() a:read() end)
    raises("writing", "closed", function() a:write("x", HOST, port) end)
    raises("options", "closed", function() a:set_ttl(1) end)
    is(a:local_port(), nil, "no port any more")
    ok(tostring(a):find("closed", 1, true), "shown", tostring(a))
    local b = open(HOST, port)
    local c = open(HOST, 0)
    c:write("written before it is closed", HOST, port)
    c:close()
    is(read(b), "written before it is closed", "still leaves")
    b:read(function(_, _, _, _, _, sock) sock:close() end)
    open():write("x", HOST, port)
    while not b:is_closed() do
        timer.sleep(0.001)
    end
    ok(true, "a callback may close its socket")
end)

tap.test("collected", function()
    local port = select(2, open(HOST, 0))
    for _ = 1, 5 do
        collectgarbage()
    end
    is((udp.open(HOST, port)), true, "what nobody refers to is closed")
end)

tap.test("options", function()
    local sock = open(HOST, 0)
    is(sock:set_ttl(64), true, "ttl")
    is(sock:set_broadcast(true), true, "broadcast")
    local other = open("0.0.0.0", 0)
    is(select(2, open():write("x", "255.255.255.255", 9, true)), 3, "broadcast must be allowed")
    is(other:set_broadcast(true), true, "is allowed")
    is(select(2, sock:join("239.1.2.3", "192.0.2.1")) ~= nil, true, "no such interface")
    is(select(2, sock:join("ff02::1")), 7, "of the other family")
    is(select(2, sock:join("239.1.2.3", "no such interface")), 6, "no such name")
end)

tap.test("groups", function()
    local group = "239.255.77.3"
    local a, port = open(group, 0)
    local b = open(group, port)
    is(a:join(group, HOST), true, "joins")
    is(b:join(group, HOST), true, "another too")
    is(select(2, b:join(group, HOST)), 5, "once")
    a:write("to all", group, port)
    is(read(a), "to all", "one gets it")
    is(read(b), "to all", "the other too")
    is(b:leave(group, HOST), true, "leaves")
    is(select(2, b:leave(group, HOST)), 6, "once")
    a:close()
    b:close()
end)

tap.test("by number", function()
    local a, port = open(HOST, 0)
    local b = open(HOST, 0)
    local fd = b:fd()
    is(b:fd(), fd, "always the same")
    is(udp.fd_src(fd), context.self(), "of this context")
    local good, code = udp.write(fd, "x", HOST, port)
    is(good, false, "not before it is shared")
    is(code, 50, "not permitted")
    b:set_wshared(true)
    is(udp.write(fd, "by number", HOST, port), nil, "a plain write")
    is(read(a), "by number", "arrives")
    is(select(2, udp.write(fd, "x")), 31, "not connected")
    local file = os.tmpname()
    local out = assert(io.open(file, "w"))
    out:write([[
        local fd, port = ...
        udp.write(fd, "from elsewhere", "127.0.0.1", port)
        context.send(context.parent(), udp.fd_src(fd) == context.parent())
        local result = { udp.write(fd, ("x"):rep(65508), "127.0.0.1", port, true) }
        context.send(context.parent(), result[2])
        udp.write(fd, "waits", "127.0.0.1", port, true)
        udp.write(fd, "tells", "127.0.0.1", port, function(ok, code, target)
            context.send(context.parent(), ok and code == 0 and target == fd)
        end)
    ]])
    out:close()
    local child = context.create(file, fd, port)
    is(select(2, context.recv(child, 30)), true, "another context knows the owner")
    is(read(a), "from elsewhere", "and writes")
    is(select(2, context.recv(child, 30)), 21, "is told of failures")
    is(read(a), "waits", "may wait")
    is(read(a), "tells", "or be told")
    is(select(2, context.recv(child, 30)), true, "by a callback")
    os.remove(file)
    b:close()
    is(select(2, udp.write(fd, "x", HOST, port)), 203, "closed")
    is(udp.fd_src(fd), nil, "nobody's")
    is(select(2, udp.write(5, "x", HOST, port)), 203, "no such number")
    local _, listener = tcp.listen(HOST, 0)
    local _, stream = tcp.connect(HOST, tcp.local_port(listener))
    stream:set_wshared(true)
    is(select(2, udp.write(stream:fd(), "x", HOST, port)), 203, "nor of a stream")
    is(select(2, tcp.write(fd, "x")), 203, "and the other way round")
end)

tap.test("failures of the system are of one datagram", function()
    local a, port = open(HOST, 0)
    local b = open(HOST, 0)
    local results = {}
    for i = 1, 3 do
        b:write("good", HOST, port)
        b:write("to port 0", HOST, 0, function(_, code) results[i] = code end)
    end
    b:write("last", HOST, port)
    for _ = 1, 3 do
        is(read(a), "good", "others arrive")
    end
    is(read(a), "last", "behind them too")
    for i = 1, 3 do
        is(results[i], 18, "who asks is told")
    end
    is(b:stat().failed, 3, "counted")
end)

tap.test("wrong calls", function()
    local sock = open(HOST, 0)
    local line = ("udp_test.lua:%d: "):format(debug.getinfo(1, "l").currentline + 1)
    raises("the line", line, function() udp.open(5, 5) end)
    raises("address", "#1 to 'open' (address expected, got number 5)", udp.open, 5, 5)
    raises(
        "port",
        "#2 to 'open' (port from 0 to 65535 expected, got number 65536)",
        udp.open,
        HOST,
        65536
    )
    raises("no port", "#2 to 'open'", udp.open, HOST)
    raises("callback", "#3 to 'open' (function expected", udp.open, HOST, 0, 5)
    raises("read", "#2 to 'read' (number of seconds expected", udp.read, sock, "x")
    raises("a stranger", "#1 to 'read' (udp socket expected", udp.read, io.stdout)
    raises(
        "data",
        "#2 to 'write' (string, number or buffer expected, got table",
        udp.write,
        sock,
        {},
        HOST,
        1
    )
    raises("to where", "#3 to 'write' (address expected, got number 5)", udp.write, sock, "x", 5, 5)
    raises("which port", "#4 to 'write'", udp.write, sock, "x", HOST, 0.5)
    raises("how", "#5 to 'write' (boolean or function expected", udp.write, sock, "x", HOST, 1, 5)
    raises("too much", "#6 to 'write'", udp.write, sock, "x", HOST, 1, true, 7)
    raises("whole fd", "udp.fd has returned expected, got number 1.5", udp.write, 1.5, "x", HOST, 1)
    raises("fd", "udp.fd has returned expected, got number 1.5", udp.fd_src, 1.5)
    raises("no fd", "udp.fd has returned expected, got number -1", udp.fd_src, -1)
    raises("data first", "#2 to 'write' (string, number or buffer", udp.write, sock, {})
    raises("then where", "(udp.connect), expected, got nil", udp.write, sock, "x")
    raises("its own", "got udp socket: use udp.read", tcp.read, sock)
    raises("nothing of its own", "(tcp socket expected, got", tcp.abort, sock)
    raises("target", "#1 to 'write' (udp socket or fd expected", udp.write, "x", "x", HOST, 1)
    raises(
        "ttl",
        "#2 to 'set_ttl' (integer from 1 to 255 expected, got number 0)",
        udp.set_ttl,
        sock,
        0
    )
    raises("group", "#2 to 'join' (multicast address expected", udp.join, sock, HOST)
    raises("interface", "#3 to 'join'", udp.join, sock, "239.0.0.1", {})
    local methods = { read = sock.read }
    local given
    udp.open(function(_, socket)
        given = socket
        error("in the callback of open, as it should")
    end)
    while not given do
        timer.sleep(0)
    end
    timer.sleep(0)
    ok(udp.is_closed(given), "the socket of a callback that fails is closed")
    raises("method", "calling 'read' on bad self", function() methods:read() end)
end)

tap.test("finalisers that read take no datagram from others", function()
    local server, port = open(HOST, 0)
    local client = open(HOST, 0)
    local seen, count = {}, 0
    local function note(data)
        count = count + 1
        local number = tonumber(data:tostring():match("^(%d+)x*$"))
        assert(not seen[number])
        seen[number] = true
    end
    local by_finalisers = 0
    local function litter()
        getmetatable(newproxy(true)).__gc = function()
            local called, good, data = pcall(server.read, server)
            if not (called and good) then return end
            by_finalisers = by_finalisers + 1
            note(data)
        end
    end
    for burst = 0, 39 do
        for i = 1, 50 do
            client:write(burst * 50 + i .. ("x"):rep(i % 7 * 200), HOST, port, true)
        end
        while count < burst * 50 + 50 do
            litter()
            local good, data = server:read(0.01)
            if good then note(data) end
        end
    end
    is(count, 2000, "each datagram comes once")
    ok(by_finalisers > 0, "finalisers have had some")
    server:close()
    client:close()
end)

tap.done()
