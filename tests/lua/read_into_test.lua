-- Frames that are read into buffers of the script's own, and who reads what.

local sockets = require("support.sockets")
local tap = require("support.tap")
local is, ok = tap.is, tap.ok
local pair, read = sockets.pair, sockets.read

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

tap.test("frames that come when who waited has gone are kept for the next", function()
    local server, client = framed()
    for _, kind in ipairs({ "read", "read_into" }) do
        local good, code = server:read(0.001)
        is(good or code, 208, "nothing comes in time")
        client:write("one")
        client:write("two")
        client:write("three")
        while (server:stat().read_buffered_bytes or 0) < 11 do
            timer.sleep(0.001)
        end
        local seen = {}
        for i = 1, 3 do
            local frame
            if kind == "read" or i == 2 then
                frame = select(2, server:read())
            else
                frame = buffer.new(8)
                server:read_into(frame)
            end
            seen[i] = frame:tostring()
        end
        is(table.concat(seen, " "), "one two three", "in order: " .. kind)
    end
    client:close()
    server:close()
end)

tap.test("finalisers that read get frames in order, and take none from others", function()
    local server, client = framed()
    local count, done = 3000, false
    -- What each has read, in order. A finaliser may run between the script's read and the count of
    -- it, and others inside it, once it allocates.
    local script, finaliser = { count = 0 }, { count = 0 }
    local function note(reader, frame)
        local place = reader.count + 1
        reader.count = place
        local digits, filler = frame:tostring():match("^(%d+)(x*)$")
        local number = tonumber(digits)
        assert(#filler == number % 7 * 1000)
        reader[place] = number
    end
    local function litter()
        getmetatable(newproxy(true)).__gc = function()
            local called, good, frame = pcall(server.read, server)
            if called and good then note(finaliser, frame) end
        end
    end
    context.run(function()
        while true do
            litter()
            local good, frame = server:read()
            if not good then break end
            note(script, frame)
        end
        done = true
    end)
    for i = 1, count do
        client:write(i .. ("x"):rep(i % 7 * 1000))
        if i % 50 == 0 then timer.sleep(0) end
    end
    client:close()
    while not done do
        timer.sleep(0.001)
    end
    local seen, wrong = {}, {}
    for _, reader in ipairs({ script, finaliser }) do
        for place, number in ipairs(reader) do
            local is_next = number > (reader[place - 1] or 0)
            if seen[number] or not is_next then wrong[#wrong + 1] = number end
            seen[number] = true
        end
    end
    for number = 1, count do
        if not seen[number] then wrong[#wrong + 1] = number end
    end
    is(table.concat(wrong, " "), "", "each frame comes once, and in its turn")
    ok(finaliser.count > 0, "finalisers have had some")
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
        if not good then server:close() end
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
    context.run(function() result = { server:read_into(buffer.new()) } end)
    timer.sleep(0.001)
    server:close()
    while not result do
        timer.sleep(0.001)
    end
    is(result[2], 203, "ends with 203")
    client:close()
end)

tap.done()
