-- WebSockets beside plain connections: what a broadcast costs, and what idle ones hold.
--
--     node-lua benches/scripts/websocket.lua serve 7444 ws|tcp       broadcasts, or counts
--     node-lua benches/scripts/websocket.lua listen 7444 ws|tcp      500 that take all there is
--     node-lua benches/scripts/websocket.lua idle 7444 ws|tcp        10,000 that do nothing
--
-- The server begins once 500 listen: 1 KiB to each, 2,000 times, and tells MB by second and by
-- second of its CPU time. Of idle ones it prints what each thousand has made it hold.

local mode, port, kind = ...
local LISTENERS, IDLE, AT_ONCE, ROUNDS = 500, 10000, 20, 2000
local check = context.check

-- Seconds that this process has used of the CPU.
local function cpu()
    local stat = io.open("/proc/self/stat"):read("*a")
    local user, system = stat:match("%) " .. ("%S+ "):rep(11) .. "(%d+) (%d+)")
    return (tonumber(user) + tonumber(system)) / 100
end

local REQUEST = "GET /listen HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n"
    .. "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    .. "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"

local function broadcast(clients)
    local data = buffer.new(("x"):rep(1024))
    local write = kind == "ws" and clients[1].send or tcp.write
    local before, used = timer.now(), cpu()
    for _ = 1, ROUNDS do
        for i = 2, #clients do
            write(clients[i], data)
        end
        -- Nobody is further ahead of the others than one round.
        tcp.write(clients[1], data, true)
    end
    local seconds, spent = timer.now() - before, cpu() - used
    local mb = ROUNDS * #clients / 1024
    print(("%s: %.0f MB/s, %.0f MB a CPU second"):format(kind, mb / seconds, mb / spent))
    context.exit(0)
end

if mode == "serve" then
    local clients, idle = {}, 0
    check(tcp.listen("127.0.0.1", port, 16384)):accept(function(_, sock)
        local is_idle
        if kind == "ws" then
            local ok, ws, headers = websocket.accept(sock, { kind = "binary" })
            if not ok then return end
            sock, is_idle = ws, headers[":path"] ~= "/listen"
        else
            local ok, word = sock:read_bytes(1)
            is_idle = ok and word:tostring() == "i"
            sock:set_rwopt({ write_head_bytes = 2 })
        end
        if not is_idle then
            clients[#clients + 1] = sock
            if #clients == LISTENERS then broadcast(clients) end
            return
        end
        idle = idle + 1
        if idle % 1000 == 0 then
            local status = io.open("/proc/self/status"):read("*a")
            print(idle .. " connections, KiB resident: " .. status:match("VmRSS:%s*(%d+)"))
            io.stdout:flush()
        end
        local read = kind == "ws" and sock.recv or sock.read
        read(sock, function(good)
            if not good then sock:close() end
        end)
    end)
    return
end

local socks = {}
local function open()
    for _ = 1, (mode == "idle" and IDLE or LISTENERS) / AT_ONCE do
        local sock
        if mode == "idle" and kind == "ws" then
            sock = check(websocket.connect("ws://127.0.0.1:" .. port))
        else
            -- What takes everything is the same for both.
            sock = check(tcp.connect("127.0.0.1", port))
            sock:write(mode == "idle" and "i" or kind == "ws" and REQUEST or "l")
            sock:read(function(good)
                if not good then os.exit(0) end
            end)
        end
        socks[#socks + 1] = sock
    end
    if mode == "idle" and #socks == IDLE then
        print(IDLE .. " connected")
        timer.sleep(1)
        context.exit(0)
    end
end
for _ = 1, AT_ONCE do
    context.run(open)
end
