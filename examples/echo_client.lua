-- Echo client: sends a few frames to the echo server and checks what comes back.
--
-- Shows: connecting, and reads that wait. Nothing here is a callback, yet nothing blocks the other
-- connections: each runs in a coroutine of its own.
-- Run: node-lua examples/echo_client.lua [port [host]]     (start echo_server.lua first)
-- Expected output:
--   echoed: hello
--   echoed: an empty frame has 0 bytes
--   10 connections, 1000 frames, every byte as sent

local port, host = ...
port, host = tonumber(port or 7101), host or "127.0.0.1"

local FRAMES = {
    read_head_endian = "B",
    read_head_bytes = 2,
    write_head_endian = "B",
    write_head_bytes = 2,
}

local function connect()
    local ok, sock = tcp.connect(host, port, 5)
    if not ok then
        error(("cannot connect to %s:%d: %s"):format(host, port, context.strerror(sock)), 0)
    end
    sock:set_rwopt(FRAMES)
    sock:set_nodelay(true)
    return sock
end

-- Sends one frame and waits for the answer, five seconds at most.
local function echo(sock, text)
    sock:write(text)
    local ok, frame = sock:read(5)
    if not ok then error("no answer: " .. context.strerror(frame)) end
    return frame:tostring()
end

local sock = connect()
print("echoed: " .. echo(sock, "hello"))
print(("echoed: an empty frame has %d bytes"):format(#echo(sock, "")))
sock:close()

local connections, frames, same, running = 10, 100, 0, 10

local function chatter(number)
    local line = connect()
    for i = 1, frames do
        local text = ("connection %d, frame %d "):format(number, i):rep(i)
        if echo(line, text) == text then same = same + 1 end
    end
    line:close()
    running = running - 1
    if running == 0 then
        local verdict = same == connections * frames and "every byte as sent" or "NOT all as sent"
        print(("%d connections, %d frames, %s"):format(connections, connections * frames, verdict))
    end
end

for number = 1, connections do
    context.run(chatter, number)
end
