-- The handshake's heads, which both sides read. Loaded with the first websocket.

local find, gmatch, lower = string.find, string.gmatch, string.lower
local match, sub = string.match, string.sub

local handshake = { HEAD_MAX = 16 * 1024 }

--- The elements of a header that lists some.
function handshake.each(value) return gmatch(value or "", "[^,%s][^,]*") end

--- Whether a header lists a word, in whatever case.
function handshake.lists(value, word)
    for one in handshake.each(value) do
        if lower(match(one, "^.*%S")) == word then return true end
    end
    return false
end

--- The first line of a head without its empty line, and headers by their names in small letters;
--- only the line if another one is no header.
function handshake.parse(head)
    local first, rest = head, ""
    local at = find(head, "\r\n", 1, true)
    if at then
        first, rest = sub(head, 1, at - 1), sub(head, at + 2) .. "\r\n"
    end
    local headers = {}
    local start = 1
    while start <= #rest do
        local stop = find(rest, "\r\n", start, true)
        local line = sub(rest, start, stop - 1)
        start = stop + 2
        local name, value = match(line, "^([^%s:]+):[ \t]*(.*)$")
        if not name or find(line, "[%z\r\n]") then return first end
        name, value = lower(name), match(value, "^.*[^ \t]") or ""
        headers[name] = headers[name] and headers[name] .. ", " .. value or value
    end
    return first, headers
end

return handshake
