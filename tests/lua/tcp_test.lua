-- Sockets: what goes beyond the recorded cases of the contract.

local tap = require("support.tap")
local is, ok = tap.is, tap.ok

local HOST = "127.0.0.1"

local function listen(...)
    local good, listener = tcp.listen(HOST, 0, ...)
    assert(good, listener)
    return listener, tcp.local_port(listener)
end

-- A connection: the accepting and the connecting side.
local function pair()
    local listener, port = listen()
    local good, client = tcp.connect(HOST, port, 30)
    assert(good, client)
    local accepted, server = listener:accept(30)
    assert(accepted, server)
    listener:close()
    return server, client
end

local function read(sock)
    local good, data = sock:read(30)
    return good and data:tostring() or data
end

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
    if good then
        client:close()
    end
    -- A label of 64 letters is in no name service: it fails without asking one.
    local found, code = tcp.connect(("x"):rep(64), port, 30)
    is(found, false, "an impossible name is not")
    is(code, 2, "with code 2")
    local told
    tcp.connect(("x"):rep(64), port, 30, function(...)
        told = { ... }
    end)
    while not told do
        timer.sleep(0.001)
    end
    is(told[2], 2, "the callback gets it too")
    is(told[4], port, "with the arguments of the call")
    is(select(2, tcp.listen(("x"):rep(64), 0)), 2, "listen as well")
    listener:close()
    local by_name, named = tcp.listen("localhost", 0)
    is(by_name, true, "listen on a name")
    if by_name then
        named:close()
    end
end)

tap.test("IPv6", function()
    local good, listener = tcp.listen6("::1", 0)
    if not good then
        return ok(true, "not on this machine: " .. context.strerror(listener))
    end
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
    if good then
        second:close()
    end
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
    if again then
        replaced:close()
    end
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
        if read(made[2]) == "the same bytes" then
            same = same + 1
        end
        made[1]:close()
        made[2]:close()
    end
    is(same, 20, "all get its content at the time of the write")
end)

tap.test("writing by number", function()
    local server, client = pair()
    local fd = tcp.fd(server)
    is(type(fd), "number", "the number")
    is(tcp.fd_src(fd), context.self(), "its owner")
    tcp.set_wshared(server, true)
    tcp.write(fd, "plain")
    is(read(client), "plain", "plain")
    local good, code = tcp.write(fd, "waiting", true)
    is(good, true, "with waiting")
    is(code, 0, "code 0")
    is(read(client), "waiting", "data of that")
    local told
    tcp.write(fd, "told", function(...)
        told = { ... }
    end)
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
        server:write(("x"):rep(60000), function(good, code)
            told = told or not good and code
        end)
        timer.sleep(0)
        if told then
            break
        end
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
        read_head_endian = "B", read_head_bytes = 2,
        write_head_endian = "B", write_head_bytes = 2,
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
    tap.raises("a wrong third argument", "boolean or function", function()
        tcp.write(1, "x", 5)
    end)
    client:close()
end)

tap.test("a frame larger than the write limit", function()
    local server, client = pair()
    server:set_rwopt({ read_head_bytes = 4 })
    client:set_rwopt({ write_head_bytes = 4 })
    client:set_write_limit(1000)
    local told
    client:write(("x"):rep(8 * 1024 * 1024), function(...)
        told = { ... }
    end)
    local good, frame = server:read(30)
    is(good and #frame, 8 * 1024 * 1024, "arrives at a peer that reads")
    while not told do
        timer.sleep(0.001)
    end
    is(told[1], true, "and its writer is told")
    client:close()
    server:close()
end)

-- A connection whose frames have heads of two bytes, and what writes them.
local function framed()
    local server, client = pair()
    for _, sock in ipairs({ server, client }) do
        sock:set_rwopt({ read_head_bytes = 2, write_head_bytes = 2 })
    end
    return server, client
end

tap.test("a long frame in pieces, and another connection's between", function()
    local server, client = framed()
    local other_server, other_client = framed()
    local head = string.char(0x50, 0xc3) -- 50,000
    client:set_rwopt({ write_head_bytes = 0 })
    for round = 1, 3 do
        local body = string.char(96 + round):rep(50000)
        local got
        context.run(function()
            local _, frame = server:read()
            got = frame
        end)
        client:write(head .. body:sub(1, 20000))
        -- Waits until the first piece has been received.
        while (server:stat().read_buffered_bytes or 0) < 20000 do
            timer.sleep(0.001)
        end
        other_client:write("from elsewhere")
        is(read(other_server), "from elsewhere", "the other frame arrives")
        client:write(body:sub(20001))
        while not got do
            timer.sleep(0.001)
        end
        ok(got:tostring() == body, "the long frame is what was sent", #got .. " bytes")
    end
    for _, sock in ipairs({ server, client, other_server, other_client }) do
        sock:close()
    end
end)

tap.test("read_into", function()
    local server, client = framed()
    local into = buffer.new(100)
    local sizes = { 5, 0, 100, 101, 896, 897, 5000, 3, 65535, 1, 40000, 100, 2 }
    for round = 1, 40 do
        for i, size in ipairs(sizes) do
            client:write(string.char(64 + (i + round) % 26):rep(size))
        end
    end
    local wrong = 0
    for round = 1, 40 do
        for i, size in ipairs(sizes) do
            local good, data = server:read_into(into)
            if not good or data ~= into then
                wrong = wrong + 1
            elseif into:tostring() ~= string.char(64 + (i + round) % 26):rep(size) then
                wrong = wrong + 1
            end
        end
    end
    is(wrong, 0, "every frame of every size arrives in the one buffer")
    client:write("kept")
    server:read_into(into)
    local slice, copy = into:slice(1), buffer.new(into)
    client:write("next one")
    server:read_into(into)
    is(slice:tostring() .. copy:tostring(), "eptkept", "what was sliced off or shared stays")
    is(into:tostring(), "next one", "beside what was read since")
    into:append("!")
    is(into:tostring(), "next one!", "the buffer can be written to")
    client:close()
    local good, code = server:read_into(into)
    is(tostring(good) .. code, "false1", "the end is told")
    is(into:tostring(), "next one!", "and leaves the buffer as it was")
    server:close()
    tap.raises("a closed socket", "closed", server.read_into, server, into)
end)

tap.test("read_into large frames shares what was received", function()
    local server, client = framed()
    local into = buffer.new(10)
    local texts = { ("a"):rep(20000), ("b"):rep(30000) }
    client:write(texts[1])
    client:write(texts[2])
    server:read_into(into)
    local first = buffer.new(into)
    server:read_into(into)
    is(first:tostring(), texts[1], "a buffer that shares the first frame keeps it")
    is(into:tostring(), texts[2], "while the second has taken its place")
    client:close()
    server:close()
end)

tap.test("read_into among other readers", function()
    local server, client = framed()
    local order = {}
    for i = 1, 3 do
        context.run(function()
            local into = buffer.new(64)
            local good, data
            if i == 2 then
                good, data = server:read(30)
            elseif i == 3 then
                good, data = server:read_into(into, 30)
            else
                good, data = server:read_into(into)
            end
            order[#order + 1] = i .. (good and data:tostring() or "?")
        end)
    end
    timer.sleep(0.001)
    for _, text in ipairs({ "x", "y", "z" }) do
        client:write(text)
    end
    local into = buffer.new(64)
    client:write("last")
    local good = server:read_into(into, 30)
    is(good and into:tostring(), "last", "who comes last gets the last frame")
    is(table.concat(order, " "), "1x 2y 3z", "others are served in turn")
    good = { server:read_into(into, 0.01) }
    is(good[1], false, "nothing comes in time")
    is(good[2], 208, "which is told")
    is(into:tostring(), "last", "and leaves the buffer as it was")
    client:write("later")
    server:read_into(into)
    is(into:tostring(), "later", "nothing is lost")
    client:close()
    server:close()
end)

tap.test("read_into waits again among other readers", function()
    for _, second in ipairs({ "read_into", "read" }) do
        local server, client = framed()
        client:set_rwopt({ write_head_bytes = 0 })
        local order, done = {}, 0
        for i = 1, 2 do
            context.run(function()
                local good, data
                if i == 1 or second == "read_into" then
                    good, data = server:read_into(buffer.new(99))
                else
                    good, data = server:read()
                end
                order[i] = good and data:tostring() or data
                done = done + 1
            end)
        end
        timer.sleep(0.001)
        -- Half a head wakes the first reader for nothing.
        client:write("\5")
        while (server:stat().read_buffered_bytes or 0) < 1 do
            timer.sleep(0.001)
        end
        client:write("\0hel")
        while (server:stat().read_buffered_bytes or 0) < 5 do
            timer.sleep(0.001)
        end
        client:write("lo")
        while done < 1 do
            timer.sleep(0.001)
        end
        is(order[1], "hello", "the first gets the frame, with another one behind: " .. second)
        client:write("\9")
        client:close()
        while done < 2 do
            timer.sleep(0.001)
        end
        is(order[2], 1, "the second is told the end, after half a head")
        server:close()
    end
end)

tap.test("a finaliser that reads loses nothing", function()
    local server, client = framed()
    local seen, total, twice, count = {}, 0, 0, 3000
    local function note(good, frame)
        if not good then
            return false
        end
        local number = tonumber(frame:tostring())
        twice = twice + (seen[number] and 1 or 0)
        seen[number] = true
        total = total + 1
        return true
    end
    context.run(function()
        for i = 1, count do
            client:write(("%06d"):format(i))
        end
    end)
    repeat
        getmetatable(newproxy(true)).__gc = function()
            -- Where it would have to wait, or comes while frames are fetched, this raises.
            pcall(function()
                note(server:read())
            end)
        end
    until total == count or not note(server:read(5))
    is(total, count, "every frame is read")
    is(twice, 0, "and none twice")
    client:close()
    server:close()
end)

tap.test("read_into and callbacks", function()
    local server, client = framed()
    local into, seen = buffer.new(64), {}
    local waits = true
    context.run(function()
        server:read_into(into)
        seen[#seen + 1] = "into " .. into:tostring()
        waits = false
    end)
    timer.sleep(0.001)
    server:read(function(good, data)
        seen[#seen + 1] = good and "callback " .. data:tostring() or "end"
        if not good then
            server:close()
        end
    end)
    client:write("one")
    client:write("two")
    client:write("three")
    client:close()
    while waits or seen[#seen] ~= "end" do
        timer.sleep(0.001)
    end
    local expected = "into one,callback two,callback three,end"
    is(table.concat(seen, ","), expected, "the callback gets what nobody waits for")
end)

tap.test("read_into wants an open buffer", function()
    local server, client = framed()
    tap.raises("nothing", "buffer expected", server.read_into, server)
    tap.raises("a string", "buffer expected", server.read_into, server, "text")
    tap.raises("a table", "buffer expected", tcp.read_into, server, {})
    tap.raises("no socket", "tcp socket expected", tcp.read_into, 1, buffer.new())
    tap.raises("nil for a timeout", "number", server.read_into, server, buffer.new(), nil)
    local gone = buffer.new()
    gone:release()
    client:write("kept")
    tap.raises("a released one", "released", server.read_into, server, gone)
    is(read(server), "kept", "and no frame is lost")
    server:read(0.001)
    tap.raises("a released one, where nothing has come", "released", server.read_into, server, gone)
    local late, why = buffer.new(), nil
    context.run(function()
        local good, message = pcall(server.read_into, server, late, 30)
        why = not good and message
    end)
    timer.sleep(0.001)
    late:release()
    client:write("kept too")
    local _, data = server:read(30)
    is(data:tostring(), "kept too", "nor if the buffer is released meanwhile")
    ok(why and why:find("released"), "which raises", tostring(why))
    client:close()
    server:close()
end)

tap.test("read_into on a socket that closes meanwhile", function()
    local server, client = framed()
    local result
    context.run(function()
        result = { server:read_into(buffer.new()) }
    end)
    timer.sleep(0.001)
    server:close()
    while not result do
        timer.sleep(0.001)
    end
    is(result[2], 203, "ends with 203")
    client:close()
end)

tap.done()
