-- Gate: accepts connections and hands the packets of each to an agent, a context of its own.
--
-- Shows: one context that owns all sockets, and many that do the work on all cores. The gate sends
-- each packet to the agent as a buffer, without a copy; the agent writes its answers straight to
-- the socket, by number, without a detour through the gate.
-- Run: node-lua examples/gate.lua [port [host]]
-- Talk to it: node-lua examples/gate_client.lua
-- Expected output:
--   gate on 127.0.0.1:7103

local port, host = ...
port, host = tonumber(port or 7103), host or "127.0.0.1"

local here = arg[0]:match("^(.*)/") or "."

local FRAMES = {
    read_head_endian = "B",
    read_head_bytes = 2,
    write_head_endian = "B",
    write_head_bytes = 2,
}

local ok, listener = tcp.listen(host, port)
if not ok then
    error(("cannot listen on %s:%d: %s"):format(host, port, context.strerror(listener)), 0)
end

listener:accept(function(_, sock)
    sock:set_rwopt(FRAMES)
    sock:set_nodelay(true)
    tcp.set_wshared(sock, true) -- other contexts may write to it
    local agent = context.create(here .. "/agent.lua", tcp.fd(sock), tcp.remote_port(sock))

    -- The agent may end first: on its own account, or by an error.
    context.wait(agent, function() sock:close() end)

    sock:read(function(good, packet)
        if not good then
            context.send(agent, false) -- after all packets: the agent says its last word and ends
        elseif not context.send(agent, packet) then
            context.destroy(agent) -- it is 65,536 packets behind, or gone already
        end
    end)
end)

print(("gate on %s:%d"):format(tcp.local_addr(listener), tcp.local_port(listener)))
