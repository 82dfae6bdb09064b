-- Unix socket: a server and its client on one machine, without a port.
--
-- Shows: tcp.listens and tcp.connects; apart from these two, such a socket works like any other.
-- The file stays when the server ends; a server that starts again replaces it.
-- Run: node-lua examples/unix_socket.lua [path]
-- Expected output:
--   the server hears: ping
--   the client hears: pong

local path = ... or "/tmp/node-lua-example.sock"

local LINES = { read_head_bytes = 1, write_head_bytes = 1 }

local ok, listener = tcp.listens(path)
if not ok then error(("cannot listen on %s: %s"):format(path, context.strerror(listener)), 0) end

-- The server runs in a coroutine of its own: the client below runs while it waits.
context.run(function()
    local _, sock = assert(listener:accept(5))
    sock:set_rwopt(LINES)
    local _, line = assert(sock:read(5))
    print("the server hears: " .. line:tostring())
    sock:write("pong")
    sock:close() -- what was written before is still sent
    listener:close()
end)

local connected, sock = tcp.connects(path, 5)
if not connected then
    error(("cannot connect to %s: %s"):format(path, context.strerror(sock)), 0)
end
sock:set_rwopt(LINES)
sock:write("ping")
local _, line = assert(sock:read(5))
print("the client hears: " .. line:tostring())
sock:close()
os.remove(path)
