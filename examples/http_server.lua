-- http_server: answers over HTTP.
--
-- Shows: an HTTP server, of HTTP/1.1 and HTTP/2: JSON, bodies that stream.
-- Run: node-lua examples/http_server.lua 8080
-- Expected output:
--   http server on 127.0.0.1:8080
--
-- Then
--
--     curl localhost:8080/                        hello
--     curl localhost:8080/json                    an answer in JSON
--     curl -T FILE localhost:8080/echo -X POST    what is sent comes back as it comes
--     curl -o /dev/null localhost:8080/big/100    100 MiB
--     /ws                                         a WebSocket, which says again what it hears
--
-- It speaks HTTP/2 too: `curl --http2-prior-knowledge`.

local port = ...

local MEBIBYTE = string.rep("0123456789abcdef", 65536)

local function big(count)
    return function()
        count = count - 1
        return count >= 0 and MEBIBYTE or nil
    end
end

local server =
    context.check(http.serve("127.0.0.1", tonumber(port) or 0, { http2 = true }, function(req, res)
        if req.path == "/" then return 200, { ["content-type"] = "text/plain" }, "hello" end
        if req.path == "/json" then return res:json({ hello = "world" }) end
        if req.path == "/echo" and req.method == "POST" then
            for chunk in req.chunks do
                res:write(chunk)
            end
            return res:finish()
        end
        if req.path == "/ws" and websocket then
            -- Whoever asks for no WebSocket has been told.
            local ok, ws = websocket.accept(req, res)
            while ok do
                local message, kind
                ok, message, kind = ws:recv()
                if ok then ws:send(message, kind) end
            end
            return
        end
        local count = string.match(req.path, "^/big/(%d+)$")
        if count then
            return 200, { ["content-type"] = "application/octet-stream" }, big(tonumber(count))
        end
        return 404, { ["content-type"] = "text/plain" }, "there is no " .. req.path .. "\n"
    end))
print("http server on 127.0.0.1:" .. server:port())
