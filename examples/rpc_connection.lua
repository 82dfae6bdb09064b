-- RPC connection: owns one connection to the RPC server. Started by rpc_client.lua.
--
-- Shows: answering a query later, from another callback: all it takes is `from` and `session`.

local codec = require("string.buffer")

local port, host = ...

local FRAMES = { read_head_bytes = 4, write_head_bytes = 4 }

local ok, sock = tcp.connect(host, port, 5)
if not ok then
    -- Whoever has asked already, or asks now, gets code 207: nobody will answer.
    error(("cannot connect to %s:%d: %s"):format(host, port, context.strerror(sock)), 0)
end
sock:set_rwopt(FRAMES)
sock:set_nodelay(true)

local asked, last = {}, 0 -- request id → who asked

sock:read(function(good, frame)
    if not good then
        context.destroy(nil) -- callers still waiting get 207
        return
    end
    local answer = codec.decode(frame:tostring())
    local caller = asked[answer.id]
    asked[answer.id] = nil
    if caller then context.reply(caller.from, caller.session, answer) end
end)

context.recv(0, function(_, request, from, session)
    last = last + 1
    request.id = last
    asked[last] = { from = from, session = session }
    sock:write(codec.encode(request))
end)
