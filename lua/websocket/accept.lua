-- websocket.accept: the server's side of the handshake. Loaded when it is first called.

local native, core, parts = ...

local select, type = select, type
local format, match = string.format, string.match
local bad, strerror = core.bad, native.strerror
local check_may_wait = core.check_may_wait

local sockets, handshake = core.sockets, parts.handshake
local streams, close_record = sockets.streams, sockets.close_record
local each, lists = handshake.each, handshake.lists

local SOCKET_CLOSED, TIMEOUT, UPGRADE_REFUSED = 203, 208, 223
local MESSAGE_TOO_LONG = 21
local BAD_REQUEST, UPGRADE_REQUIRED = 400, 426
local UPGRADED = "the request is a WebSocket already: keep what the first 'accept' has returned"
local ANSWERED = "the request is answered already, or its client has gone"
-- How long the client of a bare connection may take for its request.
local PATIENCE = 10

local upgrade, read_until -- loaded when they are needed

-- The key in a request for a WebSocket; or nil, and a status and a text.
local function check_request(method, headers)
    if method ~= "GET" then return nil, BAD_REQUEST, "the method is not GET" end
    if
        not lists(headers["upgrade"], "websocket") or not lists(headers["connection"], "upgrade")
    then
        return nil, UPGRADE_REQUIRED, "the client does not ask for a WebSocket"
    end
    if headers["sec-websocket-version"] ~= "13" then
        return nil, UPGRADE_REQUIRED, "the client does not speak version 13"
    end
    local key = match(headers["sec-websocket-key"] or "", "^[%w+/]+==$")
    if not key or #key ~= 24 then return nil, BAD_REQUEST, "no Sec-WebSocket-Key of 16 bytes" end
    return key
end

-- The first of our protocols that the client offers.
local function choose(ours, offered)
    for i = 1, #ours do
        for one in each(offered) do
            if match(one, "^.*%S") == ours[i] then return ours[i] end
        end
    end
end

-- The lines of the answer; the window and the protocol that are agreed on.
local function answer(key, headers, options)
    local head = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: "
        .. native.websocket_accept_key(key)
        .. "\r\n"
    local protocol = choose(options.protocols, headers["sec-websocket-protocol"])
    if protocol then head = head .. "Sec-WebSocket-Protocol: " .. protocol .. "\r\n" end
    local window, agreed
    if options.deflate then
        window, agreed = native.websocket_negotiate(headers["sec-websocket-extensions"] or "")
    end
    if window then head = head .. "Sec-WebSocket-Extensions: " .. agreed .. "\r\n" end
    return head, window, protocol
end

-- A request that module http has taken.
local function accept_request(req, res, options)
    local requests = core.http_requests -- what lua/http knows of them, if there are some
    local id = requests and requests.id_of(req)
    if not id then bad(1, "accept", "request of a handler of http.serve, or tcp socket,", req) end
    if not requests.is_response(res, req) then
        bad(2, "accept", "the answer of that request", res)
    end
    -- As they came: fields of `req` and `res` may have been replaced.
    local headers, response = native.http_headers(id), requests.response
    if not headers then
        return false, SOCKET_CLOSED, requests.is_upgraded(res) and UPGRADED or ANSWERED
    end
    local key, status, why = check_request(native.http_get(id, requests.METHOD), headers)
    if not key then
        -- The client is told; the handler need not.
        response.status(res, status)
        if status == UPGRADE_REQUIRED then
            response.header(res, "upgrade", "websocket")
            response.header(res, "sec-websocket-version", "13")
        end
        response.header(res, "content-type", "text/plain")
        response.finish(res, why .. "\n")
        return false, UPGRADE_REFUSED, why
    end
    local head, window, protocol = answer(key, headers, options)
    upgrade = upgrade or native.load("http/upgrade")(native, core)
    local ok, socket, text = upgrade(req, res, "accept", head)
    if ok then
        -- A handler that fails ends the conversation.
        core.guard(socket)
        return parts.start(socket, false, options, window, protocol)
    end
    return false, socket, text or strerror(socket)
end

local TEXTS = { [BAD_REQUEST] = "Bad Request", [UPGRADE_REQUIRED] = "Upgrade Required" }

-- A connection on which nothing has come yet, but to be a request.
local function accept_socket(socket, record, options, timeout)
    if record.closed then return false, SOCKET_CLOSED, strerror(SOCKET_CLOSED) end
    check_may_wait()
    read_until = read_until or native.load("tcp/piece")(native, core, sockets).read_until
    local came, head = read_until(socket, "\r\n\r\n", handshake.HEAD_MAX, timeout)
    local key, status, why, first, headers
    if came then
        first, headers = handshake.parse(native.websocket_text(head))
        local method, target = match(first, "^(%u+) (/[^%s]*) HTTP/1%.1$")
        if not method or not headers or not headers.host then
            status, why = BAD_REQUEST, "no request of HTTP/1.1"
        else
            key, status, why = check_request(method, headers)
            headers[":path"] = target
        end
    elseif head == MESSAGE_TOO_LONG then
        status, why = BAD_REQUEST, format("a head of more than %d bytes", handshake.HEAD_MAX)
    else
        close_record(record, SOCKET_CLOSED)
        return false, head, strerror(head)
    end
    if not key then
        local text = "HTTP/1.1 %d %s\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
            .. "Connection: close\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n\r\n%s\n"
        native.write(record.id, format(text, status, TEXTS[status], #why + 1, why), 0)
        close_record(record, SOCKET_CLOSED)
        return false, UPGRADE_REFUSED, why
    end
    local lines, window, protocol = answer(key, headers, options)
    native.write(record.id, "HTTP/1.1 101 Switching Protocols\r\n" .. lines .. "\r\n", 0)
    local ok, ws = parts.start(socket, false, options, window, protocol)
    return ok, ws, headers
end

--- Answers a request by a WebSocket: one that a handler of http.serve was given, or the one that
--- comes first on a tcp socket. The socket is the websocket then; and what the client has asked for
--- comes third: its headers, and its path as ":path".
---@param ... any req and res, or a socket; options
---@return boolean ok, userdata|integer websocket or code
---@return string|table|nil text, or headers
return function(req, ...)
    local record = streams[req]
    local position = record and 2 or 3
    core.no_more(position + 1, "accept", select(position, ...))
    local given = select(position - 1, ...)
    local more = record and { "timeout" } or {}
    local options = parts.check_options(given, "accept", position, more)
    if not record then return accept_request(req, (...), options) end
    local timeout = given and given.timeout
    if type(timeout) == "nil" then
        timeout = PATIENCE
    else
        timeout = core.timeout_of(timeout, "timeout", "accept")
        if timeout < 0 then return false, TIMEOUT, strerror(TIMEOUT) end
    end
    return accept_socket(req, record, options, timeout)
end
