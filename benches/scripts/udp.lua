-- Datagram echo: node-lua udp.lua DIR PORT
local _, port = ...

local ok, sock = udp.open("127.0.0.1", tonumber(port))
assert(ok, sock)
sock:read(function(_, data, addr, from) sock:write(data, addr, from) end)
io.stdout:write("ready\n")
io.stdout:flush()
