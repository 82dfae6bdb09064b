-- The same by a script that divides HTTP by itself, and looks at no more than it needs:
-- node-lua http_by_hand.lua PORT
local HEAD = "HTTP/1.1 200 OK\r\ncontent-type: %s\r\ncontent-length: %d\r\n\r\n%s"

local listener = context.check(tcp.listen("127.0.0.1", tonumber((...)), 4096))
listener:accept(function(ok, client)
    while ok do
        local found, head = client:read_until("\r\n\r\n", 65536)
        if not found then return client:close() end
        local path = string.match(head:tostring(), "^GET (%S+) HTTP/1.1\r\n")
        local kind, body = "text/plain", "hello"
        if path == "/json" then
            kind = "application/json"
            body = json.encode({ message = "hello", numbers = { 1, 2, 3 }, ok = true })
        end
        client:write(string.format(HEAD, kind, #body, body))
    end
end)
print("ready")
