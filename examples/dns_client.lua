-- DNS client: asks for the addresses of names, and asks again if no answer comes.
--
-- Shows: a connected datagram socket, reads with a timeout, what to do about datagrams that are
-- lost, late or forged: an answer counts only if it is to the question that was asked last.
-- Run: node-lua examples/dns_client.lua [port [host [names...]]]     (start dns_server.lua first)
-- Expected output:
--   example.test: 192.0.2.1
--   www.example.test: 192.0.2.2 192.0.2.3
--   alias.example.test: 192.0.2.2 192.0.2.3
--   nobody.example.test: no such name

local port, host = ...
local names = { select(3, ...) }
port, host = tonumber(port or 7153), host or "127.0.0.1"
if not names[1] then
    names = { "example.test", "www.example.test", "alias.example.test", "nobody.example.test" }
end

local TRIES, PATIENCE = 5, 1
local TYPE_A, CLASS_IN, HEADER = 1, 1, 12
local REASONS = { [1] = "format error", [2] = "server failure", [3] = "no such name" }

local sock = context.check(udp.open())
context.check(sock:connect(host, port))

local function new_question(id, name)
    local question = buffer.new():put_u16be(id):put_u16be(0x0100)
    question:put_u16be(1):put_u16be(0):put_u16be(0):put_u16be(0)
    for label in name:gmatch("[^.]+") do
        question:put_u8(#label):put(label)
    end
    return question:put_u8(0):put_u16be(TYPE_A):put_u16be(CLASS_IN)
end

-- The offset behind a name.
local function skip_name(packet, offset)
    local size = packet:u8(offset)
    while size > 0 do
        if size >= 0xc0 then return offset + 2 end -- a pointer to the rest of it
        offset = offset + 1 + size
        size = packet:u8(offset)
    end
    return offset + 1
end

-- The addresses in a reply.
local function parse(packet)
    local reason = packet:u16be(2) % 16
    if reason > 0 then return nil, REASONS[reason] or "refused" end
    local found, offset = {}, HEADER
    for _ = 1, packet:u16be(4) do
        offset = skip_name(packet, offset) + 4
    end
    for _ = 1, packet:u16be(6) do
        offset = skip_name(packet, offset)
        local kind, size = packet:u16be(offset), packet:u16be(offset + 8)
        if kind == TYPE_A and size == 4 then
            found[#found + 1] = ("%d.%d.%d.%d"):format(packet:unpack("BBBB", offset + 11))
        end
        offset = offset + 10 + size
    end
    return found
end

local function ask(name)
    for _ = 1, TRIES do
        local id = math.random(0, 65535)
        sock:write(new_question(id, name))
        local deadline = timer.now() + PATIENCE
        local ok, packet = sock:read(PATIENCE)
        -- Answers to what was asked before are not for us any more.
        while ok and (#packet < HEADER or packet:u16be(0) ~= id) do
            ok, packet = sock:read(deadline - timer.now())
        end
        if ok then
            -- What a server sends may be anything: reading beyond the end raises.
            local is_fine, found, why = pcall(parse, packet)
            if is_fine then return found, why end
        elseif context.strerror(packet) ~= "timeout" then
            error(("no answer from %s:%d: %s"):format(host, port, context.strerror(packet)), 0)
        end
    end
    return nil, "no answer"
end

for _, name in ipairs(names) do
    local found, why = ask(name)
    print(name .. ": " .. (found and table.concat(found, " ") or why))
end
