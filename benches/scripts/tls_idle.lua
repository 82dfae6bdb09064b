-- Memory of idle TLS connections.
--
--     node-lua benches/scripts/tls_idle.lua serve 7443 [plain]     prints what each thousand takes
--     node-lua benches/scripts/tls_idle.lua open 7443 [plain]      opens 10,000
--
-- Run from the repository's root: the certificate is that of examples/tls_echo.lua.

local mode, port, plain = ...
local COUNT, AT_ONCE = 10000, 20
local check = context.check

if mode == "serve" then
    local server = check(tls.server({ cert = "examples/localhost.pem" }))
    local count = 0
    check(tcp.listen("127.0.0.1", port)):accept(function(_, sock)
        if not plain and not sock:start_tls(server, nil, 30) then return sock:close() end
        count = count + 1
        if count % 1000 == 0 then
            local status = io.open("/proc/self/status"):read("*a")
            print(count .. " connections, KiB resident: " .. status:match("VmRSS:%s*(%d+)"))
            io.stdout:flush()
        end
        sock:read(function(good, data)
            if good then
                sock:write(data)
            else
                sock:close()
            end
        end)
    end)
    return
end

local client = check(tls.client({ ca = "examples/localhost_ca.pem" }))
local socks, before = {}, timer.now()
local function open()
    for _ = 1, COUNT / AT_ONCE do
        local sock = check(tcp.connect("127.0.0.1", port))
        if not plain then check(sock:start_tls(client, "localhost")) end
        socks[#socks + 1] = sock
    end
    if #socks == COUNT then
        print(("%d connections in %.1f s"):format(#socks, timer.now() - before))
        context.exit(0)
    end
end
for _ = 1, AT_ONCE do
    context.run(open)
end
