-- websocket in handlers of http.serve.

if not websocket or not http then return print("1..0 # built without WebSocket, or HTTP") end

local tap = require("support.tap")
local is, ok = tap.is, tap.ok
local check = context.check

local function text(data) return data and data:tostring() end

tap.test("in a handler of http.serve", function()
    local own = check(tcp.listen("127.0.0.1", 0))
    local address = "127.0.0.1:" .. tcp.local_port(own)
    local ends = {}
    local server = check(http.serve(own, function(req, res)
        local good, ws, why = websocket.accept(req, res, { protocols = "b", deflate = true })
        if not good then
            ends[#ends + 1] = why
            return
        end
        while true do
            local got, data, kind = ws:recv()
            if not got then
                ends[#ends + 1] = data
                return
            end
            if text(data) == "fail" then error("as it was told") end
            ws:send(data, kind)
        end
    end))
    local url = ("ws://%s/path?query"):format(address)
    local near = check(websocket.connect(url, { protocols = { "a", "b" }, deflate = true }))
    is(near:protocol(), "b", "a protocol")
    for _, size in ipairs({ 1, 100000 }) do
        near:send(("x"):rep(size))
        is(#select(2, near:recv(20)), size, size .. " bytes and back")
    end
    near:close(3000)
    near = check(websocket.connect(url))
    near:send("fail")
    is(select(2, near:recv(20)), 1011, "a handler that fails ends the conversation")
    local good, code, _, status = websocket.connect(url, { headers = { Origin = "x" } })
    is(good, true, "others are served", code, status)
    local sock = check(tcp.connect(address:match("^(.*):(%d+)$")))
    sock:write("GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    local head = text(select(2, sock:read_until("\r\n\r\n", 10000, 20)))
    ok(head:find("^HTTP/1.1 426 "), "what asks for none is told", head)
    ok(head:lower():find("upgrade: websocket", 1, true), "what would be served", head)
    sock:close()
    is(ends[1], 3000, "ends are seen")
    ok(ends[2] and ends[2]:find("does not ask"), "and why there was none")
    server:close(0)
end)

tap.test("behind a unix socket", function()
    local path = os.tmpname()
    os.remove(path)
    local shown
    local server = check(http.serve(check(tcp.listens(path)), function(req, res)
        local _, ws = websocket.accept(req, res)
        shown = tostring(ws)
        ws:close()
    end))
    local sock = check(tcp.connects(path, 20))
    sock:write(
        "GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            .. "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
    check(sock:read_until("\r\n\r\n", 1000, 20))
    is(shown:match(": (.*)"), path .. ", open", "its path is shown")
    sock:close()
    server:close(0)
    os.remove(path)
end)

tap.test("what a request has said is there when it has become a websocket", function()
    local seen
    local server = check(http.serve("127.0.0.1", 0, function(req, res)
        local _, ws = websocket.accept(req, res)
        local version, addr = req.version, req.remote_addr
        seen = { req.method, req.query, version, addr, req.headers.origin, req:args().name }
        seen[7] = type(req.remote_port)
        ws:close()
    end))
    local url = ("ws://127.0.0.1:%d/?name=u1"):format(server:port())
    local near = check(websocket.connect(url, { headers = { Origin = "here" } }))
    near:recv(20)
    is(table.concat(seen, " "), "GET name=u1 1.1 127.0.0.1 here u1 number", "all of it")
    server:close(0)
end)

-- What a handler passes, and what it has done to its request before.
tap.test("a request that is none any more, or not as it came", function()
    local seen = {}
    local server
    server = check(http.serve("127.0.0.1", 0, function(req, res)
        local kind = req.path
        if kind == "/without" then
            seen[kind] = select(2, pcall(websocket.accept, req))
        elseif kind == "/other" then
            seen[kind] = select(2, pcall(websocket.accept, req, {}))
        elseif kind == "/over" then
            res:finish("over")
            seen[kind] = select(2, websocket.accept(req, res))
            return
        else
            rawset(req, "headers", kind == "/headers" and 5 or nil)
            rawset(req, "method", 5)
            rawset(res, "status", error)
            seen[kind] = select(2, websocket.accept(req, res))
            return
        end
        return 200, nil, "told"
    end))
    local url = ("http://127.0.0.1:%d"):format(server:port())
    for _, case in ipairs({
        { "/without", 200, "bad argument #2 to 'accept' (the answer of that request expected" },
        { "/other", 200, "bad argument #2 to 'accept' (the answer of that request expected" },
        { "/over", 200, 203 },
        { "/headers", 426, 223 },
        { "/replaced", 426, 223 },
    }) do
        local path, status, expected = unpack(case)
        is(check(http.get(url .. path)).status, status, path)
        if type(expected) == "number" then
            is(seen[path], expected, path .. ": code")
        else
            ok(tostring(seen[path]):find(expected, 1, true), path .. ": error", seen[path])
        end
    end
    server:close(0)
end)

tap.test("why there is no websocket", function()
    local told = {}
    local server = check(http.serve("127.0.0.1", 0, function(req, res)
        local texts = {}
        if req.path == "/begun" then res:write("") end
        if req.path == "/over" then res:finish() end
        for i = 1, 2 do
            local good, code, why = websocket.accept(req, res)
            texts[i] = good and "accepted" or code .. " " .. why
        end
        told[req.path] = table.concat(texts, "; ")
    end))
    local url = ("http://127.0.0.1:%d"):format(server:port())
    local ws = check(websocket.connect(url:gsub("http", "ws") .. "/twice"))
    ws:close()
    local headers = {
        connection = "upgrade",
        upgrade = "websocket",
        ["sec-websocket-version"] = "13",
        ["sec-websocket-key"] = ("x"):rep(22) .. "==",
    }
    for _, ask in ipairs({ { "/begun" }, { "/over" }, { "/body", "body" } }) do
        local options = { url = url .. ask[1], method = "GET", headers = headers, proxy = false }
        options.body = ask[2]
        http.request(options)
    end
    local begun, over = "18 the answer has begun", "203 the request is answered already"
    over = over .. ", or its client has gone"
    local twice = "the request is a WebSocket already: keep what the first 'accept' has returned"
    is(told["/twice"], "accepted; 203 " .. twice, "a second time")
    is(told["/begun"], begun .. "; " .. begun, "behind the head of an answer")
    is(told["/over"], over .. "; " .. over, "after the answer")
    local body = "18 the request has a body"
    is(told["/body"], body .. "; " .. body, "where there is more to read")
    server:close(0)
end)

tap.done()
