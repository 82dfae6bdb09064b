-- Sockets: what goes beyond the recorded cases of the contract.

local sockets = require("support.sockets")
local tap = require("support.tap")
local is, ok = tap.is, tap.ok
local HOST, listen, pair, read = sockets.HOST, sockets.listen, sockets.pair, sockets.read

tap.test("addresses", function()
    local listener, port = listen()
    is(tcp.local_addr(listener), HOST, "of a listener")
    ok(port > 0 and port < 65536, "port 0 becomes a real one", tostring(port))
    local _, client = assert(tcp.connect(HOST, port))
    local _, server = assert(listener:accept(30))
    is(tcp.remote_addr(client), HOST, "remote address")
    is(tcp.remote_port(client), port, "remote port")
    is(tcp.local_addr(server), HOST, "local address")
    is(tcp.local_port(server), port, "local port")
    is(tcp.remote_port(server), tcp.local_port(client), "both ends agree")
    client:close()
    server:close()
    listener:close()
end)

tap.test("names", function()
    local listener, port = listen()
    local good, client = tcp.connect("localhost", port, 30)
    is(good, true, "localhost is found")
    if good then client:close() end
    -- A label of 64 letters is in no name service: it fails without asking one.
    local found, code = tcp.connect(("x"):rep(64), port, 30)
    is(found, false, "an impossible name is not")
    is(code, 2, "with code 2")
    local told
    tcp.connect(("x"):rep(64), port, 30, function(...) told = { ... } end)
    while not told do
        timer.sleep(0.001)
    end
    is(told[2], 2, "the callback gets it too")
    is(told[4], port, "with the arguments of the call")
    is(select(2, tcp.listen(("x"):rep(64), 0)), 2, "listen as well")
    listener:close()
    local by_name, named = tcp.listen("localhost", 0)
    is(by_name, true, "listen on a name")
    if by_name then named:close() end
end)

tap.test("IPv6", function()
    local good, listener = tcp.listen6("::1", 0)
    if not good then return ok(true, "not on this machine: " .. context.strerror(listener)) end
    is(tcp.local_addr(listener), "::1", "address of the listener")
    local _, client = assert(tcp.connect6("::1", tcp.local_port(listener), 30))
    local _, server = assert(listener:accept(30))
    client:write("over six")
    is(read(server), "over six", "data")
    is(tcp.remote_addr(client), "::1", "remote address")
    client:close()
    server:close()
    listener:close()
end)

tap.test("sharing a port", function()
    local first, port = listen(true)
    local good, second = tcp.listen(HOST, port, true)
    is(good, true, "two listeners, if both say so")
    if good then second:close() end
    is(select(2, tcp.listen(HOST, port)), 5, "one that does not gets code 5")
    first:close()
end)

tap.test("unix sockets", function()
    local path = os.tmpname()
    is(select(2, tcp.listens(path)), 5, "an ordinary file is not replaced")
    os.remove(path)
    local good, listener = tcp.listens(path)
    assert(good, listener)
    is(select(2, tcp.listens(path)), 5, "nor a socket somebody listens on")
    local _, client = assert(tcp.connects(path, 30))
    local _, server = assert(listener:accept(30))
    server:write("local")
    is(read(client), "local", "data")
    client:close()
    server:close()
    listener:close()
    local again, replaced = tcp.listens(path)
    is(again, true, "a stale one is replaced")
    if again then replaced:close() end
    os.remove(path)
    is(select(2, tcp.connects(path)), 34, "no file, no server")
end)

tap.test("empty writes", function()
    local server, client = pair()
    client:set_rwopt({ write_head_bytes = 2, write_head_endian = "B" })
    client:write("")
    client:write("x")
    local bytes = ""
    while #bytes < 5 do
        bytes = bytes .. read(server)
    end
    is(bytes, "\0\0\0\1x", "with a head: an empty frame")
    is((server:write("", true)), true, "without one nothing is sent, and it succeeds")
    server:write("y")
    is(read(client), "y", "only what follows arrives")
    client:close()
    server:close()
end)

tap.test("one buffer, many sockets", function()
    local b = buffer.new("the same bytes")
    local pairs_made = {}
    for i = 1, 20 do
        local server, client = pair()
        server:write(b)
        pairs_made[i] = { server, client }
    end
    b:append(" and more") -- what was written before stays as it was
    local same = 0
    for _, made in ipairs(pairs_made) do
        if read(made[2]) == "the same bytes" then same = same + 1 end
        made[1]:close()
        made[2]:close()
    end
    is(same, 20, "all get its content at the time of the write")
end)

tap.test("writing by number", function()
    local server, client = pair()
    local fd = tcp.fd(server)
    is(type(fd), "number", "the number")
    -- Nobody finds it by trying, and its digits survive a message of text.
    is(fd > 2 ^ 24 and tonumber(tostring(fd)) == fd, true, "large, and shown whole")
    is(tcp.fd_src(fd), context.self(), "its owner")
    tcp.set_wshared(server, true)
    tcp.write(fd, "plain")
    is(read(client), "plain", "plain")
    local good, code = tcp.write(fd, "waiting", true)
    is(good, true, "with waiting")
    is(code, 0, "code 0")
    is(read(client), "waiting", "data of that")
    local told
    tcp.write(fd, "told", function(...) told = { ... } end)
    is(read(client), "told", "data with a callback")
    while not told do
        timer.sleep(0.001)
    end
    is(told[1], true, "the callback is told")
    server:set_rwopt({})
    server:close()
    local called, result = pcall(tcp.write, fd, "too late", true)
    ok(not called or result == false, "a closed one fails")
    client:close()
end)

tap.test("figures", function()
    local server, client = pair()
    local stat = tcp.stat(server)
    is(stat.write_queue_bytes, 0, "nothing waits")
    is(stat.read_buffered_bytes, 0, "nothing is read ahead")
    local piece = ("x"):rep(1048576)
    for _ = 1, 16 do
        server:write(piece)
    end
    timer.sleep(0.001)
    ok(tcp.stat(server).write_queue_bytes > 0, "a peer that does not read fills the queue")
    local count = 0
    while count < 16 * #piece do
        local good, data = client:read(30)
        assert(good, data)
        count = count + #data
    end
    is(count, 16 * #piece, "all of it arrives")
    while tcp.stat(server).write_queue_bytes > 0 do
        timer.sleep(0.001)
    end
    client:close()
    server:close()
end)

tap.test("the limit of the queue", function()
    local server, client = pair()
    tcp.set_write_limit(server, 65536)
    local told
    for _ = 1, 1000 do
        server:write(("x"):rep(60000), function(good, code) told = told or not good and code end)
        timer.sleep(0)
        if told then break end
    end
    is(select(2, server:write("x", true)), 212, "later writes fail as well")
    is(told, 212, "beyond it writes fail with code 212")
    is(server:is_closed(), false, "the socket stays open until it is closed")
    server:close()
    client:close()
end)

tap.test("frames ahead of the demand", function()
    local server, client = pair()
    client:set_rwopt({ write_head_bytes = 1 })
    server:set_rwopt({ read_head_bytes = 1 })
    for i = 1, 100 do
        client:write("frame " .. i)
    end
    client:close()
    local order = true
    for i = 1, 100 do
        order = read(server) == "frame " .. i and order
    end
    is(order, true, "are kept, in order")
    is(read(server), 1, "then the end")
    is(read(server), 1, "again and again")
    server:close()
end)

tap.test("a socket that nobody holds after a read whose time was over", function()
    local server, client = pair()
    is(select(2, client:read(0.001)), 208, "the time is over")
    client = nil -- luacheck: ignore
    -- The finaliser of a userdata runs in a cycle after the one that finds it.
    for _ = 1, 3 do
        collectgarbage()
    end
    is(read(server), 1, "is closed by the collector")
    server:close()
end)

tap.test("answers to what came in pieces", function()
    local listener, port = listen()
    local options = {
        read_head_endian = "B",
        read_head_bytes = 2,
        write_head_endian = "B",
        write_head_bytes = 2,
    }
    listener:accept(function(_, server)
        server:set_rwopt(options)
        while true do
            local more, frame = server:read()
            if not more then break end
            server:write(frame)
        end
        server:close()
    end)
    local _, client = assert(tcp.connect(HOST, port, 30))
    client:set_rwopt({ read_head_endian = "B", read_head_bytes = 2, write_head_bytes = 0 })
    -- Small frames, frames too long to be copied, and empty ones; cut within heads and bodies.
    local sent, stream = {}, {}
    local sizes = { 0, 1, 700, 896, 897, 1536, 1537, 3, 4095, 4096, 20000, 0, 65000, 2, 1500, 5000 }
    for i, size in ipairs(sizes) do
        sent[i] = string.char(64 + i):rep(size)
        stream[i] = string.char(math.floor(size / 256), size % 256) .. sent[i]
    end
    stream = table.concat(stream):rep(3)
    for _, piece in ipairs({ 7, 1000, 1539, 30000, #stream }) do
        local echoed, from = true, 1
        local total = 3 * #sent
        timer.timeout(0, function()
            while from <= #stream do
                client:write(stream:sub(from, from + piece - 1))
                from = from + piece
                if piece > 7 then timer.sleep(0) end
            end
        end)
        for i = 1, total do
            local good, frame = client:read(30)
            echoed = echoed and good and frame:tostring() == sent[(i - 1) % #sent + 1]
        end
        is(echoed, true, "come back whole from pieces of " .. piece)
    end
    client:close()
    listener:close()
end)

tap.test("writes by fd of the own socket", function()
    local server, client = pair()
    server:set_wshared(true)
    server:write("a")
    tcp.write(server:fd(), "b")
    server:write("c")
    tcp.write(server:fd(), "d")
    server:close()
    is(read(client), "abcd", "keep their order among the others, and leave before the end")
    tap.raises("a wrong third argument", "boolean or function", function() tcp.write(1, "x", 5) end)
    client:close()
end)

tap.test("a frame larger than the write limit", function()
    local server, client = pair()
    server:set_rwopt({ read_head_bytes = 4 })
    client:set_rwopt({ write_head_bytes = 4 })
    client:set_write_limit(1000)
    local told
    client:write(("x"):rep(8 * 1024 * 1024), function(...) told = { ... } end)
    local good, frame = server:read(30)
    is(good and #frame, 8 * 1024 * 1024, "arrives at a peer that reads")
    while not told do
        timer.sleep(0.001)
    end
    is(told[1], true, "and its writer is told")
    client:close()
    server:close()
end)

tap.done()
