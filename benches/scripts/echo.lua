-- Framed echo: node-lua echo.lua DIR PORT CONTEXTS HEAD_BYTES [REUSING]
-- With REUSING 1 each connection reads all its frames into one buffer.
local dir, port, contexts, head, reusing = ...
port, contexts, head = tonumber(port), tonumber(contexts), tonumber(head)

local options = {
    read_head_endian = "L",
    read_head_bytes = head,
    write_head_endian = "L",
    write_head_bytes = head,
}

local function serve(s)
    s:set_rwopt(options)
    s:set_nodelay(true)
    if reusing == "1" then
        local b = buffer.new(256)
        while s:read_into(b) do
            s:write(b)
        end
        return s:close()
    end
    while true do
        local ok, b = s:read()
        if not ok then break end
        s:write(b)
    end
    s:close()
end

-- With several contexts each listens on the port itself and the kernel spreads the connections.
local listening, lsock = tcp.listen("127.0.0.1", port, contexts ~= 1 or 16384)
assert(listening, lsock)
lsock:accept(function(ok, s)
    if ok then serve(s) end
end)
if contexts > 1 then
    context.create(dir .. "/echo.lua", dir, port, -(contexts - 1), head, reusing)
elseif contexts < -1 then
    context.create(dir .. "/echo.lua", dir, port, contexts + 1, head, reusing)
end
if contexts == 1 or contexts == -1 then
    io.stdout:write("ready\n")
    io.stdout:flush()
end
