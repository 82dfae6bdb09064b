-- Chat client: three members join, talk and leave.
--
-- Shows: several connections read one after the other, as the script wants it: what comes in
-- meanwhile is kept, in order.
-- Run: node-lua examples/chat_client.lua [port [host]]     (start chat_server.lua first)
-- Expected output:
--   ann hears: ann joins
--   ann hears: ben joins
--   ben hears: ben joins
--   ann hears: cat joins
--   ben hears: cat joins
--   cat hears: cat joins
--   ann hears: ben: hello, everyone
--   ben hears: ben: hello, everyone
--   cat hears: ben: hello, everyone
--   ann hears: cat leaves
--   ben hears: cat leaves

local port, host = ...
port, host = tonumber(port or 7104), host or "127.0.0.1"

local FRAMES = {
    read_head_endian = "B",
    read_head_bytes = 2,
    write_head_endian = "B",
    write_head_bytes = 2,
}

local members = {}

-- Every member reads one line.
local function listen()
    for _, member in ipairs(members) do
        local ok, line = member.sock:read(5)
        print(member.name .. " hears: " .. (ok and line:tostring() or context.strerror(line)))
    end
end

for _, name in ipairs({ "ann", "ben", "cat" }) do
    local ok, sock = tcp.connect(host, port, 5)
    if not ok then
        error(("cannot connect to %s:%d: %s"):format(host, port, context.strerror(sock)), 0)
    end
    sock:set_rwopt(FRAMES)
    sock:write(name)
    members[#members + 1] = { name = name, sock = sock }
    listen()
end

members[2].sock:write("hello, everyone")
listen()

table.remove(members).sock:close()
listen()

for _, member in ipairs(members) do
    member.sock:close()
end
