-- What sockets do, the same on a simulated network as on the real one. The argument is a path for
-- a unix socket; "full" after it also fills a listener's queue, which takes time.

local path, full = ...
local REFUSED, IN_USE, NO_FILE, RESET, PIPE, TIMEOUT = 12, 5, 34, 13, 36, 208
local HOST = "127.0.0.1"

local function must(condition, what) return condition or error(what, 2) end

local function fails(code, ok, found)
    must(not ok and found == code, ("%s, not %s"):format(found, code))
end

-- Ports.
local _, listener = tcp.listen(HOST, 0)
local port = tcp.local_port(listener)
must(port > 0 and tcp.local_addr(listener) == HOST, "address")
fails(IN_USE, tcp.listen(HOST, port))
fails(IN_USE, tcp.listen("0.0.0.0", port))
local _, other = tcp.listen(HOST, 0)
local free = tcp.local_port(other)
must(free ~= port, "a port of its own")
other:close()
fails(REFUSED, tcp.connect(HOST, free, 30))

-- Addresses, order, and data that is there before it is asked for.
local clients = {}
for i = 1, 3 do
    local _, client = tcp.connect(HOST, port)
    client:write("client " .. i)
    clients[i] = client
end
for i = 1, 3 do
    local _, server = listener:accept()
    local _, data = server:read()
    must(data:tostring() == "client " .. i, "connections are accepted in order")
    must(server:remote_port() == clients[i]:local_port(), "ports")
    must(server:local_port() == port and clients[i]:remote_port() == port, "ports")
    server:write("bye")
    server:close()
    _, data = clients[i]:read()
    must(data:tostring() == "bye", "what was written before close arrives")
    fails(1, clients[i]:read())
    -- The peer is gone: some write will tell.
    local ok, code
    repeat
        ok, code = clients[i]:write("x", true)
    until not ok
    must(code == RESET or code == PIPE, code)
    clients[i]:close()
end
listener:close()
fails(REFUSED, tcp.connect(HOST, port, 30))

-- Families.
local _, any = tcp.listen("0.0.0.0", 0)
must(tcp.connect(HOST, tcp.local_port(any)), "any address is this one too")
any:close()
local _, six = tcp.listen6("::1", 0)
local _, client = tcp.connect6("::1", tcp.local_port(six))
local _, server = six:accept()
must(server:remote_addr() == "::1" and client:remote_addr() == "::1", "addresses")
fails(REFUSED, tcp.connect(HOST, tcp.local_port(six), 30))
six:close()

-- More than buffers hold, both ways at once.
local total = 3000000
-- Reads in any pieces, since nothing frames them.
local function pump(from, to)
    context.run(function() from:write(("0123456789"):rep(total / 10), true) end)
    local sum = 0
    while sum < total do
        local _, data = to:read()
        local text = data:tostring()
        must(tonumber(text:sub(1, 1)) == sum % 10, "bytes in order")
        sum = sum + #text
    end
    must(sum == total, "no byte too many")
end
context.run(pump, client, server)
pump(server, client)

-- Unix sockets.
fails(NO_FILE, tcp.connects(path))
local _, unix = tcp.listens(path)
fails(IN_USE, tcp.listens(path))
_, client = tcp.connects(path)
_, server = unix:accept()
client:write("local")
must(select(2, server:read()):tostring() == "local", "data")
must(client:remote_port() == nil, "no port")
client:close()
fails(1, server:read())
unix:close()
fails(REFUSED, tcp.connects(path))
_, unix = tcp.listens(path)
must(unix, "a socket that nobody listens on is replaced")
unix:close()

if full then
    local _, small = tcp.listen(HOST, 0, 1)
    local stood = 0
    for _ = 1, 4 do
        local ok, code = tcp.connect(HOST, tcp.local_port(small), 60)
        must(ok or code == TIMEOUT or code == 40, code)
        stood = stood + (ok and 1 or 0)
    end
    must(stood == 2, stood .. " connections fit into the queue")
end
print("as expected")
