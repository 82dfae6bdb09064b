-- What datagrams do, the same on a simulated network as on the real one; with "lossy" what a
-- program has to put up with, and gets through all the same. Prints what it has seen.

local mode = ...
local HOST, REFUSED, IN_USE, NOT_OURS, TOO_LONG = "127.0.0.1", 12, 5, 6, 21

local function must(condition, what) return condition or error(what, 2) end

-- A server that echoes, and a client that asks again until it is answered.
local function ask_again(count)
    local _, server = udp.open(HOST, 0)
    server:read(function(ok, data, addr, port)
        if ok then server:write(data, addr, port) end
    end)
    local _, sock = udp.open(HOST, 0)
    must(sock:connect(HOST, server:local_port()), "connect")
    local again, late = 0, 0
    for i = 1, count do
        local answer
        sock:write(tostring(i))
        repeat
            local ok, data = sock:read(3)
            if not ok then
                again = again + 1
                sock:write(tostring(i))
            elseif data:tostring() ~= tostring(i) then
                late = late + 1
            else
                answer = true
            end
        until answer
    end
    server:close()
    sock:close()
    return again, late
end

-- Numbered datagrams in one direction: how many are missing, come twice, and overtake others.
local function count(total)
    local _, receiver = udp.open(HOST, 0)
    local _, sender = udp.open(HOST, 0)
    for i = 1, total do
        while not sender:write(tostring(i), HOST, receiver:local_port(), true) do
        end
        timer.sleep(0.0001)
    end
    local seen, missing, doubled, overtaken, last = {}, 0, 0, 0, 0
    local ok, data = receiver:read(5)
    while ok do
        local number = tonumber(data:tostring())
        if seen[number] then
            doubled = doubled + 1
        else
            if number < last then overtaken = overtaken + 1 end
            seen[number], last = true, math.max(last, number)
        end
        ok, data = receiver:read(5)
    end
    for i = 1, total do
        if not seen[i] then missing = missing + 1 end
    end
    return missing, doubled, overtaken
end

if mode == "lossy" then
    print("again, late", ask_again(30))
    print("missing, doubled, overtaken", count(200))
    return
end

local a, port, listener
for _ = 1, 20 do
    a = select(2, udp.open(HOST, 0))
    port = a:local_port()
    listener = select(2, tcp.listen(HOST, port))
    -- Some other process may have the stream's.
    if type(listener) == "userdata" then break end
    a:close()
end
must(select(2, udp.open(HOST, port)) == IN_USE, "the port is in use")
must(select(2, udp.open("0.0.0.0", port)) == IN_USE, "for any address too")
must(select(2, udp.open("192.0.2.1", 0)) == NOT_OURS, "an address of others")
must(type(listener) == "userdata", "streams have ports of their own")

local _, b = udp.open()
must(b:local_addr() == "0.0.0.0", "any address")
b:write("", HOST, port)
local _, data, addr, from = a:read(30)
must(#data == 0 and addr == HOST and from == b:local_port(), "an empty one")
must(select(2, b:write(("x"):rep(65508), HOST, port, true)) == TOO_LONG, "too long")
must(select(2, b:write("x", HOST, 0, true)) == 18, "port 0")
must(select(2, b:write("x", "255.255.255.255", port, true)) == 3, "not allowed")
for i = 1, 100 do
    b:write(tostring(i), HOST, port)
end
for i = 1, 100 do
    must(select(2, a:read(30)):tostring() == tostring(i), "in order")
end

must(b:connect(HOST, port), "connect")
must(b:local_addr() == HOST, "an address of its own then")
local _, stranger = udp.open(HOST, 0)
stranger:write("forged", HOST, b:local_port(), true)
a:write("from the peer", HOST, b:local_port(), true)
must(select(2, b:read(30)):tostring() == "from the peer", "only the peer is heard")
a:close()
b:write("to nobody")
must(select(2, b:read(30)) == REFUSED, "nobody is there")
b:write("again")
must(select(2, b:read(30)) == REFUSED, "still")

-- More than fits.
local _, slow = udp.open(HOST, 0)
for _ = 1, 500 do
    stranger:write(("x"):rep(1400), HOST, slow:local_port(), true)
end
timer.sleep(0.01)
must(slow:stat().dropped > 100, "what does not fit is dropped")
local count_of = 0
while slow:read(0.01) do
    count_of = count_of + 1
end
must(count_of + slow:stat().dropped == 500, "and counted")

local group = "239.255.0.9"
local _, one = udp.open(group, 0)
local _, two = udp.open(group, one:local_port())
must(one:join(group, HOST) and two:join(group, HOST), "join")
one:write("to all", group, one:local_port(), true)
for _, sock in ipairs({ one, two }) do
    must(select(2, sock:read(30)):tostring() == "to all", "a group")
end
must(ask_again(20) == 0, "nothing is lost")
print("as expected")
