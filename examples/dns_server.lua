-- DNS server: answers questions about the names in a table.
--
-- Shows: datagrams through a callback, binary packets with the accessors of buffers. A packet that
-- is no question is ignored, whatever is in it: everybody may send us anything.
-- Run: node-lua examples/dns_server.lua [port [host]]
-- Talk to it: node-lua examples/dns_client.lua, or dig @127.0.0.1 -p 7153 www.example.test
-- Expected output:
--   dns server on 127.0.0.1:7153

local port, host = ...
port, host = tonumber(port or 7153), host or "127.0.0.1"

-- Names, and what is known of each.
local NAMES = {
    ["example.test"] = { A = { "192.0.2.1" }, TXT = { "a table of names" } },
    ["www.example.test"] = { A = { "192.0.2.2", "192.0.2.3" }, AAAA = { "2001:db8::2" } },
    ["alias.example.test"] = { CNAME = { "www.example.test" } },
}

local TYPES = { A = 1, CNAME = 5, TXT = 16, AAAA = 28 }
local CLASS_IN, TTL = 1, 60
local FORMAT_ERROR, NO_SUCH_NAME, NOT_IMPLEMENTED = 1, 3, 4
local HEADER, LABEL_MAX, NAME_MAX = 12, 63, 253

-- The name at an offset, and the offset behind it; nothing if there is none.
local function parse_name(packet, offset)
    local labels, length = {}, 0
    while offset < #packet do
        local size = packet:u8(offset)
        if size == 0 then return table.concat(labels, "."), offset + 1 end
        length = length + size + 1
        -- A question has no pointers to other places.
        if size > LABEL_MAX or length > NAME_MAX or offset + size >= #packet then return end
        labels[#labels + 1] = packet:text(offset + 1, size)
        offset = offset + 1 + size
    end
end

local encode = {} -- type → value as it stands in a packet

function encode.A(value)
    return (value:gsub("(%d+)%.?", function(number) return string.char(tonumber(number)) end))
end

function encode.AAAA(value)
    local head, tail = value:match("^(.-)::(.*)$")
    local function groups(text)
        local found = {}
        for group in (text or ""):gmatch("%x+") do
            found[#found + 1] = buffer.pack(">I2", tonumber(group, 16)):tostring()
        end
        return found
    end
    local first, last = groups(head or value), groups(tail)
    return table.concat(first) .. ("\0\0"):rep(8 - #first - #last) .. table.concat(last)
end

function encode.CNAME(value)
    local labels = value:gsub("([^.]+)%.?", function(label) return string.char(#label) .. label end)
    return labels .. "\0"
end

function encode.TXT(value) return string.char(#value) .. value end

-- Appends what is known of a name and a type; returns how many records that is.
local function put_answers(reply, name, kind)
    local known = NAMES[name:lower()] or {}
    local count = 0
    local function put(type_name)
        for _, value in ipairs(known[type_name] or {}) do
            local data = encode[type_name](value)
            reply:put(encode.CNAME(name)):put_u16be(TYPES[type_name]):put_u16be(CLASS_IN)
            reply:put_u32be(TTL):put_u16be(#data):put(data)
            count = count + 1
        end
    end
    for type_name, number in pairs(TYPES) do
        if number == kind then put(type_name) end
    end
    if count == 0 and known.CNAME then
        put("CNAME")
        count = count + put_answers(reply, known.CNAME[1], kind)
    end
    return count
end

-- The reply to a packet; nothing if it is no question.
local function answer(packet)
    if #packet < HEADER then return end
    local id, flags, questions = packet:u16be(0), packet:u16be(2), packet:u16be(4)
    local is_reply = flags >= 0x8000
    if is_reply then return end
    local operation, wants_recursion = bit.band(flags, 0x7800), bit.band(flags, 0x0100)
    local name, offset
    if questions == 1 then
        name, offset = parse_name(packet, HEADER)
    end
    local is_whole = name and offset + 4 <= #packet
    local code, count, answers = 0, 0, buffer.new()
    if operation ~= 0 then
        code = NOT_IMPLEMENTED
    elseif not is_whole then
        code = FORMAT_ERROR
    elseif not NAMES[name:lower()] then
        code = NO_SUCH_NAME
    elseif packet:u16be(offset + 2) == CLASS_IN then
        count = put_answers(answers, name, packet:u16be(offset))
    end
    -- A reply, by who knows these names.
    local reply = buffer.new(512)
    reply:put_u16be(id):put_u16be(0x8400 + operation + wants_recursion + code)
    reply:put_u16be(is_whole and 1 or 0):put_u16be(count):put_u16be(0):put_u16be(0)
    if is_whole then reply:put(packet:text(HEADER, offset + 4 - HEADER)) end
    reply:append(answers)
    return reply
end

local ok, sock = udp.open(host, port)
if not ok then error(("cannot open %s:%d: %s"):format(host, port, context.strerror(sock)), 0) end

sock:read(function(good, packet, from, from_port)
    -- Nobody is there any more whom we have answered: that is his affair.
    if not good then return end
    local reply = answer(packet)
    if reply then sock:write(reply, from, from_port) end
end)

print(("dns server on %s:%d"):format(sock:local_addr(), sock:local_port()))
