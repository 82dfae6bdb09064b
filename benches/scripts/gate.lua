-- Gate, agent, socket: node-lua gate.lua DIR PORT
-- The gate reads each connection's packets and sends them to the connection's own agent, a
-- context that writes its answer to the socket by its number.
local dir, port, role, fd = ...

if role == "agent" then
    local gate = context.parent()
    context.recv(gate, function(ok, packet)
        if not ok or packet == false then return context.recv(gate, nil) end
        tcp.write(fd, packet)
    end)
    return
end

local options = {
    read_head_endian = "L",
    read_head_bytes = 2,
    write_head_endian = "L",
    write_head_bytes = 2,
}
local listening, lsock = tcp.listen("127.0.0.1", tonumber(port), 16384)
assert(listening, lsock)
lsock:accept(function(ok, s)
    if not ok then return end
    s:set_rwopt(options)
    s:set_nodelay(true)
    tcp.set_wshared(s, true)
    local agent = context.create(dir .. "/gate.lua", dir, port, "agent", tcp.fd(s))
    while true do
        local more, packet = s:read()
        if not more then break end
        context.send(agent, packet)
    end
    context.send(agent, false)
    s:close()
end)
io.stdout:write("ready\n")
io.stdout:flush()
