-- Chat server: whatever a member says goes to all members.
--
-- Shows: one buffer written to any number of sockets. It is stored once, whoever still has to send
-- it; a member that does not keep up is dropped rather than remembered for ever.
-- Run: node-lua examples/chat_server.lua [port [host]]
-- Talk to it: node-lua examples/chat_client.lua
-- Expected output:
--   chat server on 127.0.0.1:7104

local port, host = ...
port, host = tonumber(port or 7104), host or "127.0.0.1"

local LINE_BYTES_MAX = 512
local QUEUE_BYTES_MAX = 256 * 1024 -- of lines that a member has not taken yet

local FRAMES = {
    read_head_endian = "B",
    read_head_bytes = 2,
    read_head_max = LINE_BYTES_MAX,
    write_head_endian = "B",
    write_head_bytes = 2,
}

local ok, listener = tcp.listen(host, port)
if not ok then
    error(("cannot listen on %s:%d: %s"):format(host, port, context.strerror(listener)), 0)
end

local members = {} -- socket → name

local function leave(sock)
    members[sock] = nil
    sock:close()
end

local function say(text)
    local line = buffer.new(text)
    for sock in pairs(members) do
        if tcp.stat(sock).write_queue_bytes > QUEUE_BYTES_MAX then
            leave(sock)
        else
            sock:write(line)
        end
    end
end

listener:accept(function(_, sock)
    sock:set_rwopt(FRAMES)
    sock:read(function(good, line)
        local name = members[sock]
        if not good then
            leave(sock)
            if name then say(name .. " leaves") end
        elseif not name then -- the first line is the member's name
            members[sock] = line:tostring()
            say(members[sock] .. " joins")
        else
            say(name .. ": " .. line:tostring())
        end
    end)
end)

print(("chat server on %s:%d"):format(tcp.local_addr(listener), tcp.local_port(listener)))
