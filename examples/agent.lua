-- Agent: serves one connection of the gate. Started by gate.lua.
--
-- Shows: state that belongs to one client only, kept in a context of its own; writing to a socket
-- of another context by its number.

local fd = ...
local gate = context.parent()
local count = 0

while true do
    local ok, packet = context.recv(gate)
    if not ok or not packet then break end
    count = count + 1
    tcp.write(fd, ("%d: %s"):format(count, packet:tostring()))
end

-- Waits until this is written: the gate closes the socket once this context has ended.
tcp.write(fd, ("bye after %d packets"):format(count), true)
