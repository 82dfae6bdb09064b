-- Echo server: sends every frame back to where it came from.
--
-- Shows: listening, accepting, framed reads and writes through callbacks. A frame is a head of two
-- bytes, most significant first, that counts the bytes after it.
-- Run: node-lua examples/echo_server.lua [port [host]]
-- Talk to it: node-lua examples/echo_client.lua
-- Expected output:
--   echo server on 127.0.0.1:7101

local port, host = ...
port, host = tonumber(port or 7101), host or "127.0.0.1"

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
    sock:read(function(good, frame)
        if good then
            sock:write(frame) -- the buffer itself, without a copy
        else
            sock:close()
        end
    end)
end)

print(("echo server on %s:%d"):format(tcp.local_addr(listener), tcp.local_port(listener)))
