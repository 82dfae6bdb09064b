-- What was written before a connection is closed reaches a peer that reads slowly, but not one
-- that does nothing for half a minute, or takes ten: that one finds the connection reset.
-- Arguments: bytes written, bytes of a frame, the seconds after each that is read, and for how many
-- seconds the reader writes before it reads on.

local words = { ... }
local total, step = tonumber(words[1]), tonumber(words[2])
local pause, writes = tonumber(words[3]), tonumber(words[4])
local HEADS = { read_head_bytes = 4, write_head_bytes = 4 }

local _, listener = tcp.listen("127.0.0.1", 0)
context.run(function()
    local _, socket = tcp.connect("127.0.0.1", tcp.local_port(listener))
    socket:set_rwopt(HEADS)
    for _ = step, total, step do
        socket:write(("x"):rep(step))
    end
    -- Told once all is out, or given up.
    socket:write("", function(_, code) print("written: " .. context.strerror(code)) end)
    socket:close()
end)

local _, socket = listener:accept()
listener:close()
socket:set_rwopt(HEADS)
local count = 0
for _ = 1, writes do
    socket:write("more")
    timer.sleep(1)
end
while true do
    local ok, data = socket:read()
    if not ok then
        print(("read: %d %s"):format(count, context.strerror(data)))
        break
    end
    count = count + data:length()
    timer.sleep(pause)
end
