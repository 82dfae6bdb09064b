-- URLs. Loaded with the first request.

local concat, gmatch = table.concat, string.gmatch
local byte, find, format, gsub, lower, match, sub =
    string.byte, string.find, string.format, string.gsub, string.lower, string.match, string.sub
local tonumber = tonumber

local PORTS = { http = 80, https = 443 }

-- The most bytes of a path with its query.
local TARGET_MAX = 65000

local function encode_byte(one) return format("%%%02X", byte(one)) end

local M = {}

-- The parts of an absolute URL: scheme, host (without brackets), port, target, user, and authority.
-- Or nil, and what was expected.
function M.parse(text)
    local scheme, rest = match(text, "^(%a[%w+.-]*)://(.*)$")
    if not scheme then return nil, "an absolute URL, as http://host/path, expected" end
    scheme = lower(scheme)
    if not PORTS[scheme] then return nil, "a URL of http or https expected" end
    rest = gsub(rest, "#.*$", "")
    local authority, target = match(rest, "^([^/?]*)(.*)$")
    local user
    local at = find(authority, "@[^@]*$")
    if at then
        user, authority = sub(authority, 1, at - 1), sub(authority, at + 1)
    end
    local host, behind = match(authority, "^%[([%x:.]+)%](.*)$")
    if not host then
        host, behind = match(authority, "^([^%[%]:%s]+)(.*)$")
    end
    local port = host and match(behind, "^:?(%d*)$")
    local number = port == "" and PORTS[scheme] or tonumber(port)
    if not host or not number or number > 65535 then
        return nil, "a URL with a host, and a port up to 65535, expected"
    end
    if sub(target, 1, 1) ~= "/" then target = "/" .. target end
    -- Bytes that a URL cannot have are escaped, as browsers do.
    target = gsub(target, "[^%w%-._~:/?@!$&'()*+,;=%%%[%]]", encode_byte)
    if #target > TARGET_MAX then
        return nil, format("a URL whose path has at most %d bytes expected", TARGET_MAX)
    end
    return {
        scheme = scheme,
        host = host,
        port = number,
        target = target,
        user = user,
        -- For header `host`.
        authority = (find(host, ":", 1, true) and "[" .. host .. "]" or host)
            .. (number ~= PORTS[scheme] and format(":%d", number) or ""),
    }
end

-- Removes the segments `.` and `..` of a path (RFC 3986, 5.2.4).
local function without_dots(path)
    local parts = {}
    local n = 0
    for part in gmatch(path, "[^/]*/?") do
        local name = gsub(part, "/$", "")
        if name == ".." then
            n = n > 1 and n - 1 or n
        elseif name ~= "." and part ~= "" then
            n = n + 1
            parts[n] = part
        end
    end
    return concat(parts, "", 1, n)
end

-- Resolves a `location` header of the URL `from`.
function M.resolve(from, location)
    location = gsub(location, "#.*$", "")
    if match(location, "^%a[%w+.-]*:") then return location end
    local base = from.scheme .. "://"
    if sub(location, 1, 2) == "//" then return from.scheme .. ":" .. location end
    base = base .. from.authority
    local path = match(from.target, "^[^?]*")
    if sub(location, 1, 1) == "?" then return base .. path .. location end
    if location == "" then return base .. from.target end
    local place, query = match(location, "^([^?]*)(.*)$")
    if sub(place, 1, 1) == "/" then return base .. without_dots(place) .. query end
    return base .. without_dots(match(path, "^.*/") .. place) .. query
end

return M
