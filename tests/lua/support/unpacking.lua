-- For tests/memory_holdings.rs: 300 peers send a WebSocket message that unpacks to 39 MiB.
local _, _, _, _, attacker = ...
local _, listener = tcp.listen("127.0.0.1", 0)
local options, refused = { deflate = true, max_message = 2 ^ 28 }, 0
local begun = 0
listener:accept(function(_, sock)
    local _, socket = websocket.accept(sock, options)
    begun = begun + 1
    local _, code = socket:recv()
    if code == 1009 then refused = refused + 1 end
end)
-- A zero, 39 MiB more of them, and the end of a block.
local packed = "\98" .. ("\24\5\163\96\20\140\130\81\48\10\70\193\40"):rep(20000) .. "\0\0"
local frame = "\194\255" .. buffer.pack(">I8", #packed):tostring() .. "\0\0\0\0" .. packed
local head = "GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n"
    .. "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    .. "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    .. "Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n"
local count = 300
context.send(attacker, { port = listener:local_port(), count = count, data = head .. frame })
while begun < count or refused == 0 do
    timer.sleep(0.01)
end
timer.sleep(1)
context.destroy()
