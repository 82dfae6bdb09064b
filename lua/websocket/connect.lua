-- websocket.connect: the client's side of the handshake. Loaded when it is first called.

local native, core, parts = ...

local tonumber, type, next = tonumber, type, next
local find, lower, match = string.find, string.lower, string.match
local concat, format, sub = table.concat, string.format, string.sub
local bad, bad_because, strerror = core.bad, native.bad_because, native.strerror
local check_may_wait, no_more = core.check_may_wait, core.no_more
local now, write = native.now, native.write

local sockets = core.sockets
local close_record, streams = sockets.close_record, sockets.streams

local handshake = parts.handshake
local lists, HEAD_MAX = handshake.lists, handshake.HEAD_MAX

local SOCKET_CLOSED, TIMEOUT, UPGRADE_REFUSED, MESSAGE_TOO_LONG = 203, 208, 223, 21
local SWITCHING = 101

-- The library's own, whatever a script has put into the modules.
local own = {}
native.load("tcp/connect")(native, core, sockets, own)
local read_until = native.load("tcp/piece")(native, core, sockets).read_until
local secure, tls -- loaded with the first wss

local function secure_client()
    if not secure then
        secure = native.load("tcp/tls")(native, core, sockets)
        tls = native.load("tls")(native, core)
    end
    return tls.client({})
end

local PORTS = { ws = 80, wss = 443 }

-- Scheme, host, port, what is asked for, and the value of Host.
local function parse(url)
    if type(url) ~= "string" then bad(1, "connect", "URL", url) end
    local scheme, authority, rest = match(url, "^(%a+)://([^/?#]*)([^#]*)")
    scheme = scheme and lower(scheme)
    local default = PORTS[scheme]
    if not default then bad(1, "connect", "URL that begins with ws:// or wss://", url) end
    local host, behind = match(authority, "^%[([%x:.]+)%](.*)$")
    if not host then
        host, behind = match(authority, "^([^:@]+)(.*)$")
    end
    local port = host and match(behind, "^:?(%d*)$")
    local number = port == "" and default or tonumber(port)
    if not host or not number or number > 65535 or number < 1 then
        bad(1, "connect", "URL with a host, and no more than a port behind it,", url)
    end
    if find(url, "[%z\1-\32\127]") then bad(1, "connect", "URL without spaces", url) end
    if find(url, "#", 1, true) then bad(1, "connect", "URL without a fragment", url) end
    if sub(rest, 1, 1) ~= "/" then rest = "/" .. rest end
    local name = find(host, ":", 1, true) and format("[%s]", host) or host
    if number ~= default then name = format("%s:%d", name, number) end
    return scheme, host, number, rest, name
end

local RESERVED = {
    connection = true,
    host = true,
    upgrade = true,
    ["sec-websocket-accept"] = true,
    ["sec-websocket-extensions"] = true,
    ["sec-websocket-key"] = true,
    ["sec-websocket-protocol"] = true,
    ["sec-websocket-version"] = true,
    ["content-length"] = true,
    ["transfer-encoding"] = true,
}

-- Headers of the script's, as lines.
local function add_headers(lines, headers)
    if type(headers) == "nil" then return end
    if type(headers) ~= "table" then bad("headers", "connect", "table of names", headers) end
    native.check_plain("headers", "connect", headers)
    for name, value in next, headers do
        if type(name) ~= "string" or not find(name, "^[%w!#$%%&'*+.^_`|~-]+$") then
            bad("headers", "connect", "names of headers as keys", name)
        end
        if RESERVED[lower(name)] then
            bad_because("headers", "connect", format("'%s' is not the script's to set", name))
        end
        local kind = type(value)
        if kind ~= "string" and kind ~= "number" or find(value, "[%z\r\n]") then
            bad(format("headers['%s']", name), "connect", "text of one line", value)
        end
        lines[#lines + 1] = format("%s: %s", name, value)
    end
end

-- What is wrong with an answer, and its status; or nothing, the window and the protocol.
local function check_answer(head, key, options)
    local first, headers = handshake.parse(head)
    local minor, status, text = match(first, "^HTTP/1%.([01]) (%d%d%d) ?([^%c]*)")
    if not status then return "an answer that is no HTTP/1.1" end
    status = tonumber(status)
    if status ~= SWITCHING or minor ~= "1" then
        return format("the server answers %d%s", status, text ~= "" and " " .. text or ""), status
    end
    if not headers then return "an answer with a line that is no header", status end
    if not lists(headers.upgrade, "websocket") or not lists(headers.connection, "upgrade") then
        return "the server switches to something that is no WebSocket", status
    end
    if headers["sec-websocket-accept"] ~= native.websocket_accept_key(key) then
        return "the server does not prove that it has read the key", status
    end
    local protocol = headers["sec-websocket-protocol"]
    if protocol then
        local is_known = false
        for _, name in next, options.protocols do
            is_known = is_known or name == protocol
        end
        if not is_known then
            return format("the server chose protocol '%s', which was not offered", protocol), status
        end
    end
    local extensions, window = headers["sec-websocket-extensions"], nil
    if extensions then
        local why
        if options.deflate then
            window, why = native.websocket_agreed(extensions)
        else
            why = "an extension that was not offered"
        end
        if not window then return "the server chose " .. why, status end
    end
    return nil, window, protocol
end

--- Connects to a server.
---@param url string
---@param options? table
---@return boolean ok, userdata|integer websocket or code
---@return string|nil text what has gone wrong
---@return integer|nil status what the server has answered instead
return function(url, given, ...)
    local scheme, host, port, path, name = parse(url)
    no_more(3, "connect", ...)
    local options = parts.check_options(given, "connect", 2, { "headers", "timeout", "tls" })
    given = given or {}
    local timeout = type(given.timeout) == "nil" and 0
        or core.timeout_of(given.timeout, "timeout", "connect")
    if type(given.tls) ~= "nil" then
        if not native.tls_is_server or native.tls_is_server(given.tls) ~= false then
            bad("tls", "connect", "what tls.client has returned", given.tls)
        end
        if scheme ~= "wss" then bad_because("tls", "connect", "of no use with a URL of ws://") end
    end
    if scheme == "wss" and not native.tls_is_server then
        bad(1, "connect", "URL of ws://, since this build has no TLS,", url)
    end
    local key = native.websocket_key()
    local lines = {
        format("GET %s HTTP/1.1", path),
        "Host: " .. name,
        "Upgrade: websocket",
        "Connection: Upgrade",
        "Sec-WebSocket-Key: " .. key,
        "Sec-WebSocket-Version: 13",
    }
    if next(options.protocols) then
        lines[#lines + 1] = "Sec-WebSocket-Protocol: " .. concat(options.protocols, ", ")
    end
    if options.deflate then
        lines[#lines + 1] = "Sec-WebSocket-Extensions: " .. native.websocket_offer()
    end
    add_headers(lines, given.headers)
    local request = concat(lines, "\r\n") .. "\r\n\r\n"

    if timeout < 0 then return false, TIMEOUT, strerror(TIMEOUT) end
    check_may_wait()
    local deadline = timeout > 0 and now() + timeout
    local function left()
        if not deadline then return 0 end
        local rest = deadline - now()
        return rest > 0 and rest or -1
    end

    local ok, socket = own.connect(host, port, left())
    if not ok then return false, socket, strerror(socket) end
    local record = streams[socket]
    local function fail(code, text, status)
        close_record(record, SOCKET_CLOSED)
        return false, code, text or strerror(code), status
    end
    if scheme == "wss" then
        local config = given.tls
        if not config then
            local made, value, text = secure_client()
            if not made then return fail(value, text) end
            config = value
        else
            secure_client()
        end
        local is_safe, code, text = secure.start_tls(socket, config, host, left())
        if not is_safe then return fail(code, text) end
    end
    write(record.id, request, 0)
    local came, head = read_until(socket, "\r\n\r\n", HEAD_MAX, left())
    if not came then
        if head == MESSAGE_TOO_LONG then
            local text = format("an answer with a head of more than %d bytes", HEAD_MAX)
            return fail(UPGRADE_REFUSED, text)
        end
        return fail(head)
    end
    local why, window, protocol = check_answer(native.websocket_text(head), key, options)
    if why then return fail(UPGRADE_REFUSED, why, window) end
    return parts.start(socket, true, options, window, protocol)
end
