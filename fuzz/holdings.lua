-- What one context with a memory limit makes the process hold, whatever it does with the public
-- API: a random program from a seed, or a script with the limit in MiB, in such a context, among
-- others that live.
--
--     node-lua fuzz/holdings.lua SEED
--     node-lua fuzz/holdings.lua SCRIPT.lua MIB
--
-- prints the seed, the limit, by how much the process has grown at most, both in MiB, and how the
-- context has ended. Run by tests/memory_holdings.rs, which has the assertion.

local role, seed = ...
local MIB = 2 ^ 20

-- Others ------------------------------------------------------------------------------------------

if role == "deaf" then
    timer.sleep(600)
    return
end

-- Answers with what it is asked, and keeps no garbage.
if role == "echo" then
    if seed then context.register(seed) end
    context.subscribe("news.>", function() collectgarbage() end)
    local function answer(value, from, session)
        if session > 0 then context.reply(from, session, value) end
        return type(value) == "number"
    end
    context.recv(0, function(_, ...)
        if not answer(...) then collectgarbage() end
    end)
    return
end

-- Sockets that say nothing, sockets that say much, and sockets that others write to.
if role == "peer" then
    local held = {}
    local function serve(on_accept)
        local _, listener = tcp.listen("127.0.0.1", 0)
        listener:accept(on_accept)
        return tcp.local_port(listener)
    end
    local silent = serve(function(_, sock) held[#held + 1] = sock end)
    -- Heads of two bytes give frames of 1,024 bytes, heads of four one of 67,109,888.
    local piece = buffer.new(("\0\4" .. ("y"):rep(1024)):rep(64))
    local noisy = serve(function(_, sock)
        held[#held + 1] = sock
        for _ = 1, 1000 do
            if not sock:write(piece, true) then return end
        end
    end)
    local fds = {}
    for i = 1, 4 do
        local _, sock = tcp.connect("127.0.0.1", silent)
        sock:set_wshared(true)
        held[#held + 1], fds[i] = sock, sock:fd()
    end
    context.send(context.parent(), { silent = silent, noisy = noisy, fds = fds })
    -- Asked to, it connects so often to a port, writes this there, now and then in two halves, and
    -- reads nothing, for a second.
    context.recv(0, function(_, wanted)
        if type(wanted) ~= "table" then return end
        local all, data = {}, buffer.new(wanted.data)
        for i = 1, wanted.count do
            local ok, sock = tcp.connect("127.0.0.1", wanted.port, 2)
            if not ok then break end
            local half = i % 4 == 0 and math.floor(#data / 2) or #data
            sock:write(data:slice(0, half))
            if half < #data then sock:write(data:slice(half)) end
            all[i] = sock
        end
        timer.timeout(1, function()
            for _, sock in pairs(all) do
                sock:abort()
            end
        end)
    end)
    return
end

-- Ends at once, or once it is let.
if role == "child" then return end

-- The program -------------------------------------------------------------------------------------

-- Numbers from the seed alone.
local state = tonumber(seed or role)
local function random(low, high)
    state = (state * 16807) % 2147483647
    return low + state % math.floor(high - low + 1)
end

local function pick(list) return list[random(1, #list)] end

-- A finaliser that does not end, once `is_over()`: it runs on, is caught, calls itself, makes
-- others, or more and more of something.
local function finalise(is_over)
    local run
    local kinds = {
        function()
            while true do
            end
        end,
        function()
            while true do
                pcall(run)
            end
        end,
        function() return run() end,
        function()
            run()
            run()
        end,
        function()
            for _ = 1, 100 do
                finalise(is_over)
            end
        end,
        function() coroutine.wrap(run)() end,
        function() ("a"):rep(1e5):find(("a-"):rep(50) .. "b") end,
        function() table.sort({ 1, 2, 3 }, run) end,
        function()
            local t = {}
            while true do
                t[#t + 1] = ("x"):rep(2 ^ 16) .. #t
            end
        end,
    }
    run = pick(kinds)
    local proxy = newproxy(true)
    getmetatable(proxy).__gc = function()
        if is_over() then run() end
    end
    return proxy
end

local function program(file, limit, deaf, echo, peer, attacker, leaves)
    local keep, n = {}, 0
    local ending = false
    -- Some take what they get until they are ended, most let go in time.
    local careful = random(1, 4) > 1
    local largest = careful and limit / 20 or limit / 3

    local function hold(value)
        n = n + 1
        keep[n % 400 + 1] = value
    end

    -- Mostly small, sometimes as much as may be held.
    local function size()
        local kind = random(1, 10)
        if kind <= 4 then return random(0, 200) end
        if kind <= 7 then return random(200, 20000) end
        if kind <= 9 then return random(2 ^ 14, math.min(largest, 2 ^ 20)) end
        return random(largest / 2, largest)
    end

    local function text() return ("x"):rep(size()) end

    local function filled()
        local b = buffer.new(random(0, 1) == 0 and 0 or size())
        for _ = 1, random(1, 3) do
            b:append(text())
        end
        return b
    end

    local function value()
        local kind = random(1, 9)
        if kind <= 2 then return text() end
        if kind <= 4 then return filled() end
        if kind == 5 then return random(1, 1e6) end
        if kind == 6 then
            local t = {}
            for i = 1, random(1, 20000) do
                t[i] = i + 0.5
            end
            return t
        end
        if kind == 7 then
            -- The same over and over, which is small here and large on its way.
            local t, one = {}, random(0, 1) == 0 and text() or buffer.new "small"
            for i = 1, random(1, 2000) do
                t[i] = one
            end
            return t
        end
        if kind == 8 then
            local t = {}
            for i = 1, random(1, 3000) do
                t["k" .. i] = { i }
            end
            return t
        end
        return { filled(), text(), { value = filled():slice(0, 0) } }
    end

    local function view(b)
        local from = random(0, #b)
        local part = b:slice(from, random(0, #b - from))
        if random(0, 1) == 0 then b:release() end
        return part
    end

    local function socket(port)
        local ok, sock = tcp.connect("127.0.0.1", port, 2)
        return ok and sock or nil
    end

    local function target() return pick { deaf, echo, echo, context.self() } end
    local function handle() return pick { deaf, context.find(echo) or deaf, context.self() } end

    local actions = {
        function() hold(text()) end,
        function() hold(filled()) end,
        function() hold(view(filled())) end,
        function()
            local b = filled()
            for _ = 1, random(1, 50) do
                hold(b:split(random(0, math.min(#b, 5000))))
            end
            hold(b)
        end,
        function() context.send(target(), value()) end,
        function()
            local v = value()
            for _ = 1, random(1, 300) do
                if not context.send(target(), v) then break end
            end
        end,
        function()
            local to = pick { deaf, deaf, echo }
            for i = 1, random(1, 30000) do
                if not context.send(to, i) then break end
            end
        end,
        function() context.query(echo, value(), 1) end,
        function()
            local v, to = value(), pick { deaf, echo }
            for _ = 1, random(1, 200) do
                context.query(to, v, function(_, answer) hold(answer) end)
            end
        end,
        function()
            for _ = 1, random(1, 20) do
                hold(select(2, context.recv(0, 0.001)))
            end
        end,
        function()
            for i = 1, random(1, 50) do
                context.reply(handle(), i, value())
            end
        end,
        function()
            for _ = 1, random(1, 20) do
                context.publish("news.today", value())
            end
        end,
        function()
            for i = 1, random(1, 300) do
                local words = {}
                for w = 1, random(1, 40) do
                    words[w] = "w" .. random(1, 1000) .. i
                end
                context.subscribe(table.concat(words, "."):sub(1, 250) .. "x", hold)
            end
        end,
        function()
            for i = 1, random(1, 100) do
                context.register(("n"):rep(random(1, 200)) .. i)
            end
        end,
        function()
            local sock = socket(peer.silent)
            if not sock then return end
            hold(sock)
            local v = random(0, 1) == 0 and text() or filled()
            for _ = 1, random(1, 200) do
                sock:write(v)
            end
            if random(0, 3) == 0 then sock:close() end
        end,
        function()
            local all, v = {}, text():sub(1, 200000)
            for i = 1, random(1, 30) do
                all[i] = socket(peer.silent)
            end
            for _, sock in pairs(all) do
                sock:write(v)
            end
            for _, sock in pairs(all) do
                sock:write(v)
                hold(sock)
            end
        end,
        function()
            local sock = socket(peer.noisy)
            if not sock then return end
            sock:set_rwopt { read_head_bytes = pick { 0, 2, 2, 2, 4 } }
            hold(sock)
            for _ = 1, random(1, 500) do
                local ok, frame = sock:read(0.2)
                if not ok then break end
                if random(1, 20) == 1 then hold(frame) end
            end
        end,
        function()
            for _ = 1, random(1, 40) do
                local sock = socket(peer.noisy)
                if not sock then break end
                sock:set_rwopt { read_head_bytes = 4, read_head_max = pick { 0, 2 ^ 27 } }
                sock:read(function() end)
                hold(sock)
            end
        end,
        function()
            local v = pick { text(), filled() }
            for _ = 1, random(1, 100) do
                tcp.write(pick(peer.fds), v)
            end
        end,
        function()
            for _ = 1, random(1, 50000) do
                hold(timer.timeout(random(1, 3600), hold))
            end
        end,
        function()
            for _ = 1, random(1, 2000) do
                local f = coroutine.wrap(function(...) return coroutine.yield(...) end)
                f(n)
                hold(f)
            end
        end,
        function()
            local b = require "string.buffer".new()
            for _ = 1, random(1, 20) do
                b:put(text())
            end
            hold(b)
        end,
        function()
            local v, to = value(), target()
            local proxy = newproxy(true)
            getmetatable(proxy).__gc = function() context.send(to, v) end
        end,
        function()
            for _ = 1, random(1, 5) do
                pcall(context.create, { file = file, memory = MIB * 2 }, "child", value())
            end
        end,
        function()
            for _ = 1, random(1, 20) do
                context.log(text())
            end
        end,
        function() context.run(error, text()) end,
        function() pcall(context.name, ("n"):rep(random(1, 300))) end,
        function()
            for _ = 1, random(1, 100) do
                context.monitor(pick { deaf, echo }, function() end)
            end
        end,
        function()
            -- One in so many stays, so that each page holds little.
            local every, t = random(2, 200), {}
            local length = random(1, 900)
            for i = 1, limit / 4 / (length + 40) do
                t[i] = ("s"):rep(length) .. i
            end
            for i = 1, #t do
                if i % every ~= 0 then t[i] = nil end
            end
            collectgarbage()
            hold(t)
        end,
        function()
            -- One argument many times over.
            local t, v = { file, "child" }, text()
            for i = 3, random(3, 4000) do
                t[i] = v
            end
            pcall(context.create, unpack(t))
        end,
        function()
            local open = {}
            for i = 1, random(1, 3000) do
                open[i] = io.open "/dev/zero"
                if open[i] then open[i]:read(1) end
            end
            hold(open)
        end,
        function()
            local function deepen() pcall(string.gsub, "a", "a", deepen) end
            deepen()
        end,
        function() require "ffi".new("char[?]", size()) end,
        function()
            -- To itself, and read now and then.
            local ok, sock = udp.open("127.0.0.1", 0)
            if not ok then return end
            hold(sock)
            local v = text():sub(1, 60000)
            for _ = 1, random(1, 300) do
                local notice = random(0, 3) == 0 and hold or nil
                sock:write(v, "127.0.0.1", sock:local_port(), notice)
            end
            timer.sleep(0)
            while random(0, 3) > 0 do
                local good, data = sock:read(0.001)
                if not good then break end
                hold(data)
            end
        end,
        function()
            if not json then return end
            local options = {
                sort_keys = random(0, 1) == 0,
                invalid_utf8 = "replace",
                max_bytes = 2 ^ 30,
            }
            local v = pick { value(), { value(), value() }, ("\255"):rep(size()) }
            local written = json.encode(v, options)
            hold(written)
            hold(json.decode(written, { max_bytes = 2 ^ 30, mark_arrays = random(0, 1) == 0 }))
            local escaped = '"' .. ("\\n"):rep(size() / 4) .. '"'
            hold(json.decode(pick { escaped, buffer.new(escaped) }, { max_bytes = 2 ^ 30 }))
        end,
        function()
            if not msgpack then return end
            local v = pick { value(), { value(), value() }, ("\255"):rep(size()) }
            local written = msgpack.encode(v, { sort_keys = random(0, 1) == 0, max_bytes = 2 ^ 30 })
            hold(written)
            local options = { max_bytes = 2 ^ 30, binary = pick { "string", "buffer" } }
            hold(msgpack.decode(pick { written, buffer.new(written) }, options))
        end,
        function()
            if not tls then return end
            for i = 1, random(1, 300) do
                local names = { "p" .. i .. n, ("x"):rep(random(1, 200)) }
                hold(select(2, tls.client { verify = false, alpn = names }))
            end
        end,
        function()
            -- To itself: some end the handshake, some begin it with what is none.
            if not tls then return end
            local pem = file:gsub("fuzz/holdings.lua$", "examples/localhost.pem")
            local server = select(2, tls.server { cert = pem })
            local client = select(2, tls.client { verify = false })
            local listener = select(2, tcp.listen("127.0.0.1", 0))
            listener:accept(function(_, sock)
                hold(sock)
                if sock:start_tls(server, nil, 2) and random(0, 1) == 0 then
                    sock:read_bytes(1, 1)
                end
            end)
            local hello = "\22\3\1\58\152\1\0\253\232\3\3" .. ("r"):rep(14990)
            local v = text():sub(1, 200000)
            for _ = 1, random(1, 60) do
                local ok, sock = tcp.connect("127.0.0.1", listener:local_port())
                if not ok then break end
                hold(sock)
                if random(0, 2) == 0 then
                    sock:write(hello)
                elseif sock:start_tls(client, "localhost", 2) then
                    sock:write(v, random(0, 1) == 0 and hold or nil)
                end
            end
            listener:close()
        end,
        function()
            if not http then return end
            local options =
                { body_rate = 0, http2 = true, head_bytes = pick { 1024, 2 ^ 16, 2 ^ 20 } }
            options.headers = pick { 100, 10000 }
            local client
            if tls and random(0, 2) == 0 then
                local pem = file:gsub("fuzz/holdings.lua$", "examples/localhost.pem")
                local alpn = { "h2", "http/1.1" }
                options.tls = select(2, tls.server { cert = pem, alpn = alpn })
                client = select(2, tls.client { verify = false, alpn = alpn })
            end
            local v, headers, kind = value(), {}, random(1, 5)
            if type(v) == "table" or type(v) == "number" then v = text() end
            for i = 1, random(0, 30) do
                headers["h" .. i] = pick { "x", text():sub(1, 50000), { "a", "b" } }
            end
            local ok, server = http.serve("127.0.0.1", 0, options, function(req, res)
                hold(req)
                if kind == 1 then
                    hold(req.headers)
                    return 200, headers, v
                elseif kind == 2 then
                    for piece in req.chunks do
                        if random(1, 4) == 1 then hold(piece) end
                    end
                    return 200, {}, ""
                elseif kind == 3 then
                    for _ = 1, random(1, 50) do
                        if not res:write(v) then return end
                    end
                    return
                elseif kind == 4 then
                    res:sendfile(file)
                    return
                end
                for name, header in pairs(headers) do
                    res:header(name, header)
                end
                timer.sleep(1)
                res:finish(v)
            end)
            if not ok then return end
            local head = "GET / HTTP/1.1\r\nHost: x\r\n"
            context.send(attacker, {
                port = server:port(),
                count = random(1, 200),
                data = pick {
                    (head .. "\r\n"):rep(random(1, 300)),
                    head .. "A: " .. ("x"):rep(random(1, 2 ^ 20)),
                    head .. ("A: b\r\n"):rep(random(1, 9000)) .. "\r\n",
                    "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9999999\r\n\r\n"
                        .. ("x"):rep(random(1, 2 ^ 20)),
                    -- HTTP/2: a stream each, with as many headers; DATA.
                    "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0"
                        .. "\0\7\15\1\5\0\0\0\1\130\134\132\65\1x\64\2aa\1b"
                        .. ("\190"):rep(1796)
                        .. ("\0\64\0\0\0\0\0\0\1" .. ("x"):rep(16384)):rep(random(0, 20)),
                },
            })
            for _ = 1, random(1, 30) do
                context.run(function()
                    local good, res = http.request {
                        url = (client and "https" or "http") .. "://localhost:" .. server:port(),
                        tls = client,
                        body = pick { v, buffer.new(v) },
                        headers = headers,
                        timeout = 1,
                    }
                    if not good then return end
                    hold(res)
                    if random(0, 1) == 0 then hold(res:body(2 ^ 30)) end
                end)
            end
            timer.sleep(random(0, 50) / 1000)
            if random(0, 1) == 0 then server:close(0) end
        end,
        function()
            if not http or not websocket then return end
            local options =
                { deflate = random(0, 1) == 0, max_message = pick { 2 ^ 16, 2 ^ 31 - 1 } }
            local ok, server = http.serve("127.0.0.1", 0, function(req, res)
                local good, ws = websocket.accept(req, res, options)
                if not good then return end
                hold(ws)
                while random(0, 9) > 0 do
                    local came, data = ws:recv()
                    if not came then return end
                    if random(0, 3) == 0 then hold(data) end
                    ws:send(data, "binary")
                end
            end)
            if not ok then return end
            local v = pick { text(), filled(), ("z"):rep(random(1, limit)) }
            for _ = 1, random(1, 30) do
                local good, ws = websocket.connect(
                    "ws://127.0.0.1:" .. server:port(),
                    { deflate = options.deflate }
                )
                if not good then break end
                hold(ws)
                for _ = 1, random(1, 20) do
                    ws:send(v, "binary", random(0, 3) == 0 and hold or nil)
                end
                if random(0, 1) == 0 then hold(select(2, ws:recv(0.01))) end
            end
            if random(0, 1) == 0 then server:close(0) end
        end,
        function()
            -- Small writes of which the script is told.
            local sock = socket(pick { peer.silent, peer.noisy })
            if not sock then return end
            hold(sock)
            for _ = 1, random(1, 20000) do
                sock:write("x", hold)
            end
        end,
        function()
            context.stat()
            context.list()
        end,
        function() collectgarbage() end,
        function() timer.sleep(random(1, 20) / 1000) end,
        function()
            for _ = 1, random(1, 50) do
                hold(finalise(function() return ending end))
            end
        end,
    }

    for _ = 1, random(50, 600) do
        local ok, why = pcall(pick(actions))
        if not ok and tostring(why):find("memory", 1, true) then collectgarbage() end
        local used = context.stat().buffer_bytes + collectgarbage "count" * 1024
        if careful and used > limit / 3 then
            for i = 1, 400 do
                keep[i] = random(1, 3) == 1 and keep[i] or nil
            end
            collectgarbage()
        end
        if random(1, 10) == 1 then timer.sleep(0) end
    end
    if leaves then
        for i = 1, 400 do
            keep[i] = nil
        end
        collectgarbage()
        for _ = 1, random(1, 9) do
            local sock = socket(peer.silent)
            if not sock then break end
            sock:write(buffer.new(("z"):rep(random(1, limit / 3))))
            if random(0, 1) == 0 then sock:close() end
        end
    end
    ending = true
    pick { context.destroy, error, tostring } "over"
end

if role == "case" then
    local _, setup = context.recv(context.parent())
    local s = setup
    return program(s.file, s.limit, s.deaf, s.echo, s.peer, s.attacker, s.leaves)
end

-- Measured ----------------------------------------------------------------------------------------

local function peak()
    local status = io.open "/proc/self/status"
    local all = status:read "*a"
    status:close()
    return tonumber(all:match "VmHWM:%s+(%d+)") / 1024
end

local file = arg[0]
local script = role:match "%.lua$" and role
local limit = (script and tonumber(seed) or random(4, 64)) * MIB
local peer_handle = context.create(file, "peer")
local _, peer = context.recv(peer_handle)
local deaf = context.create(file, "deaf")
local echo, echo_limit = "echo", nil
if script then
    echo = context.create(file, "echo")
    context.query(echo, 1)
else
    -- What it makes of what it is sent is its own, so it has a limit too; there is always one.
    echo_limit = ({ 2, 8, 32 })[limit / MIB % 3 + 1] * MIB
    local function start()
        local handle = context.create({ file = file, memory = echo_limit }, "echo", echo)
        context.monitor(handle, start)
        context.query(handle, 1)
    end
    start()
end
local options = { file = script or file, memory = limit }
local before = peak()
local reason
-- Every fourth program comes several times, each of which leaves something behind.
local times = not script and role % 4 == 0 and 6 or 1
for _ = 1, times do
    local case
    if script then
        case = context.create(options, deaf, peer.silent, peer.noisy, echo, peer_handle)
    else
        case = context.create(options, "case", random(1, 2 ^ 30))
        local setup = { file = file, limit = limit, deaf = deaf, echo = echo, peer = peer }
        setup.attacker, setup.leaves = peer_handle, times > 1
        context.send(case, setup)
    end
    context.monitor(case, function(_, ...) reason = ... end)
    context.wait(case, script and 50 or 8 / times)
    context.destroy(case)
    assert(select(2, context.wait(case, 60)) ~= 208, "a context does not end")
    timer.sleep(0)
end
if echo_limit then before = before + 2 * echo_limit / MIB end
-- What contexts leave, all together.
if times > 1 then before = before + 128 end
print(role, limit / MIB, math.max(0, math.ceil(peak() - before)), reason)
os.exit(0)
