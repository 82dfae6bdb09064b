-- Bodies that do not come whole, not in time or not within bounds, and lengths that are not true:
-- nothing of a body is lost, and nothing of it is taken for the next message.

if not http then return print("1..0 # built without HTTP") end

local sockets = require("support.sockets")
local tap = require("support.tap")
local is, ok = tap.is, tap.ok
local check = context.check
local PATIENCE = 30

-- Errors that nobody has caught, without their places.
local logged = {}
context.on_error(function(message) logged[#logged + 1] = tostring(message):match("%d: (.*)$") end)

local function wait_for(is_done)
    while not is_done() do
        timer.sleep(0.001)
    end
end

-- A server whose connections are handed to `serve`, and the start of URLs for it.
local function raw(serve)
    local listener, port = sockets.listen()
    listener:accept(function(_, sock) serve(sock) end)
    return listener, ("http://%s:%d"):format(sockets.HOST, port)
end

local function head(sock)
    local good, text = sock:read_until("\r\n\r\n", 65536, PATIENCE)
    return good and text:tostring() .. "\r\n"
end

local function get(url, options)
    options = options or {}
    options.proxy = false
    return check(http.get(url, options))
end

tap.test("an answer that is too long for a call is there for the next one", function()
    local server = check(http.serve(sockets.HOST, 0, function(_, res)
        for i = 1, 3 do
            res:write(("part %d."):format(i))
            timer.sleep(0.01)
        end
    end))
    local res = get(("http://%s:%d/"):format(sockets.HOST, server:port()))
    for max = 0, 20, 10 do
        local good, code, text = res:text(max)
        is(good, false, "more than " .. max)
        is(code, 21, "has a code")
        is(text, ("a body of more than %d bytes"):format(max), "and a text")
    end
    local good, piece = res:read()
    is(good, true, "a piece")
    is(piece:tostring():sub(1, 7), "part 1.", "begins where the body begins")
    is(piece:tostring() .. res:text(), "part 1.part 2.part 3.", "and the rest follows")
    good = { res:read() }
    is(good[2], 1, "to the end")
    res = get(("http://%s:%d/"):format(sockets.HOST, server:port()))
    is(res:text(21), "part 1.part 2.part 3.", "just enough")
    res = get(("http://%s:%d/"):format(sockets.HOST, server:port()))
    is(res:text(1), false, "too much")
    res:close()
    is(select(2, res:read()), 203, "is dropped")
    server:close()
end)

tap.test("an answer that is slow is not lost", function()
    local may_go_on
    local listener, url = raw(function(sock)
        head(sock)
        sock:write("HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nhalf")
        wait_for(function() return may_go_on end)
        sock:write("half")
    end)
    local res = get(url, { timeout = 0.5 })
    local good, code, text = res:text()
    is(good, false, "half of it")
    is(code, 208, "is too late")
    is(text, "timeout", "with a text")
    may_go_on = true
    repeat
        good, code = res:text()
    until code ~= 208
    is(good, "halfhalf", "and whole later")
    listener:close()
end)

tap.test("an answer that is cut off has not ended", function()
    local listener, url = raw(function(sock)
        local path = head(sock):match("^GET (%S+)")
        local as = { ["/length"] = "Content-Length: 8\r\n\r\nhalf" }
        as["/chunks"] = "Transfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n"
        as["/none"] = "Transfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\nno number\r\n"
        sock:write("HTTP/1.1 200 OK\r\n" .. as[path])
        sock:close()
    end)
    for _, path in ipairs({ "/length", "/chunks", "/none" }) do
        local res = get(url .. path)
        for i = 1, 2 do
            local good, code, text = res:text()
            is(good, false, path .. " fails " .. i)
            is(code, 11, path .. ": its code")
            is(text:match("^a body has not come whole: "), "a body has not come whole: ", path)
        end
        local good, piece = res:read()
        is(good and piece:tostring(), "half", path .. ": what has come is there")
        for i = 1, 2 do
            local _, code = res:read()
            is(code, 11, path .. ": its end " .. i)
        end
    end
    listener:close()
end)

tap.test("nor has a request", function()
    local codes
    local server = check(http.serve(sockets.HOST, 0, function(req)
        local good, code = req:text(2)
        codes[1] = tostring(good) .. code
        codes[2] = req:text() and "whole" or "cut off"
        good, code = req:read()
        codes[3] = good and code:tostring() or code
        for i = 4, 5 do
            codes[i] = select(2, req:read())
        end
        return 200
    end))
    for body, expected in pairs({
        ["Content-Length: 8\r\n\r\nhalf"] = "false21 cut off half 11 11",
        ["Content-Length: 4\r\n\r\nhalf"] = "false21 whole 1 1 1",
        ["Transfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n"] = "false21 cut off half 11 11",
        ["Transfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n0\r\n\r\n"] = "false21 whole 1 1 1",
    }) do
        local sock = check(tcp.connect(sockets.HOST, server:port(), PATIENCE))
        codes = {}
        sock:write("POST / HTTP/1.1\r\nHost: x\r\n" .. body)
        sock:shutdown()
        wait_for(function() return codes[5] end)
        is(table.concat(codes, " "), expected, (body:gsub("\r\n", " ")))
        sock:close()
    end
    server:close(0)
end)

tap.test("several read one body in turn", function()
    local pieces = 0
    local server = check(http.serve(sockets.HOST, 0, function(_, res)
        res:write("") -- the head
        for i = 1, 4 do
            wait_for(function() return pieces >= i end)
            res:write(tostring(i))
        end
    end))
    local res = get(("http://%s:%d/"):format(sockets.HOST, server:port()))
    local got, left = {}, 5
    for i = 1, 5 do
        context.run(function()
            local good, data = res:read(i == 3 and 0.01 or nil)
            got[i] = good and data:tostring() or data
            left = left - 1
        end)
    end
    wait_for(function() return got[3] end)
    pieces = 4
    wait_for(function() return left == 0 end)
    is(table.remove(got, 3), 208, "one of them only for a while")
    local all = ""
    for i = 1, 4 do
        -- Several pieces may have come as one; then the last ones find the end.
        if type(got[i]) == "string" then
            all = all .. got[i]
        else
            is(got[i], 1, "the end")
        end
    end
    is(all, "1234", "the others get all, in order")
    server:close()
end)

tap.test("who waits for a body that is given up is told", function()
    local is_over
    local server = check(http.serve(sockets.HOST, 0, function(req, res)
        if req.method == "GET" then
            res:write("begun")
            return wait_for(function() return is_over end)
        end
        local codes = {}
        for i = 1, 2 do
            context.run(function() codes[i] = select(2, req:read()) end)
        end
        timer.sleep(0.01)
        res:finish("well")
        wait_for(function() return codes[1] and codes[2] end)
        logged = codes
    end))
    local url = ("http://%s:%d/"):format(sockets.HOST, server:port())
    local res = get(url)
    local codes = {}
    context.run(function()
        repeat
            local good, code = res:read()
            codes[1] = not good and code
        until codes[1]
    end)
    context.run(function() codes[2] = select(2, res:text()) end)
    timer.sleep(0.01)
    is(res:close(), true, "a response")
    wait_for(function() return codes[1] and codes[2] end)
    is(codes[1], 203, "who reads")
    is(codes[2], 203, "and who collects")
    is_over = true
    logged = {}
    local sock = check(tcp.connect(sockets.HOST, server:port(), PATIENCE))
    sock:write("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n")
    wait_for(function() return logged[2] end)
    is(logged[1], 11, "of a request that was answered")
    is(logged[2], 11, "all of them")
    sock:close()
    server:close(0)
end)

tap.test("several write one answer that is taken slowly", function()
    local SIZE, left = 2 ^ 23, 3
    local server = check(http.serve(sockets.HOST, 0, function(_, res)
        for i = 1, 3 do
            context.run(function()
                for _ = 1, 4 do
                    res:write(tostring(i):rep(SIZE / 4))
                end
                left = left - 1
            end)
        end
        wait_for(function() return left == 0 end)
    end))
    local res = get(("http://%s:%d/"):format(sockets.HOST, server:port()))
    timer.sleep(0.05)
    ok(left > 0, "some wait")
    local text = res:text(3 * SIZE)
    is(#text, 3 * SIZE, "all is there")
    is(left, 0, "and nobody waits any more")
    server:close()
end)

tap.test("where nothing may wait, nothing is waited for afterwards either", function()
    local REFUSED = "inside a C function"
    local function refused(f)
        local good, why = pcall(string.gsub, "a", "a", f)
        return not good and why:find(REFUSED, 1, true) ~= nil
    end
    -- Whatever comes for a wait that was refused wakes nobody.
    local function sleeps(seconds)
        local until_then = timer.now() + seconds
        timer.sleep(seconds)
        return timer.now() >= until_then
    end
    local may_go_on, written, slept
    local server = check(http.serve(sockets.HOST, 0, function(_, res)
        res:write("begun")
        wait_for(function() return may_go_on end)
        written = refused(function() res:write(("x"):rep(2 ^ 24)) end)
        slept = sleeps(0.05)
        res:write("ended")
    end))
    local res = get(("http://%s:%d/"):format(sockets.HOST, server:port()))
    is(res:read(), true, "the first piece")
    ok(refused(function() res:read() end), "a read is refused")
    ok(refused(function() res:text() end), "and all of it")
    may_go_on = true
    ok(sleeps(0.05), "a later wait ends in its time")
    local text = res:text(2 ^ 25)
    is(text and #text, 2 ^ 24 + 5, "and nothing is lost")
    ok(written, "a write is refused, but what it takes is sent")
    ok(slept, "a later wait ends in its time")
    server:close()
end)

tap.test("a client says how long a body is, whatever it is told", function()
    local heads = {}
    local listener, url = raw(function(sock)
        while true do
            local text = head(sock)
            if not text then return sock:close() end
            local length = tonumber(text:lower():match("content%-length: (%d+)\r") or 0)
            local body = check(sock:read_bytes(length, PATIENCE)):tostring()
            heads[#heads + 1] = { text:match("^%u+"), text:lower(), body }
            sock:write("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        end
    end)
    local wrong = { ["Content-Length"] = 5 }
    for _, case in ipairs({
        { "GET", nil, wrong, nil },
        { "HEAD", nil, wrong, nil },
        { "GET", "", wrong, nil },
        { "DELETE", nil, nil, nil },
        { "POST", "", wrong, "0" },
        { "POST", "abc", wrong, "3" },
        { "PUT", "abcdefg", wrong, "7" },
        { "POST", nil, nil, "0" },
        { "PUT", nil, nil, "0" },
        { "PATCH", buffer.new(), nil, "0" },
    }) do
        local method, body, headers, length = unpack(case, 1, 4)
        heads = {}
        local options = { url = url, method = method, body = body, headers = headers }
        options.timeout, options.proxy = PATIENCE, false
        local res = check(http.request(options))
        is(res:text(), "", method .. " is answered")
        is(heads[1][1], method, "as what it is")
        is(heads[1][2]:match("content%-length: (%d+)\r"), length, method .. ": its length")
        is(heads[1][3], tostring(body or ""), method .. ": its body")
    end
    listener:close()
end)

tap.test("answers that are shorter or longer than they say are logged and cut off", function()
    local LESS = "the body has 3 bytes, but content-length says 5"
    local MORE = "the body has 6 bytes, but content-length says 5"
    local routes = {
        { LESS, function(_, res) res:header("content-length", 5):write("abc") end },
        {
            LESS,
            function(_, res)
                res:header("content-length", 5):write("ab")
                res:finish("c")
            end,
        },
        {
            MORE,
            function(_, res)
                res:header("content-length", 5):write("abc")
                res:finish("def")
            end,
        },
        {
            LESS,
            function()
                local pieces = { "abc" }
                return 200, { ["content-length"] = 5 }, function() return table.remove(pieces) end
            end,
        },
    }
    local server = check(http.serve(sockets.HOST, 0, function(req, res)
        if req.path == "/whole" then return 200, nil, "whole" end
        return routes[tonumber(req.path:sub(2))][2](req, res)
    end))
    local url = ("http://%s:%d/"):format(sockets.HOST, server:port())
    for i, route in ipairs(routes) do
        logged = {}
        local good, res = http.get(url .. i, { proxy = false })
        if good then good = res:text() end
        is(good, false, "answer " .. i)
        wait_for(function() return logged[1] end)
        is(logged[1], route[1], "what is logged")
        is(get(url .. "whole"):text(), "whole", "others are served")
        -- Nothing is missing of an answer without a body.
        logged = {}
        local options = { url = url .. i, method = "HEAD", proxy = false }
        is(check(http.request(options)):text(), "", "to HEAD")
        is(#logged, route[1] == MORE and 1 or 0, "what is missing of that is not logged")
    end
    server:close()
end)

-- Codes that RFC 9110 gives no body, however that is given.
tap.test("a body where the status has none is an error of the script's", function()
    local function pieces()
        local left = { "abc" }
        return function() return table.remove(left) end
    end
    local routes = {
        { "bad argument #1 to 'finish'", function(_, res, n) res:status(n):finish("abc") end },
        { "bad argument #1 to 'write'", function(_, res, n) res:status(n):write("abc") end },
        {
            "bad argument #1 to 'write'",
            function(_, res, n)
                res:status(n):write("")
                res:write("abc")
            end,
        },
        { "bad argument #1 to 'json'", function(_, res, n) res:status(n):json({}) end },
        { "bad argument #1 to 'sendfile'", function(_, res, n) res:status(n):sendfile(arg[0]) end },
        { "bad result #3 of the handler of 'serve'", function(_, _, n) return n, nil, "abc" end },
        {
            "bad result of the body function of 'serve'",
            function(_, _, n) return n, nil, pieces() end,
        },
    }
    local right = {
        function(_, _, n) return n end,
        function(_, _, n) return n, {}, "" end,
        function(_, _, n)
            return n, {}, function() end
        end,
        function(_, res, n)
            res:status(n):write("")
            res:finish("")
        end,
        -- One that has failed can still be answered otherwise.
        function(_, res, n)
            ok(not pcall(res.finish, res:status(n), "abc"), "it raises")
            res:finish()
        end,
    }
    local server = check(http.serve(sockets.HOST, 0, function(req, res)
        local args = req:args()
        if req.path == "/right" then return right[tonumber(args.i)](req, res, tonumber(args.n)) end
        return routes[tonumber(args.i)][2](req, res, tonumber(args.n))
    end))
    local url = ("http://%s:%d"):format(sockets.HOST, server:port())
    for _, status in ipairs({ 204, 205, 304 }) do
        for i, route in ipairs(routes) do
            logged = {}
            local _, res = http.get(("%s/?i=%d&n=%d"):format(url, i, status), { proxy = false })
            -- What has begun is cut off.
            if i ~= 3 then is(res.status, 500, "route " .. i) end
            wait_for(function() return logged[1] end)
            local why = "%s (a response of status %d has no body: give none, or another status)"
            is(logged[1], why:format(route[1], status), "what is logged")
        end
        for i = 1, #right do
            local res = get(("%s/right?i=%d&n=%d"):format(url, i, status))
            is(res.status, status, "without a body")
            is(res:text(), "", "it is what was said")
        end
    end
    server:close()
end)

tap.test("nothing is added to a file, and nothing replaces it", function()
    local routes = {
        { "'write' after 'sendfile'", function(res) res:write("abc") end },
        { "'finish' with a body after 'sendfile'", function(res) res:finish("abc") end },
        { "'json' after the answer has begun", function(res) res:json({}) end },
        { "'trailer' after the answer has ended", function(res) res:trailer("a", "b") end },
        { nil, function(res) res:finish() end },
        { nil, function(res) res:finish("") end },
    }
    local server = check(http.serve(sockets.HOST, 0, function(req, res)
        if req.path == "/trailer" then res:trailer("a", "b") end
        res:sendfile(arg[0])
        routes[tonumber(req.path:sub(2))][2](res)
    end))
    local url = ("http://%s:%d/"):format(sockets.HOST, server:port())
    local whole = assert(io.open(arg[0])):read("*a")
    for i, route in ipairs(routes) do
        logged = {}
        is(get(url .. i):text(), whole, "a file")
        if route[1] then wait_for(function() return logged[1] end) end
        is(logged[1], route[1], "what is logged")
    end
    logged = {}
    is(get(url .. "trailer").status, 500, "trailers before a file")
    wait_for(function() return logged[1] end)
    is(logged[1], "bad argument #1 to 'sendfile' (a file is sent without trailers)", "are refused")
    server:close()
end)

tap.test("many headers", function()
    local lines = {}
    for i = 1, 2000 do
        lines[i] = ("X-%d: %d\r\n"):format(i, i)
    end
    local listener, url = raw(function(sock)
        head(sock)
        sock:write("HTTP/1.1 200 OK\r\n" .. table.concat(lines) .. "Content-Length: 0\r\n\r\n")
    end)
    local res = get(url)
    is(res.headers["x-1"], "1", "the first")
    is(res.headers["x-2000"], "2000", "the last")
    listener:close()
end)

tap.test("a deadline that has passed", function()
    local good, code, text = http.get("http://127.0.0.1:1/", { timeout = -1, proxy = false })
    is(good, false, "fails")
    is(code, 208, "at once")
    is(text, "timeout", "with a text")
end)

tap.test("a length without a body", function()
    local routes = {
        function() return 200, { ["content-length"] = 5 } end,
        function() return 200, { ["content-length"] = 5 }, "" end,
        function(_, res) res:header("content-length", 5) end,
        function(_, res) res:header("content-length", 5):finish() end,
    }
    local function ask(options, url)
        local server = check(
            http.serve(
                sockets.HOST,
                0,
                options.server,
                function(req, res) return routes[tonumber(req.path:sub(2))](req, res) end
            )
        )
        for i = 1, #routes do
            local to = ("%s:%d/%d"):format(url, server:port(), i)
            local res = get(to, { tls = options.client })
            is(res:text(), "", "answer " .. i .. " is empty")
            is(res.headers["content-length"] or "0", "0", "and says so")
            local ask_head = { url = to, method = "HEAD", tls = options.client, proxy = false }
            is(
                check(http.request(ask_head)).headers["content-length"],
                "5",
                "but of HEAD what it would be"
            )
        end
        server:close()
    end
    ask({}, "http://" .. sockets.HOST)
    if not tls then return end
    local c = require("support.certificates")
    local alpn = { "h2" }
    ask({
        server = { tls = check(tls.server({ cert = c.cert, key = c.key, alpn = alpn })) },
        client = check(tls.client({ ca = c.ca, alpn = alpn })),
    }, "https://localhost")
end)

tap.test("a file", function()
    local server = check(http.serve(sockets.HOST, 0, function(req, res)
        if req.path == "/none" then res:status(404) end
        if req.path == "/tag" then res:header("ETag", '"ours"') end
        res:sendfile(arg[0])
    end))
    local url = ("http://%s:%d/"):format(sockets.HOST, server:port())
    local whole = assert(io.open(arg[0])):read("*a")
    local part = { headers = { Range = "bytes=0-9" } }
    local res = get(url, part)
    is(res.status, 206, "a part")
    is(res:text(), whole:sub(1, 10), "its text")
    res = get(url .. "none", { headers = { Range = "bytes=0-9", ["If-None-Match"] = "*" } })
    is(res.status, 404, "of another status")
    is(res:text(), whole, "it is whole")
    is(res.headers.etag, nil, "and is no version of what was asked for")
    res = get(url .. "tag")
    is(res.headers.etag, '"ours"', "a tag of the script's")
    is(res:text(), whole, "goes with it")
    res = get(url .. "tag", { headers = { ["If-None-Match"] = '"a", "ours"' } })
    is(res.status, 304, "and is known again")
    ok(res:text() == "", "then nothing is sent")
    server:close()
end)

tap.done()
-- Some connections wait for another request.
context.exit()
