-- Chat over WebSocket: whatever a member says goes to all members.
--
-- Shows: websockets whose members come, talk, go, or just vanish; one buffer that is written to
-- any number of them; members that do not keep up.
-- Run: node-lua examples/chat_ws_server.lua [port [host]]
-- Talk to it with a browser: open examples/chat_ws.html#127.0.0.1:7105, in several windows.
-- Expected output:
--   chat on ws://127.0.0.1:7105

local port, host = ...
port, host = tonumber(port or 7105), host or "127.0.0.1"

local QUEUE_BYTES_MAX = 256 * 1024 -- of lines that a member has not taken yet
local OPTIONS = { protocols = "chat", max_message = 2000, ping_interval = 30 }

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

-- The name in `/ws?name=Ada%20L`.
local function name_of(path)
    local name = (path:match("[?&]name=([^&]+)") or "somebody"):gsub("+", " ")
    name = name:gsub("%%(%x%x)", function(digits) return string.char(tonumber(digits, 16)) end)
    return name:gsub("%c", ""):sub(1, 30)
end

local function serve(_, sock)
    local ok, ws, headers = websocket.accept(sock, OPTIONS)
    if not ok then return end -- the client was told why
    local name = name_of(headers[":path"])
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

local listener = context.check(tcp.listen(host, port))
listener:accept(serve)
print(("chat on ws://%s:%d"):format(host, tcp.local_port(listener)))
