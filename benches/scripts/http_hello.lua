-- Hello over HTTP: node-lua http_hello.lua PORT
local ok, server = http.serve(
    "127.0.0.1",
    tonumber((...)),
    function() return 200, { ["content-type"] = "text/plain" }, "hello" end
)
assert(ok, server)
print("ready")
