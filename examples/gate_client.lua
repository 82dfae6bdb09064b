-- Gate client: three clients at once; each is served by an agent that counts its packets.
--
-- Shows: sending without waiting for answers, then half a conversation later reading them all.
-- Run: node-lua examples/gate_client.lua [port [host]]     (start gate.lua first)
-- Expected output:
--   ann 1: hello
--   ann 2: again
--   ben 1: hello
--   ben 2: again
--   cat 1: hello
--   cat 2: again

local port, host = ...
port, host = tonumber(port or 7103), host or "127.0.0.1"

local FRAMES = {
    read_head_endian = "B",
    read_head_bytes = 2,
    write_head_endian = "B",
    write_head_bytes = 2,
}

local NAMES = { "ann", "ben", "cat" }

local socks = {}
for _, name in ipairs(NAMES) do
    local ok, sock = tcp.connect(host, port, 5)
    if not ok then
        error(("cannot connect to %s:%d: %s"):format(host, port, context.strerror(sock)), 0)
    end
    sock:set_rwopt(FRAMES)
    sock:write("hello")
    sock:write("again")
    socks[name] = sock
end

for _, name in ipairs(NAMES) do
    for _ = 1, 2 do
        local ok, answer = socks[name]:read(5)
        print(name .. " " .. (ok and answer:tostring() or context.strerror(answer)))
    end
    socks[name]:close()
end
