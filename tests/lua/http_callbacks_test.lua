-- Functions that give bodies and trailers, and handlers: what fails in one ends its request on both
-- sides and at once, and the message tells whose fault it is.

if not http then return print("1..0 # built without HTTP") end

if ... == "child" then return context.recv(0) end

local sockets = require("support.sockets")
local tap = require("support.tap")
local is, ok = tap.is, tap.ok
local check = context.check

-- Errors that nobody has caught.
local logged = {}
context.on_error(function(message) logged[#logged + 1] = tostring(message) end)

local function wait_for(is_done)
    while not is_done() do
        timer.sleep(0.001)
    end
end

local function take_logged()
    wait_for(function() return logged[1] end)
    return table.remove(logged, 1)
end

-- What stands behind the line of this script, and that line.
local function placed(message)
    local place = arg[0] .. ":"
    if message:sub(1, #place) ~= place then return message end
    local line, rest = message:sub(#place + 1):match("^(%d+): (.*)$")
    return rest, tonumber(line)
end

local function first_line(f) return debug.getinfo(f, "S").linedefined end

local BODY = "bad result of the body function of '%s' "
local TRAILERS = "bad result of the trailers function of '%s' "

-- Bodies, and options, that fail as their names say, anew each time.
local function failing()
    local n = 0
    local function piece()
        n = n + 1
        if n == 1 then return "abc" end
    end
    local function fail() error("as it was told") end
    local function trailers(f)
        return { method = "POST", body = "abc", trailers = f, headers = { trailer = "a" } }
    end
    local TOLD = "as it was told"
    return {
        { "body", TOLD, { body = fail } },
        {
            "body",
            TOLD,
            {
                body = function()
                    timer.sleep(0.001)
                    fail()
                end,
            },
        },
        { "body", TOLD, { body = function() return piece() or fail() end } },
        { "body", TOLD, { body = function() coroutine.wrap(fail)() end } },
        {
            "body",
            BODY .. "(string, number or buffer expected, got table)",
            { body = function() return {} end },
        },
        {
            "body",
            BODY .. "(the body has 3 bytes, but content-length says 2)",
            { body = function() return "abc" end, headers = { ["content-length"] = 2 } },
        },
        {
            "body",
            "the body has 0 bytes, but content-length says 4",
            { body = piece, headers = { ["content-length"] = 4 } },
        },
        { "trailers", TOLD, trailers(fail) },
        {
            "trailers",
            TRAILERS .. "(table of headers expected, got number 5)",
            trailers(function() return 5 end),
        },
        {
            "trailers",
            TRAILERS
                .. "(list of values of header a expected, got a table with key "
                .. 'string "b")',
            trailers(function() return { a = { b = 1 } } end),
        },
    }
end

-- Tries all of these, without a timeout.
local function each_fails(url, config, after)
    for i, case in ipairs(failing()) do
        local part, why, options = unpack(case)
        local name = ("%s %d"):format(part, i)
        options.url, options.tls, options.proxy = url, config, false
        local good, code, text = http.request(options)
        is(good, false, name)
        is(code, 11, name .. ": its code")
        local message = take_logged()
        local said, line = placed(message)
        -- coroutine.wrap puts a place in front of another.
        why = why:format("request")
        is(said:sub(-#why), why, name .. ": its message")
        ok(line, name .. ": has a line", message)
        is(text, part .. ": " .. message, name .. ": is what the call returns, too")
        after(name, i)
    end
end

tap.test("requests", function()
    local listener, port = sockets.listen()
    local opened, ended = 0, 0
    listener:accept(function(_, sock)
        opened = opened + 1
        while sock:read() do
        end
        ended = ended + 1
        sock:close()
    end)
    local url = ("http://%s:%d/"):format(sockets.HOST, port)
    each_fails(url, nil, function(name, i)
        wait_for(function() return opened == i and ended == i end)
        ok(true, name .. ": the server notices")
    end)
    local body = function() return {} end
    http.post(url, body, { proxy = false })
    local said, line = placed(take_logged())
    is(said, BODY:format("post") .. "(string, number or buffer expected, got table)", "of post")
    is(line, first_line(body), "with the function's line")
    listener:close()
end)

tap.test("requests of HTTP/2", function()
    if not tls then return end
    local c = require("support.certificates")
    local alpn = { "h2" }
    local config = check(tls.client({ ca = c.ca, alpn = alpn }))
    local got, ports = 0, {}
    local server = check(http.serve(sockets.HOST, 0, {
        tls = check(tls.server({ cert = c.cert, key = c.key, alpn = alpn })),
    }, function(req)
        ports[req.remote_port] = true
        if not req:text() then got = got + 1 end
        return 200, nil, "well"
    end))
    local url = ("https://localhost:%d/"):format(server:port())
    each_fails(url, config, function(name)
        local good, res = http.get(url, { tls = config, proxy = false })
        is(good and res:text(), "well", name .. ": others are served")
    end)
    ok(got > 0, "the server finds bodies cut off")
    ok(next(ports) and not next(ports, (next(ports))), "on the same connection")
    server:close()
end)

tap.test("an answer that has begun", function()
    local has_begun, has_come
    local server = check(http.serve(sockets.HOST, 0, function(req, res)
        if req.path == "/cut" then
            res:write("begun")
            wait_for(function() return has_come end)
            error("cut off")
        end
        res:write("begun")
        local good, code = req:text()
        res:write(tostring(good) .. tostring(code))
    end))
    local url = ("http://%s:%d/"):format(sockets.HOST, server:port())
    local good, res = http.post(url, function()
        wait_for(function() return has_begun end)
        error("behind the head")
    end, { proxy = false })
    ok(good, "comes")
    has_begun = true
    local text, code = res:text()
    is(text, false, "is cut off")
    is(code, 11, "with a code")
    is((placed(take_logged())), "behind the head", "and the message is logged")
    -- What is passed on to another server, and does not come whole.
    res = check(http.get(url .. "cut", { proxy = false }))
    has_come = true
    is((placed(take_logged())), "cut off", "another")
    local why
    good, code, why = http.post(url, res.chunks, { proxy = false })
    -- What has begun of the answer may have come before the server finds the body cut off.
    if good then
        good, code, why = code:text()
    end
    is(good, false, "is not passed on as if it were whole")
    is(code, 11, "but with a code")
    local message = take_logged()
    ok(message:find("has not come whole", 1, true), "and a message", message)
    ok(why, "with what there is to say")
    server:close(0)
end)

-- What a handler returns that is no answer, and how it begins to say so.
tap.test("handlers", function()
    local OF = "of the handler of 'serve' "
    local LIST = "list of values of header a expected, got a table with key "
    local function none() end
    local routes = {
        { "bad result #1 " .. OF .. "(status from 200 to 999", function() return 99 end },
        { "bad result #1 " .. OF .. "(status from 200 to 999", function() return "x" end },
        { "bad result #2 " .. OF .. "(table of headers", function() return 200, 5 end },
        { "bad result #2 " .. OF .. "(name of a header", function() return 200, { "x" } end },
        { "bad result #2 " .. OF .. "(name of a header", function() return 200, { "x" }, none end },
        {
            "bad result #2 " .. OF .. "(a table of its own fields expected",
            function() return 200, setmetatable({}, { __index = { a = "b" } }) end,
        },
        {
            "bad result #2 " .. OF .. "(" .. LIST .. 'string "b")',
            function() return 200, { a = { "x", b = "y" } } end,
        },
        { "bad result #3 " .. OF .. "(string, buffer or it", function() return 200, nil, {} end },
        { "bad result #4 " .. OF .. "(no more results", function() return 200, nil, "a", "b" end },
        { "the handler has neither returned an answer nor used res", none },
        {
            "the handler has returned an answer, but used res",
            function(_, res)
                res:status(200)
                return 200
            end,
        },
    }
    local bodies = {
        { BODY:format("serve") .. "(string, number or buffer", function() return {} end },
        { BODY:format("serve") .. "(the body has 3 bytes, but", function() return "abc" end },
    }
    local server = check(http.serve(sockets.HOST, 0, function(req, res)
        local kind, i = req.path:match("^/(%a+)(%d+)$")
        if kind == "body" then return 200, { ["content-length"] = 2 }, bodies[tonumber(i)][2] end
        return routes[tonumber(i)][2](req, res)
    end))
    local function ask(kind, i)
        local url = ("http://%s:%d/%s%d"):format(sockets.HOST, server:port(), kind, i)
        local good, res = http.get(url, { proxy = false })
        return good and res.status
    end
    for i, case in ipairs(routes) do
        is(ask("route", i), 500, "the client gets 500")
        local message = take_logged()
        local said, line = placed(message)
        is(said:sub(1, #case[1]), case[1], "what is logged")
        ok(line, "has a line", message)
    end
    for i, case in ipairs(bodies) do
        ask("body", i)
        local said, line = placed(take_logged())
        is(said:sub(1, #case[1]), case[1], "of a body function")
        is(line, first_line(case[2]), "with its line")
    end
    server:close()
end)

-- Headers in another shape than a list would be dropped.
tap.test("lists", function()
    local function refuses(part, f, ...)
        local good, message = pcall(f, ...)
        message = placed(tostring(message))
        ok(not good and message:find(part, 1, true), part, message)
    end
    local KEY = "list of values of header a expected, got a table with key "
    local behind = setmetatable({}, { __index = { "x" } })
    local wrong = {
        [{ b = 1 }] = KEY .. 'string "b"',
        [{ "x", b = 1 }] = KEY .. 'string "b"',
        [{ [0] = "x" }] = KEY .. "number 0",
        [{ [1.5] = "x" }] = KEY .. "number 1.5",
        [{ [true] = "x" }] = KEY .. "boolean true",
        [{ [2] = "x" }] = "value of header a expected, got nil",
        [{ "x", nil, "z" }] = "value of header a expected, got nil",
        [{ "x", [2 ^ 40] = "z" }] = "value of header a expected, got nil",
        [{ { "x" } }] = "value of header a expected, got table",
        [behind] = "metatable with __index",
    }
    local url = "http://127.0.0.1:1/"
    for list, why in pairs(wrong) do
        local headers = { a = list }
        refuses(why, http.get, url, { headers = headers })
        refuses(why, http.post, url, "x", { trailers = headers })
    end
    local hidden = setmetatable({}, { __index = { a = "b" } })
    refuses("'headers' of 'get' (a table of its own", http.get, url, { headers = hidden })
    refuses("'trailers' of 'get' (a table of its own", http.get, url, { trailers = hidden })
    refuses("option 'body' of 'get' (string, buffer", http.get, url, { body = {} })
    refuses("#2 to 'post' (string, buffer", http.post, url, {})
    refuses("option 'body' of 'request' (string", http.request, { url = url, body = {} })
    local server = check(http.serve(sockets.HOST, 0, function(req, res)
        for list, why in pairs(wrong) do
            for _, name in ipairs({ "header", "trailer" }) do
                refuses(why, res[name], res, "a", list)
            end
        end
        res:header("a", { "x", 5 })
        res:header("b", {})
        res:header("c", req.headers.c)
        res:finish()
    end))
    url = ("http://%s:%d/"):format(sockets.HOST, server:port())
    local res = check(http.get(url, { headers = { c = { "y", "z" } }, proxy = false }))
    is(res.headers.a, "x, 5", "lists are lists")
    is(res.headers.b, nil, "of nothing, too")
    is(res.headers.c, "y, z", "of requests as well")
    -- Those that came may be sent on: they look up names, and have no others.
    res = check(http.get(url, { headers = res.headers, proxy = false }))
    is(res.headers.c, "y, z", "headers that came are sent on")
    server:close()
end)

-- A call that is refused has done nothing.
tap.test("where nothing can wait", function()
    local supervisor = require("supervisor")
    local server = check(http.serve(sockets.HOST, 0, function() return 200, nil, "well" end))
    local children = supervisor.start({
        { arg[0], "child" },
        { arg[0], "child" },
    })
    tap.raises(
        "close",
        "cannot wait in 'close'",
        string.gsub,
        "x",
        "x",
        function() server:close() end
    )
    tap.raises(
        "stop",
        "cannot wait in 'stop'",
        string.gsub,
        "x",
        "x",
        function() children:stop() end
    )
    local url = ("http://%s:%d/"):format(sockets.HOST, server:port())
    is(check(http.get(url, { proxy = false })):text(), "well", "a server goes on")
    is(server:close(), true, "and can be closed")
    local handle = children:handle(2)
    ok(handle and context.stat(handle), "children go on")
    children:stop()
    is(context.stat(handle), nil, "and can be stopped")
end)

-- A listen socket gives its connections to one: a server, or who calls 'accept'.
tap.test("one for a listen socket", function()
    local function handler() return 200, nil, "well" end
    local function refuses(name, why, f, ...)
        local good, message = pcall(f, ...)
        local wanted = ("bad argument #1 to '%s' (%s)"):format(name, why)
        local said = tostring(message)
        ok(not good and placed(message):find(wanted, 1, true), name, said)
    end
    local by_accept = "'accept' takes the connections of this one"
    local listener = sockets.listen()
    local server = check(http.serve(listener, handler))
    local served = "a server of http.serve takes the connections of this one"
    refuses("accept", served, tcp.accept, listener, print)
    refuses("accept", served, tcp.accept, listener, 0.001)
    refuses("accept", served, tcp.accept, listener)
    local another = "another server takes the connections of this one"
    refuses("serve", another, http.serve, listener, handler)
    local url = ("http://%s:%d/"):format(sockets.HOST, tcp.local_port(listener))
    is(check(http.get(url, { proxy = false })):text(), "well", "the server goes on")
    is(server:close(), true, "and is closed")
    refuses("serve", by_accept, function()
        listener = sockets.listen()
        listener:accept(handler)
        http.serve(listener, handler)
    end)
    listener:close()
    listener = sockets.listen()
    local result
    context.run(function() result = { listener:accept() } end)
    timer.sleep(0)
    refuses("serve", by_accept, http.serve, listener, handler)
    listener:close()
    wait_for(function() return result end)
    is(result[2], 204, "who waits is told of the end")
end)

-- What is known of a request that is over serves the next: neither a handler that goes on, nor who
-- keeps its objects, gets at another's.
tap.test("requests that are over leave others alone", function()
    local kept, may_end = {}, false
    local server = check(http.serve(sockets.HOST, 0, function(req, res)
        kept[req.path] = { req, res }
        if req.path == "/early" then
            res:finish("early")
            wait_for(function() return may_end end)
            return
        end
        wait_for(function() return may_end or req.path == "/first" end)
        return 200, nil, req.path
    end))
    local function get(path)
        local url = ("http://%s:%d%s"):format(sockets.HOST, server:port(), path)
        return check(http.get(url, { proxy = false })):text()
    end
    is(get("/first"), "/first", "it is answered")
    is(get("/early"), "early", "and so is one whose handler goes on")
    local answers = 0
    for i = 1, 5 do
        context.run(function()
            is(get("/" .. i), "/" .. i, "another is answered")
            answers = answers + 1
        end)
    end
    wait_for(function() return kept["/5"] end)
    for _, path in ipairs({ "/first", "/early" }) do
        local req, res = kept[path][1], kept[path][2]
        local good, message = pcall(function() res:status(404) end)
        is(good, false, path .. " has had its answer")
        is(placed(message), "'status' after the answer has begun", path .. ": and says so")
        is(res:finish("another"), false, path .. " has ended")
        is(select(2, req:read()), 11, path .. " has no body")
        is(req.path, path, path .. " is what it was")
        is(getmetatable(req) or getmetatable(res), false, path .. " shows nothing of others")
    end
    may_end = true
    wait_for(function() return answers == 5 end)
    server:close()
end)

tap.done()
