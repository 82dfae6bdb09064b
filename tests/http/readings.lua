-- Sends the requests of requests.lua to a server: node-lua readings.lua PORT [SECONDS [BYTEWISE]]
--
-- A line for each: group, name, statuses expected, statuses that came, separated by tabs. A server
-- that is to refuse has to end the connection by itself; to others it is said that nothing follows.
-- With SECONDS, as for other servers, "open" is one that has not ended the connection by then.

local port, seconds, is_bytewise = ...
local here = arg[0]:match("^(.*)/") or "."
seconds = tonumber(seconds) or 0

local function statuses_of(text)
    local found = {}
    for status in text:gmatch("HTTP/1%.[01] (%d%d%d)") do
        found[#found + 1] = status
    end
    local is_chunked = text:lower():find("transfer-encoding: chunked", 1, true)
    if is_chunked and not text:find("\r\n0\r\n", 1, true) then found[#found + 1] = "cut" end
    return table.concat(found, " ")
end

-- Whether the server ends the connection by itself.
local function is_refused(expected) return expected:find("^[45]%d%d$") and expected ~= "404" end

local function send(bytes, expected)
    local sock = context.check(tcp.connect("127.0.0.1", tonumber(port)))
    for from = 1, #bytes, is_bytewise and 1 or #bytes do
        sock:write(bytes:sub(from, from + (is_bytewise and 0 or #bytes)))
        -- Each leaves in a turn of its own.
        if is_bytewise then timer.sleep(0) end
    end
    if seconds == 0 and not is_refused(expected) then sock:shutdown() end
    local parts = {}
    local ok, data
    repeat
        ok, data = sock:read(seconds)
        if ok then parts[#parts + 1] = data:tostring() end
    until not ok
    sock:close()
    return statuses_of(table.concat(parts)) .. (data == 208 and " open" or "")
end

for _, one in ipairs(dofile(here .. "/requests.lua")) do
    local group, name, bytes, expected = unpack(one)
    -- Bytewise only what is not large.
    if not (is_bytewise and #bytes > 1000) then
        context.run(function() print(group, name, expected, send(bytes, expected)) end)
    end
end
