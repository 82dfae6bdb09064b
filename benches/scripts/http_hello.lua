-- Hello, and an answer in JSON, over HTTP: node-lua http_hello.lua PORT
local ok, server = http.serve("127.0.0.1", tonumber((...)), function(req, res)
    if req.path == "/json" then
        return res:json({ message = "hello", numbers = { 1, 2, 3 }, ok = true })
    end
    return 200, { ["content-type"] = "text/plain" }, "hello"
end)
assert(ok, server)
print("ready")
