-- Hello, and an answer in JSON: tarantool tarantool.lua PORT
-- Debian has Tarantool without its module http, which takes more time than this: heads are divided
-- by hand, and not looked at beyond the first line.
local fiber, json, socket = require("fiber"), require("json"), require("socket")

local HEAD = "HTTP/1.1 200 OK\r\ncontent-type: %s\r\ncontent-length: %d\r\n\r\n%s"

socket.tcp_server("127.0.0.1", tonumber((...)), {
    backlog = 4096,
    handler = function(client)
        client:setsockopt("SOL_TCP", "TCP_NODELAY", true)
        while true do
            local head = client:read("\r\n\r\n")
            if not head or head == "" then return end
            local kind, body = "text/plain", "hello"
            if head:find("^GET /json ") then
                kind = "application/json"
                body = json.encode({ message = "hello", numbers = { 1, 2, 3 }, ok = true })
            end
            client:write(HEAD:format(kind, #body, body))
        end
    end,
})
fiber.sleep(1e9)
