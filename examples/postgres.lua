-- PostgreSQL's protocol through frames: the handshake of a client, beside a server that has just as
-- much of it as that takes.
--
-- Shows: heads whose length counts itself, and a byte in front of it; `reframe`, as only the first
-- message of a client has no type.
-- Run: node-lua examples/postgres.lua [port [user [database]]]    (without a port: against itself)
-- Expected output:
--   the server got user=alice database=shop
--   server_version is 15.0
--   ready for queries, transaction status I

local port, user, database = ...
user, database = user or "alice", database or "shop"

-- After the first message: type, length, body; read and written whole.
local MESSAGES = {
    read_head_bytes = 4,
    read_head_endian = "B",
    read_head_adjust = -4,
    read_head_offset = 1,
    write_head_bytes = 4,
    write_head_endian = "B",
    write_head_adjust = -4,
    write_head_offset = 1,
}
-- The first: the length, and the body that follows it.
local FIRST = {
    read_head_bytes = 4,
    read_head_endian = "B",
    read_head_adjust = -4,
    write_head_bytes = 4,
    write_head_endian = "B",
    write_head_adjust = -4,
}

-- A message of a type. The length is filled in when it is written.
local function message(kind, body) return kind .. "\0\0\0\0" .. body end

-- Serves one client.
local function serve(sock)
    sock:set_rwopt(FIRST)
    local startup = context.check(sock:read(5)):tostring()
    local got = {}
    for name, value in startup:sub(5):gmatch("(%Z+)%z(%Z+)%z") do
        got[#got + 1] = name .. "=" .. value
    end
    print("the server got " .. table.concat(got, " "))
    sock:reframe(MESSAGES)
    sock:write(message("R", "\0\0\0\0"))
    sock:write(message("S", "server_version\0" .. "15.0\0"))
    sock:write(message("Z", "I"))
    local bye = context.check(sock:read(5))
    assert(bye:tostring():sub(1, 1) == "X")
    sock:close()
end

if not port then
    local listener = context.check(tcp.listen("127.0.0.1", 0))
    port = tcp.local_port(listener)
    listener:accept(function(_, sock)
        listener:close()
        serve(sock)
    end)
end

local sock = context.check(tcp.connect("127.0.0.1", tonumber(port), 5))
sock:set_rwopt(FIRST)
local VERSION = "\0\3\0\0"
sock:write(VERSION .. "user\0" .. user .. "\0database\0" .. database .. "\0\0")
sock:reframe(MESSAGES)
for frame in function() return context.check(sock:read(5)) end do
    local text = frame:tostring()
    local kind, body = text:sub(1, 1), text:sub(6)
    if kind == "S" then
        local name, value = body:match("^(%Z+)%z(%Z*)")
        if name == "server_version" then print(name .. " is " .. value) end
    elseif kind == "R" and body ~= "\0\0\0\0" then
        error("the server wants a password")
    elseif kind == "E" then
        error("the server says " .. body:gsub("%z", " "))
    elseif kind == "Z" then
        print("ready for queries, transaction status " .. body)
        break
    end
end
sock:write(message("X", ""))
sock:close()
