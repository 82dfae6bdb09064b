-- Frames of other people's protocols: pieces, reframe, ends, and what is refused.

local sockets = require("support.sockets")
local tap = require("support.tap")
local is, ok, raises = tap.is, tap.ok, tap.raises
local pair, read = sockets.pair, sockets.read

-- What a read returned, as text, or the code.
local function text(good, data) return good and data:tostring() or data end

-- Runs `f` in a coroutine of its own; returns where its results will be.
local function later(f)
    local box = {}
    context.run(function()
        box[1], box[2] = f()
        box.done = true
    end)
    return box
end

local function wait_for(box)
    while not box.done do
        timer.sleep(0.001)
    end
    return text(box[1], box[2])
end

tap.test("pieces between frames", function()
    local server, client = pair()
    server:set_rwopt({ read_head_bytes = 2 })
    client:write("\3\0one\3\0two" .. "HELLO\r\n" .. "\5\0three\4\0four")
    is(read(server), "one", "a frame")
    is(read(server), "two", "another one")
    is(text(server:read_bytes(5)), "HELLO", "bytes")
    is(text(server:read_until("\r\n")), "", "up to a delimiter that comes at once")
    is(read(server), "three", "a frame again")
    is(text(server:read_bytes(2)), "\4\0", "the head of one")
    is(text(server:read_until("r")), "fou", "and its body")
    is(text(server:read_bytes(0)), "", "no bytes are there")
    is(text(server:read_bytes(1, 0.001)), 208, "one is not")
    client:close()
    server:close()
end)

tap.test("frames in stock are given back, whatever their heads", function()
    for name, options in pairs({
        none = { read_head_bytes = 0 },
        plain = { read_head_bytes = 4, read_head_endian = "B" },
        odd = { read_head_bytes = 3, read_head_adjust = -3 },
        packets = { read_head_bytes = "varint", read_head_offset = 1 },
        varints = { read_head_bytes = "varint" },
        lines = { read_delimiter = "\n" },
    }) do
        local server, client = pair()
        server:set_rwopt(options)
        local frames = {
            none = "abcabcabc",
            plain = ("\0\0\0\3abc"):rep(3),
            odd = ("\6\0\0abc"):rep(3),
            packets = ("P\3abc"):rep(3),
            varints = ("\3abc"):rep(3),
            lines = ("abc\n"):rep(3),
        }
        client:write(frames[name])
        local got = {}
        local first = later(function() return server:read() end)
        local rest
        context.run(function() got[1] = read(server) end)
        local one = wait_for(first)
        if name ~= "none" then
            while not got[1] do
                timer.sleep(0.001)
            end
            local size = #frames[name] / 3
            rest = text(server:read_bytes(size))
            is(rest, frames[name]:sub(1, size), name .. ": the third, as it was sent")
        else
            is(one, "abcabcabc", "all at once")
        end
        client:close()
        server:close()
    end
end)

tap.test("who waits is served in turn", function()
    local server, client = pair()
    server:set_rwopt({ read_head_bytes = 1 })
    local boxes = {
        later(function() return server:read() end),
        later(function() return server:read_bytes(3) end),
        later(function() return server:read() end),
        later(function() return server:read_until("!") end),
        later(function() return server:read_bytes(2, 30) end),
    }
    timer.sleep(0)
    for byte in ("\1axyz\2bcwait!de"):gmatch(".") do
        client:write(byte)
        timer.sleep(0)
    end
    is(wait_for(boxes[1]), "a", "a frame")
    is(wait_for(boxes[2]), "xyz", "bytes")
    is(wait_for(boxes[3]), "bc", "a frame")
    is(wait_for(boxes[4]), "wait", "a delimiter")
    is(wait_for(boxes[5]), "de", "bytes")
    client:close()
    server:close()
end)

tap.test("a callback for frames, and pieces before it", function()
    local server, client = pair()
    server:set_rwopt({ read_delimiter = "\n" })
    local got = {}
    server:read(function(good, line)
        local data = good and line:tostring() or line
        if data == "body" then data = data .. text(server:read_bytes(4)) end
        got[#got + 1] = data
    end)
    client:write("first\nbody\n1\n23last\n")
    while #got < 3 do
        timer.sleep(0.001)
    end
    is(table.concat(got, " "), "first body1\n23 last", "all in turn")
    client:close()
    server:close()
end)

tap.test("a timeout loses nothing", function()
    local server, client = pair()
    client:write("abc")
    is(text(server:read_bytes(6, 0.01)), 208, "three of six")
    is(text(server:read_until("d", nil, 0.01)), 208, "no delimiter")
    client:write("def")
    is(text(server:read_bytes(6, 30)), "abcdef", "six of six")
    client:write(("x"):rep(100000))
    is(text(server:read_bytes(200000, 0.01)), 208, "half of many")
    is(server:read_bytes(1, -1), false, "a deadline that has passed")
    client:write(("y"):rep(100000))
    local _, data = server:read_bytes(200000)
    is(data:tostring(), ("x"):rep(100000) .. ("y"):rep(100000), "all of them")
    client:write("rest")
    is(read(server), "rest", "a plain read goes on behind")
    client:close()
    server:close()
end)

tap.test("a long piece comes whole, however it was begun", function()
    local server, client = pair()
    local long = ("0123456789"):rep(30000)
    local line = later(function() return server:read_until("\r\n\r\n") end)
    for at = 1, #long, 7000 do
        client:write(long:sub(at, at + 6999))
        timer.sleep(0)
    end
    client:write("\r\n\r")
    timer.sleep(0)
    client:write("\ntail")
    is(wait_for(line), long, "a line")
    is(text(server:read_bytes(4)), "tail", "and what follows it")
    client:close()
    server:close()
end)

tap.test("limits", function()
    local server, client = pair()
    for _, length in ipairs({ 9, 10, 11 }) do
        client:write(("x"):rep(length) .. "\r\n")
        local good = length <= 10
        local wanted = good and ("x"):rep(length) or 21
        is(text(server:read_until("\r\n", 10)), wanted, length .. " of 10")
        if not good then is(text(server:read_until("\r\n")), ("x"):rep(11), "nothing is lost") end
    end
    server:reframe({ read_delimiter = "\r\n", read_head_max = 10 })
    client:write(("x"):rep(10) .. "\r\n" .. ("y"):rep(11))
    is(read(server), ("x"):rep(10), "a line of 10")
    is(read(server), 21, "one of 11")
    is(read(server), 21, "sticks")
    is(text(server:read_bytes(1)), 21, "for pieces too")
    is(tcp.stat(server).truncated, 0, "no half frame")
    client:close()
    server:close()
end)

tap.test("heads that cannot be", function()
    for name, case in pairs({
        adjusted = {
            { read_head_bytes = 4, read_head_endian = "B", read_head_adjust = -4 },
            "\0\0\0\3",
        },
        packet = { { read_head_bytes = 1, read_head_adjust = -2, read_head_offset = 1 }, "X\1" },
        varint = { { read_head_bytes = "varint" }, ("\128"):rep(10) },
        ["large varint"] = { { read_head_bytes = "varint" }, ("\255"):rep(9) .. "\2" },
    }) do
        local server, client = pair()
        server:set_rwopt(case[1])
        client:write(case[2])
        is(read(server), 215, name)
        client:write(case[2])
        is(read(server), 215, name .. " sticks")
        ok(context.strerror(215):find("head", 1, true), "has a text")
        server:write("still here")
        is(read(client), "still here", "writing goes on")
        client:close()
        server:close()
    end
    local server, client = pair()
    server:set_rwopt({ read_head_bytes = "varint" })
    client:write(("\255"):rep(9) .. "\1")
    is(read(server), 21, "the largest varint is a frame that is too long")
    client:close()
    server:close()
end)

tap.test("the end in a frame", function()
    for name, case in pairs({
        head = { { read_head_bytes = 4 }, "\9\0", 2 },
        body = { { read_head_bytes = 4 }, "\9\0\0\0abc", 7 },
        line = { { read_delimiter = "\n" }, "no end", 6 },
        nothing = { { read_head_bytes = 4 }, "\1\0\0\0x", 0 },
    }) do
        local server, client = pair()
        server:set_rwopt(case[1])
        is(tcp.stat(server).truncated, 0, name .. ": none while it lives")
        client:write(case[2])
        client:close()
        if name == "nothing" then read(server) end
        is(read(server), 1, name .. ": the end")
        is(tcp.stat(server).truncated, case[3], name .. ": truncated")
        server:close()
    end
    local server, client = pair()
    client:write("last line")
    client:close()
    is(text(server:read_until("\n")), 1, "the end before a delimiter")
    is(tcp.stat(server).truncated, 9, "truncated")
    is(read(server), "last line", "which can still be read")
    is(read(server), 1, "before the end")
    server:close()
end)

tap.test("reframe", function()
    local server, client = pair()
    server:set_rwopt({ read_delimiter = "\n" })
    client:write("lines\n\3\0\0\0abcline\n")
    is(read(server), "lines", "a line")
    raises("set_rwopt is late", "reframe", server.set_rwopt, server, { read_head_bytes = 4 })
    server:reframe({ read_head_bytes = 4 })
    is(server:get_rwopt().read_delimiter, nil, "heads take the place of a delimiter")
    is(read(server), "abc", "a frame behind it")
    server:reframe({ read_delimiter = "\n" })
    is(read(server), "line", "and a line")
    server:reframe({ read_delimiter = false })
    client:write("as it comes")
    is(read(server), "as it comes", "no frames")
    -- Who waits already waits for the new frames.
    local box = later(function() return server:read() end)
    timer.sleep(0)
    server:reframe({ read_head_bytes = 1 })
    client:write("\4four")
    is(wait_for(box), "four", "for who waits too")
    box = later(function() return server:read_until("!") end)
    timer.sleep(0)
    client:write("\2ab")
    timer.sleep(0.01)
    server:reframe({ read_head_bytes = 2 })
    client:write("!")
    is(wait_for(box), "\2ab", "but not for who waits for a piece")
    server:write("a")
    server:reframe({ write_head_bytes = 2, write_head_endian = "B" })
    server:write("b")
    is(text(client:read_bytes(4)), "a\0\1b", "written: from the next one on")
    client:close()
    server:close()
    raises("closed", "'reframe' needs an open one", tcp.reframe, server, {})
end)

tap.test("frames in stock are cut anew", function()
    local server, client = pair()
    server:set_rwopt({ read_head_bytes = 1 })
    client:write("\1a\1b\1c\1d")
    local first = later(function() return server:read() end)
    is(wait_for(first), "a", "one of four")
    server:reframe({ read_head_bytes = 0 })
    is(read(server), "\1b\1c\1d", "the others, as bytes")
    client:close()
    server:close()
end)

tap.test("written heads", function()
    local server, client = pair()
    local function sent(options, data, count)
        client:reframe(options)
        client:write(data)
        return text(server:read_bytes(count))
    end
    local big = { write_head_bytes = 4, write_head_endian = "B", write_head_adjust = -4 }
    is(sent(big, "hello", 9), "\0\0\0\9hello", "a length that counts itself")
    is(sent({ write_head_offset = 1 }, "Q\0\0\0\0abc", 8), "Q\0\0\0\7abc", "behind a type")
    local long = buffer.new("L\0\0\0\0" .. ("z"):rep(100000))
    is(sent({}, long, 100005), "L\0\1\134\164" .. ("z"):rep(100000), "a long packet")
    is(long:tostring():sub(1, 5), "L\0\0\0\0", "the buffer is as it was")
    raises("no place", "packet of 4 bytes has no place", client.write, client, "abcd")
    raises("nothing", "packet of 0 bytes has no place", client.write, client, "")
    local small = { write_head_bytes = 8, write_head_offset = 0, write_head_adjust = 2 }
    is(sent(small, "abc", 11), ("\0"):rep(7) .. "\1abc", "of 8 bytes")
    raises("less than nothing", "less than head adjust 2", client.write, client, "a")
    local varint = { write_head_bytes = "varint", write_head_adjust = 0, write_head_max = 300 }
    is(sent(varint, ("x"):rep(300), 302), "\172\2" .. ("x"):rep(300), "a varint")
    raises("over the maximum", "300", client.write, client, ("x"):rep(301))
    is(
        sent({ write_head_offset = 1 }, "0\0" .. ("x"):rep(200), 203),
        "0\200\1" .. ("x"):rep(200),
        "a longer one"
    )
    client:set_wshared(true)
    tcp.write(client:fd(), "1\0ab")
    is(text(server:read_bytes(4)), "1\2ab", "by number")
    client:close()
    server:close()
end)

tap.test("shutdown", function()
    local server, client = pair()
    client:write("all of it")
    is(client:shutdown(), true, "the first time")
    is(client:shutdown(), false, "later ones")
    is(read(server), "all of it", "what was written")
    is(read(server), 1, "then the end")
    server:write("answer")
    is(read(client), "answer", "reading goes on")
    is(text(client:write("more", true)), 36, "writing does not")
    -- More than the kernel takes leaves before the end.
    local long = ("long"):rep(3000000)
    server:write(long)
    server:shutdown()
    local _, data = client:read_bytes(#long)
    is(#data, #long, "what waits leaves")
    is(read(client), 1, "before the end")
    client:close()
    server:close()
    raises("closed", "'shutdown' needs an open one", tcp.shutdown, client)
end)

tap.test("abort", function()
    local server, client = pair()
    local waiting = later(function() return client:read() end)
    local written
    client:write(("x"):rep(20000000), function(good, code) written = good or code end)
    timer.sleep(0)
    is(client:abort(), true, "the first time")
    is(client:abort(), false, "later ones")
    is(client:is_closed(), true, "closes")
    is(wait_for(waiting), 203, "who reads is told")
    while not written do
        timer.sleep(0.001)
    end
    is(written, 203, "who writes is told")
    local code
    repeat
        code = read(server)
    until type(code) == "number"
    is(code, 13, "the peer finds a reset")
    server:close()
end)

tap.test("keepalive", function()
    local server, client = pair()
    client:set_keepalive(60)
    client:set_keepalive(1, 32767, 127)
    client:set_keepalive(false)
    for _, wrong in ipairs({ 0, 32768, 1.5, -1, 0 / 0, "x", true }) do
        raises("seconds", "'set_keepalive'", client.set_keepalive, client, wrong)
        raises("interval", "'set_keepalive'", client.set_keepalive, client, 1, wrong)
        raises("count", "'set_keepalive'", client.set_keepalive, client, 1, 1, wrong)
    end
    raises("count", "from 1 to 127", client.set_keepalive, client, 1, 1, 128)
    client:close()
    server:close()
    is(client:set_keepalive(60), nil, "nothing for a closed one")
end)

tap.test("what is refused", function()
    local server, client = pair()
    local function refused(part, options)
        raises(part, part, tcp.set_rwopt, server, options)
        raises(part, part, tcp.reframe, server, options)
    end
    refused("read_head_bytes: -1 is not 0 to 8", { read_head_bytes = -1 })
    refused("write_head_bytes: 9 is not 0 to 8", { write_head_bytes = 9 })
    refused('got string "leb"', { read_head_bytes = "leb" })
    refused("read_head_adjust: 1 must be 0", { read_head_adjust = 1 })
    refused("write_head_offset: 1 must be 0", { write_head_offset = 1 })
    refused(
        "read_head_adjust: -256 leaves no number",
        { read_head_bytes = 1, read_head_adjust = -256 }
    )
    refused(
        "read_head_offset: 65536 is not within",
        { read_head_bytes = 1, read_head_offset = 65536 }
    )
    refused("read_head_offset: -1 is not within", { read_head_bytes = 1, read_head_offset = -1 })
    refused("read_head_adjust: whole number", { read_head_bytes = 1, read_head_adjust = 0.5 })
    refused(
        "16777216 is not within 0 and 16777215",
        { read_head_bytes = 3, read_head_max = 2 ^ 24 }
    )
    refused("read_delimiter: string of 1 to 16 bytes", { read_delimiter = "" })
    local long = { read_delimiter = ("x"):rep(17) }
    refused("read_delimiter: 1 to 16 bytes expected, got 17 bytes", long)
    refused("got number 10", { read_delimiter = 10 })
    refused("got boolean true", { read_delimiter = true })
    refused("not together", { read_delimiter = "x", read_head_bytes = 2 })
    refused("read_head_max: 2147483648", { read_delimiter = "x", read_head_max = 2 ^ 31 })
    refused('no option named string "write_delimiter"', { write_delimiter = "x" })
    is(server:get_rwopt().read_head_bytes, 0, "nothing was changed")
    for _, wrong in ipairs({ -1, 1.5, 2 ^ 31, 0 / 0, "5", true }) do
        raises("count", "'read_bytes' (whole number of bytes", tcp.read_bytes, server, wrong)
        raises("max", "'read_until' (whole number of bytes", tcp.read_until, server, "x", wrong)
    end
    raises(
        "no delimiter",
        "'read_until' (string of 1 to 1024 bytes expected",
        tcp.read_until,
        server,
        5
    )
    local wanted = 'string of 1 to 1024 bytes expected, got string ""'
    raises("an empty one", wanted, tcp.read_until, server, "")
    raises("a long one", '" of 1025 bytes', tcp.read_until, server, ("x"):rep(1025))
    raises("a timeout", "number of seconds", tcp.read_bytes, server, 1, "soon")
    raises("a timeout", "number of seconds", tcp.read_until, server, "x", 1, {})
    raises("too much", "'read_bytes'", tcp.read_bytes, server, 1, 1, 1)
    client:close()
    server:close()
    raises("closed", "needs an open one", tcp.read_bytes, server, 1)
    raises("closed", "needs an open one", tcp.read_until, server, "x")
end)

tap.done()
