-- http.request, get and post. Loaded when one of them is first called.

local native, core = ...

local next, rawget, rawset, select = next, rawget, rawset, select
local getmetatable, setmetatable, tonumber, type = debug.getmetatable, setmetatable, tonumber, type
local char, find, format, gmatch = string.char, string.find, string.format, string.gmatch
local gsub, lower, match = string.gsub, string.lower, string.match
local sub, upper = string.sub, string.upper
local bad, bad_because, strerror = core.bad, native.bad_because, native.strerror
local raise, timeout_of, no_more = core.raise, core.timeout_of, core.no_more
local register, cancel, suspend = core.register, core.cancel, core.suspend
local set_timeout, check_may_wait = core.set_timeout, core.check_may_wait
local now, hold, defer, call_guarded = native.now, core.hold, core.defer, core.call_guarded
local sockets = core.sockets
local check = native.load("core/options")(native)
local message = core.http_message or native.load("http/message")(native, core)
core.http_message = message
local pool, url = native.load("http/pool")(native), native.load("http/url")()

local END_OF_FILE, SOCKET_CLOSED, NO_MEMORY = 1, 203, 26
local INVALID, TIMEOUT, PROTOCOL = 18, 208, 11
local REDIRECTS_MAX = 10

local OPTIONS = {
    url = true,
    method = true,
    headers = true,
    body = true,
    timeout = true,
    tls = true,
    redirect = true,
    max_redirects = true,
    proxy = true,
    trailers = true,
}

-- Connections -------------------------------------------------------------------------------------

-- The seconds until a deadline: 0, which is for ever, if there is none; nil if it is over.
local function left_until(deadline)
    if not deadline then return 0 end
    local left = deadline - now()
    return left > 0 and left or nil
end

local default_tls -- the configuration of requests that have none, once it is made

local function get_default_tls()
    if not native.tls_client then return nil, INVALID, "https is not in this build of node-lua" end
    if not default_tls then
        local made, code, text = native.tls_client(nil, nil, nil, "\2h2\8http/1.1", false, true)
        if not made then return nil, code, text end
        default_tls = made
    end
    return default_tls
end

local function decode(text)
    return (gsub(text, "%%(%x%x)", function(digits) return char(tonumber(digits, 16)) end))
end

-- The value of a header that authenticates a user.
local function credentials(user)
    local name, word = match(user, "^([^:]*):?(.*)$")
    return "Basic " .. native.http_base64(decode(name) .. ":" .. decode(word))
end

-- Asks a proxy to connect to a server.
local function tunnel(socket, proxy, where, deadline)
    local line = format("CONNECT %s HTTP/1.1\r\nHost: %s\r\n", where, where)
    if proxy.user then
        line = format("%sProxy-Authorization: %s\r\n", line, credentials(proxy.user))
    end
    sockets.write(socket, line .. "\r\n")
    local left = left_until(deadline)
    if not left then return false, TIMEOUT end
    local ok, head = sockets.read_until(socket, "\r\n\r\n", 16384, left)
    if not ok then return false, head end
    local status = match(format("%s", head), "^HTTP/1%.[01] (%d%d%d)")
    if not status or sub(status, 1, 1) ~= "2" then
        local text = "the proxy has answered %s to CONNECT %s"
        return false, PROTOCOL, format(text, status or "nothing of HTTP", where)
    end
    return true
end

-- Makes a connection, { key, is_http2 }; or nil, a code and a text.
local function open(target, proxy, tls, deadline)
    local to = proxy or target
    local left = left_until(deadline)
    if not left then return nil, TIMEOUT end
    local ok, socket = sockets.connect(0, to.host, to.port, left)
    if not ok then return nil, socket end
    local code, text
    if proxy and target.scheme == "https" then
        local where = find(target.host, ":", 1, true) and "[" .. target.host .. "]" or target.host
        ok, code, text = tunnel(socket, proxy, format("%s:%d", where, target.port), deadline)
    end
    local is_http2 = false
    if ok and tls then
        left = left_until(deadline)
        if not left then
            ok, code = false, TIMEOUT
        else
            ok, code, text = sockets.start_tls(socket, tls, target.host, left)
        end
        local state = ok and sockets.tls(socket)
        is_http2 = state and state.alpn == "h2" or false
    end
    if ok then
        local key = sockets.release(socket)
        if not key then return nil, PROTOCOL, "the connection has ended at once" end
        ok, code, text = native.http_client(key, is_http2)
        if ok then return { key = key, is_http2 = is_http2 } end
        return nil, code or NO_MEMORY, text
    end
    sockets.close(socket)
    return nil, code, text
end

-- Responses ---------------------------------------------------------------------------------------

-- What is known of a response, in a metatable of its own, where scripts neither see nor set it: the
-- number of its call, 0 once that is over; the timeout for a piece of its body; its connection,
-- while that serves it; what ends the call once the response is garbage; and the code with which
-- the body has ended.
local CALL, TIME, CONNECTION, END_CODE = 1, 2, 3, 5

local response = {}

-- The response was read or dropped: its connection is free for the next request.
local function let_go(call)
    local connection, id = call[CONNECTION], call[CALL]
    if not connection then return end
    call[CONNECTION] = false
    if id == 0 then return end
    call[CALL] = 0
    native.http_forget(id)
    pool.keep(connection)
end

local function read(res, token)
    local call = getmetatable(res)
    if call[CALL] == 0 then return false, call[END_CODE] or SOCKET_CLOSED end
    local data, code = native.http_response_read(call[CALL], token)
    if data == false then
        call[END_CODE] = code
        if code == END_OF_FILE then
            res.trailers = message.new_headers(native.http_response_headers(call[CALL], true))
        end
        let_go(call)
    end
    return data, code
end

local index

local function check_response(res, name)
    local call = type(res) == "table" and getmetatable(res)
    if not call or rawget(call, "__index") ~= index then bad(1, name, "response", res) end
    return call
end

local bodies = message.bodies(read, function(res) return getmetatable(res)[TIME] end)
response.read = bodies.reader("read", check_response)
response.body = bodies.collector("body", check_response)
response.text = bodies.collector("text", check_response)
response.json = bodies.collector("json", check_response)

--- Drops what was not read.
---@param res table
function response.close(res)
    local call = check_response(res, "close")
    local is_open = call[CALL] ~= 0
    message.forget(res, SOCKET_CLOSED)
    let_go(call)
    return is_open
end

function index(res, name)
    local method = response[name]
    if method then return method end
    if name == "chunks" then
        local chunks = bodies.chunks(res)
        rawset(res, name, chunks)
        return chunks
    end
end

-- Requests ----------------------------------------------------------------------------------------

-- Sends all pieces of an iterator, and the trailers.
local function send_pieces(id, ask, sending)
    local body, trailers = ask.body, ask.trailers
    local result = format("result of the body function of '%s'", ask.name)
    for piece in body do
        local wait = register()
        local ok, code = native.http_request_write(id, piece, wait)
        if ok == nil and code == nil then
            suspend()
        else
            cancel(wait)
            if code == 0 then bad(body, result, "string, number or buffer", piece) end
            if ok == nil then bad_because(body, result, code) end
            -- The server takes no more.
            if code == SOCKET_CLOSED then return end
            if not ok then raise("a body was not taken: " .. strerror(code), body) end
        end
    end
    local given
    if type(trailers) == "function" then
        sending.part = "trailers"
        given = trailers()
        result = format("result of the trailers function of '%s'", ask.name)
        message.check_plain(given, trailers, result)
    end
    local why = native.http_request_end(id, false, given, trailers, result)
    if why then raise(why, body) end
end

-- Sends a body in a root of its own. An error there is logged like any other; the server finds the
-- body cut off, and `sending` tells the call why there is no response.
local function send_body(id, ask, sending)
    local function fail(why)
        sending.failure = core.describe_error(why)
        native.http_request_end(id, true)
    end
    hold(1)
    defer(call_guarded, fail, function()
        hold(-1)
        return send_pieces(id, ask, sending)
    end)
end

-- Idempotent methods, which are tried again if a kept connection turns out to be closed.
local AGAIN = { GET = true, HEAD = true, OPTIONS = true, PUT = true, DELETE = true, TRACE = true }

-- The target of the request line, and the headers. `proxy` is one that reads them itself.
local function head_of(target, ask, is_http2, proxy)
    local where, headers, host = target.target, {}, target.authority
    for field, value in next, ask.headers do
        if is_http2 and lower(field) == "host" then
            -- There it is a part of what is asked for.
            host = type(value) == "table" and select(2, next(value)) or value
        else
            headers[field] = value
        end
    end
    if is_http2 then
        where = "https://" .. host .. where
    else
        if not ask.has.host then headers.host = target.authority end
        if proxy then
            where = "http://" .. target.authority .. where
            if proxy.user then headers["proxy-authorization"] = credentials(proxy.user) end
        end
    end
    if target.user and not ask.has.authorization then
        headers.authorization = credentials(target.user)
    end
    return where, headers
end

-- Waits for the status and the version of a response; or false, a code and a text.
local function wait_for_response(id, deadline)
    while true do
        local token = register()
        local status, version, text = native.http_response(id, token)
        if status ~= nil then
            cancel(token)
            return status, version, text
        end
        local left = left_until(deadline)
        if not left then
            cancel(token)
            return false, TIMEOUT
        end
        set_timeout(token, left)
        local ok, code = suspend()
        if not ok then return false, code end
    end
end

-- Sends a request over a connection: the response; or nil, a code and a text, and the connection is
-- let go.
local function exchange(connection, target, ask, proxy, deadline)
    local where, headers = head_of(target, ask, connection.is_http2, proxy)
    local is_streamed, trailers = type(ask.body) == "function", ask.trailers
    local anchor, id, why = native.http_send(
        connection.key,
        ask.method,
        where,
        headers,
        not is_streamed and ask.body or nil,
        is_streamed,
        type(trailers) == "table" and trailers or nil,
        ask.name
    )
    if anchor == nil then
        pool.keep(connection)
        bad(ask.body_at, ask.name, "string, buffer or iterator", ask.body)
    end
    local code, text, sending = id, why, { part = "body" }
    if anchor then
        if is_streamed then send_body(id, ask, sending) end
        local status, version
        status, version, text = wait_for_response(id, deadline)
        if status then
            local call = {
                id,
                ask.timeout,
                connection,
                anchor,
                false,
                __index = index,
                __metatable = false,
            }
            return setmetatable({
                status = status,
                version = version,
                headers = message.new_headers(native.http_response_headers(id)),
                url = target.scheme .. "://" .. target.authority .. target.target,
            }, call)
        end
        code = version
        native.http_forget(id)
    end
    if connection.is_http2 then
        pool.keep(connection)
    else
        native.http_drop(connection.key)
    end
    if sending.failure then return nil, PROTOCOL, sending.part .. ": " .. sending.failure end
    return nil, code, text
end

-- Sends one request, without redirects: a response; or nil, a code and a text.
local function send_once(target, ask, deadline)
    local proxy, tls, code, text = ask.proxy, false
    if target.scheme == "https" then
        tls = ask.tls
        if not tls then
            tls, code, text = get_default_tls()
            if not tls then return nil, code, text end
        end
    end
    local name = format("%s:%d %s", target.host, target.port, proxy and proxy.authority or "")
    while true do
        local connection = pool.take(tls, name)
        local may_repeat = connection and AGAIN[ask.method] and type(ask.body) ~= "function"
        if not connection then
            connection, code, text = open(target, proxy, tls, deadline)
            if not connection then return nil, code, text end
            pool.open(connection, tls, name)
        end
        local res
        res, code, text = exchange(connection, target, ask, not tls and proxy, deadline)
        if res then return res end
        if code == TIMEOUT or not may_repeat then return nil, code, text end
    end
end

-- Whether a list of hosts, as in NO_PROXY, matches this one.
local function is_excepted(list, host)
    for name in gmatch(list or "", "[^,%s]+") do
        name = lower(gsub(name, "^%*?%.", ""))
        if name == "*" or name == host or sub(host, -#name - 1) == "." .. name then return true end
    end
    return false
end

local function environment(name)
    local value = native.http_env(name) or native.http_env(upper(name))
    if value ~= "" then return value end
end

local function parse_proxy(text)
    local proxy, why = url.parse(text)
    if not proxy then return false, why end
    if proxy.scheme ~= "http" then return false, "a proxy that is reached by http:// expected" end
    return proxy
end

-- The parts of the proxy for a target, or nil; or false and why it is invalid.
local function proxy_for(target, option)
    if type(option) ~= "nil" then return option or nil end
    if is_excepted(environment("no_proxy"), lower(target.host)) then return end
    local text = environment(target.scheme .. "_proxy") or environment("all_proxy")
    if not text then return end
    return parse_proxy(find(text, "://", 1, true) and text or "http://" .. text)
end

local REDIRECTS = { [301] = true, [302] = true, [303] = true, [307] = true, [308] = true }

-- Headers that must not go to another server, and those that describe a body.
local PRIVATE = { authorization = true, cookie = true, ["proxy-authorization"] = true, host = true }
local OF_BODY = { ["content-length"] = true, ["content-type"] = true, ["content-encoding"] = true }

local function without(ask, names)
    local headers, has = {}, {}
    for field, value in next, ask.headers do
        local name = lower(field)
        if not names[name] then
            headers[field], has[name] = value, true
        end
    end
    ask.headers, ask.has = headers, has
end

local function run(target, ask)
    local deadline = ask.timeout > 0 and now() + ask.timeout or nil
    local count = 0
    while true do
        local proxy, why = proxy_for(target, ask.given_proxy)
        if proxy == false then return false, INVALID, "proxy: " .. why end
        ask.proxy = proxy
        local res, code, text = send_once(target, ask, deadline)
        if not res then return false, code, text or strerror(code) end
        local location = REDIRECTS[res.status] and res.headers.location
        if not location or not ask.redirect then return true, res end
        if count >= ask.max_redirects then
            res:close()
            return false, INVALID, format("more than %d redirects", ask.max_redirects)
        end
        count = count + 1
        local keeps = res.status == 307 or res.status == 308
        if keeps and type(ask.body) == "function" then
            -- What was sent cannot be sent again.
            return true, res
        end
        local to
        to, why = url.parse(url.resolve(target, location))
        if not to then
            res:close()
            return false, INVALID, format("redirected to %s: %s", location, why)
        end
        -- Little is left of an answer that nobody looks at: then the connection can be kept.
        if not res:text(65536) then res:close() end
        if not keeps and ask.method ~= "HEAD" and (res.status == 303 or ask.method == "POST") then
            ask.method, ask.body, ask.trailers = "GET", nil, nil
            without(ask, OF_BODY)
        end
        if to.scheme ~= target.scheme or to.authority ~= target.authority then
            without(ask, PRIVATE)
        end
        target = to
    end
end

-- What is sent in place of a body that headers are to follow.
local function once(body)
    return function()
        local piece = body
        body = nil
        return piece
    end
end

-- `url_at` and `body_at` say how errors name what may be an argument.
local function request(options, name, url_at, body_at)
    if type(options.url) ~= "string" then bad(url_at, name, "URL", options.url) end
    local target, why = url.parse(options.url)
    if not target then bad(url_at, name, (gsub(why, " expected$", "")), options.url) end
    local method, body, trailers = options.method, options.body, options.trailers
    if type(method) == "nil" then method = type(body) ~= "nil" and "POST" or "GET" end
    if type(method) ~= "string" or not find(method, "^[%w!#$%%&'*+.^_`|~-]+$") then
        bad("method", name, 'method, as "GET",', method)
    end
    if method == "CONNECT" then
        bad_because("method", name, "CONNECT is how proxies are asked: option 'proxy'")
    end
    if type(body) ~= "nil" and type(body) ~= "function" and not native.http_is_body(body) then
        bad(body_at, name, "string, buffer or iterator", body)
    end
    message.check_plain(options.headers, "headers", name)
    native.http_check_headers(name, "headers", options.headers)
    if type(trailers) ~= "function" then
        message.check_plain(trailers, "trailers", name)
        native.http_check_headers(name, "trailers", trailers)
    end
    if type(trailers) ~= "nil" and type(body) ~= "function" then body = once(body) end
    local headers, has = {}, {}
    for field, value in next, options.headers or {} do
        headers[field], has[lower(field)] = value, true
    end
    if not has["user-agent"] then headers["user-agent"] = "node-lua" end
    if not has.accept then headers.accept = "*/*" end
    local tls, proxy = options.tls, options.proxy
    if type(tls) ~= "nil" and (not native.tls_is_server or native.tls_is_server(tls) ~= false) then
        bad("tls", name, "TLS configuration (tls.client)", tls)
    end
    if proxy then
        if type(proxy) ~= "string" then bad("proxy", name, "URL of a proxy, or false,", proxy) end
        proxy, why = parse_proxy(proxy)
        if not proxy then bad("proxy", name, (gsub(why, " expected$", "")), options.proxy) end
    end
    local redirects, timeout = options.max_redirects, options.timeout
    if type(timeout) == "nil" then timeout = 0 end
    local ask = {
        name = name,
        body_at = body_at,
        method = method,
        headers = headers,
        has = has,
        body = body,
        trailers = trailers,
        tls = tls,
        given_proxy = proxy,
        timeout = timeout_of(timeout, "timeout", name),
        redirect = check.boolean(options.redirect, "redirect", name, true),
        max_redirects = check.whole(redirects, "max_redirects", name, REDIRECTS_MAX, 0, 1000),
    }
    check_may_wait()
    if ask.timeout < 0 then return false, TIMEOUT, strerror(TIMEOUT) end
    return run(target, ask)
end

local M = {}

function M.request(options, ...)
    check.check(options, OPTIONS, 1, "request")
    no_more(2, "request", ...)
    return request(options, "request", "url", "body")
end

-- A request with these fields beside the options, which must not have them.
local function with(name, position, options, fields)
    if type(options) == "nil" then options = {} end
    check.check(options, OPTIONS, position, name)
    local all = {}
    for field, value in next, options do
        if type(fields[field]) ~= "nil" then
            bad(field, name, "nothing, as the call itself says it,", value)
        end
        all[field] = value
    end
    for field, value in next, fields do
        all[field] = value
    end
    return request(all, name, 1, type(fields.body) == "nil" and "body" or 2)
end

function M.get(where, options, ...)
    if type(where) ~= "string" then bad(1, "get", "URL", where) end
    no_more(3, "get", ...)
    return with("get", 2, options, { url = where })
end

function M.post(where, body, options, ...)
    if type(where) ~= "string" then bad(1, "post", "URL", where) end
    if type(body) == "nil" then bad(2, "post", "string, buffer or iterator", body) end
    no_more(4, "post", ...)
    return with("post", 3, options, { url = where, method = "POST", body = body })
end

return M
