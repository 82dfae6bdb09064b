-- A client: asks a context of its own, and talks to that one's server.

local name = ...
local PATIENCE = 20

local function payload(i)
    return { i, name = ("x"):rep(i * 100), list = { i, i + 0.5, { true, false } }, id = 2LL ^ i }
end

local function exchange(peer)
    local ok, port = context.query(peer, "port", PATIENCE)
    if not ok then return "port", port end
    local connected, sock = tcp.connect("127.0.0.1", port, PATIENCE)
    if not connected then return "connect", sock end
    sock:set_rwopt { read_head_bytes = 2, write_head_bytes = 2 }
    for i = 1, 4 do
        local text = name .. (" %d "):format(i) .. ("y"):rep(i * 700)
        local written, why = sock:write(text, true)
        if not written then return "write", why end
        local read, answer = sock:read(PATIENCE)
        if not read then return "read", answer end
        assert(answer:tostring() == text, "the echo is different")
        local replied, value = context.query(peer, payload(i), PATIENCE)
        if not replied then return "query", value end
        assert(value.name == payload(i).name and value.list[3][1] and value.id == 2LL ^ i)
    end
    timer.sleep(0.001)
    sock:close()
end

local peer = context.create "tests/failpoints/peer.lua"
local what, code = exchange(peer)
context.destroy(peer)
if what then
    print(("gave up %s: %s: %s"):format(name, what, context.strerror(code)))
else
    print("complete " .. name)
end
