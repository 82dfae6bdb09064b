-- A server that finishes what it has begun.
--
-- Shows: context.on_signal. TERM closes the listener and the connections that wait for a request;
-- the process ends with the last answer, or after 5 seconds (--grace).
-- Run: node-lua examples/graceful.lua [port [host]]
-- Talk to it: printf '\0\5hello' | nc 127.0.0.1 7107, and meanwhile: pkill -TERM node-lua
-- Expected output:
--   server on 127.0.0.1:7107
--   working on hello
--   TERM: 1 request to finish
--   done with hello

local port, host = ...
port, host = tonumber(port or 7107), host or "127.0.0.1"

local FRAMES = {
    read_head_endian = "B",
    read_head_bytes = 2,
    read_head_max = 1024,
    write_head_endian = "B",
    write_head_bytes = 2,
}

local listener = context.check(tcp.listen(host, port))
local idle = {} -- connections that wait for a request
local busy = 0 -- requests being worked on
local stopping = false

local function work(request)
    print("working on " .. request:tostring())
    timer.sleep(1)
    print("done with " .. request:tostring())
    return request
end

listener:accept(function(_, sock)
    sock:set_rwopt(FRAMES)
    while not stopping do
        idle[sock] = true
        local good, request = sock:read()
        idle[sock] = nil
        if not good then break end
        busy = busy + 1
        sock:write(work(request))
        busy = busy - 1
    end
    sock:close() -- what was written is still sent
end)

context.on_signal("TERM", function(name)
    print(("%s: %d request%s to finish"):format(name, busy, busy == 1 and "" or "s"))
    stopping = true
    listener:close()
    for sock in pairs(idle) do
        sock:close()
    end
    context.on_signal("TERM", nil) -- nothing keeps this context alive now but its requests
end)

print(("server on %s:%d"):format(tcp.local_addr(listener), tcp.local_port(listener)))
