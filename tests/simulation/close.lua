-- A peer that writes before it reads on still gets all that was written before the other side
-- closed: while a closed connection waits to be written out, what comes in is thrown away. The
-- argument is the number of frames.

local FRAMES, BYTES = tonumber(...), 2000
local OPTIONS = { read_head_bytes = 2, write_head_bytes = 2 }

local _, listener = tcp.listen("127.0.0.1", 0)
local count, how = 0, nil

context.run(function()
    local _, socket = tcp.connect("127.0.0.1", tcp.local_port(listener))
    socket:set_rwopt(OPTIONS)
    for _ = 1, FRAMES do
        socket:write(("x"):rep(BYTES))
    end
    socket:close()
end)

local _, socket = listener:accept()
listener:close()
socket:set_rwopt(OPTIONS)
repeat
    local ok, data = socket:read()
    if ok then
        count = count + 1
        -- Nobody reads this, and the write waits until it is on its way.
        socket:write(data, true)
    else
        how = data
    end
until not ok
print(("%d of %d frames, then %s"):format(count, FRAMES, context.strerror(how)))
