-- TLS beside nginx: servers, and what asks them. `benches/scripts/tls.sh` runs it all.
--
--     node-lua benches/scripts/tls.lua plain PORT             echoes, without TLS
--     node-lua benches/scripts/tls.lua echo PORT              echoes over TLS
--     node-lua benches/scripts/tls.lua proxy PORT UPSTREAM    TLS in front of a plain echo
--     node-lua benches/scripts/tls.lua hello PORT             one byte over TLS, then the end
--     node-lua benches/scripts/tls.lua load PORT PID SECONDS CONNECTIONS BYTES
--     node-lua benches/scripts/tls.lua handshakes PORT PID SECONDS new|resumed
--
-- PID is the server's process, whose CPU time is counted. Run from the repository's root: the
-- certificate is that of examples/tls_echo.lua.

local mode, port, upstream, seconds, connections, bytes = ...
local check = context.check
local ADDRESS = "127.0.0.1"
local AT_ONCE = 8

local function server() return check(tls.server({ cert = "examples/localhost.pem" })) end

local function echo(sock)
    sock:read(function(good, data)
        if not good then return sock:close() end
        sock:write(data)
    end)
end

-- Hands on what comes; what the other side does not take stops the reading.
local function pipe(from, to)
    context.run(function()
        local good, data = from:read()
        while good and to:write(data, true) do
            good, data = from:read()
        end
        from:close()
        to:close()
    end)
end

local function serve(handle)
    check(tcp.listen(ADDRESS, port)):accept(function(_, sock)
        sock:set_nodelay(true)
        handle(sock)
    end)
end

-- CPU seconds that a process has used.
local function cpu(pid)
    local file = assert(io.open("/proc/" .. pid .. "/stat"))
    local text = file:read("*a")
    file:close()
    local user, system = text:match("%) %S" .. (" %S+"):rep(10) .. " (%d+) (%d+)")
    return (user + system) / 100
end

local function connect(config)
    local sock = check(tcp.connect(ADDRESS, port))
    sock:set_nodelay(true)
    check(sock:start_tls(config, "localhost", 30))
    return sock
end

-- What differs shares no sessions.
local function client(name)
    return check(tls.client({ ca = "examples/localhost_ca.pem", alpn = { name } }))
end

local function report(what, count, before, start)
    local spent, time = cpu(upstream) - before, timer.now() - start
    print(("%s %.0f %.2f %.2f %.0f"):format(what, count, time, spent, count / spent))
    context.exit(0)
end

if mode == "plain" then
    serve(echo)
elseif mode == "echo" then
    local config = server()
    serve(function(sock)
        if not sock:start_tls(config, nil, 30) then return sock:close() end
        echo(sock)
    end)
elseif mode == "proxy" then
    local config = server()
    serve(function(sock)
        if not sock:start_tls(config, nil, 30) then return sock:close() end
        local other = check(tcp.connect(ADDRESS, upstream))
        other:set_nodelay(true)
        pipe(sock, other)
        pipe(other, sock)
    end)
elseif mode == "hello" then
    local config = server()
    serve(function(sock)
        if sock:start_tls(config, nil, 30) then sock:write("x") end
        sock:close()
    end)
elseif mode == "load" then
    local config, count, left = client("echo"), 0, tonumber(connections)
    local text = ("x"):rep(tonumber(bytes))
    local socks = {}
    for i = 1, connections do
        socks[i] = connect(config)
    end
    local before, start = cpu(upstream), timer.now()
    local stop = start + tonumber(seconds)
    for _, sock in ipairs(socks) do
        context.run(function()
            repeat
                sock:write(text)
                check(sock:read_bytes(#text))
                count = count + 1
            until timer.now() >= stop
            left = left - 1
            if left == 0 then report("echoes", count, before, start) end
        end)
    end
elseif mode == "handshakes" then
    local shared, count, left = connections == "resumed" and client("echo"), 0, AT_ONCE
    local resumed, started = 0, 0
    local before, start = cpu(upstream), timer.now()
    local stop = start + tonumber(seconds)
    for _ = 1, AT_ONCE do
        context.run(function()
            repeat
                started = started + 1
                local sock = connect(shared or client("new" .. started))
                if sock:tls().resumed then resumed = resumed + 1 end
                check(sock:read())
                sock:close()
                count = count + 1
            until timer.now() >= stop
            left = left - 1
            if left == 0 then
                report("handshakes (" .. resumed .. " resumed)", count, before, start)
            end
        end)
    end
end
