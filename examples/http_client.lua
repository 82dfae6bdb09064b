-- http_client: asks http_server, or any other.
--
-- Shows: requests over HTTP, on a connection that is kept; bodies that stream both ways.
-- Run: node-lua examples/http_client.lua 8080
--   (against examples/http_server.lua; a URL in place of the port is fetched instead)
-- Expected output:
--   200 text/plain hello
--   200 {"hello":"world"}
--   echoed 300000 bytes
--   404

local where = ... or "8080"

if not tonumber(where) then
    local res = context.check(http.get(where, { timeout = 30 }))
    print(res.status, res.url)
    for name, value in pairs(res.headers) do
        print(name .. ": " .. value)
    end
    for chunk in res.chunks do
        io.write(tostring(chunk))
    end
    return
end

local base = "http://127.0.0.1:" .. where

local res = context.check(http.get(base .. "/", { timeout = 5 }))
print(res.status .. " " .. res.headers["content-type"] .. " " .. res:text(1000))

res = context.check(http.get(base .. "/json", { timeout = 5 }))
print(res.status .. " " .. res:text())

local left = 30
local function body()
    left = left - 1
    return left >= 0 and string.rep("x", 10000) or nil
end
res = context.check(http.post(base .. "/echo", body, { timeout = 5 }))
local bytes = 0
for chunk in res.chunks do
    bytes = bytes + #chunk
end
print("echoed " .. bytes .. " bytes")

print(context.check(http.get(base .. "/nowhere")).status)
