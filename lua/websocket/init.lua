-- Module websocket: sockets whose frames are WebSocket's. See docs/api/websocket.md.
--
--     local ws = context.check(websocket.connect("ws://127.0.0.1:8080/chat"))
--     ws:send("hello")
--     local ok, data, kind = ws:recv(5)
--
-- Frames and what the protocol answers by itself are in src/net/connection/websocket.rs. Here is
-- who waits for messages, as lua/tcp has it for other sockets.

local native, core = ...

local getmetatable, next, select = getmetatable, next, select
local setmetatable, type = setmetatable, type
local find, format, HUGE = string.find, string.format, math.huge
local bad, bad_because, raise = core.bad, native.bad_because, core.raise
local timeout_of = core.timeout_of
local call, complete, defer = core.call, core.complete, core.defer
local register, cancel, suspend = core.register, core.cancel, core.suspend
local check_may_wait, resume_waiter = core.check_may_wait, core.resume_waiter
local read, write, say_close =
    native.websocket_read, native.websocket_write, native.websocket_say_close

core.load_all(core.tcp)
local sockets, tcp = core.sockets, core.tcp
local streams = sockets.streams
local no_more = core.no_more
local next_waiter, take_waiter = sockets.next_waiter, sockets.take_waiter
local release_anchor, wait_on = sockets.release_anchor, sockets.wait_on
local set_callback, close_record = sockets.set_callback, sockets.close_record

local SOCKET_CLOSED, TIMEOUT = 203, 208
local NORMAL, FAILED = 1000, 1011
local REASON_MAX, PING_MAX = 123, 125

-- websocket → its record, which it had as a tcp socket; `pieces` is what it has beside that:
-- `data` and `kind` of a message that nobody has waited for, the kind of the one that was `given`
-- last, why it has ended (`code`, `reason`), the `protocol` that was agreed on, and what
-- websocket/timing.lua needs.
local websockets = setmetatable({}, { __mode = "k" })

local ffi = native.ffi("ffi")
local _, BUFFER = native.buffer_methods()
local stage_buffer, stage_text = native.stage_pointers()
-- As in lua/tcp/init.lua.
stage_buffer = ffi.cast("int (*)(int64_t, void *)", stage_buffer)
stage_text = ffi.cast("int (*)(int64_t, const char *, uint32_t)", stage_text)
local TEXT_MAX = 4096

local methods = {}

-- What tcp does with a websocket as with other sockets, and with which only while it is open.
local SHARED = {
    abort = "always",
    close = "always",
    fd = "open",
    is_closed = "always",
    local_addr = "always",
    local_port = "always",
    monitor = "open",
    remote_addr = "always",
    remote_port = "always",
    set_keepalive = "always",
    set_nodelay = "always",
    set_write_limit = "open",
    set_wshared = "open",
    stat = "always",
    tls = "always",
    write = "open",
}

-- Raises: the script has closed it, or its peer has ended it.
local function refuse_closed(name)
    raise(format("websocket has been closed: '%s' needs an open one (ws:is_closed tells)", name))
end

-- The record of a websocket, for tcp's function of that name; nothing for other values. Where a
-- callback to which it was given has failed, it is said to "fail".
function core.other_socket(value, name)
    local record = websockets[value]
    if not record then return end
    if name == "fail" then
        if not record.closed then say_close(record.id, FAILED, "") end
        return record
    end
    if not SHARED[name] then
        local hint = name == "shutdown" and "'ws:close'" or "'ws:recv' and 'ws:send'"
        bad_because(1, name, format("tcp socket expected, got a websocket: use %s", hint))
    end
    if record.closed then
        -- Of one that the peer has ended a monitor is told.
        local is_told = name == "monitor" and record.pieces.code
        if SHARED[name] == "open" and not is_told then refuse_closed(name) end
    elseif name == "close" then
        say_close(record.id, NORMAL, "")
    end
    return record
end

local function check(value, name)
    local record = websockets[value]
    if record == nil then bad(1, name, "websocket", value) end
    return record
end

-- Nothing comes any more, nor goes: lets the connection go, and tells who waits.
local function finish(record, code, reason)
    local state, ws = record.pieces, record.anchor
    state.code, state.reason = code, reason
    local callback, monitor = record.callback, record.monitor
    close_record(record, code)
    if state.timing then state.timing.stop(state) end
    if callback then defer(function() return call(callback, false, code, reason, ws) end) end
    if monitor then defer(call, monitor, code, ws) end
end

-- The next message and its kind; false, a code and a reason; nothing if there is none yet: then an
-- event brings it.
local function next_message(record)
    local state = record.pieces
    local data = state.data
    if data then
        state.data = false
        -- Nobody has waited, and nothing was read: somebody may send pings.
        defer(record.serve, record)
        return data, state.kind
    end
    if state.code then return false, state.code, state.reason end
    local kind, value, reason = read(record.id)
    if kind then return value, kind end
    if kind == nil then return end
    finish(record, value, reason)
    return false, value, reason
end

-- Something has come: gives messages to who waits for them, and keeps one if nobody does.
local function serve(record)
    while not record.closed do
        local state = record.pieces
        local waits = record.waiter
        local token = not waits and next_waiter(record)
        local callback = record.callback
        local has_reader = waits or token or callback
        if not has_reader then
            release_anchor(record)
            if state.data then return end
        end
        local data, kind = next_message(record)
        if not data then return end
        if not has_reader then
            state.data, state.kind = data, kind
            return
        end
        state.given = kind
        if waits then
            resume_waiter(record, true, data)
        elseif token then
            take_waiter(record)
            complete(token, true, data)
        else
            call(callback, true, data, kind, record.anchor)
        end
    end
end
core.interpret(serve)

--- The next message, or has a callback get every one.
---@param ws userdata
---@param how? number|function timeout in seconds, or callback(ok, buffer|code, kind|reason, ws)
---@return boolean|nil ok, userdata|integer data or code
---@return string|nil "text" or "binary", or the reason of the end
function methods.recv(ws, ...)
    local record = check(ws, "recv")
    local state, timeout = record.pieces, 0
    if record.closed and not state.code then refuse_closed("recv") end
    if select("#", ...) > 0 then
        local how, more = ...
        if select("#", ...) > 1 then bad(3, "recv", nil, more) end
        if type(how) == "function" then
            if not record.closed then return set_callback(ws, record, how, serve) end
            local code, reason = state.code, state.reason
            return defer(function() return call(how, false, code, reason, ws) end)
        end
        timeout = timeout_of(how, 2, "recv")
        if timeout < 0 then return false, TIMEOUT end
    end
    if not record.waiter and not next_waiter(record) then
        local data, kind, reason = next_message(record)
        if data then return true, data, kind end
        if data == false then return false, kind, reason end
    end
    check_may_wait()
    local ok, value = wait_on(ws, record, timeout)
    if ok then return true, value, state.given end
    if value == state.code then return false, value, state.reason end
    return false, value
end

local FORMS = { text = "text", binary = "binary" }

-- Writes a frame; who has called it is `name`.
local function send(name, ws, data, form, how)
    local record = check(ws, name)
    local state = record.pieces
    if record.closed then
        if state.code then return false, state.code, state.reason end
        refuse_closed(name)
    end
    local token
    if type(how) == "function" then
        token = register(function(ok, code) return how(ok, ok and 0 or code, ws, data) end)
    elseif how and type(how) == "boolean" then
        check_may_wait()
        token = register()
    elseif how then
        bad(4, name, "boolean or function", how)
    end
    local code, why = write(record.id, data, form, token or 0)
    if code or why ~= nil then
        if token then cancel(token) end
        if why == 0 then bad(2, name, "string, number or buffer", data) end
        if why then bad_because(2, name, why) end
        return false, code
    end
    if not token then return true end
    if type(how) == "function" then return end
    local ok, failure = suspend()
    if ok then return true end
    return false, failure
end

--- Sends a message.
---@param ws userdata
---@param data string|number|userdata
---@param kind? string "text" or "binary"
---@param how? boolean|function as for tcp.write
---@return boolean|nil ok, integer|nil code
function methods.send(ws, data, kind, how, ...)
    local record = websockets[ws]
    no_more(5, "send", ...)
    if record and not record.closed and not how and not kind and kind == nil then
        -- What compiled code can do by itself; the rest, and complaints, are native.
        if getmetatable(data) == BUFFER then
            if stage_buffer(record.id, data) == 0 then return true end
        elseif type(data) == "string" and #data < TEXT_MAX then
            if stage_text(record.id, data, #data) == 0 then return true end
        end
    end
    if type(kind) ~= "nil" and not FORMS[kind] then bad(3, "send", '"text" or "binary"', kind) end
    return send("send", ws, data, kind, how)
end

--- Asks the peer for a sign of life.
---@param ws userdata
---@param data? string|userdata what it is to send back, at most 125 bytes
---@return boolean ok, integer|nil code
function methods.ping(ws, data, ...)
    no_more(3, "ping", ...)
    if type(data) == "nil" then data = "" end
    if (type(data) == "string" or getmetatable(data) == BUFFER) and #data > PING_MAX then
        local why = "data of %d bytes exceeds the %d that a ping takes"
        bad_because(2, "ping", format(why, #data, PING_MAX))
    end
    return send("ping", ws, data, "ping")
end

--- Says that nothing follows, and why, and closes.
---@param ws userdata
---@param code? integer 1000 if nothing is said
---@param reason? string
---@return boolean first true the first time
function methods.close(ws, code, reason, ...)
    local record = check(ws, "close")
    no_more(4, "close", ...)
    if type(code) == "nil" then
        code = NORMAL
    elseif type(code) ~= "number" or not native.websocket_is_code(code) then
        bad(2, "close", "close code: 1000 to 1003, 1007 to 1014 or 3000 to 4999", code)
    end
    if
        type(reason) ~= "nil" and (type(reason) ~= "string" or not native.websocket_is_text(reason))
    then
        bad(3, "close", format("UTF-8 of at most %d bytes", REASON_MAX), reason)
    end
    if record.closed then return false end
    local state = record.pieces
    say_close(record.id, code, reason or "")
    if state.timing then state.timing.stop(state) end
    return close_record(record, SOCKET_CLOSED)
end

--- The protocol that both sides have agreed on, or nil.
---@param ws userdata
---@return string|nil
function methods.protocol(ws) return check(ws, "protocol").pieces.protocol or nil end

for name in next, SHARED do
    if not methods[name] and name ~= "write" then methods[name] = tcp[name] end
end

local function describe(ws)
    local record = websockets[ws]
    if record == nil then return "websocket" end
    if record.closed then return format("websocket %p: closed", ws) end
    return format("websocket %p: %s, open", ws, sockets.ends_of(record))
end

native.set_socket_methods(2, methods, describe)

-- Options -----------------------------------------------------------------------------------------

local MESSAGE_MAX, MESSAGE_LIMIT = 16 * 1024 * 1024, 0x7fffffff

local function check_seconds(value, name, option)
    if type(value) == "nil" then return false end
    if type(value) ~= "number" or not (value >= 0 and value < HUGE) then
        bad(option, name, "number of seconds, 0 for none,", value)
    end
    return value > 0 and value
end

local checks -- what core/options.lua returns, once there are options

-- Names of protocols, as one header has them.
local function check_protocols(value, name)
    if type(value) == "nil" then return {} end
    local list, seen = type(value) == "string" and { value } or value, {}
    for i = 1, checks.list(list, "name, or list of names,", "protocols", name) do
        local protocol = list[i]
        if type(protocol) ~= "string" or not find(protocol, "^[%w!#$%%&'*+.^_`|~-]+$") then
            local what = list == value and format("protocols[%d]", i) or "protocols"
            bad(what, name, "name without spaces, commas and the like", protocol)
        end
        if seen[protocol] then
            bad(format("protocols[%d]", i), name, "name that is there once", protocol)
        end
        seen[protocol] = true
    end
    return list
end

-- The options of both functions; `more` has the names of others.
local function check_options(options, name, position, more)
    if type(options) == "nil" then options = {} end
    local known = {
        protocols = true,
        max_message = true,
        idle_timeout = true,
        ping_interval = true,
        deflate = true,
        kind = true,
    }
    for i = 1, #more do
        known[more[i]] = true
    end
    checks = checks or native.load("core/options")(native)
    checks.check(options, known, position, name)
    local max = options.max_message
    if type(max) == "nil" then max = MESSAGE_MAX end
    if type(max) ~= "number" or max % 1 ~= 0 or max < 0 or max > MESSAGE_LIMIT then
        bad("max_message", name, "whole number of bytes from 0 to 2147483647", max)
    end
    local kind = options.kind
    if type(kind) ~= "nil" and not FORMS[kind] then
        bad("kind", name, '"text" or "binary"', kind)
    end
    return {
        protocols = check_protocols(options.protocols, name),
        max_message = max,
        idle_timeout = check_seconds(options.idle_timeout, name, "idle_timeout"),
        ping_interval = check_seconds(options.ping_interval, name, "ping_interval"),
        deflate = checks.boolean(options.deflate, "deflate", name, false),
        kind = kind or "text",
    }
end

-- Makes a websocket of a tcp socket.
local function start(socket, is_client, options, window, protocol)
    local record = streams[socket]
    sockets.restore_stock(record)
    local is_timed = (options.idle_timeout or options.ping_interval) and true or false
    streams[socket], websockets[socket] = nil, record
    record.serve = serve
    local state = {
        data = false,
        kind = false,
        given = false,
        code = false,
        reason = nil,
        protocol = protocol or false,
        timing = false,
    }
    record.pieces = state
    native.websocket_start(
        socket,
        record.id,
        is_client,
        options.kind,
        options.max_message,
        window,
        is_timed
    )
    if is_timed then
        core.websocket_timing = core.websocket_timing
            or native.load("websocket/timing")(native, core)
        state.timing = core.websocket_timing
        state.timing.start(record, options, finish, say_close, write)
    end
    -- What was received behind the handshake, and pings while nobody waits.
    defer(serve, record)
    return true, socket
end

local parts = { check_options = check_options, start = start }

-- A function of a file that is loaded once it is called.
local function define(name)
    local loaded
    return function(...)
        parts.handshake = parts.handshake or native.load("websocket/handshake")()
        loaded = loaded or native.load("websocket/" .. name)(native, core, parts)
        return loaded(...)
    end
end

return { accept = define("accept"), connect = define("connect") }
