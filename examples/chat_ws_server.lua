-- Chat over WebSocket, with the page for browsers: whatever a member says goes to all members.
--
-- Shows: an HTTP server that hands connections over to WebSocket; members that come, talk, go, or
-- just vanish; one buffer that is written to any number of them; members that do not keep up.
-- Run: node-lua examples/chat_ws_server.lua [port [host]]
-- Talk to it with a browser: http://127.0.0.1:7105, in several windows.
-- Expected output:
--   chat on 127.0.0.1:7105

local port, host = ...
port, host = tonumber(port or 7105), host or "127.0.0.1"

local QUEUE_BYTES_MAX = 256 * 1024 -- of lines that a member has not taken yet
local OPTIONS = { protocols = "chat", max_message = 2000, ping_interval = 30 }

local folder = arg[0]:match("^(.*/)") or ""
local members = {} -- websocket → name

-- Notices begin with `*`, what somebody says with a space.
local function say(text)
    local line = buffer.new(text)
    for ws in pairs(members) do
        if ws:stat().write_queue_bytes > QUEUE_BYTES_MAX then
            ws:close(1008, "too slow")
        else
            ws:send(line)
        end
    end
end

-- The name in `name=Ada%20L`.
local function name_of(query)
    local name = (query:match("name=([^&]+)") or "somebody"):gsub("+", " ")
    name = name:gsub("%%(%x%x)", function(digits) return string.char(tonumber(digits, 16)) end)
    return name:gsub("%c", ""):sub(1, 30)
end

local function talk(ws, name)
    members[ws] = name
    say("*" .. name .. " has come")
    while true do
        local good, data, kind = ws:recv()
        if not good then break end
        if kind == "text" then say(" " .. name .. ": " .. data:tostring()) end
    end
    members[ws] = nil
    say("*" .. name .. " has gone")
end

local function serve(req, res)
    if req.path == "/" then
        local page = assert(io.open(folder .. "chat_ws.html", "rb"))
        local html = page:read("*a")
        page:close()
        return 200, { ["content-type"] = "text/html; charset=utf-8" }, html
    end
    if req.path ~= "/ws" then return 404 end
    local name = name_of(req.query or "")
    local ok, ws = websocket.accept(req, res, OPTIONS)
    if ok then talk(ws, name) end -- the client was told otherwise
end

local listener = context.check(tcp.listen(host, port))
print(("chat on %s:%d"):format(host, tcp.local_port(listener)))
context.check(http.serve(listener, serve))
