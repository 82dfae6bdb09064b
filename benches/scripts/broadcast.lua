-- Broadcast: node-lua broadcast.lua DIR PORT
-- A frame with the decimal number n from any client sends 1 KiB n times to every client.
local _, port = ...
local options = {
    read_head_endian = "L",
    read_head_bytes = 2,
    write_head_endian = "L",
    write_head_bytes = 2,
}
local clients = {}
local data = buffer.new(("x"):rep(1024))

local listening, lsock = tcp.listen("127.0.0.1", tonumber(port), 16384)
assert(listening, lsock)
lsock:accept(function(ok, s)
    if not ok then return end
    s:set_rwopt(options)
    s:set_nodelay(true)
    clients[#clients + 1] = s
    while true do
        local more, order = s:read()
        if not more then break end
        for _ = 1, tonumber(order:tostring()) do
            for i = 1, #clients do
                clients[i]:write(data)
            end
        end
    end
    s:close()
end)
io.stdout:write("ready\n")
io.stdout:flush()
