-- Idle: node-lua idle.lua DIR PORT
-- A hundred contexts that wait for a message, and connections that wait for bytes.
local dir, port, role = ...
if role == "child" then
    context.recv(0, function() end)
    context.send(context.parent(), true)
    return
end
local listening, lsock = tcp.listen("127.0.0.1", tonumber(port), 16384)
assert(listening, lsock)
lsock:accept(function(ok, s)
    if ok then s:read(function() end) end
end)
for _ = 1, 100 do
    context.recv(context.create(dir .. "/idle.lua", dir, port, "child"))
end
io.stdout:write("ready\n")
io.stdout:flush()
