-- Memory of HTTP connections that are kept and idle.
--
--     node-lua benches/scripts/http_idle.lua serve 8090
--     node-lua benches/scripts/http_idle.lua open 8090 [h2]     opens 10,000, each with a request

local mode, port, version = ...
local COUNT, AT_ONCE = 10000, 20
local check = context.check

if mode == "serve" then
    check(http.serve("127.0.0.1", port, { http2 = true, idle_timeout = 0 }, function(req)
        if req.path == "/" then return 200, nil, "hello" end
        collectgarbage()
        local status = io.open("/proc/self/status"):read("*a")
        return 200, nil, status:match("VmRSS:%s*(%d+)")
    end))
    return
end

local function header(name, value)
    return "\0" .. string.char(#name) .. name .. string.char(#value) .. value
end
local request = "GET / HTTP/1.1\r\nHost: x\r\n\r\n"
if version == "h2" then
    local head = header(":method", "GET") .. header(":scheme", "http") .. header(":path", "/")
    head = head .. header(":authority", "x")
    local settings = "\0\0\0\4\0\0\0\0\0" .. "\0\0\0\4\1\0\0\0\0"
    request = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" .. settings
    request = request .. "\0\0" .. string.char(#head) .. "\1\5\0\0\0\1" .. head
end

local function resident()
    local res = check(http.get("http://127.0.0.1:" .. port .. "/resident", { proxy = false }))
    return tonumber(res:text())
end

-- The least of some seconds, in which what was freed goes back to the system.
local function settled()
    local least = math.huge
    for _ = 1, 200 do
        timer.sleep(0.1)
        least = math.min(least, resident())
    end
    return least
end

local socks = {}
local function open(count)
    local left = AT_ONCE
    for _ = 1, AT_ONCE do
        context.run(function()
            for _ = 1, count / AT_ONCE do
                local sock = check(tcp.connect("127.0.0.1", port))
                sock:write(request)
                check(sock:read_until("hello"))
                socks[#socks + 1] = sock
            end
            left = left - 1
        end)
    end
    while left > 0 do
        timer.sleep(0.1)
    end
end

open(1000)
local before = settled()
open(COUNT - 1000)
local busy = resident()
local after = settled()
local each = (after - before) / (COUNT - 1000)
print(("%d connections: %d KiB, %.1f each; at once %d"):format(#socks, after, each, busy))
context.exit(0)
