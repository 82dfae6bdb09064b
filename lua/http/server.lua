-- http.serve. Loaded when it is first called.

local native, core = ...

local next, select, setmetatable, type, unpack = next, select, setmetatable, type, unpack
local bad, handlers = core.bad, core.handlers
local guard = core.guard
local sockets = core.sockets
local check_options = native.load("core/options")(native)
local message = core.http_message or native.load("http/message")(native, core)
core.http_message = message
local requests = native.load("http/request")(native, core, message)
local new_request, serve_request = requests.new, requests.serve

local max, min, now = math.max, math.min, native.now
local timer_start, jobs = native.timer_start, core.get_timing().jobs
local hold, register, cancel = core.hold, core.register, core.cancel
local suspend, set_timeout = core.suspend, core.set_timeout
local check_may_wait, timeout_of, no_more = core.check_may_wait, core.timeout_of, core.no_more

local LISTENER_CLOSED = 204
-- The least time between two sweeps for clients that take too long.
local SWEEP_SECONDS = 0.05
-- How long `close` waits for requests by default.
local CLOSE_SECONDS = 30

-- Servers by their numbers: { number, handler, listener (a record of sockets) }; and those that
-- accept no more connections but still have some.
local by_number, closing = {}, {}
local by_object = setmetatable({}, { __mode = "k" })

core.fail_request, core.http_requests = requests.fail, requests

-- The path of the unix socket that a server listens on, if it is one.
function requests.path_of(number)
    local server = by_number[number]
    return server and sockets.paths[server.listener]
end

local OPTIONS = {
    tls = true,
    reuse_port = true,
    head_bytes = true,
    headers = true,
    body_bytes = true,
    head_timeout = true,
    idle_timeout = true,
    body_rate = true,
    http2 = true,
}

local sweep_at -- when the next sweep is due
local arm

-- Forgets a server that accepts no more connections, once it has none.
local function forget(record)
    local number = record.number
    if native.http_forget_server(number) then
        by_number[number], closing[number] = nil, nil
    else
        closing[number] = record
        arm(1)
    end
end

-- Its listener is closed.
local function on_closed(listener) return forget(listener.server) end

local function sweep()
    hold(1) -- the dispatcher takes one back for every timer
    sweep_at = nil
    arm(native.http_sweep())
    for _, record in next, closing do
        forget(record)
    end
end

-- Has a sweep happen in this many seconds; does not keep the context alive.
function arm(seconds)
    if not seconds then return end
    seconds = max(seconds, SWEEP_SECONDS)
    local at = now() + seconds
    -- One that is due a little later will do.
    if sweep_at and sweep_at <= at + SWEEP_SECONDS then return end
    sweep_at = at
    local _, slot = timer_start(seconds, 0)
    jobs[slot] = function()
        -- Unless an earlier one was armed meanwhile.
        if sweep_at == at then return sweep() end
        hold(1)
    end
end

-- Accepts all connections that wait.
local function accept(record)
    local server = record.server
    local has_collected = false
    while not record.closed do
        local ok, code = native.http_accept(record.id, server.number)
        arm(server.first_look)
        if ok == nil then return end
        if sockets.is_shortage(code) then
            if sockets.get_shortage().hold_up(accept, record, has_collected) then return end
            has_collected = true
        end
    end
end

local REQUEST = 9

-- A request has come.
handlers[REQUEST] = function(id, number, path)
    local server = by_number[number]
    if not server then return end
    if not sweep_at then arm(1) end
    local req, record = new_request(id, path)
    guard(req)
    serve_request(server.handler, record)
    guard(nil)
end

local server = {}
local Server = { __index = server, __metatable = false }

local function check_server(object, name)
    local record = by_object[object]
    if record == nil then bad(1, name, "http server", object) end
    return record
end

--- The port that is listened on.
---@return integer
function server.port(object) return native.address(check_server(object, "port").listener.id, 2) end

-- Waits for the last connection of a server to end, for this many seconds; then ends all.
local function finish(record, seconds)
    local token = register()
    if native.http_close(record.number, token) == 0 then
        cancel(token)
    else
        set_timeout(token, seconds)
        if not suspend() then native.http_end(record.number) end
    end
    return forget(record)
end

--- Stops accepting; requests that have come are answered, and their connections closed then, or
--- after this many seconds. Waits for that, unless it is called by a handler of this server.
---@param object table
---@param seconds? number 30 if none are given
---@return boolean first true the first time
function server.close(object, seconds, ...)
    local record = check_server(object, "close")
    no_more(3, "close", ...)
    seconds = type(seconds) == "nil" and CLOSE_SECONDS or timeout_of(seconds, 2, "close")
    local guards = core.guards()
    local is_inside = requests.id_of(guards and guards[core.current()])
    if record.listener.closed then return false end
    -- First, so that nothing is closed if this raises.
    if seconds > 0 and not is_inside then check_may_wait() end
    -- Connections in the backlog may have sent requests.
    if seconds > 0 then accept(record.listener) end
    sockets.close_record(record.listener, LISTENER_CLOSED)
    if seconds <= 0 then
        native.http_end(record.number)
        forget(record)
        return true
    end
    if is_inside then
        hold(1)
        core.defer(core.call, function()
            hold(-1)
            finish(record, seconds)
        end)
    else
        finish(record, seconds)
    end
    return true
end

-- The arguments of native.http_serve.
local function settings_of(options)
    local tls = options.tls
    if type(tls) ~= "nil" and not (native.tls_is_server and native.tls_is_server(tls)) then
        bad("tls", "serve", "TLS configuration for servers (tls.server)", tls)
    end
    local whole, seconds = check_options.whole, check_options.seconds
    return {
        tls or false,
        check_options.boolean(options.http2, "http2", "serve", nil),
        whole(options.head_bytes, "head_bytes", "serve", 65536, 1024, 2 ^ 20),
        whole(options.headers, "headers", "serve", 100, 1, 10000),
        whole(options.body_bytes, "body_bytes", "serve", 2 ^ 53, 0, 2 ^ 53),
        seconds(options.head_timeout, "head_timeout", "serve", 30),
        seconds(options.idle_timeout, "idle_timeout", "serve", 75),
        whole(options.body_rate, "body_rate", "serve", 100, 0, 2 ^ 53),
    }
end

local function new_server(socket, settings, handler, is_ours)
    local listener = sockets.check_listener(socket, "serve")
    local record = { handler = handler, listener = listener }
    local head_timeout = settings[6]
    -- When the first sweep may find something.
    record.first_look = head_timeout > 0 and min(1, head_timeout) or 1
    local number, offers = native.http_serve(unpack(settings, 1, 8))
    if not number then
        if is_ours then sockets.close_record(listener, LISTENER_CLOSED) end
        local why = "the alpn of option 'tls' offers no h2: let it do so, or have none"
        if offers then why = "the alpn of option 'tls' offers h2: let it offer http/1.1 alone" end
        native.bad_because("http2", "serve", why)
    end
    record.number = number
    by_number[record.number] = record
    listener.server, listener.on_closed = record, on_closed
    local object = setmetatable({}, Server)
    by_object[object] = record
    sockets.set_callback(socket, listener, handler, accept)
    listener.serve = accept
    return object
end

local M = {}

function M.serve(where, ...)
    local n = select("#", ...)
    local port, given = nil, 0
    if type(where) == "string" then
        port, given = sockets.check_port((...), "serve", 2), 1
    else
        local listener = sockets.check_listener(where, "serve")
        sockets.check_open(listener, LISTENER_CLOSED, "serve")
        local why = listener.server and "another server takes the connections of this one"
            or (listener.callback or listener.waiter or sockets.next_waiter(listener))
                and "'accept' takes the connections of this one"
        if why then native.bad_because(1, "serve", why) end
    end
    local options, handler = select(given + 1, ...)
    if n <= given + 1 then
        options, handler = {}, options
    elseif type(options) == "nil" then
        options = {}
    end
    no_more(given + 4, "serve", select(given + 3, ...))
    check_options.check(options, OPTIONS, given + 2, "serve")
    if type(handler) ~= "function" then
        bad(given + (n <= given + 1 and 2 or 3), "serve", "function", handler)
    end
    local settings = settings_of(options)
    local socket = where
    if given == 1 then
        local reuse_port = check_options.boolean(options.reuse_port, "reuse_port", "serve", false)
        local ok
        if reuse_port then
            ok, socket = sockets.listen("serve", 0, where, port, true)
        else
            ok, socket = sockets.listen("serve", 0, where, port)
        end
        if not ok then return false, socket end
    end
    return true, new_server(socket, settings, handler, given == 1)
end

return M
