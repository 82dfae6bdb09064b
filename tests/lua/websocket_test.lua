-- websocket: handshakes, messages both ways, ends, limits; and that a websocket is a socket like
-- others.

if not websocket then return print("1..0 # built without WebSocket") end

local tap = require("support.tap")
local is, ok = tap.is, tap.ok
local check = context.check

-- Checks that a call raises what matches a pattern.
local function raises(f, pattern, name)
    local good, message = pcall(f)
    ok(not good and message:find(pattern), name, tostring(message))
end

local listener = check(tcp.listen("127.0.0.1", 0))
local port = tcp.local_port(listener)
local URL = "ws://127.0.0.1:" .. port .. "/chat?room=1"

-- Both ends of a websocket: the server's, the client's, and what the client has asked for.
local function pair(server_options, client_options)
    local far, headers
    context.run(function()
        local sock = check(listener:accept(20))
        local good, ws, more = websocket.accept(sock, server_options)
        if good then
            far, headers = ws, more
        else
            far = more
        end
    end)
    local results = { websocket.connect(URL, client_options) }
    while not far do
        timer.sleep(0.001)
    end
    return far, results[2], headers, results
end

local function text(data) return data and data:tostring() end

tap.test("a handshake", function()
    local far, near, headers = pair({ protocols = { "b", "c" } }, {
        protocols = { "a", "c", "b" },
        headers = { ["X-Token"] = "secret" },
        timeout = 20,
    })
    is(headers[":path"], "/chat?room=1", "the path arrives")
    is(headers["x-token"], "secret", "headers do")
    is(headers.host, "127.0.0.1:" .. port, "Host has the port")
    is(far:protocol(), "b", "the server's first protocol is chosen")
    is(near:protocol(), "b", "both know")
    ok(tostring(near):find("^websocket 0x%x+: 127.0.0.1:%d+ %-> 127.0.0.1:%d+, open$"), "shown")
    near:close()
    ok(tostring(near):find("closed$"), "closed ones too")
    is(far:recv(20), false, "an end is seen")
end)

tap.test("over a unix socket", function()
    local path = os.tmpname()
    os.remove(path)
    local unix, far = check(tcp.listens(path)), nil
    context.run(function()
        far = check(websocket.accept(check(unix:accept(20))))
        far:recv(20)
    end)
    local sock = check(tcp.connects(path, 20))
    sock:write(
        "GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            .. "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
    check(sock:read_until("\r\n\r\n", 1000, 20))
    is(tostring(far):match(": (.*)"), path .. ", open", "its path is shown")
    sock:close()
    unix:close()
    os.remove(path)
end)

tap.test("messages", function()
    local far, near = pair()
    is(near:send("hello"), true, "send returns true")
    local good, data, kind = far:recv(20)
    is(good, true, "a message comes")
    is(text(data), "hello", "as it was")
    is(kind, "text", "as text")
    far:send(data, kind)
    is(text(select(2, near:recv(20))), "hello", "and comes back")
    near:send("\255\0", "binary")
    data, kind = select(2, far:recv(20))
    is(text(data), "\255\0", "bytes of any value")
    is(kind, "binary", "are binary")
    far:send(12)
    is(text(select(2, near:recv(20))), "12", "numbers are text")
    far:send("")
    is(text(select(2, near:recv(20))), "", "empty ones are messages")
    for _, size in ipairs({ 125, 126, 4095, 4096, 65535, 65536, 3000000 }) do
        local body = ("0123456789"):rep(size / 10 + 1):sub(1, size)
        near:send(body)
        far:send(select(2, far:recv(20)))
        is(text(select(2, near:recv(20))) == body, true, size .. " bytes go both ways")
    end
    is(far:send("waits", "text", true), true, "send waits if asked")
    local told
    far:send("tells", "text", function(...) told = { ... } end)
    is(text(select(2, near:recv(20))), "waits", "both")
    is(text(select(2, near:recv(20))), "tells", "arrive")
    ok(told and told[1] and told[2] == 0 and told[3] == far, "a callback is told")
    is(near:recv(0.01), false, "nothing more")
    is(select(2, near:recv(-1)), 208, "a passed deadline")
    near:close()
end)

tap.test("many who wait", function()
    local far, near = pair()
    local got = {}
    for i = 1, 3 do
        context.run(function()
            local _, data = near:recv(20)
            got[#got + 1] = i .. text(data)
        end)
    end
    timer.sleep(0.001)
    for _, word in ipairs({ "a", "b", "c" }) do
        far:send(word)
    end
    while #got < 3 do
        timer.sleep(0.001)
    end
    is(table.concat(got, " "), "1a 2b 3c", "are served in order")
    local seen = {}
    near:recv(
        function(good, data, kind, ws)
            seen[#seen + 1] = good and text(data) .. kind or data .. kind .. tostring(ws == near)
        end
    )
    far:send("d")
    far:send("e", "binary")
    far:close(4000, "so")
    while #seen < 3 do
        timer.sleep(0.001)
    end
    is(
        table.concat(seen, " "),
        "dtext ebinary 4000sotrue",
        "a callback gets every one, and the end"
    )
end)

tap.test("ends", function()
    local far, near = pair()
    is(near:close(3001, "because ü"), true, "close says so the first time")
    is(near:close(), false, "and not again")
    local good, code, reason = far:recv(20)
    is(good, false, "the other side is told")
    is(code, 3001, "the code")
    is(reason, "because ü", "and the reason")
    is(select(2, far:recv()), 3001, "each time")
    good, code, reason = far:send("x")
    is(good, false, "sending fails likewise")
    is(code, 3001, "with the code")
    is(reason, "because ü", "and the reason")
    is(tcp.is_closed(far), true, "it is closed")
    raises(function() near:recv() end, "closed", "reading one's own closed websocket raises")
    raises(function() near:send("x") end, "closed", "and so does writing")

    far, near = pair()
    code = nil
    context.run(function() code = select(2, near:recv()) end)
    timer.sleep(0.001)
    near:close()
    while not code do
        timer.sleep(0.001)
    end
    is(code, 203, "who waits on one's own side is told")
    is(select(2, far:recv(20)), 1000, "1000 if nothing is said")

    far, near = pair()
    tcp.abort(near)
    is(far:recv(20), false, "a reset ends")
    far, near = pair()
    tcp.close(near)
    is(select(2, far:recv(20)), 1000, "tcp.close closes too")
    far, near = pair()
    near = nil -- luacheck: ignore
    local code_seen = 208
    while code_seen == 208 do
        collectgarbage()
        code_seen = select(2, far:recv(0.01))
    end
    is(code_seen, 1001, "one that is collected goes away")
    is(context.strerror(1001), "websocket closed: going away", "codes have texts")
end)

tap.test("limits", function()
    local far, near = pair({ max_message = 10 })
    near:send(("x"):rep(10))
    is(#select(2, far:recv(20)), 10, "as much as may be")
    near:send(("x"):rep(11))
    is(select(2, far:recv(20)), 1009, "one more is too much")
    is(select(2, near:recv(20)), 1009, "both are told")
    far, near = pair({ max_message = 1000, deflate = true }, { deflate = true })
    near:send(("x"):rep(1000))
    is(#select(2, far:recv(20)), 1000, "compressed, as much as may be")
    near:send(("x"):rep(1000000))
    is(select(2, far:recv(20)), 1009, "compressed, too much")
end)

tap.test("messages that compression makes longer", function()
    local far, near = pair({ max_message = 1e5, deflate = true }, { deflate = true })
    for _, least in ipairs({ 0, 144 }) do
        local bytes = {}
        for i = 1, 1e5 do
            bytes[i] = string.char(math.random(least, 255))
        end
        local whole = table.concat(bytes)
        near:send(whole, "binary")
        local good, data = far:recv(20)
        ok(good and text(data) == whole, "as long as may be", tostring(data))
    end
    far:close()
    near:close()
end)

tap.test("compression", function()
    local far, near = pair({ deflate = true }, { deflate = true })
    local body = ("all work and no play "):rep(5000)
    near:send(body)
    is(text(select(2, far:recv(20))) == body, true, "what is packed comes as it was")
    far:send(buffer.new(body), "binary")
    is(text(select(2, near:recv(20))) == body, true, "both ways")
    near:close()
    far, near = pair({ deflate = true })
    far:send(body)
    is(text(select(2, near:recv(20))) == body, true, "who does not want it does without")
    near:close()
end)

tap.test("pings", function()
    local far, near = pair()
    -- Nobody reads `far`: pings are answered all the same, and an end is seen.
    is(near:ping(), true, "a ping")
    is(near:ping("with data"), true, "with data")
    raises(function() near:ping(("x"):rep(126)) end, "exceeds", "of too much")
    near:send("after")
    is(text(select(2, far:recv(20))), "after", "is no message")
    near:close()
end)

tap.test("signs of life", function()
    local far, near = pair({ ping_interval = 0.5, idle_timeout = 30 })
    is(near:recv(1.2), false, "pings are no messages")
    far:send("still")
    is(text(select(2, near:recv(20))), "still", "and keep it")
    near:close()
    far, near = pair({ idle_timeout = 0.05 })
    local good, code, reason = far:recv(20)
    is(good, false, "silence ends")
    is(code, 40, "as timed out")
    is(reason, "nothing came for 0.05 s", "with a reason")
    is(select(2, near:recv(20)), 1001, "the peer is told")
    far = pair(nil, { ping_interval = 0.01 })
    code = 208
    while code == 208 do
        collectgarbage()
        code = select(2, far:recv(0.01))
    end
    is(code, 1001, "one that is watched is collected like others")
    -- One is that of the sleep.
    while context.stat().timers > 1 do
        timer.sleep(0.01)
    end
    ok(true, "and not watched any more")
end)

tap.test("no limits", function()
    local far, near = pair({ ping_interval = 0, idle_timeout = 0 }, { idle_timeout = 0 })
    -- Who is watched has a timer for good; others may be of what came before.
    repeat
        timer.sleep(0.02)
    until context.stat().timers == 1
    ok(true, "nobody is watched: one is that of the sleep")
    far:send("still")
    is(text(select(2, near:recv(20))), "still", "nobody is sent away")
    near:close()
end)

tap.test("a socket like others", function()
    local far, near = pair()
    local fd = tcp.fd(far)
    is(tcp.fd_src(fd), context.self(), "a number")
    far:set_wshared(true)
    tcp.write(fd, "by number")
    local good, data, kind = near:recv(20)
    is(good, true, "writes by number")
    is(text(data), "by number", "are messages")
    is(kind, "text", "of text")
    tcp.write(far, buffer.new("direct"))
    is(text(select(2, near:recv(20))), "direct", "plain writes are too")
    raises(function() tcp.write(far, "\255") end, "no UTF%-8.*'binary'", "not of bytes")
    is(tcp.stat(far).write_queue_max, 64 * 1024 * 1024, "stat")
    far:set_write_limit(1000)
    is(far:stat().write_queue_max, 1000, "as a method")
    is(tcp.remote_port(near), port, "addresses")
    is(near:local_addr(), "127.0.0.1", "as a method")
    local gone
    tcp.monitor(near, function(code) gone = code end)
    tcp.close(far)
    is(near:recv(20), false, "the end")
    while not gone do
        timer.sleep(0.001)
    end
    is(gone, 1000, "who monitors is told")
    local late
    near:monitor(function(code, ws) late = ws == near and code end)
    is(late, nil, "on the next turn")
    while not late do
        timer.sleep(0.001)
    end
    is(late, 1000, "who monitors later, too")
    near:monitor(nil)
    for name, args in pairs({ fd = {}, set_wshared = { true }, set_write_limit = { 1 } }) do
        local wanted = "websocket has been closed: '"
            .. name
            .. "' needs an open one %(ws:is_closed"
        raises(function() near[name](near, unpack(args)) end, wanted, name .. " needs an open one")
    end
    raises(
        function() far:monitor(print) end,
        "websocket has been closed: 'monitor' needs",
        "what the script itself has closed is not monitored"
    )
    far, near = pair({ kind = "binary" })
    far:send("\255")
    good, data, kind = near:recv(20)
    is(good and kind, "binary", "the kind may be another one unless something is said")
    is(text(data), "\255", "for any bytes")
    for name, args in pairs({
        read = {},
        read_into = { buffer.new(1) },
        read_bytes = { 1 },
        read_until = { "x" },
        set_rwopt = { {} },
        reframe = { {} },
        get_rwopt = {},
        shutdown = {},
    }) do
        raises(
            function() tcp[name](far, unpack(args)) end,
            "got a websocket",
            name .. " is not for it"
        )
    end
    near:close()
end)

tap.test("from other contexts", function()
    local far, near = pair()
    far:set_wshared(true)
    local folder = arg[0]:match("^(.*/)") or ""
    context.send(context.create(folder .. "support/write_by_number.lua"), tcp.fd(far))
    local all = ""
    for _ = 1, 100 do
        all = all .. text(select(2, near:recv(20)))
    end
    ok(all:find("^001002003") and all:find("099100$"), "writes by number are messages, in order")
    near:close()
end)

if tls then
    tap.test("over TLS", function()
        local c = require("support.certificates")
        local server = check(tls.server({ cert = c.cert, key = c.key }))
        local client = check(tls.client({ ca = c.ca }))
        local far
        context.run(function()
            local sock = check(listener:accept(20))
            check(sock:start_tls(server, nil, 20))
            far = check(websocket.accept(sock, { deflate = true }))
        end)
        local options = { tls = client, deflate = true, timeout = 20 }
        local near = check(websocket.connect(("wss://localhost:%d/x"):format(port), options))
        while not far do
            timer.sleep(0.001)
        end
        ok(tcp.tls(near).version == "TLSv1.3" and far:tls(), "tls tells of it")
        local body = ("encrypted "):rep(20000)
        near:send(body)
        is(text(select(2, far:recv(20))) == body, true, "messages go")
        far:send(body)
        is(text(select(2, near:recv(20))) == body, true, "both ways")
        far:close(3000, "enough")
        is(select(2, near:recv(20)), 3000, "and so does the end")
        context.run(function()
            local sock = check(listener:accept(20))
            sock:start_tls(server, nil, 20)
            sock:close()
        end)
        local good, code, why = websocket.connect("wss://localhost:" .. port)
        ok(not good and code == 221 and why:find("certificate"), "who is not trusted is refused")
        raises(
            function() websocket.connect(URL, { tls = client }) end,
            "of no use with a URL of ws://",
            "a configuration without TLS"
        )
    end)
end

tap.test("what is wrong", function()
    local far, near = pair()
    raises(function() websocket.connect() end, "#1 to 'connect' %(URL", "no URL")
    for _, url in ipairs({
        "http://x/",
        "ws://",
        "ws:///x",
        "ws://x:y/",
        "ws://x:0/",
        "ws://x:65536/",
        "ws://u:p@x/",
        "ws://x/a b",
        "ws://x/#f",
        "ws://x/\r\nEvil: 1",
    }) do
        raises(function() websocket.connect(url) end, "#1 to 'connect'", (url:gsub("%c", "?")))
    end
    raises(function() websocket.connect(URL, 1) end, "#2 to 'connect' %(table", "no table")
    raises(function() websocket.connect(URL, { a = 1 }) end, "no option named.*deflate", "unknown")
    raises(function() websocket.connect(URL, {}, 1) end, "#3 to 'connect'", "more")
    for option, values in pairs({
        protocols = {
            1,
            { "a b" },
            { "a,b" },
            { "" },
            { a = "b" },
            { "x", a = "b" },
            { [2] = "a" },
            { "x", nil, "y" },
            { "x", "y", "x" },
            setmetatable({}, { __index = { "a" } }),
        },
        max_message = { -1, 0.5, "x", 2 ^ 31 },
        idle_timeout = { -1, "x", 0 / 0, math.huge },
        ping_interval = { -1, "x" },
        deflate = { 1 },
        kind = { "json" },
        headers = {
            1,
            { a = "x\r\ny" },
            { Host = "x" },
            { ["a b"] = "x" },
            { a = {} },
            setmetatable({}, { __index = { a = "b" } }),
        },
        timeout = { "x" },
        tls = { 1 },
    }) do
        for _, value in ipairs(values) do
            raises(
                function() websocket.connect(URL, { [option] = value }) end,
                option,
                option .. " " .. tostring(value)
            )
        end
    end
    raises(function() near:send() end, "to 'send' %(string, number or buffer", "no data")
    raises(function() near:send("x", "json") end, 'to \'send\' %("text" or "binary"', "kinds")
    raises(function() near:send("x", "text", 1) end, "to 'send' %(boolean or func", "how")
    raises(function() near:send("a\255") end, "from its byte 2 on: 'binary'", "no text")
    for _, code in ipairs({ 999, 1004, 1005, 1006, 1015, 2999, 5000, 1000.5, "x" }) do
        raises(function() near:close(code) end, "to 'close' %(close code", tostring(code))
    end
    raises(function() near:close(1000, ("x"):rep(124)) end, "at most 123 bytes", "a long reason")
    raises(function() near:close(1000, "\255") end, "UTF%-8", "no reason")
    raises(function() near.recv() end, "#1 to 'recv' %(websocket expected", "no websocket")
    raises(function() near.recv(listener) end, "websocket expected, got a tcp", "another socket")
    raises(function() tcp.accept(near) end, "got a websocket", "no listener")
    raises(function() websocket.accept(1, 2) end, "#1 to 'accept'", "no request")
    raises(function() websocket.accept({}, {}) end, "#1 to 'accept'", "nor a table")
    near:close()
    is(select(2, far:recv(20)), 1000, "all that was harmless")
end)

tap.test("refused handshakes", function()
    -- What a server says, and what the client makes of it.
    local function answer(head)
        context.run(function()
            local sock = check(listener:accept(20))
            local _, request = sock:read_until("\r\n\r\n", 10000, 20)
            local key = request:tostring():match("Sec%-WebSocket%-Key: ([^\r\n]+)")
            sock:write((head:gsub("KEY", key)))
            sock:close()
        end)
        return websocket.connect(URL, { timeout = 20, protocols = "a" })
    end
    local good, code, why, status = answer("HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")
    is(good, false, "fails")
    is(code, 223, "with a code")
    is(why, "the server answers 403 Forbidden", "a text")
    is(status, 403, "and the status")
    local SWITCH =
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: upgrade\r\n"
    for head, expected in pairs({
        ["HTTP/1.0 101 OK\r\n\r\n"] = "the server answers 101",
        ["SSH-2.0\r\n\r\n"] = "no HTTP/1.1",
        ["HTTP/1.1 101 OK\r\n\r\n"] = "no WebSocket",
        ["HTTP/1.1 101 OK\r\nno header\r\n\r\n"] = "no header",
        [SWITCH .. "\r\n"] = "does not prove",
        [SWITCH .. "Sec-WebSocket-Accept: KEY\r\n\r\n"] = "does not prove",
    }) do
        good, code, why = answer(head)
        ok(not good and code == 223 and why:find(expected, 1, true), expected)
    end
    good, code, why = answer("HTTP/1.1 200 " .. ("x"):rep(20000) .. "\r\n\r\n")
    ok(not good and code == 223 and why:find("more than 16384 bytes"), "a head without end")
    good, code = answer("")
    is(good, false, "no answer")
    is(code, 1, "is an end")
    code = select(2, websocket.connect("ws://127.0.0.1:1/"))
    is(code, 12, "nobody there")
    is(select(2, websocket.connect(URL, { timeout = -1 })), 208, "a passed deadline")
    is(select(2, websocket.connect(URL, { timeout = 0.02 })), 208, "silence")
    check(listener:accept(20)):close()

    -- What a client says, and what the server makes of it.
    local function ask(head)
        local sock = check(tcp.connect("127.0.0.1", port))
        sock:write(head)
        local results = { websocket.accept(check(listener:accept(20)), { timeout = 20 }) }
        local _, data = sock:read(20)
        sock:close()
        return results, text(data)
    end
    local GOOD = "GET / HTTP/1.1\r\nHost: x\r\nUpgrade: h2c, WebSocket\r\nConnection: keep-alive, "
        .. "Upgrade\r\nSec-WebSocket-Version: 13\r\n"
        .. "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    local results, data = ask(GOOD)
    is(results[1], true, "a good one")
    ok(data:find("Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n", 1, true), "is answered")
    for change, with in pairs({
        ["^GET"] = "POST",
        ["HTTP/1.1"] = "HTTP/1.0",
        ["Host: x\r\n"] = "",
        ["Host: x"] = "Host : x",
        ["Upgrade: h2c, WebSocket\r\n"] = "",
        ["keep%-alive, Upgrade"] = "close",
        ["Version: 13"] = "Version: 8",
        ["Q==\r"] = "Q=\r",
        ["Key:"] = "Key: x\r\nSec-WebSocket-Key:",
    }) do
        results, data = ask((GOOD:gsub(change, with)))
        ok(results[1] == false and results[2] == 223, "refused: " .. results[3])
        ok(data:find("^HTTP/1.1 4[02][06] "), "and told")
    end
end)

listener:close()
tap.done()
